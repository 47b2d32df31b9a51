"""The three graphs of an encoder-decoder as one: the whole, token by token, and as files of a release."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from onnxproof.files import describe_files
from onnxproof.graph.encoder_decoder import EncoderDecoder
from onnxproof.graph.files import ENCODER_DECODER_FILES, MODEL_FILE, graph_files
from onnxproof.graph.folder import describe_variant, proven_sha256
from release import released_graphs

WORDS = 13
FEED = {"input_ids": np.array([[2, 5]]), "attention_mask": np.array([[1, 1]]), "decoder_input_ids": np.array([[1, 4]])}


class Graph:
    """A session of these inputs and outputs around a function of the feed."""

    def __init__(self, inputs, outputs, function):
        self.inputs, self.outputs, self.function, self.calls = inputs, outputs, function, 0

    def get_inputs(self):
        return [SimpleNamespace(name=name) for name in self.inputs]

    def get_outputs(self):
        return [SimpleNamespace(name=name) for name in self.outputs]

    def run(self, names, feed):
        assert set(feed) == set(self.inputs)
        self.calls += 1
        return [self.function(feed)[name] for name in names or self.outputs]


def guess(sums):
    return np.eye(WORDS, dtype=np.float32)[np.asarray(sums).astype(int) % WORDS]


def encode(feed):
    return {"last_hidden_state": feed["input_ids"][..., None].astype(np.float32)}


def decode(feed):
    source, tokens = feed["encoder_hidden_states"].sum(), feed["input_ids"]
    sums = source + np.cumsum(tokens, axis=1)
    cache = {"present.0.decoder.key": sums[:, -1:], "present.0.encoder.key": np.array([[source]])}
    return {"logits": guess(sums)} | cache


def go_on(feed):
    assert feed["past_key_values.0.encoder.key"].item() == 7  # from the first decoder, kept throughout
    sums = feed["past_key_values.0.decoder.key"] + feed["input_ids"]
    return {"logits": guess(sums), "present.0.decoder.key": sums}


@pytest.fixture
def adder():
    """A model whose next token is the sum of the source and of all that is written."""
    caches = ["past_key_values.0.decoder.key", "past_key_values.0.encoder.key"]
    first = ["logits", "present.0.decoder.key", "present.0.encoder.key"]
    return EncoderDecoder(
        Graph(["input_ids", "attention_mask"], ["last_hidden_state"], encode),
        Graph(["input_ids", "encoder_hidden_states", "encoder_attention_mask"], first, decode),
        Graph(["input_ids", "encoder_attention_mask", *caches], first[:2], go_on),
    )


def test_the_whole_runs_like_one_session(adder):
    assert [value.name for value in adder.get_inputs()] == list(FEED)
    (logits,) = adder.run(["logits"], FEED)
    assert logits.argmax(axis=2).tolist() == [[8, 12]]
    assert len(adder.run(None, FEED)) == 3


def test_with_and_without_the_cache_the_same_is_written(adder):
    expected, written = [], [1]
    for _ in range(6):
        written.append((7 + sum(written)) % WORDS)
        expected.append(written[-1])
    assert adder.generate(FEED, 6, use_cache=False) == expected
    assert (adder.decoder.calls, adder.decoder_with_past.calls) == (6, 0)
    assert adder.generate(FEED, 6) == expected
    assert (adder.decoder.calls, adder.decoder_with_past.calls) == (7, 5)


def test_every_graph_is_described_and_named_by_one_sum(tmp_path):
    files = ENCODER_DECODER_FILES
    for name in files:
        node = onnx.helper.make_node("Identity", ["x"], [name])
        onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [])), tmp_path / name)
    described = describe_variant("m", "fp32", "text2text-generation", tmp_path, {}, {})
    assert graph_files(tmp_path) == list(described["graphs"]) == list(files)
    assert described["operators"] == {"Identity": 3}
    before = proven_sha256(described["files"])
    (tmp_path / files[2]).write_bytes((tmp_path / files[1]).read_bytes())
    assert proven_sha256(describe_files(tmp_path)) != before


def test_graphs_are_released_under_names_that_tell_the_variant():
    target = Path("onnx/model_quantized.onnx")
    assert released_graphs(target, [MODEL_FILE]) == {MODEL_FILE: target}
    assert [path.as_posix() for path in released_graphs(target, list(ENCODER_DECODER_FILES)).values()] == [
        "onnx/encoder_model_quantized.onnx",
        "onnx/decoder_model_quantized.onnx",
        "onnx/decoder_with_past_model_quantized.onnx",
        "onnx/decoder_model_merged_quantized.onnx",
    ]
