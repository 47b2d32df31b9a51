"""Opening a model in onnxruntime, on the CPU."""

from collections.abc import Sequence

import onnx
import onnxruntime

from onnxproof.graph.external_data import session_entries
from onnxproof.graph.sessions import AS_WRITTEN
from onnxproof.hardware import granted_threads


def open_session(model: onnx.ModelProto, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Open ``model`` in onnxruntime on the CPU with this many threads; None for all that this process may use."""
    return open_serialized(model, model.SerializeToString(), threads)


def open_exposing(model: onnx.ModelProto, tensors: Sequence[str]) -> onnxruntime.InferenceSession:
    """Open ``model`` with these tensors among its outputs."""
    return open_serialized(model, serialize_exposing(model, tensors))


def serialize_exposing(model: onnx.ModelProto, tensors: Sequence[str]) -> bytes:
    """Return ``model`` serialized, with these tensors among its outputs; onnxruntime finds out their types."""
    outputs = model.graph.output
    before = len(outputs)
    present = {value.name for value in outputs}
    outputs.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in present)
    try:
        return bytes(model.SerializeToString())
    finally:
        del outputs[before:]  # of a copy of the model, the weights would be in memory twice


def open_serialized(model: onnx.ModelProto, content: bytes, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Open what ``model`` was serialized to, as ``open_session`` does."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = granted_threads() if threads is None else threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # several sessions live side by side
    for key, value in {**AS_WRITTEN, **session_entries(model)}.items():
        options.add_session_config_entry(key, value)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
