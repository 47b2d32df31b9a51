"""Transformers is imported without scikit-learn, which stays there for others."""

import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"


def test_transformers_leaves_scikit_learn_to_others():
    code = """
import sys
from onnxproof.lean_imports import import_transformers
import_transformers().AutoModelForCausalLM
import transformers.generation
assert "sklearn" not in sys.modules
import sentence_transformers
assert "sklearn" in sys.modules
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
