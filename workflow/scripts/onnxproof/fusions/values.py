"""Questions that the checks of rules ask of the values of a graph. All raise ``MismatchError`` with the reason."""

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxproof.graph_matcher import MismatchError

#: The order of dimensions from (B, S, heads, size) to (B, heads, S, size), or back.
HEADS_FIRST = [0, 2, 1, 3]


def maker(value: ir.Value | None) -> ir.Node | None:
    """Return the node that makes a value; None for constants, inputs and no value."""
    return None if value is None else value.producer()


def made_by(value: ir.Value | None, *op_types: str) -> ir.Node:
    """Return the node that makes a value, which must be of one of these types."""
    node = maker(value)
    if node is None or node.op_type not in op_types:
        found = "a constant or an input" if node is None else node.op_type
        raise MismatchError(f"{' or '.join(op_types)} expected, {found} found")
    return node


def is_made_by(value: ir.Value | None, *op_types: str) -> bool:
    """Tell whether a node of one of these types makes a value."""
    node = maker(value)
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
