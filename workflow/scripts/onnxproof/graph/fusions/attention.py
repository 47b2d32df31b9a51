"""Self-attention as one operator: the three projections, the scores, the softmax and the product with the values.

``softmax(scale * (x Wq + bq) (x Wk + bk)' + mask) (x Wv + bv)``, by heads (Vaswani et al. 2017, arXiv 1706.03762), is
what com.microsoft Attention computes. It needs one product for the three projections and no transposed copies.
Quantized, it becomes QAttention.

The operator takes a padding mask as integers of shape (B, S). That what is added to the scores is one is computed, see
``masks``. Causal and windowed masks, relative positions and other additions stay, and with them the whole attention.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnxscript.rewriter import MatchResult

from onnxproof.graph.fusions.masks import MaskReader, PaddingMask
from onnxproof.graph.fusions.rules import Rule, apply_rules
from onnxproof.graph.fusions.values import (
    HEADS_FIRST,
    constant,
    input_of,
    is_made_by,
    made_by,
    producer,
    scalar,
    shape_entries,
    transposed,
)
from onnxproof.graph.matcher import MismatchError
from onnxproof.vocabulary import MICROSOFT


@dataclass(frozen=True)
class Projection:
    """``source @ weight + bias`` times ``factor``, split into heads of this size.

    ``weight`` is a constant of shape (inputs, heads * size); ``bias`` one of shape (heads * size,), or None for none.
    """

    source: ir.Value
    weight: ir.Value
    bias: ir.Value | None
    factor: float
    heads: int

    @property
    def width(self) -> int:
        """The number of outputs."""
        return _dimensions(self.weight)[1]


@dataclass(frozen=True)
class SelfAttention:
    """One attention of a graph.

    ``factor`` is what the product of queries and keys is multiplied by, ``added`` what is added to it: a padding mask,
    ``mask``; or nothing, or zeros, where ``mask`` is None.
    """

    query: Projection
    key: Projection
    value: Projection
    factor: float
    mask: PaddingMask | None
    added: ir.Value | None


class FuseSelfAttention(Rule):
    """Makes one com.microsoft Attention of a self-attention without a mask or with a padding mask."""

    def __init__(self, masks: MaskReader) -> None:
        """Ask these for the kind of each mask."""
        super().__init__()
        self.masks = masks
        self._attention: SelfAttention | None = None
        self._packed: dict[tuple[Any, ...], tuple[ir.Value, ir.Value]] = {}

    def pattern(self, op: Any, scores: Any, values: Any, shape: Any) -> Any:
        """From the scores with their mask to the answer of shape (B, S, heads * size)."""
        shares = op.Softmax(scores, axis=-1)
        return op.Reshape(op.Transpose(op.MatMul(shares, values), perm=HEADS_FIRST), shape)

    def check(self, context: Any, scores: ir.Value, values: ir.Value, shape: ir.Value) -> MatchResult:
        """Fail with the reason where the scores or the values are made otherwise."""

        def read() -> None:
            self._attention = _read_attention(scores, values, shape, self.masks)

        return self.result_of(read)

    def rewrite(self, op: Any, scores: ir.Value, values: ir.Value, shape: ir.Value) -> Any:
        """Return the answer of the one operator."""
        attention = self._attention
        assert attention is not None, "a check comes first"
        inputs = [attention.query.source, *self._pack(op, attention)]
        attributes: dict[str, Any] = {"num_heads": attention.query.heads}
        if attention.mask is not None:
            node = scores.producer()
            assert node is not None
            assert node.graph is not None
            inputs.append(_mask_index(op, attention, node.graph.inputs))
            attributes["mask_filter_value"] = attention.mask.hidden
        return op.Attention(*inputs, **attributes, _domain=MICROSOFT)

    def _pack(self, op: Any, attention: SelfAttention) -> tuple[ir.Value, ir.Value]:
        """Return the three weights side by side, and the biases; once for all attentions that share them.

        The operator divides by the root of a head's size; what else the scores are multiplied by goes into the query.
        """
        parts = (attention.query, attention.key, attention.value)
        size = attention.query.width // attention.query.heads
        wanted = attention.factor * attention.query.factor * attention.key.factor * np.sqrt(size)
        factors = (wanted if abs(wanted - 1) > 1e-6 else 1.0, 1.0, attention.value.factor)
        names = tuple((part.weight.name, part.bias.name if part.bias else "") for part in parts)
        if (names, factors) not in self._packed:
            weights = [_times(constant(part.weight), factor) for part, factor in zip(parts, factors, strict=True)]
            biases = [_times(_bias_of(part), factor) for part, factor in zip(parts, factors, strict=True)]
            # Not registered by the rewriter where another attention has made the same: it is the same value.
            name = f"{attention.query.weight.name}_query_key_value"
            self._packed[names, factors] = (
                op.initializer(ir.tensor(np.concatenate(weights, axis=1)), name=f"{name}_weight"),
                op.initializer(ir.tensor(np.concatenate(biases)), name=f"{name}_bias"),
            )
        return self._packed[names, factors]


def fuse_self_attention(model: onnx.ModelProto) -> int:
    """Fuse the self-attentions of an encoder in place; return how many."""
    return apply_rules(model, [FuseSelfAttention(MaskReader(model))])


def _read_attention(scores: ir.Value, values: ir.Value, shape: ir.Value, masks: MaskReader) -> SelfAttention:
    factor = 1.0
    mask: PaddingMask | None = None
    added: ir.Value | None = None
    node = made_by(scores, "Add", "Mul", "Div", "MatMul")
    while node.op_type != "MatMul":
        if node.op_type == "Add":
            if mask is not None or factor != 1:
                raise MismatchError("the scores have several additions, or a factor behind one")
            scores, added = _scores_and_mask(node)
            mask = masks.read(str(added.name))
        else:
            scores, by = _without_factor(node)
            factor *= by
        node = made_by(scores, "Add", "Mul", "Div", "MatMul")
    query = _read_projection(input_of(node, 0), HEADS_FIRST)
    key = _read_projection(*_keys(input_of(node, 1)))
    value = _read_projection(values, HEADS_FIRST)
    parts = (query, key, value)
    if len({part.source for part in parts}) != 1:
        raise MismatchError("queries, keys and values are not made from one activation")
    if len({part.heads for part in parts}) != 1 or len({part.width for part in parts}) != 1:
        raise MismatchError("queries, keys and values have not the same heads")
    if query.width % query.heads or query.width != shape_entries(shape)[-1] != -1:
        raise MismatchError("the answer's heads are not joined to their width")
    return SelfAttention(query, key, value, factor, mask if mask is not None and mask.tensor else None, added)


def _mask_index(op: Any, attention: SelfAttention, inputs: Sequence[ir.Value]) -> Any:
    """Return what com.microsoft Attention reads as its mask: int32 of shape (B, S), 0 for what is hidden."""
    mask = attention.mask
    assert mask is not None
    if mask.is_input:
        given = next(value for value in inputs if value.name == mask.tensor)
        return op.Cast(given, to=ir.DataType.INT32)
    first = op.Constant(value_int=0)
    row = op.Gather(op.Gather(attention.added, first, axis=1), first, axis=1)
    return op.Cast(op.Equal(row, op.Constant(value_float=0.0)), to=ir.DataType.INT32)


def _scores_and_mask(node: ir.Node) -> tuple[ir.Value, ir.Value]:
    """Return what an Add adds: the scores, behind which there is a product, and the other."""
    left, right = input_of(node, 0), input_of(node, 1)
    found = [_is_product(left), _is_product(right)]
    if found == [True, False]:
        return left, right
    if found == [False, True]:
        return right, left
    raise MismatchError("what is added to the scores is no mask")


def _is_product(value: ir.Value) -> bool:
    node = producer(value)
    while node is not None and node.op_type in ("Mul", "Div", "Add"):
        node = next((producer(part) for part in node.inputs if is_made_by(part, "Mul", "Div", "Add", "MatMul")), None)
    return node is not None and node.op_type == "MatMul"


def _without_factor(node: ir.Node) -> tuple[ir.Value, float]:
    """Return what a Mul or Div multiplies, and by how much."""
    left, right = input_of(node, 0), input_of(node, 1)
    by = scalar(right)
    if by is not None:
        return left, by if node.op_type == "Mul" else 1 / by
    by = scalar(left)
    if by is None or node.op_type == "Div":
        raise MismatchError("the scores are multiplied by what is no constant number")
    return right, by


def _keys(value: ir.Value) -> tuple[ir.Value, list[int]]:
    """Return the keys that a product reads transposed, and the order of dimensions that they are in."""
    factor_free = value
    node = made_by(factor_free, "Transpose", "Mul", "Div")
    if node.op_type == "Transpose" and list(node.attributes.get_ints("perm", [])) == [0, 1, 3, 2]:
        return input_of(node, 0), HEADS_FIRST
    return value, [0, 2, 3, 1]


def _read_projection(value: ir.Value, order: list[int]) -> Projection:
    factor = 1.0

    def peeled(value: ir.Value) -> ir.Value:
        nonlocal factor
        while is_made_by(value, "Mul", "Div"):
            value, by = _without_factor(made_by(value, "Mul", "Div"))
            factor *= by
        return value

    split = made_by(peeled(transposed(peeled(value), order)), "Reshape")
    entries = shape_entries(input_of(split, 1))
    if len(entries) != 4:
        raise MismatchError("a projection is not split into heads")
    source = peeled(input_of(split, 0))
    bias = None
    bias_factor = factor
    if is_made_by(source, "Add"):
        added = made_by(source, "Add")
        biases = [part for part in added.inputs if constant(part) is not None]
        products = [part for part in added.inputs if part is not None and constant(part) is None]
        if len(biases) != 1 or len(products) != 1 or len(_dimensions(biases[0])) != 1:
            raise MismatchError("a projection has no plain bias")
        bias, source = biases[0], peeled(products[0])
    if factor != bias_factor:
        raise MismatchError("a projection is multiplied before its bias is added")
    product = made_by(source, "MatMul")
    weight = input_of(product, 1)
    if weight.const_value is None or len(_dimensions(weight)) != 2 or weight.dtype != ir.DataType.FLOAT:
        raise MismatchError("a projection's weight is no constant float32 matrix")
    width = _dimensions(weight)[1]
    heads = entries[2] if entries[2] not in (-1, 0, None) else width // (entries[3] or width)
    assert heads is not None
    if heads <= 0 or width % heads or (bias is not None and _dimensions(bias) != (width,)):
        raise MismatchError("a projection's heads do not fit its width")
    return Projection(input_of(product, 0), weight, bias, factor, heads)


def _dimensions(value: ir.Value | None) -> tuple[int, ...]:
    assert value is not None
    assert value.const_value is not None
    return tuple(int(size) for size in value.const_value.shape.numpy())


def _bias_of(part: Projection) -> NDArray[np.float32]:
    return np.zeros(part.width, np.float32) if part.bias is None else np.asarray(constant(part.bias))


def _times(values: NDArray[Any] | None, factor: float) -> NDArray[np.float32]:
    assert values is not None
    return np.asarray(values if factor == 1 else values * np.float32(factor), np.float32)
