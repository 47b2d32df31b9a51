"""Products whose scales the file holds: the arithmetic, its grids, and what stays in float."""

import numpy as np
import pytest
from onnx import helper

from graphs import FLOAT, build, constants_of, linear_model, op_types, run
from onnxproof.quantization.grids import symmetric_grid, unsigned_grid
from onnxproof.quantization.passes.static_matmul import quantize_static_matmul
from onnxproof.quantization.weights import quantize_columns

ROUNDING = ["QuantizeLinear", "DequantizeLinear"]


def rounded(x, low, high):
    """What QuantizeLinear and DequantizeLinear make of ``x`` with uint8 that reaches from ``low`` to ``high``."""
    scale = np.float32((high - low) / 255)
    zero_point = np.rint(-low / scale)
    return (np.clip(np.rint(x / scale) + zero_point, 0, 255) - zero_point) * scale


def rounded_columns(weight):
    integers, scale = quantize_columns(weight, "pair_safe")
    return integers * scale


def with_bias(weight, bias):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["product"]), helper.make_node("Add", ["bias", "product"], ["y"])]
    shapes = {"x": (FLOAT, ["rows", len(weight)])}, {"y": (FLOAT, ["rows", len(bias)])}
    return build(nodes, *shapes, {"w": weight, "bias": bias})


def attending(with_rotation=False):
    """Attention scores of one head, as an exporter writes them: projections, transposes, product, scale, softmax."""
    rng = np.random.default_rng(4)
    constants = {name: rng.normal(size=(8, 8)).astype(np.float32) for name in ("query_weight", "key_weight")}
    constants |= {"bias": rng.normal(size=8).astype(np.float32), "root": np.array(8**-0.5, dtype=np.float32)}
    query = "turned" if with_rotation else "query"
    nodes = [
        helper.make_node("MatMul", ["x", "query_weight"], ["query_product"]),
        helper.make_node("Add", ["query_product", "bias"], ["query"]),
        helper.make_node("MatMul", ["x", "key_weight"], ["key"]),
        helper.make_node("Transpose", ["key"], ["key_t"], perm=[0, 2, 1]),
        *([helper.make_node("Neg", ["query"], ["turned"])] if with_rotation else []),
        helper.make_node("MatMul", [query, "key_t"], ["product"]),
        helper.make_node("Mul", ["product", "root"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["y"], axis=-1),
    ]
    return build(nodes, {"x": (FLOAT, ["b", "n", 8])}, {"y": (FLOAT, ["b", "n", "n"])}, constants)


@pytest.mark.parametrize("optimize", [False, True], ids=["as written", "fused at load"])
def test_the_product_is_that_of_rounded_factors(optimize):
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(12, 7)).astype(np.float32), rng.normal(size=(5, 12)).astype(np.float32)
    model = linear_model(weight)

    quantize_static_matmul(model, [{"x": x}])

    assert op_types(model) == [*ROUNDING, "DequantizeLinear", "MatMul"]
    [y] = run(model, {"x": x}, optimize)
    expected = rounded(x, x.min(), x.max()) @ rounded_columns(weight)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_an_answer_is_the_same_bits_alone_and_beside_a_larger_one():
    rng = np.random.default_rng(1)
    model = linear_model(rng.normal(size=(16, 8)).astype(np.float32))
    x = rng.normal(size=(3, 16)).astype(np.float32)
    quantize_static_matmul(model, [{"x": x}])

    [alone] = run(model, {"x": x})
    [batched] = run(model, {"x": np.concatenate([x, 100 * x])})

    np.testing.assert_array_equal(alone, batched[:3])


@pytest.mark.parametrize("op_type", ["Gemm", "MatMul"])
def test_the_bias_takes_up_the_mean_error(op_type):
    rng = np.random.default_rng(2)
    weight, bias = rng.normal(size=(16, 4)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    x = rng.gamma(0.2, size=(6, 16)).astype(np.float32)
    model = linear_model(weight, bias, "Gemm") if op_type == "Gemm" else with_bias(weight, bias)

    quantize_static_matmul(model, [{"x": x}])

    [y] = run(model, {"x": x})
    np.testing.assert_allclose(y.mean(axis=0), (x @ weight + bias).mean(axis=0), atol=1e-5)
    uncorrected = rounded(x, 0, x.max()) @ rounded_columns(weight) + bias
    assert np.abs(uncorrected.mean(axis=0) - (x @ weight + bias).mean(axis=0)).max() > 1e-3


def test_queries_and_keys_become_symmetric_integers():
    model = attending()
    x = np.random.default_rng(5).normal(size=(2, 6, 8)).astype(np.float32)
    [expected] = run(model, {"x": x})

    quantize_static_matmul(model, [{"x": x}])

    rounding = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert [node.input[0] for node in rounding] == ["x", "query", "key"]
    constants = constants_of(model)
    assert [constants[node.input[2]].dtype for node in rounding] == [np.uint8, np.int8, np.int8]
    assert [int(constants[node.input[2]]) for node in rounding[1:]] == [0, 0]
    [y] = run(model, {"x": x})
    assert 1e-6 < np.abs(y - expected).max() < 0.05


@pytest.mark.parametrize(("changes", "scored"), [({"scores": False}, []), ({}, ["key"])], ids=["off", "rotated query"])
def test_scores_stay_in_float(changes, scored):
    model = attending(with_rotation=not changes)
    x = np.random.default_rng(5).normal(size=(2, 6, 8)).astype(np.float32)

    quantize_static_matmul(model, [{"x": x}], **changes)

    assert [node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"] == ["x", *scored]


def test_excluded_products_stay_in_float():
    model = linear_model(np.eye(4, dtype=np.float32))
    quantize_static_matmul(model, [{"x": np.ones((1, 4), dtype=np.float32)}], exclude=["linear"])
    assert op_types(model) == ["MatMul"]


def test_without_calibration_inputs_there_are_no_scales():
    with pytest.raises(ValueError, match="needs calibration inputs, and there are none"):
        quantize_static_matmul(linear_model(np.eye(4, dtype=np.float32)), [])


@pytest.mark.parametrize(
    ("low", "high", "zero_point"), [(0.0, 5.0, 0), (-5.0, 0.0, 255), (-1.0, 3.0, 64), (0.0, 0.0, 0)]
)
def test_grids_hold_zero_and_reach_both_ends(low, high, zero_point):
    unsigned, symmetric = unsigned_grid(low, high), symmetric_grid(max(-low, high))

    assert int(unsigned.zero_point) == zero_point
    ends = np.array([low, 0, high], dtype=np.float32)
    np.testing.assert_allclose(unsigned.round(ends), ends, atol=unsigned.scale / 2 if low != high else 0)
    np.testing.assert_allclose(symmetric.round(ends), ends, atol=symmetric.scale / 2 if low != high else 0)
    assert int(symmetric.zero_point) == 0
