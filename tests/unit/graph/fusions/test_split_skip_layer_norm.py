import numpy as np
import pytest
from onnx import helper

from graphs import FLOAT, build, op_types, run
from onnxproof.graph.fusions.split_skip_layer_norm import split_skip_layer_normalization


def skip_model(with_bias, outputs=("y",), operator="SkipLayerNormalization"):
    rng = np.random.default_rng(0)
    constants = {"gamma": rng.normal(size=6).astype(np.float32)}
    if operator == "SkipLayerNormalization":
        constants["beta"] = rng.normal(size=6).astype(np.float32)
    if with_bias:
        constants["bias"] = rng.normal(size=6).astype(np.float32)
    node = helper.make_node(
        operator,
        ["x", "skip", *constants],
        list(outputs),
        name="norm",
        domain="com.microsoft",
        epsilon=1e-3,
    )
    spec = (FLOAT, ["batch", "tokens", 6])
    return build([node], {"x": spec, "skip": spec}, {name: spec for name in outputs if name}, constants)


@pytest.mark.parametrize("operator", ["LayerNormalization", "SimplifiedLayerNormalization"])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("outputs", [("y",), ("y", "", "", "total")], ids=["one output", "sum read too"])
def test_the_same_numbers_without_the_fused_operator(with_bias, outputs, operator):
    rng = np.random.default_rng(1)
    feeds = {name: rng.normal(size=(2, 3, 6)).astype(np.float32) for name in ("x", "skip")}
    model = skip_model(with_bias, outputs, f"Skip{operator}")
    expected = run(model, feeds)

    assert split_skip_layer_normalization(model) == 1

    assert op_types(model) == (["Add"] if with_bias else []) + ["Add", operator]
    for left, right in zip(run(model, feeds), expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


def test_a_node_whose_mean_is_read_stays():
    model = skip_model(False, ("y", "mean"))
    assert split_skip_layer_normalization(model) == 0
    assert op_types(model) == ["SkipLayerNormalization"]


def test_a_node_whose_mean_is_named_and_not_read_is_split():
    model = skip_model(False, ("y", "mean"))
    del model.graph.output[1]
    assert split_skip_layer_normalization(model) == 1
    assert op_types(model) == ["Add", "LayerNormalization"]
