"""Grouped queries without repeated keys and values.

Where several heads of queries share one head of keys and values (Ainslie et al. 2023, arXiv 2305.13245), PyTorch
repeats the keys and values for each of them: with a cache, the whole cache, for every new token. The queries of a group
can as well stand below each other, as more rows of one product, which gives the same sums of the same products. Their
scores stay in these rows up to the product with the values: the mask is repeated instead, once for all layers.

Operators for the whole attention were measured and left out, see docs/performance.md. Where the cache is copied,
com.microsoft GroupQueryAttention is no faster than these plain products; it refuses several new tokens behind a cache
in a batch ("batch_size must be 1", onnxruntime 1.32), and gives other values at padding on the left, in the cache too,
so that it cannot be proven by all outputs. One variant has it, see ``quantization.passes.cache_in_place``.
"""

from typing import Any

import onnx
import onnx_ir as ir
from onnxscript.rewriter import MatchResult

from onnxproof.graph.fusions.rules import Rule, apply_rules
from onnxproof.graph.fusions.values import KEYS_LAST, input_of, integers, made_by, scalar, shape_entries
from onnxproof.graph.matcher import MismatchError


class GroupQueries(Rule):
    """Multiplies shares of attention with values that are not repeated."""

    def __init__(self) -> None:
        """Begin without a product."""
        super().__init__()
        self._shared: ir.Value | None = None
        self._heads, self._groups = 0, 0

    def pattern(self, op: Any, rows: Any, joined: Any, shape: Any) -> Any:
        """The product of (B, heads, S, n) with what is repeated to (B, heads, n, m)."""
        return op.MatMul(rows, op.Reshape(joined, shape))

    def check(
        self, context: Any, rows: ir.Value, joined: ir.Value, shape: ir.Value, scale: ir.Value | None = None
    ) -> MatchResult:
        """Fail with the reason where that is not made by repeating each head."""

        def read() -> None:
            expanded = made_by(joined, "Expand")
            alone = made_by(expanded.inputs[0], "Unsqueeze")
            if integers(input_of(alone, 1)) != [2]:
                raise MismatchError("heads are not repeated next to each other")
            repeats, heads = shape_entries(input_of(expanded, 1)), shape_entries(shape)
            if len(repeats) != 5 or len(heads) != 4:
                raise MismatchError("what is multiplied has not four dimensions")
            groups, times = repeats[1:3]
            if groups is None or times is None or groups < 1 or times < 1 or heads[1] != groups * times:
                raise MismatchError("it is not known how often heads are repeated")
            if scale is not None and scalar(scale) is None:
                raise MismatchError("scores are multiplied by what is no constant number")
            self._shared, self._heads, self._groups = input_of(alone, 0), groups * times, groups

        return self.result_of(read)

    def rewrite(self, op: Any, rows: ir.Value, **values: ir.Value) -> Any:
        """Return the product."""
        return self.apart(op, op.MatMul(self.grouped(op, rows), self._shared))

    def grouped(self, op: Any, rows: ir.Value) -> Any:
        """Return rows of shape (B, groups, heads / groups * S, n); heads of a group are neighbours in memory."""
        return op.Reshape(rows, op.Constant(value_ints=[0, self._groups, -1, 0]))

    def apart(self, op: Any, product: Any) -> Any:
        """Return a product of shape (B, heads, S, m)."""
        return op.Reshape(product, op.Constant(value_ints=[0, self._heads, -1, 0]))


class GroupScores(GroupQueries):
    """Multiplies queries with keys that are not repeated."""

    def pattern(self, op: Any, rows: Any, joined: Any, shape: Any) -> Any:
        """The product of queries with transposed keys."""
        return op.MatMul(rows, op.Transpose(op.Reshape(joined, shape), perm=KEYS_LAST))

    def rewrite(self, op: Any, rows: ir.Value, **values: ir.Value) -> Any:
        """Return the product."""
        return self.apart(op, self._scores(op, rows))

    def _scores(self, op: Any, rows: ir.Value) -> Any:
        return op.MatMul(self.grouped(op, rows), op.Transpose(self._shared, perm=KEYS_LAST))


class GroupScaledScores(GroupScores):
    """Multiplies queries with keys that are not repeated, and by a number right behind, as onnxruntime fuses it."""

    def pattern(self, op: Any, rows: Any, joined: Any, shape: Any, scale: Any) -> Any:  # type: ignore[override]
        """The product of queries with transposed keys, multiplied by a number."""
        return op.Mul(super().pattern(op, rows, joined, shape), scale)

    def rewrite(self, op: Any, rows: ir.Value, **values: ir.Value) -> Any:
        """Return the scaled product."""
        return self.apart(op, op.Mul(self._scores(op, rows), values["scale"]))


class GroupMask(Rule):
    """Adds the mask to scores in rows of groups, so that they need not be taken apart and grouped again."""

    def __init__(self) -> None:
        """Begin without scores."""
        super().__init__()
        self._times = 0

    def pattern(self, op: Any, scores: Any, mask: Any, apart: Any, grouped: Any) -> Any:
        """From grouped scores to grouped shares, between which each head has its own rows."""
        return op.Reshape(op.Softmax(op.Add(op.Reshape(scores, apart), mask), axis=-1), grouped)

    def check(self, context: Any, scores: ir.Value, mask: ir.Value, apart: ir.Value, grouped: ir.Value) -> MatchResult:
        """Fail with the reason where the shapes are others, or the mask is not known to have a row for each query."""

        def read() -> None:
            heads, groups = shape_entries(apart), shape_entries(grouped)
            if heads[2:] != [-1, 0] or groups[2:] != [-1, 0] or not heads[1] or not groups[1]:
                raise MismatchError("scores are not taken apart into heads and grouped again")
            expanded = made_by(made_by(mask, "Where").inputs[0], "Expand")
            rows = shape_entries(input_of(expanded, 1))
            # Computed from the inputs' shapes. One row for all queries would be a constant 1.
            if len(rows) != 4 or rows[1] != 1 or rows[2] is not None:
                raise MismatchError("the mask has not one row for each query, for all heads alike")
            self._times = heads[1] // groups[1]

        return self.result_of(read)

    def rewrite(self, op: Any, scores: ir.Value, mask: ir.Value, **values: ir.Value) -> Any:
        """Return the shares, in the rows of the scores."""
        return op.Softmax(op.Add(scores, op.Concat(*[mask] * self._times, axis=2)), axis=-1)


def group_queries(model: onnx.ModelProto) -> int:
    """Take the repetition of keys and values out of a graph in place; return of how many products."""
    return sum(apply_rules(model, [rule]) for rule in (GroupScaledScores(), GroupScores(), GroupQueries()))


def group_masks(model: onnx.ModelProto) -> int:
    """Repeat the mask for the rows of grouped scores in place; return for how many attentions."""
    return apply_rules(model, [GroupMask()])
