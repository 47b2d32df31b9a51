import numpy as np
import pytest
from onnx import helper

from graphs import FLOAT, build, constants_of, linear_model, op_types, run
from onnxproof.quantization.passes.dynamic_matmul import quantize_dynamic_matmul
from onnxproof.quantization.passes.outlier_channels import keep_outlier_channels, outlier_channels


def inputs(seed=0):
    x = np.random.default_rng(seed).normal(size=(40, 16)).astype(np.float32)
    x[:, [3, 11]] *= 80
    return x


def test_positions_of_the_largest():
    magnitudes = np.array([1, 30, 1, 9, 1, 31, 2], dtype=np.float32)
    np.testing.assert_array_equal(outlier_channels(magnitudes, 3, 8), [1, 3, 5])
    np.testing.assert_array_equal(outlier_channels(magnitudes, 3, 2), [1, 5])
    assert len(outlier_channels(magnitudes, 50, 8)) == 0


@pytest.mark.parametrize("transposed", [False, True])
def test_the_answer_stays_and_the_outliers_leave_the_large_product(transposed):
    weight = np.random.default_rng(1).normal(size=(16, 5)).astype(np.float32)
    bias = np.arange(5, dtype=np.float32)
    model = linear_model(weight.T if transposed else weight, bias, "Gemm", transB=int(transposed))
    x = inputs()
    [expected] = run(model, {"x": x})

    keep_outlier_channels(model, [{"x": x}])

    assert op_types(model) == ["Mul", "Gemm", "Gather", "MatMul", "Add"]
    stored = constants_of(model)["w_1"]
    assert not (stored.T if transposed else stored)[[3, 11]].any()
    np.testing.assert_allclose(run(model, {"x": x})[0], expected, rtol=1e-4, atol=1e-4)


def test_only_the_large_product_is_quantized_and_far_better():
    weight = np.random.default_rng(1).normal(size=(16, 5)).astype(np.float32)
    x = inputs()

    def error(split):
        model = linear_model(weight)
        if split:
            keep_outlier_channels(model, [{"x": x}])
        quantize_dynamic_matmul(model)
        assert op_types(model).count("MatMulInteger") == 1
        assert op_types(model).count("MatMul") == int(split)
        return np.square(run(model, {"x": x})[0] - x @ weight).mean()

    assert error(split=True) < error(split=False) / 100


def test_a_product_without_outliers_stays():
    model = linear_model(np.eye(16, dtype=np.float32))
    keep_outlier_channels(model, [{"x": inputs()}], ratio=1000)
    assert op_types(model) == ["MatMul"]


def test_a_bias_stays_behind_the_product_that_is_quantized():
    weight = np.random.default_rng(1).normal(size=(16, 5)).astype(np.float32)
    constants = {"w": weight, "bias": np.arange(5, dtype=np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], name="linear"),
        helper.make_node("Add", ["bias", "product"], ["y"], name="add"),
    ]
    model = build(nodes, {"x": (FLOAT, ["rows", 16])}, {"y": (FLOAT, ["rows", 5])}, constants)
    x = inputs()
    [expected] = run(model, {"x": x})

    keep_outlier_channels(model, [{"x": x}])

    assert op_types(model) == ["Mul", "MatMul", "Add", "Gather", "MatMul", "Add"]
    np.testing.assert_allclose(run(model, {"x": x})[0], expected, rtol=1e-4, atol=1e-4)
