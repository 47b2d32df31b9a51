"""Rotary position embedding of decoders as one operator.

``x * cos + turned(x) * sin`` (Su et al. 2021, arXiv 2104.09864) arrives as slices, a negation, a concatenation, two
products and a sum, each of which goes over the whole tensor. com.microsoft RotaryEmbedding does all of it in one pass.
``turned`` swaps the two halves of a head and negates the first; or it does so with each pair of neighbours. Where only
the first channels of a head are rotated, the operator passes the others on, so they need not be cut off and joined.

The operator reads the cosines and sines of a token from the row of a table. A table of all positions would set a limit
to the length of texts, and a long one takes megabytes. So the tables hold the tokens that are fed, one row each, as the
graph computes them anyway: from any positions, with any frequencies and scaling. This is done once for all layers.

The operator reads (B, S, heads * size), which is how a projection leaves its answer in memory and what
com.microsoft MultiHeadAttention reads. Where products follow, (B, heads, S, size) needs fewer nodes: they cost as much
as the rotation of one token.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnxscript.rewriter import MatchResult

from onnxproof.graph.fusions.rules import Rule, apply_rules
from onnxproof.graph.fusions.values import (
    HEADS_FIRST,
    input_of,
    integers,
    is_made_by,
    last_size,
    last_slice,
    made_by,
    producer,
    scalar,
    shape_entries,
    transposed,
)
from onnxproof.graph.matcher import MismatchError
from onnxproof.inputs.model_inputs import TOKENS
from onnxproof.vocabulary import MICROSOFT


@dataclass(frozen=True)
class Rotation:
    """One rotation of the first ``turned`` channels of each head of ``source``.

    ``source`` has the shape (B, heads, S, size) or, where ``by_token``, (B, S, heads, size). ``cosines`` and ``sines``
    have 1 in the place of the heads, ``turned`` in that of the size, and perhaps 1 for B. Where ``interleaved``, pairs
    of neighbours are rotated, else channels that are half of ``turned`` apart.
    """

    source: ir.Value
    cosines: ir.Value
    sines: ir.Value
    by_token: bool
    interleaved: bool
    turned: int


class FuseRotation(Rule):
    """Makes one com.microsoft RotaryEmbedding of a rotation of all channels."""

    def __init__(self) -> None:
        """Begin without a rotation."""
        super().__init__()
        self._rotation: Rotation | None = None

    def pattern(self, op: Any, heads: Any, cosines: Any, turned: Any, sines: Any) -> Any:
        """The sum of two products; what ``turned`` is made of is checked."""
        return op.Add(op.Mul(heads, cosines), op.Mul(turned, sines))

    def check(self, context: Any, heads: ir.Value, cosines: ir.Value, turned: ir.Value, sines: ir.Value) -> MatchResult:
        """Fail with the reason where the products are not those of a rotation."""

        def read() -> None:
            self._rotation = _read_rotation(heads, cosines, turned, sines)

        return self.result_of(read)

    def rewrite(self, op: Any, **values: ir.Value) -> Any:
        """Return the answer of the one operator."""
        assert self._rotation is not None, "a check comes first"
        return _rotated(op, self._rotation, {})


class FusePartialRotation(Rule):
    """Makes one com.microsoft RotaryEmbedding of a rotation of the first channels, behind which come the others."""

    def __init__(self) -> None:
        """Begin without a rotation."""
        super().__init__()
        self._rotation: Rotation | None = None
        self._heads = 0

    def pattern(self, op: Any, first: Any, cosines: Any, turned: Any, sines: Any, others: Any) -> Any:
        """The rotated channels and the others side by side."""
        return op.Concat(op.Add(op.Mul(first, cosines), op.Mul(turned, sines)), others, axis=-1)

    def check(
        self,
        context: Any,
        first: ir.Value,
        cosines: ir.Value,
        turned: ir.Value,
        sines: ir.Value,
        others: ir.Value,
    ) -> MatchResult:
        """Fail with the reason where it is no rotation, or where the others are not those behind the first."""

        def read() -> None:
            rotation = _read_rotation(first, cosines, turned, sines)
            source, start, end, step = last_slice(first)
            tokens = _with_tokens_first(source)
            moved = _with_tokens_first(others)  # onnxruntime may cut them off before it transposes them
            if last_slice(others if moved is None else moved) != (source if moved is None else tokens, end, None, 1):
                raise MismatchError("the channels that are not rotated are not those behind the rotated ones")
            if (start, step) != (0, 1):
                raise MismatchError("the rotated channels are not the first")
            self._heads = _count_heads(source, rotation.by_token)
            self._rotation = Rotation(source, cosines, sines, rotation.by_token, rotation.interleaved, rotation.turned)

        return self.result_of(read)

    def rewrite(self, op: Any, **values: ir.Value) -> Any:
        """Return the answer of the one operator."""
        rotation = self._rotation
        assert rotation is not None, "a check comes first"
        return _rotated(op, rotation, {"rotary_embedding_dim": rotation.turned, "num_heads": self._heads})


class RotateHeadsFirst(Rule):
    """Rotates what is transposed already, for the products of queries and keys that need it in this order."""

    def pattern(self, op: Any, heads: Any, joined: Any, positions: Any, cosines: Any, sines: Any, split: Any) -> Any:
        """A rotation of joined heads, which are split and transposed behind it."""
        flat = op.Reshape(heads, joined)
        rotated = op.RotaryEmbedding(flat, positions, cosines, sines, _domain=MICROSOFT, _outputs=["rotated"])
        return op.Transpose(op.Reshape(rotated, split), perm=HEADS_FIRST)

    def check(  # type: ignore[override]
        self, context: Any, heads: ir.Value, joined: ir.Value, rotated: ir.Value, split: ir.Value, **values: ir.Value
    ) -> MatchResult:
        """Fail with the reason where the heads are not (B, S, heads, size) in front of the rotation and behind it."""

        def read() -> None:
            count = made_by(rotated, "RotaryEmbedding").attributes.get_int("num_heads", 0)
            shapes = [[0, 0, count, -1]] if count else [[0, 0, -1, last_size(heads)]]
            if shape_entries(joined) != [0, 0, -1] or shape_entries(split) not in shapes:
                raise MismatchError("the heads are not joined for the rotation alone")

        return self.result_of(read)

    def rewrite(
        self,
        op: Any,
        heads: ir.Value,
        positions: ir.Value,
        cosines: ir.Value,
        sines: ir.Value,
        rotated: ir.Value,
        **values: ir.Value,
    ) -> Any:
        """Return the rotated heads, (B, heads, S, size)."""
        node = made_by(rotated, "RotaryEmbedding")
        transposed_heads = op.Transpose(heads, perm=HEADS_FIRST)
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        return op.RotaryEmbedding(transposed_heads, positions, cosines, sines, _domain=MICROSOFT, **attributes)


def rotate_heads_first(model: onnx.ModelProto) -> int:
    """Move transpositions of heads in front of their rotations in place; return how many."""
    return apply_rules(model, [RotateHeadsFirst()])


def fuse_rotations(model: onnx.ModelProto) -> int:
    """Replace the rotations of a graph that reads ``input_ids`` in place; return how many."""
    if all(value.name != TOKENS for value in model.graph.input):
        return 0
    return apply_rules(model, [FusePartialRotation()]) + apply_rules(model, [FuseRotation()])


def _rotated(op: Any, rotation: Rotation, attributes: dict[str, Any]) -> Any:
    """Return what is made of ``rotation.source``, in the same shape."""
    table_inputs = _tables(op, rotation)
    attributes = attributes | {"interleaved": int(rotation.interleaved), "_domain": MICROSOFT}
    tokens: ir.Value | None
    if rotation.by_token:
        tokens = rotation.source
    else:
        tokens = _with_tokens_first(rotation.source)
        if tokens is None:
            return op.RotaryEmbedding(rotation.source, *table_inputs, **attributes)
    joined = op.Reshape(tokens, op.Constant(value_ints=[0, 0, -1]))
    rotated = op.RotaryEmbedding(joined, *table_inputs, **attributes)
    heads = attributes.get("num_heads")
    split = [0, 0, heads, -1] if heads else [0, 0, -1, rotation.turned]
    by_token = op.Reshape(rotated, op.Constant(value_ints=split))
    return by_token if rotation.by_token else op.Transpose(by_token, perm=HEADS_FIRST)


def _tables(op: Any, rotation: Rotation) -> tuple[Any, Any, Any]:
    """Return a row's number for each token, int64 (B, S), and cosines and sines, float32 (B * S, turned / 2).

    Layers that rotate by the same angles get equal nodes, which become one afterwards.
    """
    node = rotation.cosines.producer()
    assert node is not None
    assert node.graph is not None
    tokens = next(value for value in node.graph.inputs if value.name == TOKENS)
    shape = op.Shape(tokens)
    counted = op.Range(op.Constant(value_int=0), op.Size(tokens), op.Constant(value_int=1))
    half = rotation.turned // 2
    ends = [np.iinfo(np.int64).max, 2] if rotation.interleaved else [half, 1]

    def rows(once: Any) -> Any:
        # B is 1 where the positions are the same in all texts.
        repeated = op.Expand(once, op.Concat(shape, op.Constant(value_ints=[half]), axis=0))
        return op.Reshape(repeated, op.Constant(value_ints=[-1, half]))

    def table(values: ir.Value) -> Any:
        function = _function_of_doubled(values)
        if function is not None and not rotation.interleaved:
            angles = input_of(made_by(function.inputs[0], "Concat"), 0)
            return op.Cos(rows(angles)) if function.op_type == "Cos" else op.Sin(rows(angles))
        # Each value is there twice.
        start, end, axis, step = (op.Constant(value_ints=[number]) for number in (0, ends[0], -1, ends[1]))
        return rows(op.Reshape(op.Slice(values, start, end, axis, step), op.Constant(value_ints=[0, -1, half])))

    return op.Reshape(counted, shape), table(rotation.cosines), table(rotation.sines)


def _function_of_doubled(values: ir.Value) -> ir.Node | None:
    """Return the node whose cosines or sines of angles, (1 or B, S, turned / 2) twice, are ``values`` as they are."""
    if not is_made_by(values, "Unsqueeze"):
        return None
    node = producer(input_of(made_by(values, "Unsqueeze"), 0))
    is_known = node is not None and node.op_type in ("Cos", "Sin") and is_made_by(node.inputs[0], "Concat")
    return node if is_known else None


def _read_rotation(heads: ir.Value, cosines: ir.Value, turned: ir.Value, sines: ir.Value) -> Rotation:
    if made_by(turned, "Concat", "Reshape").op_type == "Concat":
        interleaved, size = False, _read_halves(heads, turned)
    else:
        interleaved, size = True, _read_pairs(heads, turned)
    by_token = _is_by_token(cosines, "Cos", interleaved)
    if _is_by_token(sines, "Sin", interleaved) != by_token:
        raise MismatchError("cosines and sines are in different shapes")
    return Rotation(heads, cosines, sines, by_token, interleaved, size)


def _read_halves(heads: ir.Value, turned: ir.Value) -> int:
    """Return the size of heads, of which the two halves are swapped and the first of them is negated then."""
    node = made_by(turned, "Concat")
    if len(node.inputs) != 2 or node.attributes.get_int("axis", 0) not in (-1, 3):
        raise MismatchError("a head is not made of two halves")
    second, start, end, step = last_slice(input_of(made_by(node.inputs[0], "Neg"), 0))
    first, first_start, half, first_step = last_slice(input_of(node, 1))
    if first is not heads or second is not heads:
        raise MismatchError("what is rotated are not the heads")
    if half is None or (first_start, start, end, step, first_step) != (0, half, None, 1, 1):
        raise MismatchError("a head is not cut in halves")
    if last_size(heads) != 2 * half:
        raise MismatchError("a head is not known to be twice as large as its half")
    return 2 * half


def _read_pairs(heads: ir.Value, turned: ir.Value) -> int:
    """Return the size of heads, of which neighbours are swapped and the first of each pair is negated then."""
    joined = made_by(turned, "Reshape")
    pairs = made_by(input_of(joined, 0), "Concat")
    size = shape_entries(input_of(joined, 1))[-1]
    if len(pairs.inputs) != 2 or pairs.attributes.get_int("axis", 0) not in (-1, 4) or size is None or size < 2:
        raise MismatchError("a head is not made of pairs")
    odd = input_of(made_by(_without_new_axis(pairs.inputs[0]), "Neg"), 0)
    even = _without_new_axis(pairs.inputs[1])
    if last_slice(odd) != (heads, 1, None, 2) or last_slice(even) != (heads, 0, None, 2):
        raise MismatchError("what is rotated are not neighbours")
    return size


def _without_new_axis(value: ir.Value | None) -> ir.Value:
    node = made_by(value, "Unsqueeze")
    if integers(input_of(node, 1)) not in ([-1], [4]):
        raise MismatchError("pairs are not joined along a new last axis")
    return input_of(node, 0)


def _is_by_token(values: ir.Value, function: str, interleaved: bool) -> bool:
    """Tell whether cosines or sines, which hold each value twice, have the shape (·, S, 1, size), not (·, 1, S, size).

    Raises:
        MismatchError: they have another shape, or are not known to hold each value twice.
    """
    axis: int | None = None
    doubled = swapped = False
    while not (doubled and axis is not None):
        node = made_by(values, "Cos", "Sin", "Mul", "Unsqueeze", "Concat", "Slice", "Reshape", "Cast", "Transpose")
        values = input_of(node, 0)
        if node.op_type == "Mul":
            factors = [scalar(part) for part in node.inputs]
            if factors.count(None) != 1:
                break
            values = input_of(node, factors.index(None))
        elif node.op_type == "Unsqueeze":
            axes = integers(input_of(node, 1))
            if axis is not None or axes not in ([1], [2]):
                break
            axis = axes[0]
        elif node.op_type == "Transpose" and axis is None and _order(node) == HEADS_FIRST:
            swapped = not swapped  # as onnxruntime writes it where it moves the transposition of heads
        elif node.op_type == "Concat" and not interleaved and not doubled:
            doubled = list(node.inputs) == [values, values]
            if not doubled or node.attributes.get_int("axis", 0) not in (-1, 2, 3):
                break
        elif node.op_type == "Reshape" and interleaved and not doubled:
            values = _repeated(node)
            doubled = True
        elif node.op_type not in ("Cos", "Sin", "Cast") and not (node.op_type == "Slice" and doubled):
            break
    if not doubled or axis is None:
        raise MismatchError(f"the values of {function} are not known to be there twice, for all heads alike")
    return (axis == 2) != swapped


def _repeated(joined: ir.Node) -> ir.Value:
    """Return the values that a Reshape gives twice each, one after the other."""
    tiled = made_by(joined.inputs[0], "Tile")
    expanded = made_by(tiled.inputs[0], "Unsqueeze")
    counts, axes = integers(input_of(tiled, 1)), integers(input_of(expanded, 1))
    if counts[-1] != 2 or any(count != 1 for count in counts[:-1]) or axes not in ([-1], [len(counts) - 1]):
        raise MismatchError("values are not repeated one after the other")
    return input_of(expanded, 0)


def _count_heads(source: ir.Value, by_token: bool) -> int:
    """Return how many heads ``source`` has.

    Raises:
        MismatchError: that is not known.
    """
    value = source
    while not is_made_by(value, "Reshape"):
        value = input_of(made_by(value, "Transpose", "Split", "LayerNormalization", "SimplifiedLayerNormalization"), 0)
    node = made_by(value, "Reshape")
    entries = shape_entries(input_of(node, 1))
    if len(entries) == 4 and entries[2] is not None and entries[2] > 0:
        return entries[2]
    width, size = last_size(input_of(node, 0)), entries[-1]
    if len(entries) != 4 or not width or not size or size < 1 or width % size:
        raise MismatchError("the number of heads is not known")
    return width // size


def _with_tokens_first(value: ir.Value) -> ir.Value | None:
    """Return the (B, S, heads, size) that is transposed to a value of (B, heads, S, size); None where none is."""
    return transposed(value, HEADS_FIRST) if is_made_by(value, "Transpose") else None


def _order(node: ir.Node) -> list[int]:
    return list(node.attributes.get_ints("perm", []))
