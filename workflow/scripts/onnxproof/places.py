"""Where the workflow's own files lie."""

from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]
WORKFLOW = SCRIPTS.parent
RESOURCES = WORKFLOW / "resources"
SCHEMAS = WORKFLOW / "schemas"
PROJECT = WORKFLOW.parent
