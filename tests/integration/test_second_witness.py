"""What transformers 4.57 saved, transformers 5 with the pipeline's corrections answers as 4.57 does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import second_witness
from onnxproof.cli import UserError
from onnxproof.original.exporters.optimum import find_interpreter
from onnxproof.places import SCRIPTS

pytestmark = pytest.mark.slow

TESTS = Path(__file__).resolve().parents[1] / "support"
#: Of architectures.py: each kind of input, and what was found to be misread.
CASES = (
    "albert question-answering",
    "bert and bert text2text-generation",
    "bert reranker",
    "bert sentences, cls, Dense",
    "deberta-v2 text-classification",
    "gemma3_text text-generation",
    "llama text-generation",
    "modernbert fill-mask",
    "nystromformer text-classification",
    "qwen2 text-generation",
    "roberta fill-mask",
    "t5 text2text-generation",
    "vit image-classification",
    "wav2vec2 automatic-speech-recognition",
)
#: Answers that only one version gives and that no model of these reads, and ids that only an empty text could have.
UNREAD = ("token_type_ids", "tokenizer.special_ids")
SAVE = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {scripts!r}]
import torch
from architectures import all_cases
torch.set_num_threads(1)
for case in all_cases():
    if case.name in {cases!r}:
        case.save(Path({folder!r}) / case.name)
"""


@pytest.fixture(scope="module")
def interpreter():
    try:
        return find_interpreter("any")
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def saved(interpreter, tmp_path_factory):
    """A folder of models that transformers 4.57 saved."""
    folder = tmp_path_factory.mktemp("saved-by-4")
    code = SAVE.format(tests=str(TESTS), scripts=str(SCRIPTS), cases=CASES, folder=str(folder))
    environment = dict(os.environ) | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([str(interpreter), "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return folder


def test_both_versions_answer_alike(interpreter, saved, tmp_path):
    models = second_witness.models_in(saved)
    assert {model.name for model in models} == set(CASES)
    other = second_witness.ask(interpreter, models, tmp_path)
    newer = second_witness.ask(Path(sys.executable), models, tmp_path)
    for name in CASES:
        assert any(answer.startswith("outputs.") for answer in newer[name]), newer[name].keys()
    differing = [
        item
        for item in second_witness.compare(newer, other)
        if item.size > second_witness.TOLERANCE and not item.answer.endswith(UNREAD)
    ]
    assert differing == []


def test_without_corrections_the_differences_show(interpreter, saved, tmp_path, monkeypatch):
    monkeypatch.setenv(second_witness.UNCORRECTED, "1")
    models = [saved / name for name in ("bert and bert text2text-generation", "qwen2 text-generation")]
    newer = second_witness.ask(Path(sys.executable), models, tmp_path)
    other = second_witness.ask(interpreter, models, tmp_path)
    found = {(item.folder, item.answer) for item in second_witness.compare(newer, other)}
    assert ("qwen2 text-generation", "tokens.texts.0") in found
    assert ("bert and bert text2text-generation", "error.network") in found  # a bias that no file holds
