"""Questions that the checks of rules ask of the values of a graph. All raise ``MismatchError`` with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.graph.matcher import MismatchError

if TYPE_CHECKING:  # a search imports this module for its constants, and onnx_ir takes as long to import as onnx
    import onnx_ir as ir

#: The order of dimensions from (B, S, heads, size) to (B, heads, S, size), or back.
HEADS_FIRST = [0, 2, 1, 3]
#: What a product of queries and keys needs of the keys behind it.
KEYS_LAST = [0, 1, 3, 2]


def producer(value: ir.Value | None) -> ir.Node | None:
    """Return the node that makes a value; None for constants, inputs and no value."""
    return None if value is None else value.producer()


def made_by(value: ir.Value | None, *op_types: str) -> ir.Node:
    """Return the node that makes a value, which must be of one of these types."""
    node = producer(value)
    if node is None or node.op_type not in op_types:
        found = "a constant or an input" if node is None else node.op_type
        raise MismatchError(f"{' or '.join(op_types)} expected, {found} found")
    return node


def is_made_by(value: ir.Value | None, *op_types: str) -> bool:
    """Tell whether a node of one of these types makes a value."""
    node = producer(value)
    return node is not None and node.op_type in op_types


def input_of(node: ir.Node, position: int) -> ir.Value:
    """Return what a node reads at a position."""
    value = node.inputs[position] if position < len(node.inputs) else None
    if value is None:
        raise MismatchError(f"{node.op_type} without input {position}")
    return value


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """Return a constant's values, None for all other values; those in a file are mapped into memory."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return np.asarray(value.const_value.numpy())


def scalar(value: ir.Value | None) -> float | None:
    """Return the value of a constant of one element; None for all other values."""
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    values = constant(value)
    return None if values is None else float(values.item())


def transposed(value: ir.Value | None, order: list[int]) -> ir.Value:
    """Return the value whose dimensions, in this order, are those of ``value``."""
    node = made_by(value, "Transpose")
    if list(node.attributes.get_ints("perm", [])) != order:
        raise MismatchError(f"dimensions in the order {list(node.attributes.get_ints('perm', []))}, not {order}")
    return input_of(node, 0)


def shape_entries(value: ir.Value) -> list[int | None]:
    """Return the entries of the shape that a Reshape reads; None for those that are computed."""
    values = constant(value)
    if values is not None:
        return [int(entry) for entry in values.reshape(-1)]
    entries: list[int | None] = []
    for part in made_by(value, "Concat").inputs:
        values = constant(part)
        if values is not None:
            entries += [int(entry) for entry in values.reshape(-1)]
        else:
            # Of one dimension each, as Shape with a start and an end gives them.
            entries.append(None)
    return entries


def integers(value: ir.Value | None) -> list[int]:
    """Return the values of a constant of whole numbers, in one row."""
    values = constant(value)
    if values is None or not np.issubdtype(values.dtype, np.integer):
        raise MismatchError("constant whole numbers expected")
    return [int(number) for number in values.reshape(-1)]


def last_slice(value: ir.Value | None) -> tuple[ir.Value, int, int | None, int]:
    """Return of what four-dimensional tensor a value is a slice along the last axis: its start, end and step.

    The end is None where it is that of the tensor.
    """
    node = made_by(value, "Slice")
    start, end = (integers(input_of(node, position)) for position in (1, 2))
    axes = integers(input_of(node, 3))
    steps = integers(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else [1]
    if axes not in ([-1], [3]) or start[0] < 0 or end[0] < 0:
        raise MismatchError("a slice along the last axis expected")
    return input_of(node, 0), start[0], None if end[0] >= np.iinfo(np.int32).max else end[0], steps[0]


def last_size(value: ir.Value | None) -> int | None:
    """Return the size of a value's last axis, worked out from constants behind it; None where they don't tell."""
    if value is None:
        return None
    if value.const_value is not None or value.is_graph_input():
        size = value.shape[-1] if value.shape else None
        return size if isinstance(size, int) else None
    node = producer(value)
    if node is None:
        return None
    if node.op_type == "Reshape":
        entry = shape_entries(input_of(node, 1))[-1]
        return entry if entry is not None and entry > 0 else None
    if node.op_type == "Split":
        whole = last_size(node.inputs[0])
        is_last = node.attributes.get_int("axis", 0) in (-1, 3)
        return whole // len(node.outputs) if whole and is_last and len(node.inputs) == 1 else None
    if node.op_type == "Slice" and not {-1, 3} & set(integers(input_of(node, 3))):
        return last_size(node.inputs[0])
    if node.op_type == "Slice":
        source, start, end, step = last_slice(value)
        end = last_size(source) if end is None else end
        return None if end is None else len(range(start, end, step))
    if node.op_type == "Transpose":
        order = list(node.attributes.get_ints("perm", []))
        return last_size(node.inputs[0]) if order and order[-1] == len(order) - 1 else None
    if node.op_type in ("MatMul", "LayerNormalization", "SimplifiedLayerNormalization"):
        return last_size(node.inputs[1])
    if node.op_type in ("Add", "Sub", "Mul", "Div"):
        sizes = [last_size(part) for part in node.inputs]
        known = [size for size in sizes if size is not None and size != 1]
        return known[0] if known else None
    return None
