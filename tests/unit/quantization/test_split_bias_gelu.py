import numpy as np
from onnx import helper

from graphs import FLOAT, build, op_types, run
from onnxproof.quantization.passes.split_bias_gelu import split_bias_gelu


def test_the_same_numbers_without_the_fused_operator():
    rng = np.random.default_rng(0)
    node = helper.make_node("BiasGelu", ["x", "bias"], ["y"], name="gelu", domain="com.microsoft")
    spec = (FLOAT, ["rows", 6])
    model = build([node], {"x": spec}, {"y": spec}, {"bias": rng.normal(size=6).astype(np.float32)})
    x = rng.normal(size=(4, 6)).astype(np.float32)
    [expected] = run(model, {"x": x})

    split_bias_gelu(model)

    assert op_types(model) == ["Add", "Gelu"]
    np.testing.assert_allclose(run(model, {"x": x})[0], expected, rtol=1e-5, atol=1e-6)
