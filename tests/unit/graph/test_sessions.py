"""Opening a graph: how precise its activations are, and which execution provider computes."""

import numpy as np
import onnx
import pytest

from graphs import linear_model
from messages import raises
from onnxproof.cli import UserError
from onnxproof.graph.sessions import open_session, options_of_provider
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


def test_the_execution_provider_that_is_asked_for_computes_or_nothing_does(tmp_path, monkeypatch):
    onnx.save(linear_model(np.eye(4, dtype=np.float32)), tmp_path / "model.onnx")
    offered = ["AzureExecutionProvider", "CPUExecutionProvider"]  # in every build of onnxruntime
    session = open_session(tmp_path / "model.onnx", 1, provider=offered[0])
    assert session.get_providers() == offered
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: offered)
    with raises(UserError):
        open_session(tmp_path / "model.onnx", 1, provider="OpenVINOExecutionProvider")


def test_openvino_is_told_the_threads():
    assert options_of_provider("OpenVINOExecutionProvider", 2) == {"num_of_threads": "2"}
    assert options_of_provider("OpenVINOExecutionProvider", 0) == {}  # as many as it likes
    assert options_of_provider("CPUExecutionProvider", 2) == {}
