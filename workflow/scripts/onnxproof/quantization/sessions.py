"""Opening a model in onnxruntime, on the CPU."""

import onnx
import onnxruntime

from onnxproof.graph.external_data import session_entries
from onnxproof.hardware import granted_threads


def open_session(model: onnx.ModelProto, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Open ``model`` in onnxruntime on the CPU with this many threads; None for all that this process may use."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = granted_threads() if threads is None else threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # several sessions live side by side
    for key, value in session_entries(model).items():
        options.add_session_config_entry(key, value)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
