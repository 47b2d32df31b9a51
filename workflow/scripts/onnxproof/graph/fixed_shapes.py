"""The form of a graph whose shapes are fixed: the same nodes and weights, and a number for each free axis."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx

from onnxproof.cli import UserError
from onnxproof.graph.external_data import load_model, save_model


def free_axes(graph: onnx.GraphProto) -> list[str]:
    """Return the names of the free axes of a graph's inputs, each once, in the order in which the inputs have them."""
    stored = {tensor.name for tensor in graph.initializer}
    axes = (
        axis.dim_param
        for value in graph.input
        if value.name not in stored
        for axis in value.type.tensor_type.shape.dim
        if axis.dim_param
    )
    return list(dict.fromkeys(axes))


def fix_shapes(name: str, source: Path, shape: Sequence[int], target: Path) -> None:
    """Write a graph with fixed shapes.

    Args:
        name: the model and the variant, for messages.
        source: the graph.
        shape: a length for each of its ``free_axes``.
        target: the file to write.

    Raises:
        UserError: the graph has more or fewer free axes.
    """
    from onnxruntime.tools.onnx_model_utils import make_dim_param_fixed

    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fix.") as scratch:
        model = load_model(source, Path(scratch))
        axes = free_axes(model.graph)
        if len(axes) != len(shape):
            raise UserError(
                f"{name}: release.fixed_shapes has {list(shape)}, but the graph has {len(axes)} free axes: "
                f"{', '.join(axes) or 'none'}"
            )
        for axis, length in zip(axes, shape, strict=True):
            make_dim_param_fixed(model.graph, axis, length)
        save_model(model, target)
