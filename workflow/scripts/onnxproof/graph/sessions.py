"""onnxruntime sessions with every setting that changes time or results given explicitly."""

from pathlib import Path
from typing import Any

PROVIDER = "CPUExecutionProvider"


def open_session(path: Path, threads: int) -> Any:
    """Open a model on the CPU with ``threads`` intra-op threads and sequential execution.

    With 0 threads, onnxruntime chooses how many.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=[PROVIDER])
