import numpy as np
import pytest
from onnx import helper, numpy_helper

from graphs import FLOAT, build, constants_of, linear_model, op_types, run
from onnxproof.graph.editor import GraphEditor
from onnxproof.quantization.activations import Calibration, record_activations
from onnxproof.quantization.passes.dynamic_matmul import quantize_dynamic_matmul
from onnxproof.quantization.passes.outlier_channels import keep_outlier_channels, outlier_channels
from onnxproof.quantization.passes.static_matmul import quantize_static_matmul
from onnxproof.quantization.targets import find_targets


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


def feed_forward(biased=True, gemm=False, function="Relu"):
    """x (rows, 16) → product named ``first`` → activation function → product named ``second`` → y (rows, 5).

    Two of the 24 channels between both products are large.
    """
    rng = np.random.default_rng(1)
    first = rng.normal(size=(16, 24)).astype(np.float32)
    first[:, [3, 11]] *= 60
    constants = {
        "first_weight": first,
        "first_bias": rng.normal(size=24).astype(np.float32),
        "second_weight": rng.normal(size=(24, 5)).astype(np.float32),
    }
    if gemm:
        inputs = ["x", "first_weight", *(["first_bias"] if biased else [])]
        nodes = [helper.make_node("Gemm", inputs, ["made"], name="first")]
    else:
        nodes = [helper.make_node("MatMul", ["x", "first_weight"], ["product" if biased else "made"], name="first")]
        if biased:
            nodes.append(helper.make_node("Add", ["first_bias", "product"], ["made"], name="bias"))
    attributes = {"alpha": 0.3} if function == "LeakyRelu" else {}
    nodes += [
        helper.make_node(function, ["made"], ["inner"], name="function", **attributes),
        helper.make_node("MatMul", ["inner", "second_weight"], ["y"], name="second"),
    ]
    return build(nodes, {"x": (FLOAT, ["rows", 16])}, {"y": (FLOAT, ["rows", 5])}, constants)


def plain_inputs():
    return {"x": np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)}


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("gemm", [True, False])
@pytest.mark.parametrize("function", ["Relu", "LeakyRelu"])
def test_outliers_behind_a_function_are_computed_anew(biased, gemm, function):
    model, x = feed_forward(biased, gemm, function), plain_inputs()
    [expected] = run(model, x)

    keep_outlier_channels(model, [x], anew=True, include=["second"])

    editor = GraphEditor(model)
    assert [node.op_type for node in editor.readers("inner")] == ["Mul"]
    assert "Gather" not in op_types(model)
    assert constants_of(model)["second_outliers_weight"].shape == (16, 2)
    assert not constants_of(model)["second_weight_1"][[3, 11]].any()
    np.testing.assert_allclose(run(model, x)[0], expected, rtol=1e-4, atol=1e-3)
    assert {target.name for target in find_targets(editor)} == {"first", "second", "second_outliers_product"}


def test_outliers_are_added_to_the_residual_where_there_is_one():
    model, x = feed_forward(), plain_inputs()
    model.graph.node[-1].output[0] = "changed"
    model.graph.node.extend(
        [
            helper.make_node("MatMul", ["x", "skip_weight"], ["skip"], name="skip"),
            helper.make_node("Add", ["changed", "skip"], ["y"], name="residual"),
        ]
    )
    skip = np.random.default_rng(2).normal(size=(16, 5)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(skip, "skip_weight"))
    [expected] = run(model, x)

    keep_outlier_channels(model, [x], anew=True, include=["second"])

    editor = GraphEditor(model)
    joined = editor.producer("skip_joined")
    assert list(joined.input) == ["skip", "changed_outlier_product"]
    assert list(editor.producer("y").input) == ["changed_rest_product", "skip_joined"]
    np.testing.assert_allclose(run(model, x)[0], expected, rtol=1e-4, atol=1e-3)


def test_outliers_that_are_computed_anew_meet_their_weights_in_float():
    x = plain_inputs()
    [expected] = run(feed_forward(), x)

    def error(anew):
        model = feed_forward()
        if anew:
            keep_outlier_channels(model, [x], anew=True, include=["second"])
        quantize_static_matmul(model, [x], scores=False)
        assert op_types(model).count("QuantizeLinear") == 2
        return np.square(run(model, x)[0] - expected).mean()

    assert error(anew=True) < error(anew=False) / 4


@pytest.mark.parametrize("function", ["Softmax", "Abs"])
def test_channels_that_come_from_anything_else_are_selected(function):
    model, x = feed_forward(function=function), plain_inputs()
    [expected] = run(model, x)
    keep_outlier_channels(model, [x], anew=True, include=["second"], ratio=1.0)
    assert "Gather" in op_types(model)
    np.testing.assert_allclose(run(model, x)[0], expected, rtol=1e-4, atol=1e-3)


class CountedRuns(Calibration):
    """Counts how often all inputs are run."""

    runs = 0

    def __iter__(self):
        self.runs += 1
        return super().__iter__()


def test_what_flows_through_the_split_model_is_known_without_running_it():
    model = feed_forward()
    calibration = CountedRuns([plain_inputs()])
    keep_outlier_channels(model, calibration)
    assert op_types(model).count("Gather") > 0
    tensors = [target.activation for target in find_targets(GraphEditor(model))]
    known = record_activations(model, calibration, tensors)
    assert calibration.runs == 1
    for tensor, recorded in record_activations(model, [plain_inputs()], tensors).items():
        for part in ("rows", "channel_low", "channel_high"):
            np.testing.assert_allclose(getattr(known[tensor], part), getattr(recorded, part), rtol=1e-5, atol=1e-4)
