import numpy as np
import pytest
from onnx import helper

from graphs import FLOAT, attention_model, build, constants_of, linear_model, mask_of, op_types, run
from messages import raises
from onnxproof.quantization.integer_error import choose_zero_point, round_rows
from onnxproof.quantization.passes.per_token import quantize_per_token
from onnxproof.quantization.weights import quantize_columns

QUANTIZE_ROWS = ["ReduceMax", "ReduceMin", "Mul", "Max", "Reciprocal", "Mul", "QuantizeLinear"]


def rounded_weight(weight):
    integers, scale = quantize_columns(weight, "pair_safe")
    return integers * scale


@pytest.mark.parametrize("optimize", [False, True], ids=["as written", "fused at load"])
@pytest.mark.parametrize("shift", [0, 2], ids=["symmetric", "mostly positive"])
def test_matmul_rounds_each_row_on_its_own(optimize, shift):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(12, 7)).astype(np.float32)
    x = ((rng.normal(size=(9, 12)) + shift) * 10.0 ** rng.integers(-3, 4, (9, 1))).astype(np.float32)
    x[4] = 0
    model = linear_model(weight)

    quantize_per_token(model, [{"x": x}])

    assert op_types(model) == [*QUANTIZE_ROWS, "MatMulIntegerToFloat", "Mul"]
    [y] = run(model, {"x": x}, optimize)
    rows = round_rows(x, choose_zero_point(x[np.linspace(0, 8, 6).round().astype(int)]))
    expected = rows @ rounded_weight(weight)
    assert (np.abs(y - expected) <= 1e-2 * np.abs(x).max(axis=1, keepdims=True)).all()
    assert np.isfinite(y).all()
    assert not y[4].any()


def test_a_row_is_answered_alike_in_any_company():
    rng = np.random.default_rng(1)
    model = linear_model(rng.normal(size=(16, 8)).astype(np.float32))
    x = rng.normal(size=(6, 16)).astype(np.float32)
    quantize_per_token(model, [{"x": x}])

    [alone] = run(model, {"x": x[:1]})
    company = x.copy()
    company[1:] *= 1000
    [together] = run(model, {"x": company})

    np.testing.assert_array_equal(alone[0], together[0])


def test_gemm_keeps_its_bias():
    rng = np.random.default_rng(2)
    weight, bias = rng.normal(size=(6, 4)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    x = rng.normal(size=(3, 6)).astype(np.float32)
    model = linear_model(weight.T, bias, "Gemm", transB=1)

    quantize_per_token(model, [{"x": x}])

    expected = round_rows(x, choose_zero_point(x)) @ rounded_weight(weight) + bias
    np.testing.assert_allclose(run(model, {"x": x})[0], expected, atol=0.05)


def test_attention_stays_fused_and_its_projections_share_the_rows():
    rng = np.random.default_rng(3)
    model = attention_model(rng)
    x, mask = rng.normal(size=(2, 5, 8)).astype(np.float32), mask_of(5, 3)
    weight, bias = constants_of(model)["qkv_weight"], constants_of(model)["qkv_bias"]
    rows = x.reshape(-1, 8)
    quantize_per_token(model, [{"x": x, "mask_index": mask}])
    zero_point = int(next(value for name, value in constants_of(model).items() if value.dtype == np.uint8))
    reference = attention_model(rng, weight=rounded_weight(weight), bias=bias)
    [expected] = run(reference, {"x": round_rows(rows, zero_point).reshape(x.shape), "mask_index": mask})

    assert op_types(model) == [
        *QUANTIZE_ROWS,
        *["Equal", "Where", "Unsqueeze", "Shape", "Concat", "Expand"],
        *["MatMulIntegerToFloat", "Mul"] * 3,
        "MultiHeadAttention",
    ]
    [y] = run(model, {"x": x, "mask_index": mask})
    valid = [(0, slice(0, 5)), (1, slice(0, 3))]
    for item in valid:
        np.testing.assert_allclose(y[item], expected[item], rtol=1e-3, atol=1e-4)


def test_included_and_excluded_nodes():
    rng = np.random.default_rng(4)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "w2"], ["y"], name="second"),
    ]
    constants = {name: rng.normal(size=(4, 4)).astype(np.float32) for name in ("w1", "w2")}
    spec = (FLOAT, ["n", 4])
    feeds = {"x": rng.normal(size=(3, 4)).astype(np.float32)}
    for arguments in ({"exclude": ["first"]}, {"include": ["second"]}):
        model = build(nodes, {"x": spec}, {"y": spec}, constants)
        quantize_per_token(model, [feeds], **arguments)
        assert [node.name for node in model.graph.node if node.op_type == "MatMul"] == ["first"]
    with raises(ValueError):
        quantize_per_token(build(nodes, {"x": spec}, {"y": spec}, constants), [feeds], include=["third"])
