"""Puts the folders with the pipeline's scripts and the tests' models on the path of a tool that imports this first."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

for _folder in ("tests/support", "workflow/scripts"):
    if str(ROOT / _folder) not in sys.path:
        sys.path.insert(0, str(ROOT / _folder))
