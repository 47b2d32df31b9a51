"""One graph traced by transformers' exporter: named as clients expect it, and the same bytes in every clone."""

import hashlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onnxproof.cli import UserError
from onnxproof.graph.exported_model import describe_traced
from onnxproof.graph.external_data import SINGLE_FILE_BYTES, SMALLEST_OUTSIDE
from onnxproof.inputs.model_inputs import Array
from onnxproof.original.patches import without_stack_traces

#: onnxruntime-web loads nothing newer than opset 21 and IR version 10; the exporter's own default is 20.
OPSET, IR_VERSION = 20, 10
#: A graph counts as exported where it answers inputs of other shapes to within this part of the largest value.
LARGEST_RELATIVE_DIFF = 1e-4
#: Weights of so many bytes are in the file beside a graph that cannot be one file: all but shapes and biases.
SMALLEST_OUTSIDE_LARGE = 256
#: Where in its ``meta`` a traced graph has what ``describe_traced`` says of it.
DESCRIPTION = "description"
#: What a graph keeps beside its network's own name for a weight.
NETWORK = "network"

#: For each input the names of its axes; None for an axis of a fixed size.
Axes = Mapping[str, Sequence[str | None]]


def trace(network: Any, inputs: Mapping[str, Any], axes: Axes, outputs: Sequence[str]) -> Any:
    """Return the graph of a network, an ``onnx_ir.Model`` of opset 20 and IR version 10.

    What clients of transformers' exporter need to know of it is in its ``meta`` as ``DESCRIPTION``, see
    ``exported_model.describe_traced``.

    Args:
        network: a torch module in evaluation mode, called with the inputs by name; it answers a mapping.
        inputs: the example that is traced, tensors by name; sizes of axes that vary should be neither 0 nor 1.
        axes: for each input, the name of each axis that varies; None for an axis of a fixed size.
        outputs: the answers that the graph gives, in this order; those that the network does not give are left out.

    Raises:
        UserError: the network cannot be traced.
    """
    import torch
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    varying = torch.export.Dim.AUTO
    shapes = {
        name: {axis: varying for axis, size in enumerate(axes[name]) if size is not None} or None for name in inputs
    }
    config = OnnxConfig(dynamic_shapes=shapes, opset_version=OPSET)
    answered: list[type] = []
    try:
        with quiet_exporter(), without_stack_traces(), torch.no_grad():
            exporter = OnnxExporter()  # type: ignore[no-untyped-call]
            model, _ = exporter.export_program(_selecting(network, outputs, answered), dict(inputs), config)
    except Exception as error:  # torch.export's own exceptions share no other base
        raise UserError(
            f"transformers' exporter cannot trace it: {type(error).__name__}: {reason_of(error)}"
        ) from error
    tidy(model, axes)
    kept = {name: (str(values.dtype).removeprefix("torch."), list(values.shape)) for name, values in inputs.items()}
    named = [str(value.name) for value in model.graph.outputs]
    model.meta[DESCRIPTION] = describe_traced(type(network).__name__, kept, named, answered[-1])
    return model


def reason_of(error: Exception) -> str:
    """Return the first sentence of an exporter's exception that says something, on one line."""
    cause: BaseException = error
    while cause.__cause__ is not None:  # the exporter wraps exceptions of torch.export
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return (lines[0] if lines else type(cause).__name__)[:300]


def _selecting(network: Any, outputs: Sequence[str], answered: list[type]) -> Any:
    """Return a module that gives only some of a network's answers, in the given order.

    The type of the mapping that the network answers with is appended to ``answered``.
    """
    import torch

    class Selecting(torch.nn.Module):
        """Calls the network and keeps the answers that were asked for."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, **features: Any) -> dict[str, Any]:
            answers = self.network(**features)
            answered.append(type(answers))
            return {name: answers[name] for name in outputs if answers.get(name) is not None}

    return Selecting().eval()


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Leave out what the exporter logs and prints: progress, versions, private names, whole graphs."""
    logging.disable(logging.ERROR)  # on failure torch.export logs the whole graph as an error, before it raises
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def tidy(model: Any, axes: Axes) -> None:
    """Give a traced graph its final names, in place, and take out what names this machine and what is there twice.

    Layers that share a weight have a transposed copy of it each. Nodes and values carry the stack that made them, with
    paths of files. Symbols of sizes (``s18``) get the names of the axes that they stand for. Shapes inside the graph
    are left out: onnxruntime works them out itself, and ran MiniLM 6 to 9 % slower with those of the exporter.
    """
    import onnx_ir

    share_equal_weights(model.graph)
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "transformers", None
    model.metadata_props.clear()
    model.doc_string = None
    graph = model.graph
    graph.name, graph.doc_string = "main_graph", None
    symbols: dict[str, str] = {}
    for value in graph.inputs:
        for size, name in zip(value.shape or (), axes[value.name], strict=True):
            if name is not None and not isinstance(size, int) and size.value is not None:
                symbols.setdefault(size.value, name)

    def renamed(shape: Any) -> Any:
        return onnx_ir.Shape([size if isinstance(size, int) else symbols.get(size.value, size.value) for size in shape])

    for part in (graph, *model.functions.values()):
        part.metadata_props.clear()
        for node in part.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                _forget_origin(value)
                if not value.is_graph_output():
                    value.shape = value.type = None
                elif value.shape is not None:
                    value.shape = renamed(value.shape)
    for value in graph.inputs:
        _forget_origin(value)
        if value.shape is not None:
            names = axes[value.name]
            value.shape = onnx_ir.Shape(
                [
                    size if isinstance(size, int) else name or symbols.get(size.value, size.value)
                    for size, name in zip(value.shape, names, strict=True)
                ]
            )
    for value in list(graph.initializers.values()):
        _forget_origin(value)
        if value.name.startswith(f"{NETWORK}."):
            value.name = value.name.removeprefix(f"{NETWORK}.")


