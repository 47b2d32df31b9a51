"""Opening a model in onnxruntime, on the CPU."""

import tempfile
from pathlib import Path

import onnx
import onnxruntime

PROTOBUF_LIMIT = 2**31 - 1


def open_session(model: onnx.ModelProto, threads: int = 0) -> onnxruntime.InferenceSession:
    """Open ``model`` in onnxruntime on the CPU with this many threads, 0 for one a core.

    A model too large for one protobuf goes through a temporary file.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # several sessions live side by side
    providers = ["CPUExecutionProvider"]
    if model.ByteSize() < PROTOBUF_LIMIT:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        onnx.save(copy, path, save_as_external_data=True, location="model.onnx_data")
        return onnxruntime.InferenceSession(path, options, providers=providers)
