"""Two decoders merged into one graph: the same answers from each branch, and what both hold, once."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxproof.graph import external_data
from onnxproof.graph.encoder_decoder import Branch
from onnxproof.graph.files import DECODER_FILE, DECODER_WITH_PAST_FILE, MERGED_FILE
from onnxproof.graph.merged_decoder import merge_decoders
from onnxproof.graph.sessions import open_session

SIZE = 64
TABLE = np.random.default_rng(0).normal(size=(SIZE, SIZE)).astype(np.float32)
OWN = {DECODER_FILE: TABLE + 1, DECODER_WITH_PAST_FILE: TABLE + 2}


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def save_decoder(path, own, unused=None):
    """Save a decoder whose "logits" are its tokens' rows of TABLE times a table of its own, plus the past's sum.

    ``unused`` is a constant that makes the file larger.
    """
    has_past = path.name == DECODER_WITH_PAST_FILE
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"], "gather"),
        helper.make_node("MatMul", ["rows", "own"], ["product"], "product"),
    ]
    if has_past:
        nodes += [
            helper.make_node("ReduceSum", ["past_key_values.0.decoder.key"], ["sum"], keepdims=0),
            helper.make_node("Add", ["product", "sum"], ["logits"]),
            helper.make_node("Identity", ["past_key_values.0.decoder.key"], ["present.0.decoder.key"]),
        ]
    else:
        nodes += [
            helper.make_node("Identity", ["product"], ["logits"]),
            helper.make_node("Unsqueeze", ["rows", "axis"], ["present.0.decoder.key"]),
            helper.make_node("Identity", ["encoder_hidden_states"], ["present.0.encoder.key"]),
        ]
    cache = ["batch", 1, "past", SIZE]
    inputs = [value("input_ids", ["batch", "tokens"], TensorProto.INT64)]
    inputs.append(value("past_key_values.0.decoder.key", cache) if has_past else value("encoder_hidden_states", cache))
    outputs = [value("logits", ["batch", "tokens", SIZE]), value("present.0.decoder.key", cache)]
    outputs += [] if has_past else [value("present.0.encoder.key", cache)]
    constants = {"table": TABLE, "own": own, "axis": np.array([1])} | ({} if unused is None else {"unused": unused})
    tensors = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


@pytest.fixture(
    params=[(), (DECODER_FILE,), (DECODER_WITH_PAST_FILE,), tuple(OWN)], ids=["none", "first", "second", "both"]
)
def large(request, tmp_path, monkeypatch):
    """The decoders, in ``tmp_path``, whose weights are so large that they stay in files: none, one or both."""
    monkeypatch.setattr(external_data, "SMALLEST_OUTSIDE", 4096)
    monkeypatch.setattr(external_data, "BY_REFERENCE_BYTES", 4 * TABLE.nbytes)
    for file, own in OWN.items():
        save_decoder(tmp_path / file, own, np.tile(TABLE, (4, 1)) if file in request.param else None)
    return request.param


@pytest.fixture(params=[1, 1 << 30], ids=["weights beside it", "one file"])
def folder(request, large, tmp_path, monkeypatch):
    """Two decoders and the merged one."""
    monkeypatch.setattr(external_data, "SINGLE_FILE_BYTES", request.param)
    merge_decoders(tmp_path)
    assert (tmp_path / f"{MERGED_FILE}_data").exists() is (bool(large) and request.param == 1)
    return tmp_path


def test_each_branch_answers_as_its_decoder_does(folder):
    onnx.checker.check_model(folder / MERGED_FILE)
    merged = open_session(folder / MERGED_FILE, 1)
    ids, state = np.array([[3, 5]]), np.ones((1, 1, 4, SIZE), dtype=np.float32)
    for file, name in (
        (DECODER_FILE, "encoder_hidden_states"),
        (DECODER_WITH_PAST_FILE, "past_key_values.0.decoder.key"),
    ):
        single, branch = open_session(folder / file, 1), Branch(merged, file == DECODER_WITH_PAST_FILE)
        assert {put.name for put in branch.get_inputs()} >= {put.name for put in single.get_inputs()}
        assert [out.name for out in branch.get_outputs()] == [out.name for out in single.get_outputs()]
        feed = {"encoder_hidden_states": state, "input_ids": ids, name: state}
        expected = single.run(None, {put.name: feed[put.name] for put in single.get_inputs()})
        for left, right in zip(expected, branch.run(None, feed), strict=True):
            np.testing.assert_array_equal(left, right)


def test_what_both_hold_is_held_once(folder):
    def size(name):
        return sum(path.stat().st_size for path in folder.glob(f"{name}*"))

    tables = [
        tensor for tensor in onnx.load(folder / MERGED_FILE).graph.initializer if list(tensor.dims) == [SIZE, SIZE]
    ]
    assert len(tables) == 3  # the one of both, and one of each
    assert size(MERGED_FILE) < size(DECODER_FILE) + size(DECODER_WITH_PAST_FILE)


def test_the_branch_with_the_cache_gives_no_encoder_cache_back(folder):
    merged = open_session(folder / MERGED_FILE, 1)
    branch = Branch(merged, True)
    feed = {"input_ids": np.array([[3]]), "past_key_values.0.decoder.key": np.ones((1, 1, 4, SIZE), dtype=np.float32)}
    feed["encoder_hidden_states"] = np.ones((1, 1, 4, SIZE), dtype=np.float32)
    (cache,) = merged.run(["present.0.encoder.key"], feed | {"use_cache_branch": np.array([True])})
    assert len(cache) == 0
    assert "present.0.encoder.key" not in [out.name for out in branch.get_outputs()]


def test_the_same_decoders_make_the_same_bytes(folder):
    before = (folder / MERGED_FILE).read_bytes()
    merge_decoders(folder)
    assert (folder / MERGED_FILE).read_bytes() == before


def test_a_decoder_without_a_cache_is_left_alone(tmp_path):
    save_decoder(tmp_path / DECODER_FILE, TABLE)
    merge_decoders(tmp_path)
    assert not (tmp_path / MERGED_FILE).exists()
