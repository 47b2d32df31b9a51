"""Channels around zero: the float answers stay, ranges shrink, and nothing but a normalization is added."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from graphs import FLOAT, build, constants_of, op_types, run
from onnxproof.graph.editor import GraphEditor
from onnxproof.quantization.activations import record_activations
from onnxproof.quantization.passes.center_channels import center_channels
from onnxproof.quantization.passes.plain_attention import plain_attentions
from onnxproof.quantization.passes.smooth import smooth_activations
from onnxproof.quantization.passes.static_matmul import quantize_static_matmul
from onnxproof.quantization.targets import find_targets

HIDDEN, HEADS, TOKENS = 8, 2, 5


def layer(biased=("query", "key", "value", "out")):
    """Attention behind a normalization, as an exporter writes it, and the sum with what the normalization made.

    One channel of the normalization, one of the keys and one of the values lie far from zero.
    """
    rng = np.random.default_rng(0)
    constants = {
        "gamma": np.ones(HIDDEN, dtype=np.float32),
        "beta": np.eye(HIDDEN, dtype=np.float32)[2] * 20,
        "split": np.array([0, TOKENS, HEADS, HIDDEN // HEADS], dtype=np.int64),
        "joined": np.array([0, TOKENS, HIDDEN], dtype=np.int64),
        "root": np.array(0.5, dtype=np.float32),
    }
    nodes = [helper.make_node("LayerNormalization", ["x", "gamma", "beta"], ["n"], name="norm")]
    for name, offset in (("query", 0), ("key", 9), ("value", 7), ("out", 0)):
        constants[f"{name}_weight"] = rng.normal(size=(HIDDEN, HIDDEN)).astype(np.float32) / 4
        constants[f"{name}_bias"] = np.eye(HIDDEN, dtype=np.float32)[3] * np.float32(offset)
    for name in ("query", "key", "value"):
        nodes += projection(name, "n", name in biased)
        nodes.append(helper.make_node("Reshape", [name, "split"], [f"{name}_split"]))
    nodes += [
        helper.make_node("Transpose", ["query_split"], ["query_heads"], perm=[0, 2, 1, 3]),
        helper.make_node("Transpose", ["key_split"], ["key_heads"], perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["value_split"], ["value_heads"], perm=[0, 2, 1, 3]),
        helper.make_node("MatMul", ["query_heads", "key_heads"], ["scores"]),
        helper.make_node("Mul", ["scores", "root"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "value_heads"], ["attended"]),
        helper.make_node("Transpose", ["attended"], ["behind"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["behind", "joined"], ["mixed"]),
        *projection("out", "mixed", "out" in biased),
        helper.make_node("Add", ["out", "n"], ["y"]),
    ]
    spec = (FLOAT, ["batch", TOKENS, HIDDEN])
    read = {name for node in nodes for name in node.input}
    return build(nodes, {"x": spec}, {"y": spec}, {name: value for name, value in constants.items() if name in read})


def projection(name, source, has_bias):
    product = f"{name}_product" if has_bias else name
    nodes = [helper.make_node("MatMul", [source, f"{name}_weight"], [product], name=name)]
    return [*nodes, helper.make_node("Add", [product, f"{name}_bias"], [name])] if has_bias else nodes


def feeds_of(seed, count=1):
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=(1, TOKENS, HIDDEN)).astype(np.float32)} for _ in range(count)]


def ends_of(model, feeds, tensors):
    recorded = record_activations(model, feeds, tensors)
    return {name: (recorded[name].lowest, recorded[name].highest) for name in tensors}


def test_the_answers_stay_and_all_that_is_added_is_a_second_normalization():
    model, feeds = layer(), feeds_of(1, 4)
    expected, before = [run(model, feed)[0] for feed in feeds], op_types(model)

    center_channels(model, feeds)

    for feed, answer in zip(feeds, expected, strict=True):
        np.testing.assert_allclose(run(model, feed)[0], answer, rtol=1e-4, atol=1e-4)
    before.remove("Mul")  # the queries hold what scores were multiplied by
    assert sorted(op_types(model)) == sorted([*before, "LayerNormalization"])
    [maker] = {target.activation for target in find_targets(GraphEditor(model)) if target.name != "out"}
    assert maker == "n_centered"


def test_every_channel_that_is_rounded_has_its_range_around_zero():
    model, feeds = layer(), feeds_of(1, 4)
    center_channels(model, feeds)
    ends = ends_of(model, feeds, ["n_centered", "mixed", "key", "query"])
    for name in ("n_centered", "mixed", "key"):
        low, high = ends[name]
        np.testing.assert_allclose(low, -high, rtol=1e-3, atol=1e-4)
    largest = {name: np.maximum(-low, high) for name, (low, high) in ends.items()}
    # What scores were multiplied by is in the queries. Scales have five bits.
    np.testing.assert_allclose(largest["query"], largest["key"] * 0.5, rtol=0.07)


def test_without_a_bias_products_keep_their_inputs():
    model, feeds = layer(biased=()), feeds_of(1, 4)
    before = op_types(model), constants_of(model)

    center_channels(model, feeds)

    assert op_types(model) == before[0]
    after = constants_of(model)
    assert after.keys() == before[1].keys()
    assert all(np.array_equal(values, before[1][name]) for name, values in after.items())


def test_keys_are_centered_where_queries_have_no_bias():
    model, feeds = layer(biased=("key",)), feeds_of(1, 4)
    expected = run(model, feeds[0])[0]
    center_channels(model, feeds)
    low, high = ends_of(model, feeds, ["key"])["key"]
    np.testing.assert_allclose(low, -high, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(run(model, feeds[0])[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 1, 3)], ids=["tokens in front of heads", "as usual"])
def test_only_heads_in_the_usual_order_count_as_values(axes):
    model = layer()
    transposed = next(node for node in model.graph.node if node.output[0] == "value_heads")
    transposed.attribute[0].ints[:] = axes
    [attention] = plain_attentions(GraphEditor(model))
    assert attention.value.order == axes
    assert attention.output == "mixed"


@pytest.mark.parametrize(
    ("shape", "channels"), [("constant", HIDDEN // HEADS), ("joined", HIDDEN // HEADS), ("free", None)]
)
def test_a_head_has_the_channels_that_the_shape_says(shape, channels):
    model = layer()
    split = next(tensor for tensor in model.graph.initializer if tensor.name == "split")
    if shape != "constant":
        lengths = numpy_helper.to_array(split)
        *front, last = lengths if shape == "joined" else [*lengths[:3], -1]
        model.graph.initializer.remove(split)
        ends = {"front": np.array(front), "last": np.array([last])}
        model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in ends.items())
        model.graph.node.insert(0, helper.make_node("Concat", ["front", "last"], ["split"], axis=0))
    [attention] = plain_attentions(GraphEditor(model))
    assert [factor.channels for factor in (attention.query, attention.key, attention.value)] == [channels] * 3


def test_int8_loses_less_with_centered_channels():
    feeds = feeds_of(1, 16)
    errors = []
    for is_centered in (False, True):
        exact, model = layer(), layer()
        if is_centered:
            center_channels(model, feeds)
        smooth_activations(model, feeds, fixed_scales=True)
        quantize_static_matmul(model, feeds)
        errors.append(np.mean([np.square(run(model, feed)[0] - run(exact, feed)[0]).mean() for feed in feeds]))
    assert errors[1] < errors[0] / 2
