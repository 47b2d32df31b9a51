"""Graphs with fixed shapes: how inputs are padded to them, which fit, and that wrong padding is seen."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from messages import raises
from onnxproof.cli import UserError
from onnxproof.graph.fixed_shapes import fix_shapes, free_axes
from onnxproof.graph.sessions import open_session
from onnxproof.inputs.model_inputs import ModelInputs, Reference
from onnxproof.parity.fixed import FixedSession, fits, measure_fixed, shapes_of

TABLE = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)


def embedder(is_masked: bool) -> onnx.ModelProto:
    """Return the sum of the tokens' vectors over the mask, or over all tokens and padding."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["vectors", "wide" if is_masked else "one"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "tokens"], ["sentence_embedding"], keepdims=0),
    ]
    constants = {"table": TABLE, "last": np.array([2]), "one": np.float32([1]), "tokens": np.array([1])}
    axes = ["batch_size", "sequence_length"]
    graph = helper.make_graph(
        nodes,
        "embedder",
        [helper.make_tensor_value_info(name, TensorProto.INT64, axes) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch_size", 6])],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def texts(*lengths: int, side: str = "right") -> ModelInputs:
    rng = np.random.default_rng(1)
    items = [{"input_ids": rng.integers(1, 20, n), "attention_mask": np.ones(n, dtype=np.int64)} for n in lengths]
    return ModelInputs(items, padding_side=side, padding_values={"input_ids": 7})


def reference_of(inputs: ModelInputs) -> Reference:
    """Return what the original answers: the sums of the tokens' vectors."""
    manifest = {"task": "sentence-similarity", "judged_as": "sentence-similarity", "label_count": 2}
    outputs = [TABLE[item["input_ids"]].sum(axis=0) for item in inputs.items]
    return Reference(manifest, inputs, {"sentence_embedding": outputs})


@pytest.fixture
def opened(tmp_path):
    """A function that opens the graph with fixed shapes, and the one with free shapes."""

    def open_both(is_masked: bool, shape: list[int]):
        onnx.save(embedder(is_masked), tmp_path / "free.onnx")
        fix_shapes("m w8a16", tmp_path / "free.onnx", shape, tmp_path / "fixed.onnx")
        return open_session(tmp_path / "fixed.onnx", 1), open_session(tmp_path / "free.onnx", 1)

    return open_both


@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_of_any_size_and_shorter_texts_are_padded(opened, side):
    fixed, free = opened(True, [2, 8])
    inputs = texts(3, 8, 5, side=side)
    assert shapes_of(fixed) == {"input_ids": (2, 8), "attention_mask": (2, 8)}

    feed = inputs.feed([0, 1, 2], ["input_ids", "attention_mask"])
    [answers] = FixedSession(fixed, inputs).run(["sentence_embedding"], feed)
    [expected] = free.run(["sentence_embedding"], feed)

    assert answers.shape == (3, 6)
    np.testing.assert_allclose(answers, expected, rtol=1e-6)


def test_only_inputs_that_fit_are_measured(opened):
    fixed, free = opened(True, [1, 6])
    reference = reference_of(texts(3, 9, 6))

    count, measured = measure_fixed("m w8a16", fixed, (fixed, free), reference)

    assert count == 2
    assert len(measured.answers) == 2
    assert measured.task_metrics["cosine_min"] == pytest.approx(1)
    assert measured.batch_invariance["cosine_min"] == pytest.approx(1)
    assert measure_fixed("m w8a16", fixed, (fixed, free), reference_of(texts(9, 7))) is None


def test_a_graph_that_reads_padding_is_seen(opened):
    fixed, free = opened(False, [1, 12])

    _, measured = measure_fixed("m w8a16", fixed, (fixed, free), reference_of(texts(3, 9, 6)))

    assert measured.task_metrics["cosine_min"] < 0.99
    assert measured.batch_invariance["cosine_min"] < 0.99


def test_without_a_mask_only_the_very_shape_fits():
    picture = {"pixel_values": np.zeros((3, 4, 4), dtype=np.float32)}
    assert fits(picture, {"pixel_values": (1, 3, 4, 4)})
    assert not fits(picture, {"pixel_values": (1, 3, 8, 8)})
    assert not fits({"input_ids": np.zeros(3)}, {"input_ids": (1, 8)})
    assert fits({"input_ids": np.zeros(3)}, {"input_ids": (1, 8), "attention_mask": (1, 8)})


def test_a_shape_has_a_length_for_each_free_axis(tmp_path):
    model = embedder(True)
    assert free_axes(model.graph) == ["batch_size", "sequence_length"]
    onnx.save(model, tmp_path / "free.onnx")
    with raises(UserError):
        fix_shapes("m w8a16", tmp_path / "free.onnx", [1], tmp_path / "fixed.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["free.onnx"]


def test_the_weights_and_nodes_stay_the_same(tmp_path):
    model = embedder(True)
    onnx.save(model, tmp_path / "free.onnx")
    fix_shapes("m w8a16", tmp_path / "free.onnx", [1, 8], tmp_path / "fixed.onnx")
    fixed = onnx.load(tmp_path / "fixed.onnx")
    assert list(fixed.graph.node) == list(model.graph.node)
    assert list(fixed.graph.initializer) == list(model.graph.initializer)
    assert free_axes(fixed.graph) == []
