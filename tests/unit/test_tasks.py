"""Inferring the task from a snapshot's own files."""

import json

import pytest

from onnxproof.cli import UserError
from onnxproof.tasks import choose_task


def snapshot(folder, architecture, modules=False):
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    if modules:
        (folder / "modules.json").write_text("[]")
    return folder


@pytest.mark.parametrize(
    ("architecture", "modules", "task"),
    [
        ("BertModel", True, "sentence-similarity"),
        ("BertModel", False, "feature-extraction"),
        ("BertForMaskedLM", False, "feature-extraction"),
        ("XLMRobertaForSequenceClassification", False, "text-classification"),
    ],
)
def test_the_task_follows_from_the_files(tmp_path, architecture, modules, task):
    assert choose_task("m", snapshot(tmp_path, architecture, modules), None) == task


def test_a_classifier_can_be_asked_for_features(tmp_path):
    folder = snapshot(tmp_path, "BertForSequenceClassification")
    assert choose_task("m", folder, "feature-extraction") == "feature-extraction"


def test_an_encoder_cannot_classify(tmp_path):
    with pytest.raises(UserError, match=r"models\.m\.task is 'text-classification'.*serve only: feature-extraction"):
        choose_task("m", snapshot(tmp_path, "BertModel"), "text-classification")


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "ViTForImageClassification", "T5EncoderStack"])
def test_other_architectures_are_refused_by_name(tmp_path, architecture):
    with pytest.raises(UserError, match=f"m: config.json names the architectures .*{architecture}"):
        choose_task("m", snapshot(tmp_path, architecture), None)
