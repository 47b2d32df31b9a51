"""Transformers and sentence-transformers are imported without scikit-learn, which stays there for others."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[3] / "workflow" / "scripts"


def run_alone(code: str) -> None:
    """Run Python in a process that has imported nothing yet."""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_transformers_leaves_scikit_learn_to_others():
    run_alone("""
import sys
from onnxproof.original.lean_imports import import_transformers
import_transformers().AutoModelForCausalLM
import transformers.generation
assert "sklearn" not in sys.modules
import sklearn
assert sys.modules["sklearn"] is sklearn
""")


@pytest.mark.slow
def test_sentence_transformers_imports_scikit_learn_where_it_calls_it():
    run_alone("""
import sys
import torch
from onnxproof.original.lean_imports import import_sentence_transformers
module = import_sentence_transformers()
assert module.SentenceTransformer
assert not {"sklearn", "sklearn.metrics"} & sys.modules.keys()
distances = module.util.manhattan_sim(*(torch.tensor([row]).to_sparse() for row in ([1.0, 2.0], [4.0, 0.0])))
assert distances.tolist() == [[-5.0]]
assert sys.modules["sklearn.metrics"].__spec__
""")
