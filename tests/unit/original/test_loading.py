"""Weights that are missing, of another shape or left over are refused; heads of other tasks and tables are not."""

import json
import shutil
from pathlib import Path

import pytest

from messages import raises
from mutations import read_tensors, write_tensors
from onnxproof.cli import UserError
from onnxproof.original.loading import check_weights, one_line
from onnxproof.original.model import load_network, load_original
from onnxproof.original.used_tokenizer import USED_FILE, save_used_tokenizer, special_tokens, tokenizer_of


@pytest.fixture
def stars(tiny_models: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_models / "stars", tmp_path / "stars")
    return tmp_path / "stars"


def rewrite(folder: Path, change) -> None:
    header, values = read_tensors(folder / "model.safetensors")
    write_tensors(folder / "model.safetensors", change(header), values)


def configure(folder: Path, name: str = "config.json", **keys: object) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


LAYER = "bert.encoder.layer.1.output.LayerNorm.weight"


def refusal(folder: Path, task: str = "text-classification") -> str:
    with pytest.raises(UserError) as error:
        load_network("m", folder, task)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_weight_is_named(stars):
    rewrite(stars, lambda header: {name: entry for name, entry in header.items() if name != LAYER})
    assert f"m: the snapshot holds no weights for {LAYER}" in refusal(stars)


def test_a_weight_of_another_shape_is_named(stars):
    configure(stars, intermediate_size=32)
    assert "intermediate.dense.bias has the shape [64] in the weights and [32] by config.json" in refusal(stars)


def test_layers_that_config_json_does_not_count_are_named(stars):
    configure(stars, num_hidden_layers=1)
    assert "the weights hold bert.encoder.layer.1." in refusal(stars)


def test_a_weight_inside_a_part_of_the_network_is_named(stars):
    key = "bert.encoder.layer.0.attention.self.distance_embedding.weight"
    rewrite(stars, lambda header: header | {key: header[LAYER]})
    assert f"the weights hold {key}, for which the network" in refusal(stars)


def test_heads_of_other_tasks_and_tables_that_are_worked_out_may_be_left(stars):
    extra = ("cls.predictions.bias", "qa_outputs.bias", "bert.embeddings.position_ids")
    rewrite(stars, lambda header: header | dict.fromkeys(extra, header[LAYER]))
    assert load_network("m", stars, "text-classification") is not None
    assert load_network("m", stars, "feature-extraction") is not None


def test_a_sentence_transformer_is_held_to_the_same(tiny_models, tmp_path):
    shutil.copytree(tiny_models / "sentences", tmp_path / "sentences")
    name = LAYER.removeprefix("bert.")
    rewrite(tmp_path / "sentences", lambda header: {key: entry for key, entry in header.items() if key != name})
    with raises(UserError):
        load_original("m", tmp_path / "sentences", "sentence-similarity")


def test_whatever_a_loader_raises_becomes_a_line():
    with (
        raises(UserError),
        one_line("m", "it cannot be read"),
    ):
        raise ZeroDivisionError("two\nlines")
    with pytest.raises(OSError, match="No space"), one_line("m", "it cannot be read"):
        raise OSError(28, "No space left on device")


def test_the_tokenizer_that_was_used_is_written_where_the_file_says_otherwise(stars, tmp_path):
    configure(stars, "tokenizer_config.json", do_lower_case=False)
    tokenizer = tokenizer_of(load_original("m", stars, "text-classification").processor)
    save_used_tokenizer(tokenizer, stars, tmp_path)
    used = json.loads((tmp_path / USED_FILE).read_text())
    saved = json.loads((stars / "tokenizer.json").read_text())
    assert used["normalizer"]["lowercase"] is False
    assert saved["normalizer"]["lowercase"] is True
    assert used["model"]["vocab"] == saved["model"]["vocab"]
    assert special_tokens(tokenizer)["pad_token"] == "[PAD]"


def test_nothing_is_written_where_both_are_the_same(stars, tmp_path):
    tokenizer = tokenizer_of(load_original("m", stars, "text-classification").processor)
    save_used_tokenizer(tokenizer, stars, tmp_path)
    assert not (tmp_path / USED_FILE).exists()


def test_a_report_without_faults_passes():
    import torch

    report = {"missing_keys": set(), "unexpected_keys": {"lm_head.weight"}, "mismatched_keys": set()}
    check_weights("m", torch.nn.Linear(1, 1), report, "feature-extraction", bare=True)
