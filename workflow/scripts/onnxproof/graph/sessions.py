"""onnxruntime sessions with every setting that changes time or results given explicitly."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from onnxproof.cli import UserError
from onnxproof.vocabulary import CPU_PROVIDER

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


def options_of_provider(provider: str, threads: int) -> dict[str, str]:
    """Return the options of an execution provider itself: OpenVINO does not heed the session's threads."""
    return {"num_of_threads": str(threads)} if provider == "OpenVINOExecutionProvider" and threads else {}


def check_provider(provider: str) -> None:
    """Refuse an execution provider that onnxruntime would silently replace by the CPU's.

    Raises:
        UserError: this onnxruntime has no such execution provider.
    """
    import onnxruntime

    offered = onnxruntime.get_available_providers()
    if provider not in offered:
        raise UserError(
            f"the execution provider {provider!r} (benchmark.providers) is not in the onnxruntime installed here, "
            "which offers: "
            f"{', '.join(offered)}"
        )


def open_session(
    path: Path,
    threads: int,
    *,
    as_written: bool = True,
    optimized: bool = True,
    prepacked: bool = True,
    provider: str = CPU_PROVIDER,
) -> Session:
    """Open a model with ``threads`` intra-op threads and sequential execution, on the CPU or with another provider.

    With 0 threads, onnxruntime chooses how many. ``as_written`` computes activations with the precision that the file
    has for them, see ``AS_WRITTEN``; without it, as a program that sets no option does. Without ``optimized``, each
    node is computed as it stands: nothing is fused. Without ``prepacked``, there is no second copy of the weights, in
    the order in which products read them: that takes less memory, and longer.

    Raises:
        UserError: see ``check_provider``.
    """
    import onnxruntime

    check_provider(provider)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    for key, value in AS_WRITTEN.items() if as_written else ():
        options.add_session_config_entry(key, value)
    if not prepacked:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = [(provider, options_of_provider(provider, threads))]
    session: Session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    return session
