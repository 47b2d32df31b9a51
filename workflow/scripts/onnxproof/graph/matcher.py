"""Reading a graph backwards, from a tensor to what made it, for passes that look for a pattern of many nodes."""

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxproof.graph.editor import GraphEditor, attribute_of, producers

T = TypeVar("T")


class MismatchError(Exception):
    """The graph is not what the pattern asks for; the pass leaves that part as it is."""

    def __init__(self, reason: str) -> None:
        """Say what is not as the pattern has it."""
        super().__init__(reason)


class GraphMatcher:
    """Answers what made a tensor, in a graph as it was when this was made, and counts why patterns did not match."""

    def __init__(self, editor: GraphEditor, reasons: Counter[str] | None = None) -> None:
        """Index the nodes of a graph that is open for editing; the reasons are added to ``reasons``."""
        self.editor = editor
        self.reasons: Counter[str] = Counter() if reasons is None else reasons
        self._producers = producers(editor.nodes)

    def match(self, read: Callable[[], T]) -> T | None:
        """Return what ``read`` finds; None where it raises ``MismatchError``, whose reason is counted."""
        try:
            return read()
        except MismatchError as mismatch:
            self.reasons[str(mismatch)] += 1
            return None

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """Return the node that makes a tensor; None for graph inputs and constants."""
        return self._producers.get(tensor)

    def made_by(self, tensor: str, op_type: str) -> onnx.NodeProto:
        """Return the node that makes a tensor, which must be of this type.

        Raises:
            MismatchError: it is not.
        """
        node = self.producer(tensor)
        if node is None or node.op_type != op_type:
            found = "a constant or an input" if node is None else node.op_type
            raise MismatchError(f"{op_type} expected, {found} found")
        return node

    def is_made_by(self, tensor: str, op_type: str) -> bool:
        """Tell whether a node of this type makes a tensor."""
        node = self.producer(tensor)
        return node is not None and node.op_type == op_type

    def transposed(self, tensor: str, order: list[int]) -> str:
        """Return the tensor whose dimensions, in this order, are those of ``tensor``.

        Raises:
            MismatchError: it is not made by such a Transpose.
        """
        node = self.made_by(tensor, "Transpose")
        if list(attribute_of(node, "perm", [])) != order:
            raise MismatchError(f"a Transpose that does not put {order} first")
        return str(node.input[0])

    def input_of(self, node: onnx.NodeProto, position: int) -> str:
        """Return the tensor that a node reads at a position where the operator does not need one.

        Raises:
            MismatchError: it reads none there.
        """
        if len(node.input) <= position or not node.input[position]:
            raise MismatchError(f"{node.op_type} without input {position}")
        return str(node.input[position])

    def is_contiguous(self, part: onnx.NodeProto) -> bool:
        """Tell whether a Slice leaves nothing out between its start and its end."""
        return len(part.input) < 5 or self.integers(part.input[4]) == [1]

    def scalar(self, tensor: str) -> float:
        """Return the value of a constant that has one element, of any type.

        Raises:
            MismatchError: the tensor is no such constant.
        """
        values = self.constant(tensor)
        if values.size != 1:
            raise MismatchError("a constant of several numbers where one is expected")
        return float(values.item())

    def integers(self, tensor: str) -> list[int]:
        """Return the values of a constant of at most one dimension.

        Raises:
            MismatchError: the tensor is no such constant.
        """
        values = self.constant(tensor)
        if values.ndim > 1:
            raise MismatchError("a constant of several dimensions where a list is expected")
        return [int(value) for value in values.reshape(-1)]

    def constant(self, tensor: str) -> NDArray[Any]:
        """Return the values of a constant.

        Raises:
            MismatchError: the tensor is none.
        """
        values = self.editor.constant(tensor)
        if values is None:
            raise MismatchError("no constant where one is expected")
        return np.asarray(values)
