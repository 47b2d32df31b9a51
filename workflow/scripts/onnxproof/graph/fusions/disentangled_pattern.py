"""DeBERTa's disentangled attention as ``transformers`` writes it: its parts, read from the graph backwards."""

import math
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxproof.graph.editor import attribute_of
from onnxproof.graph.matcher import GraphMatcher, MismatchError

#: Operators that keep a matrix of distances one: each of its values still depends on row minus column alone.
ELEMENTWISE = (
    *("Abs", "Add", "And", "Cast", "Ceil", "Clip", "Div", "Floor", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
    *("Log", "Max", "Min", "Mul", "Neg", "Not", "Or", "Round", "Sign", "Sub", "Where"),
)


@dataclass(frozen=True)
class Index:
    """Which row of a table belongs to a distance: ``clip(sign * distance + offset, lowest, highest)``.

    ``distance`` is the tensor of shape (S, S) with the distances, int64, on which that depends.
    """

    distance: str
    sign: int
    offset: int
    lowest: int
    highest: int


@dataclass(frozen=True)
class Term:
    """One of the two products with a table: ``table``, float32 of shape (heads, positions, size), is divided already.

    ``by_query`` tells whether the query is multiplied with it, or the key, whose scores come out transposed.
    """

    table: NDArray[np.float32]
    index: Index
    by_query: bool


@dataclass(frozen=True)
class Attention:
    """One attention of the graph.

    ``query``, ``key`` and ``value`` are tensors of shape (B, heads, S, size). ``mask``, boolean, and ``hidden``, the
    constant for what it hides, are the other inputs of the ``Where`` behind the scores; ``hides`` tells whether the
    mask is true for what it hides, or for what it shows. ``last`` is the node that makes the answer of shape
    (B, heads, S, size).
    """

    query: str
    key: str
    value: str
    scale: float
    terms: tuple[Term, ...]
    mask: str
    hidden: str
    hides: bool
    last: onnx.NodeProto


class DisentangledPattern:
    """The attention that a softmax belongs to; its methods raise ``MismatchError`` where it is another kind."""

    def __init__(self, matcher: GraphMatcher) -> None:
        """Read the graph of this matcher."""
        self.matcher = matcher

    def match(self, softmax: onnx.NodeProto) -> Attention:
        """Return the attention."""
        if attribute_of(softmax, "axis", -1) != -1:
            raise MismatchError("the softmax is not along the keys")
        mask, scores, hidden = self.matcher.made_by(softmax.input[0], "Where").input
        hides = self.matcher.producer(scores) is None
        if hides:
            scores, hidden = hidden, scores
        self.matcher.scalar(hidden)
        split_scores = self.matcher.made_by(scores, "Reshape")
        addends = self._addends(split_scores.input[0])
        products = [tensor for tensor in addends if self.matcher.is_made_by(tensor, "MatMul")]
        if len(products) != 1:
            raise MismatchError("the scores are not the sum of one product of queries and keys and others")
        product = self.matcher.made_by(products[0], "MatMul")
        scaled = self.matcher.made_by(product.input[1], "Div")
        query, key = product.input[0], self.matcher.transposed(scaled.input[0], [0, 2, 1])
        # Of one source, so that there are as many queries as keys: what the distances are computed from.
        if self._source(query) != self._source(key):
            raise MismatchError("queries and keys are not made from one activation")
        terms = tuple(self._term(tensor, query, key) for tensor in addends if tensor != products[0])
        if not terms or len({term.table.shape[::2] for term in terms}) != 1:
            raise MismatchError("there are no products with tables, or their tables differ in heads or size")
        heads, _, size = terms[0].table.shape
        value, last = self._answer(softmax)
        if {*map(self._heads, (query, key)), *map(self._heads_split_off, (split_scores, last))} != {heads}:
            raise MismatchError("the heads are not split and joined alike")
        return Attention(
            query=self._unjoined(query),
            key=self._unjoined(key),
            value=self._unjoined(value),
            scale=1 / self._divisor(scaled.input[1], (query, key), size),
            terms=terms,
            mask=mask,
            hidden=hidden,
            hides=hides,
            last=last,
        )

    def _addends(self, tensor: str) -> list[str]:
        """Return what a tree of additions adds up."""
        node = self.matcher.producer(tensor)
        if node is None or node.op_type != "Add":
            return [tensor]
        return [addend for part in node.input for addend in self._addends(part)]

    def _unjoined(self, tensor: str) -> str:
        """Return the tensor of shape (B, heads, S, size) that was reshaped to (B * heads, S, size)."""
        node = self.matcher.made_by(tensor, "Reshape")
        shape = self.matcher.made_by(node.input[1], "Concat").input
        if len(shape) != 3 or self.matcher.integers(shape[0]) != [-1]:
            raise MismatchError("the heads are not joined to (batch * heads, tokens, size)")
        self.matcher.transposed(node.input[0], [0, 2, 1, 3])
        return str(node.input[0])

    def _split(self, tensor: str) -> onnx.NodeProto:
        """Return the Reshape of (B, S, heads * size) to (B, S, heads, size) behind a tensor of joined heads."""
        return self.matcher.made_by(self.matcher.transposed(self._unjoined(tensor), [0, 2, 1, 3]), "Reshape")

    def _heads(self, tensor: str) -> int:
        """Return the number of heads that a Reshape splits off: a constant, as are the two dimensions kept, or not."""
        target = self._split(tensor).input[1]
        if self.matcher.producer(target) is not None:
            parts = self.matcher.made_by(target, "Concat").input
            if len(parts) != 4 or any(self.matcher.producer(part) is None for part in parts[:2]):
                raise MismatchError("the heads are split off with other dimensions computed")
            return int(self.matcher.scalar(parts[2]))
        shape = self.matcher.integers(target)
        if len(shape) != 4 or shape[:2] != [0, 0]:
            raise MismatchError("the heads are split off by another shape than (batch, tokens, heads, size)")
        return shape[2]

    def _heads_split_off(self, node: onnx.NodeProto) -> int:
        """Return the number of heads in a Reshape of (B * heads, …) to (B, heads, …)."""
        shape = self.matcher.made_by(node.input[1], "Concat").input
        if len(shape) != 4 or self.matcher.integers(shape[0]) != [-1]:
            raise MismatchError("the answer or the scores are not split to (batch, heads, ...)")
        return int(self.matcher.scalar(shape[1]))

    def _source(self, tensor: str) -> str:
        """Return the activation that a constant matrix, and perhaps a bias, made a tensor of joined heads from."""
        projected = self._split(tensor).input[0]
        for part in self._addends(projected):
            if self.matcher.is_made_by(part, "MatMul"):
                product = self.matcher.made_by(part, "MatMul")
                self.matcher.constant(product.input[1])
                return str(product.input[0])
        raise MismatchError("no product of an activation and a constant matrix is behind the heads")

    def _divisor(self, tensor: str, sized: tuple[str, ...], size: int) -> float:
        """Return the value of a divisor: a constant, or the root of a multiple of the last dimension of ``sized``."""
        if self.matcher.producer(tensor) is None:
            return self.matcher.scalar(tensor)
        multiple = self.matcher.made_by(self.matcher.made_by(tensor, "Sqrt").input[0], "Mul")
        dimension = self.matcher.made_by(self.matcher.made_by(multiple.input[0], "Cast").input[0], "Squeeze")
        part = self.matcher.made_by(dimension.input[0], "Slice")
        shape = self.matcher.made_by(part.input[0], "Shape")
        if self.matcher.integers(part.input[1]) != [-1] or shape.input[0] not in sized:
            raise MismatchError("the divisor is not computed from the size of a head")
        return math.sqrt(size * self.matcher.scalar(multiple.input[1]))

    def _term(self, tensor: str, query: str, key: str) -> Term:
        quotient = self.matcher.made_by(tensor, "Div")
        by_query = self.matcher.is_made_by(quotient.input[0], "GatherElements")
        picked = quotient.input[0] if by_query else self.matcher.transposed(quotient.input[0], [0, 2, 1])
        pick = self.matcher.made_by(picked, "GatherElements")
        product = self.matcher.made_by(pick.input[0], "MatMul")
        if attribute_of(pick, "axis", 0) not in (-1, 2) or product.input[0] != (query if by_query else key):
            raise MismatchError("the scores are not picked along the positions, or from another product")
        copies = self.matcher.transposed(product.input[1], [0, 2, 1])
        tile = self.matcher.made_by(copies, "Tile")
        repeats = self.matcher.made_by(tile.input[1], "Concat").input
        if [self.matcher.integers(repeat) for repeat in repeats[1:]] != [[1], [1]]:
            raise MismatchError("the table is not copied once a text")
        table = self.matcher.constant(tile.input[0])
        if table.ndim != 3 or table.dtype != np.float32:
            raise MismatchError("the table is no constant of float32 (heads, positions, size)")
        divisor = self._divisor(quotient.input[1], (copies, query, key), table.shape[2])
        index = self._index(self.matcher.made_by(pick.input[1], "Expand").input[0], table.shape[1])
        return Term(np.asarray(table / divisor, np.float32), index, by_query)

    def _index(self, tensor: str, positions: int) -> Index:
        clip = self.matcher.made_by(self._without_leading_ones(tensor), "Clip")
        lowest, highest = (int(self.matcher.scalar(self.matcher.input_of(clip, position))) for position in (1, 2))
        if not 0 <= lowest <= highest < positions:
            raise MismatchError("the positions reach beyond the table")
        moved = self.matcher.made_by(clip.input[0], "Add")
        offset = int(self.matcher.scalar(moved.input[1]))
        distance, sign = moved.input[0], 1
        if self.matcher.is_made_by(distance, "Neg"):
            distance, sign = self.matcher.made_by(distance, "Neg").input[0], -1
        return Index(self._distance(distance), sign, offset, lowest, highest)

    def _distance(self, tensor: str) -> str:
        """Return the matrix of shape (S, S), a function of row minus column, that a tensor is but for leading ones.

        Where queries and keys differ in number, which they do not here, the exported graph computes another in an If.
        """
        node = self.matcher.producer(tensor)
        if node is not None and node.op_type == "If":
            condition = self.matcher.made_by(self.matcher.made_by(node.input[0], "Not").input[0], "Equal")
            if not all(self._is_length(length) for length in condition.input):
                raise MismatchError("the distances are computed by a condition other than that of equal lengths")
            branch = attribute_of(node, "else_branch", None)
            if [inner.op_type for inner in branch.node] != ["Identity"]:
                raise MismatchError("the distances of equal lengths are computed anew")
            tensor = branch.node[0].input[0]
        matrix = self._without_leading_ones(tensor)
        if not self._is_of_distances(matrix):
            raise MismatchError("the distances are no function of row minus column")
        return matrix

    def _is_length(self, tensor: str) -> bool:
        """Tell whether a tensor is the last dimension but one of a tensor of joined heads."""
        part = self.matcher.made_by(self.matcher.made_by(tensor, "Squeeze").input[0], "Slice")
        shape = self.matcher.made_by(part.input[0], "Shape")
        self._unjoined(shape.input[0])
        return self.matcher.integers(part.input[1]) == [-2]

    def _without_leading_ones(self, tensor: str) -> str:
        node = self.matcher.producer(tensor)
        while node is not None and node.op_type in ("Squeeze", "Unsqueeze"):
            if not set(self.matcher.integers(self.matcher.input_of(node, 1))) <= {0, 1}:
                raise MismatchError("the distances get an axis that is not a leading one")
            tensor = node.input[0]
            node = self.matcher.producer(tensor)
        return tensor

    def _is_of_distances(self, tensor: str) -> bool:
        """Tell whether a tensor is a matrix whose values each depend on row minus column alone."""
        node = self.matcher.producer(tensor)
        if node is None:
            return self.matcher.constant(tensor).size == 1
        if node.op_type == "Slice":  # of the first rows: what is left is still a matrix of distances
            starts, axes = self.matcher.integers(node.input[1]), self.matcher.integers(self.matcher.input_of(node, 3))
            first_rows = starts == [0] and axes == [0] and self.matcher.is_contiguous(node)
            return first_rows and self._is_of_distances(node.input[0])
        if node.op_type == "Sub" and self._is_range_difference(node):
            return True
        parts = [name for name in node.input if name]
        return node.op_type in ELEMENTWISE and all(self._is_of_distances(part) for part in parts)

    def _is_range_difference(self, node: onnx.NodeProto) -> bool:
        """Tell whether a Sub is that of a range down the rows and the same along the columns, either way round."""
        sides = [self.matcher.producer(part) for part in node.input]
        if any(side is None or side.op_type != "Unsqueeze" for side in sides):
            return False
        axes = [self.matcher.integers(side.input[1]) for side in sides if side is not None]
        ranges = {side.input[0] for side in sides if side is not None}
        return sorted(axes) == [[0], [1]] and len(ranges) == 1 and self.matcher.is_made_by(ranges.pop(), "Range")

    def _answer(self, softmax: onnx.NodeProto) -> tuple[str, onnx.NodeProto]:
        """Return the value and the Reshape of the answer to (B, heads, S, size)."""
        joined = self._only_reader(softmax, "Reshape")
        product = self._only_reader(joined, "MatMul")
        if product.input[0] != joined.output[0]:
            raise MismatchError("the shares are not multiplied with the values")
        last = self._only_reader(product, "Reshape")
        self._only_reader(last, "Transpose")
        return str(product.input[1]), last

    def _only_reader(self, node: onnx.NodeProto, op_type: str) -> onnx.NodeProto:
        """Return the one node that reads the values of a node's output; others may ask for its shape."""
        if self.matcher.editor.is_output(node.output[0]):
            raise MismatchError("a result inside the attention is an output of the graph")
        readers = [other for other in self.matcher.editor.readers(node.output[0]) if other.op_type != "Shape"]
        if len(readers) != 1 or readers[0].op_type != op_type:
            raise MismatchError(f"a result inside the attention is read by others than one {op_type}")
        return readers[0]
