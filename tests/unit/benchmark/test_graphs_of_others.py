"""Graphs under other people's names and in their types, loaded and fed as the benchmark does it."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

import published
from messages import raises
from onnx_folder import VOCAB_SIZE, write_onnx_folder
from onnxproof.audit.repository import OnnxModel
from onnxproof.audit.speed import contender_of, own_fp32
from onnxproof.benchmark import runtimes, worker
from onnxproof.cli import UserError

THEIRS = {"input_ids": "ids:0", "attention_mask": "mask", "token_type_ids": "segment_ids"}
OURS = {theirs: ours for ours, theirs in THEIRS.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one graph under three paths: with our names, with others, and with int32."""
    folder = write_onnx_folder(tmp_path_factory.mktemp("graphs") / "model")
    (folder / "onnx").mkdir()
    shutil.copyfile(folder / "model.onnx", folder / "onnx" / "plain.onnx")
    published.renamed(folder / "model.onnx", folder / "onnx" / "renamed.onnx", THEIRS)
    published.with_int32_inputs(folder / "model.onnx", folder / "onnx" / "int32.onnx")
    return folder


@pytest.mark.parametrize(("name", "names"), [("plain", {}), ("renamed", OURS), ("int32", {})])
def test_a_graph_answers_as_under_our_names(folder, name, names):
    own = runtimes.load_onnx(folder, 1)
    drawn = worker.draw_inputs(own.input_types, 2, 8, VOCAB_SIZE, 0)
    loaded = runtimes.load_onnx(folder, 1, graphs={"model.onnx": f"onnx/{name}.onnx"}, names=names)
    assert loaded.input_types.keys() == own.input_types.keys()
    made = worker.draw_inputs(loaded.input_types, 2, 8, VOCAB_SIZE, 0)
    answer = loaded.read(loaded.predict(loaded.prepare(made)), "logits")
    assert np.array_equal(answer, own.read(own.predict(drawn), "logits"))


def test_float16_is_made_from_what_the_project_feeds():
    values = [
        SimpleNamespace(name="past_key_values_0_key", type="tensor(float16)", shape=["batch", 2, "past", 4]),
        SimpleNamespace(name="ids", type="tensor(int64)", shape=["batch", "tokens"]),
    ]
    names = {"ids": "input_ids", "past_key_values_0_key": "past_key_values.0.key"}
    given = runtimes.named_by_original(values, names)
    assert [(value.name, value.type) for value in given] == [
        ("past_key_values.0.key", "tensor(float)"),
        ("input_ids", "tensor(int64)"),
    ]
    feed = {
        "past_key_values.0.key": np.zeros((1, 2, 0, 4), np.float32),
        "input_ids": np.ones((1, 3), np.int64),
    }
    made = runtimes.feed_under_own_names(feed, values, names)
    assert {name: array.dtype for name, array in made.items()} == {"past_key_values_0_key": "float16", "ids": "int64"}


def test_the_fp32_file_that_others_are_compared_with():
    def file(name: str, held: str = "fp32", verdict: str = "sound") -> dict[str, str]:
        return {"name": name, "held": held, "verdict": verdict}

    files = [file("a/classifier.onnx"), file("onnx/model.onnx"), file("onnx/model_fp16.onnx", "fp16")]
    assert own_fp32(files) == "onnx/model.onnx"
    assert own_fp32(files[:1]) == "a/classifier.onnx"
    assert own_fp32(files[2:]) is None
    assert own_fp32([file("model.onnx", verdict="wrong")]) is None


def test_a_merged_decoder_alone_is_not_timed():
    graphs = {"encoder_model.onnx": "encoder_model.onnx", "decoder_model_merged.onnx": "decoder_model_merged.onnx"}
    with raises(UserError):
        contender_of(None, OnnxModel(graphs), {"name": "encoder_model.onnx"})
