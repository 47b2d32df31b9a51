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


def attending(with_rotation=False, channels=40):
    """Attention scores of one head, as an exporter writes them: projections, transposes, product, scale, softmax."""
    rng = np.random.default_rng(4)
    constants = {
        name: rng.normal(scale=0.5, size=(8, channels)).astype(np.float32) for name in ("query_weight", "key_weight")
    }
    constants |= {
        "bias": rng.normal(size=channels).astype(np.float32),
        "root": np.array(channels**-0.5, dtype=np.float32),
    }
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


@pytest.mark.parametrize(("operator", "reach"), [("Relu", 1.2), ("LayerNormalization", 1.1)])
def test_grids_with_room_reach_farther_than_calibration_showed(operator, reach):
    rng = np.random.default_rng(7)
    constants = {"w": rng.normal(size=(8, 4)).astype(np.float32)}
    if operator == "LayerNormalization":
        constants["gamma"] = np.ones(8, dtype=np.float32)
    inputs = ["x", *(["gamma"] if "gamma" in constants else [])]
    nodes = [helper.make_node(operator, inputs, ["a"], name="a"), helper.make_node("MatMul", ["a", "w"], ["y"])]
    x = rng.normal(size=(6, 8)).astype(np.float32)
    scales = []
    for room in (False, True):
        model = build(nodes, {"x": (FLOAT, ["rows", 8])}, {"y": (FLOAT, ["rows", 4])}, constants)
        quantize_static_matmul(model, [{"x": x}], room=room)
        scales.append(float(constants_of(model)["a_scale"]))
    assert scales[1] / scales[0] == pytest.approx(reach, rel=1e-5)


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


@pytest.mark.parametrize(
    ("graph", "changes", "scored"),
    [({}, {"scores": False}, []), ({"with_rotation": True}, {}, ["key"]), ({"channels": 32}, {}, [])],
    ids=["off", "rotated query", "narrow head"],
)
def test_scores_stay_in_float(graph, changes, scored):
    model = attending(**graph)
    x = np.random.default_rng(5).normal(size=(2, 6, 8)).astype(np.float32)

    quantize_static_matmul(model, [{"x": x}], **changes)

    assert [node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"] == ["x", *scored]


def test_symmetric_activations_have_no_zero_point():
    rng = np.random.default_rng(6)
    weight, x = rng.normal(size=(12, 7)).astype(np.float32), rng.normal(size=(5, 12)).astype(np.float32)
    model = linear_model(weight)

    quantize_static_matmul(model, [{"x": x}], activations="int8")

    constants = constants_of(model)
    for node in model.graph.node:
        if node.op_type in ROUNDING:
            assert constants[node.input[2]].dtype == np.int8
            assert not constants[node.input[2]].any()
    [y] = run(model, {"x": x})
    grid = symmetric_grid(float(np.abs(x).max()))
    np.testing.assert_allclose(y, grid.round(x) @ rounded_columns(weight), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [20, 21])
@pytest.mark.parametrize("op_type", ["Gemm", "MatMul"])
def test_16_bits_and_one_scale_a_weight_are_as_exact_as_a_scale_per_channel(op_type, opset):
    rng = np.random.default_rng(7)
    weight, bias = rng.normal(size=(16, 4)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    weight *= np.array([1, 10, 0.1, 3], dtype=np.float32)
    x = rng.normal(size=(20, 16)).astype(np.float32)
    model = linear_model(weight, bias, "Gemm") if op_type == "Gemm" else with_bias(weight, bias)
    model.opset_import[0].version = opset

    quantize_static_matmul(
        model, [{"x": x}], activations="uint16", unsigned=True, outputs=True, scores=False, weight_range="full"
    )

    assert op_types(model) == [*ROUNDING, "DequantizeLinear", "MatMul", *ROUNDING, "Mul", "Add"]
    stored = [node for node in model.graph.node if node.op_type == "DequantizeLinear"][1]
    integers, scale, zero_point = (constants_of(model)[name] for name in stored.input)
    assert (integers.dtype, scale.shape, int(zero_point)) == (np.uint8, (), 128)
    rounding = [node.domain for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert rounding == ["com.microsoft" if opset < 21 else ""] * 2
    [y] = run(model, {"x": x}, optimize=False)
    per_channel, scales = quantize_columns(weight, "full")
    expected = x @ (per_channel * scales)
    # Steps of 15 bits: of the inputs, summed over a product, and of the output in the unit of each channel.
    steps = np.ptp(x) / 32767 * np.abs(weight).sum(axis=0) + np.ptp(expected / scales) / 32767 * scales
    difference = y - y.mean(axis=0) - (expected - expected.mean(axis=0))
    assert np.abs(difference).max() > 0
    assert (np.abs(difference) <= steps).all()


def test_16_bits_hold_twice_what_was_seen():
    weight, x = np.eye(4, dtype=np.float32), np.linspace(-1, 3, 40, dtype=np.float32).reshape(10, 4)
    model = linear_model(weight)

    quantize_static_matmul(model, [{"x": x}], activations="uint16", outputs=True)

    [y] = run(model, {"x": 2 * x}, optimize=False)
    np.testing.assert_allclose(y, 2 * x, atol=2e-4)
    [y] = run(model, {"x": 3 * x}, optimize=False)
    np.testing.assert_allclose(y, np.clip(3 * x, -2, 6), atol=2e-4)


def test_an_unknown_type_of_activations_is_named():
    with pytest.raises(ValueError, match="activations 'int16' is none of uint8, int8, uint16"):
        quantize_static_matmul(
            linear_model(np.eye(4, dtype=np.float32)), [{"x": np.ones((1, 4), np.float32)}], activations="int16"
        )


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
