"""Attention behind a cache as one operator, where every head of queries has keys and values of its own.

``softmax(factor * q k' + mask) v``, where ``k`` and ``v`` are the keys and values of a cache with the new ones behind,
is what com.microsoft MultiHeadAttention computes, from additions to the scores of any kind: causal masks, windows,
padding on either side, relative positions. It also joins the cache and the new keys, and is a little faster for one
token at a time, see docs/performance.md. Heads that share keys are another matter, see ``grouped``.
"""

from dataclasses import dataclass
from typing import Any

import onnx
import onnx_ir as ir
from onnxscript.rewriter import MatchResult

from onnxproof.graph.fusions.rules import Rule, apply_rules
from onnxproof.graph.fusions.values import (
    HEADS_FIRST,
    KEYS_LAST,
    input_of,
    is_made_by,
    made_by,
    producer,
    scalar,
    shape_entries,
    transposed,
)
from onnxproof.graph.matcher import MismatchError
from onnxproof.inputs.prompts import PAST
from onnxproof.vocabulary import MICROSOFT


@dataclass(frozen=True)
class Joined:
    """A cache's tensor ``past``, (B, heads, P, size), and the new (B, S, heads, size) that are joined to ``present``.

    ``present``, (B, heads, P + S, size), is an output of the graph.
    """

    past: ir.Value
    new: ir.Value
    present: ir.Value

    @property
    def heads(self) -> int | None:
        """The number of heads; None where the graph's input does not say it."""
        size = self.past.shape[1] if self.past.shape is not None and len(self.past.shape) == 4 else None
        return size if isinstance(size, int) else None


@dataclass(frozen=True)
class CachedAttention:
    """``queries``, (B, S, heads, size), whose products with the keys are multiplied by ``factor``."""

    queries: ir.Value
    keys: Joined
    values: Joined
    factor: float


class FuseCachedAttention(Rule):
    """Makes one com.microsoft MultiHeadAttention of an attention behind a cache."""

    def __init__(self) -> None:
        """Begin without an attention."""
        super().__init__()
        self._attention: CachedAttention | None = None

    def pattern(self, op: Any, scores: Any, mask: Any, values: Any, shape: Any) -> Any:
        """From the scores and their mask to the answer, the heads of each token joined."""
        shares = op.Softmax(op.Add(scores, mask), axis=-1)
        return op.Reshape(op.Transpose(op.MatMul(shares, values), perm=HEADS_FIRST), shape)

    def check(self, context: Any, scores: ir.Value, mask: ir.Value, values: ir.Value, shape: ir.Value) -> MatchResult:
        """Fail with the reason where the scores or the values are made otherwise."""

        def read() -> None:
            self._attention = _read_attention(scores, values)

        return self.result_of(read)

    def rewrite(self, op: Any, mask: ir.Value, shape: ir.Value, **others: ir.Value) -> Any:
        """Return the answer of the one operator, whose other outputs take the place of the graph's."""
        attention = self._attention
        assert attention is not None, "a check comes first"
        joined = op.Constant(value_ints=[0, 0, -1])
        answer, keys, all_values = op.MultiHeadAttention(
            *(op.Reshape(part, joined) for part in (attention.queries, attention.keys.new, attention.values.new)),
            None,
            None,
            mask,
            attention.keys.past,
            attention.values.past,
            num_heads=attention.keys.heads,
            scale=attention.factor,
            _domain=MICROSOFT,
            _outputs=3,
        )
        _take_place(keys, attention.keys.present)
        _take_place(all_values, attention.values.present)
        # (B, S, heads * size), or the tokens of all texts in one row, which the projection behind may want.
        return answer if len(shape_entries(shape)) == 3 else op.Reshape(answer, shape)


def fuse_cached_attention(model: onnx.ModelProto) -> int:
    """Fuse the attentions of a decoder behind its cache in place; return how many."""
    return apply_rules(model, [FuseCachedAttention()])


def _read_attention(scores: ir.Value, values: ir.Value) -> CachedAttention:
    factor = 1.0
    while is_made_by(scores, "Mul", "Div"):
        node = made_by(scores, "Mul", "Div")
        by = scalar(input_of(node, 1))
        if by is None:
            raise MismatchError("the scores are multiplied by what is no constant number")
        scores, factor = input_of(node, 0), factor * by if node.op_type == "Mul" else factor / by
    if factor <= 0:
        raise MismatchError("the scores are multiplied by no positive number")
    product = made_by(scores, "MatMul")
    queries = transposed(product.inputs[0], HEADS_FIRST)
    keys = _read_joined(transposed(product.inputs[1], KEYS_LAST))
    joined_values = _read_joined(values)
    if keys.heads is None or keys.heads != joined_values.heads:
        raise MismatchError("the number of heads is not known")
    return CachedAttention(queries, keys, joined_values, factor)


def _read_joined(present: ir.Value) -> Joined:
    node = producer(present)
    if node is None or node.op_type != "Concat" or len(node.inputs) != 2 or not present.is_graph_output():
        raise MismatchError("keys or values are not those of a cache, each head with its own")
    past, new = (input_of(node, position) for position in (0, 1))
    if node.attributes.get_int("axis", 0) not in (-2, 2) or not (past.name or "").startswith(PAST):
        raise MismatchError("new keys or values do not come behind a cache")
    if len(present.uses()) != 1:
        raise MismatchError("keys or values are read elsewhere too")
    return Joined(past, transposed(new, HEADS_FIRST), present)


def _take_place(made: ir.Value, present: ir.Value) -> None:
    """Make a value the output of the graph that ``present`` was."""
    node = present.producer()
    assert node is not None
    assert node.graph is not None
    outputs = node.graph.outputs
    outputs[next(position for position, value in enumerate(outputs) if value is present)] = made
    made.name, present.name = present.name, f"{present.name}_joined"
    made.shape, made.type = present.shape, present.type
