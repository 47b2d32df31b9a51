"""onnxruntime sessions with every setting that changes time or results given explicitly."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

PROVIDER = "CPUExecutionProvider"

#: Where a float activation meets weights behind DequantizeLinear, onnxruntime rounds it to 8 bits on a CPU unless it is
#: told not to. An activation of 16 bits would lose half of them.
AS_WRITTEN = {"session.qdq_matmulnbits_accuracy_level": "0"}


class Value(Protocol):
    """An input or an output of a graph."""

    @property
    def name(self) -> str:
        """Its name in the graph."""

    @property
    def type(self) -> str:
        """Its type as onnxruntime writes it, such as ``tensor(float)``."""

    @property
    def shape(self) -> Sequence[int | str | None]:
        """The length of each axis; a name, or None, where it is not fixed."""


class Session(Protocol):
    """What can be run as a model: onnxruntime's ``InferenceSession``, or several of them as if they were one."""

    def get_inputs(self) -> Sequence[Value]:
        """Return what it is fed."""

    def get_outputs(self) -> Sequence[Value]:
        """Return what it makes."""

    def run(self, names: Sequence[str] | None, feed: Mapping[str, NDArray[Any]], /) -> Sequence[Any]:
        """Return the named outputs, all of them for None, one array each."""


def open_session(path: Path, threads: int, *, as_written: bool = True, optimized: bool = True) -> Session:
    """Open a model on the CPU with ``threads`` intra-op threads and sequential execution.

    With 0 threads, onnxruntime chooses how many. ``as_written`` computes activations with the precision that the file
    has for them, see ``AS_WRITTEN``; without it, as a program that sets no option does. Without ``optimized``, each
    node is computed as it stands: nothing is fused.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    for key, value in AS_WRITTEN.items() if as_written else ():
        options.add_session_config_entry(key, value)
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session: Session = onnxruntime.InferenceSession(str(path), options, providers=[PROVIDER])
    return session