def share_equal_weights(graph: Any) -> None:
    """Have readers of equal weights read the first of them, in place. onnx_ir's own pass takes no transposed views."""
    alike: dict[tuple[Any, ...], list[Any]] = {}
    for value in graph.initializers.values():
        if value.const_value is not None and not value.is_graph_output():
            shape = tuple(value.const_value.shape)
            alike.setdefault((value.dtype, shape, _sample(value.const_value.numpy())), []).append(value)
    for values in alike.values():
        first: dict[bytes, Any] = {}
        for value in values if len(values) > 1 else ():
            content = np.ascontiguousarray(value.const_value.numpy())
            shared = first.setdefault(hashlib.sha256(content.reshape(-1).view(np.uint8).data).digest(), value)
            if shared is not value:
                value.replace_all_uses_with(shared)
                graph.initializers.pop(value.name)


def _sample(values: Array) -> bytes:
    """Return a few values, those of equal weights alike: most weights differ in them, and need not be read whole."""
    return values[tuple(slice(None, None, max(1, size // 4)) for size in values.shape)].tobytes()


def _forget_origin(value: Any) -> None:
    value.metadata_props.clear()
    value.doc_string = None


def save_graph(model: Any, path: Path) -> None:
    """Write a graph, its large weights in ``<name>_data`` beside it; ``join_weights`` makes one file of both.

    onnxruntime maps such weights into memory. Of a graph in one file it has two copies in memory while it loads it.
    """
    import onnx_ir

    constants = model.graph.initializers
    weights = {name: value.const_value for name, value in constants.items() if value.const_value is not None}
    is_large = sum(weight.nbytes for weight in weights.values()) >= SINGLE_FILE_BYTES
    smallest = SMALLEST_OUTSIDE_LARGE if is_large else SMALLEST_OUTSIDE
    large = {name: weight for name, weight in weights.items() if weight.nbytes >= smallest}
    for name, weight in large.items():
        constants[name].const_value = onnx_ir.LazyTensor(
            partial(_contiguous, weight), weight.dtype, shape=weight.shape, name=name
        )
    data = f"{path.name}_data" if large else None
    try:
        onnx_ir.save(model, path, external_data=data, size_threshold_bytes=smallest)
    finally:
        for name, weight in large.items():
            constants[name].const_value = weight


def _contiguous(weight: Any) -> Any:
    """Return a weight whose values lie one behind the other: numpy writes transposed ones value by value."""
    import onnx_ir

    values = weight.numpy()
    return weight if values.flags.c_contiguous else onnx_ir.Tensor(np.ascontiguousarray(values), weight.dtype)


def let_go_of_weights(network: Any, model: Any) -> None:
    """Free the weights of a network and of its graph, in place, once that is written and nobody asks the network again.

    onnxscript's rules keep the last graph that they matched, and that graph the network's parameters.
    """
    for value in model.graph.initializers.values():
        value.const_value = None
    for parameter in network.parameters():
        parameter.data = parameter.data.new_empty(0)


def check_generalizes(path: Path, feeds: Sequence[dict[str, Array]], expected: Sequence[Mapping[str, Array]]) -> None:
    """Run a graph on inputs of shapes that were not traced, and compare its answers with the network's.

    torch.export can freeze an axis without a word, so that a graph is right for the traced shape alone.

    Args:
        path: the graph.
        feeds: inputs by name, with their batch axis.
        expected: what the network answers to each of them, by the name of the output.

    Raises:
        UserError: names the output, the shape of the inputs, and the difference over the largest value; or says that
            onnxruntime does not load the graph.
    """
    from onnxproof.graph.sessions import open_session

    try:
        session = open_session(path, 1, prepacked=False)
    except Exception as error:  # onnxruntime's own exceptions share no other base
        raise UserError(f"onnxruntime does not load the exported {path.name}: {reason_of(error)}") from error
    names = [value.name for value in session.get_outputs()]
    wanted = [value.name for value in session.get_inputs()]
    for feed, original in zip(feeds, expected, strict=True):
        shapes = ", ".join(f"{name} {list(feed[name].shape)}" for name in wanted)
        try:
            answers = session.run(names, {name: feed[name] for name in wanted})
        except Exception as error:  # onnxruntime's own exceptions share no other base
            raise UserError(f"the exported graph does not run on inputs of the shape {shapes}") from error
        for name, actual in zip(names, answers, strict=True):
            difference = relative_difference(np.asarray(original[name]), actual)
            if not difference <= LARGEST_RELATIVE_DIFF:
                raise UserError(
                    f"the exported graph answers inputs of the shape {shapes} otherwise than the original: {name} "
                    f"differs by {difference:.2g} of its largest value"
                )


def relative_difference(expected: Array, actual: Array) -> float:
    """Return the largest difference over the largest value; infinite where shapes differ or values are not finite."""
    if expected.shape != actual.shape:
        return float("inf")
    if not expected.size:
        return 0.0
    finite = np.isfinite(expected)
    if not (np.array_equal(finite, np.isfinite(actual)) and np.array_equal(expected[~finite], actual[~finite])):
        return float("inf")
    if not finite.any():
        return 0.0
    expected, actual = expected[finite].astype(np.float64), actual[finite].astype(np.float64)
    return float(np.abs(expected - actual).max() / max(float(np.abs(expected).max()), 1e-12))
