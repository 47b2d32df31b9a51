"""Opening a graph: how precise its activations are."""

import numpy as np
import onnx
import pytest

from graphs import linear_model
from onnxproof.graph.sessions import open_session
from onnxproof.quantization.passes.static_matmul import quantize_static_matmul


@pytest.mark.parametrize("as_written", [True, False])
def test_activations_of_16_bits_keep_them_where_a_file_is_run_as_written(as_written, tmp_path):
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(64, 32)).astype(np.float32), rng.normal(size=(20, 64)).astype(np.float32)
    model = linear_model(weight)
    quantize_static_matmul(model, [{"x": x}], activations="uint16", unsigned=True, outputs=True, weight_range="full")
    onnx.save(model, tmp_path / "model.onnx")

    [y] = open_session(tmp_path / "model.onnx", 1, as_written=as_written).run(None, {"x": x})

    [weights] = [tensor for tensor in model.graph.initializer if tensor.name == "w_uint8"]
    [scale] = [tensor for tensor in model.graph.initializer if tensor.name == "w_scale"]
    [columns] = [tensor for tensor in model.graph.initializer if tensor.name == "w_uint8_column_scale"]
    integers, scale, columns = map(onnx.numpy_helper.to_array, (weights, scale, columns))
    error = np.abs(y - x @ ((integers.astype(np.float32) - 128) * scale * columns)).max()
    # onnxruntime rounds them to 8 bits by itself; a release of it that does not makes the option superfluous.
    assert error < 2e-3 if as_written else error > 2e-2
