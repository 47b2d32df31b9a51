import numpy as np
import pytest
from onnx import helper

from graphs import FLOAT, attention_model, build, constants_of, linear_model, mask_of, op_types, run
from messages import raises
from onnxproof.quantization.passes.dynamic_matmul import quantize_dynamic_matmul
from onnxproof.quantization.weights import quantize_columns


def integer_product(x, weight, weight_range="pair_safe"):
    """The arithmetic the graph must do: uint8 activations, one scale; int8 weights, one scale a column."""
    integers, scale = quantize_tensor(x)
    columns, column_scale = quantize_columns(weight, weight_range)
    return (integers @ columns.astype(np.int64)) * scale * column_scale


def quantize_tensor(x):
    """Integers with the zero point taken off, and the scale, as DynamicQuantizeLinear is specified."""
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = np.float32((high - low) / np.float32(255))
    zero_point = np.clip(np.rint(-low / scale), 0, 255).astype(np.int64)
    return np.clip(np.rint(x / scale) + zero_point, 0, 255).astype(np.int64) - zero_point, scale


@pytest.mark.parametrize("optimize", [False, True], ids=["as written", "fused at load"])
@pytest.mark.parametrize("weight_range", ["pair_safe", "reduced"])
def test_matmul_is_the_integer_product(optimize, weight_range):
    rng = np.random.default_rng(0)
    weight = (rng.normal(size=(12, 7)) * 10.0 ** np.arange(-3, 4)).astype(np.float32)
    x = rng.normal(size=(5, 12)).astype(np.float32)
    model = linear_model(weight)

    quantize_dynamic_matmul(model, weight_range=weight_range)

    assert op_types(model) == ["DynamicQuantizeLinear", "MatMulInteger", "Cast", "Mul", "Mul"]
    [y] = run(model, {"x": x}, optimize)
    expected = integer_product(x, weight, weight_range)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max(axis=0).min())


def test_the_error_stays_below_half_a_step_for_each_factor():
    rng = np.random.default_rng(1)
    weight, x = rng.normal(size=(32, 5)).astype(np.float32), rng.normal(size=(9, 32)).astype(np.float32)
    model = linear_model(weight)
    quantize_dynamic_matmul(model)

    [y] = run(model, {"x": x})

    x_step = (x.max() - x.min()) / 255
    w_step = quantize_columns(weight, "pair_safe")[1]
    bound = np.abs(x).sum(1)[:, None] * w_step / 2 + np.abs(weight).sum(0) * x_step / 2 + 32 * w_step * x_step / 4
    assert (np.abs(y - x @ weight) <= bound * (1 + 1e-4)).all()


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_keeps_its_bias(transposed):
    rng = np.random.default_rng(2)
    weight, bias = rng.normal(size=(6, 4)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    x = rng.normal(size=(3, 6)).astype(np.float32)
    model = linear_model(weight.T if transposed else weight, bias, "Gemm", transB=transposed)

    quantize_dynamic_matmul(model)

    assert "Gemm" not in op_types(model)
    [y] = run(model, {"x": x})
    np.testing.assert_allclose(y, integer_product(x, weight) + bias, rtol=1e-5, atol=1e-6)


def test_attention_becomes_qattention_on_the_same_integers():
    rng = np.random.default_rng(3)
    model = attention_model(rng)
    x = rng.normal(size=(2, 5, 8)).astype(np.float32)
    mask = mask_of(5, 3)
    integers, scale = quantize_tensor(x)
    columns, column_scale = quantize_columns(constants_of(model)["qkv_weight"], "pair_safe")
    rounded = attention_model(rng, weight=columns * column_scale, bias=constants_of(model)["qkv_bias"])
    [expected] = run(rounded, {"x": (integers * scale).astype(np.float32), "mask_index": mask})

    quantize_dynamic_matmul(model)

    assert op_types(model) == ["DynamicQuantizeLinear", "QAttention"]
    assert [attribute.name for attribute in model.graph.node[1].attribute] == ["num_heads"]
    [y] = run(model, {"x": x, "mask_index": mask})
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimize", [False, True], ids=["as written", "fused at load"])
@pytest.mark.parametrize("attention", [False, True])
def test_unsigned_weights_give_the_same_bits(optimize, attention):
    rng = np.random.default_rng(6)
    weight = rng.normal(size=(12, 7)).astype(np.float32)
    x = rng.normal(size=(2, 5, 8) if attention else (5, 12)).astype(np.float32)
    feed = {"x": x, "mask_index": mask_of(5, 3)} if attention else {"x": x}
    answers, stored = [], []
    for unsigned in (False, True):
        model = attention_model(np.random.default_rng(7)) if attention else linear_model(weight)
        quantize_dynamic_matmul(model, weight_range="full", unsigned=unsigned)
        answers.append(run(model, feed, optimize)[0])
        stored.append({values.dtype.name for values in constants_of(model).values() if values.ndim == 2})

    np.testing.assert_array_equal(*answers)
    assert stored == [{"int8"}, {"uint8"}]


def test_readers_of_one_tensor_share_its_integers():
    rng = np.random.default_rng(4)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("MatMul", ["x", "w2"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    constants = {name: rng.normal(size=(4, 3)).astype(np.float32) for name in ("w1", "w2")}
    model = build(nodes, {"x": (FLOAT, ["n", 4])}, {"y": (FLOAT, ["n", 3])}, constants)

    quantize_dynamic_matmul(model)

    assert op_types(model).count("DynamicQuantizeLinear") == 1
    assert op_types(model).count("MatMulInteger") == 2
    x = rng.normal(size=(2, 4)).astype(np.float32)
    expected = sum(integer_product(x, weight) for weight in constants.values())
    np.testing.assert_allclose(run(model, {"x": x})[0], expected, rtol=1e-5, atol=1e-6)


def test_excluded_nodes_and_products_of_activations_stay_in_float():
    rng = np.random.default_rng(5)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="kept"),
        helper.make_node("MatMul", ["a", "w2"], ["b"], name="quantized"),
        helper.make_node("MatMul", ["a", "b"], ["y"], name="scores"),
    ]
    constants = {name: rng.normal(size=(4, 4)).astype(np.float32) for name in ("w1", "w2")}
    model = build(nodes, {"x": (FLOAT, [4, 4])}, {"y": (FLOAT, [4, 4])}, constants)

    quantize_dynamic_matmul(model, exclude=["kept"])

    assert [node.name for node in model.graph.node if node.op_type == "MatMul"] == ["kept", "scores"]
    np.testing.assert_array_equal(constants_of(model)["w1"], constants["w1"])
    assert "w2" not in constants_of(model)


def test_excluding_a_node_that_is_not_there_is_an_error():
    model = linear_model(np.ones((2, 2), dtype=np.float32))
    with raises(ValueError):
        quantize_dynamic_matmul(model, exclude=["linaer"])


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [("Gemm", {"transA": 1}), ("Gemm", {"alpha": 0.5}), ("Gemm", {"beta": 2.0})],
)
def test_gemms_with_a_twist_stay_in_float(op_type, attributes):
    model = linear_model(np.eye(3, dtype=np.float32), np.ones(3, dtype=np.float32), op_type, **attributes)
    quantize_dynamic_matmul(model)
    assert op_types(model) == ["Gemm"]
