"""Rotary position embedding as one operator, for speed.

``x * cos + rotate_half(x) * sin`` (Su et al. 2021, arXiv 2104.09864) arrives as two slices, a negation, a
concatenation, two products and a sum, each of which goes over the whole tensor. onnxruntime's com.microsoft
RotaryEmbedding does all in one pass. Its tables of cosines and sines are computed in the graph as before, once for each
base frequency.

Where queries and keys are both multiplied by the root of the scale behind it, as PyTorch writes its scaled attention,
their product is multiplied instead: onnxruntime does that, and the keys' transposition, within the product.
"""

import math
from collections import Counter
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx

from onnxproof.graph.editor import GraphEditor, NodeWriter, attribute_of
from onnxproof.graph.fusions.rewrites import remove_unused_nodes
from onnxproof.graph.matcher import GraphMatcher, MismatchError
from onnxproof.vocabulary import MICROSOFT

#: From (B, S, heads, size) to (B, heads, S, size), or back; and what a product needs of the keys behind it.
HEADS_FIRST, KEYS_LAST = [0, 2, 1, 3], [0, 1, 3, 2]


@dataclass(frozen=True)
class Angles:
    """What the angle of a token and a channel is the product of.

    ``positions`` is the tensor 0, 1, 2 … of shape (S,); ``frequencies`` the constant with size / 2 values.
    """

    positions: str
    frequencies: str


@dataclass(frozen=True)
class Rotation:
    """One rotation: ``heads``, of shape (B, heads, S, size) or, where ``by_token``, (B, S, heads, size)."""

    heads: str
    angles: Angles
    by_token: bool


@dataclass(frozen=True)
class Scores:
    """A product of rotated queries, of shape (B, heads, S, size), and keys, which ``order`` transposes for it.

    ``scale`` is what both are multiplied with; None where they are not.
    """

    queries: str
    keys: str
    order: list[int]
    scale: float | None


def fuse_rotary_embedding(model: onnx.ModelProto, reasons: Counter[str] | None = None) -> int:
    """Replace rotations of all channels by RotaryEmbedding, in place; return how many.

    The same numbers up to float rounding. Only where the positions are 0, 1, 2 … for each text, not a graph's input.
    Why other additions and products are none is counted in ``reasons``.
    """
    editor = GraphEditor(model)
    matcher = GraphMatcher(editor, reasons)
    writer = _Writer(editor, matcher)
    sizes: dict[str, int] = {}
    for node in editor.of_type("Add"):
        rotation = matcher.match(partial(_match_rotation, matcher, node))
        if rotation is None:
            continue
        editor.replace(node, writer.write_rotation(rotation, node))
        sizes[node.output[0]] = 2 * matcher.constant(rotation.angles.frequencies).size
    for node in editor.of_type("MatMul"):
        scores = matcher.match(partial(_match_scores, matcher, node, sizes))
        if scores is not None:
            editor.replace(node, writer.write_scores(scores, node))
    if sizes:
        editor.finish()
        remove_unused_nodes(model.graph)
    return len(sizes)


def _match_rotation(matcher: GraphMatcher, total: onnx.NodeProto) -> Rotation:
    kept, turned = (matcher.made_by(part, "Mul") for part in total.input)
    halves = matcher.made_by(turned.input[0], "Concat")
    if len(halves.input) != 2 or attribute_of(halves, "axis", 0) not in (-1, 3):
        raise MismatchError("the halves are not joined along the channels")
    second = matcher.made_by(matcher.made_by(halves.input[0], "Neg").input[0], "Slice")
    first = matcher.made_by(halves.input[1], "Slice")
    heads = kept.input[0]
    if {first.input[0], second.input[0]} != {heads}:
        raise MismatchError("both halves are not of the heads that are kept")
    angles, by_token = _match_angles(matcher, kept.input[1], "Cos")
    if _match_angles(matcher, turned.input[1], "Sin") != (angles, by_token):
        raise MismatchError("sines and cosines are of other angles")
    # From 0 to the half, and from there to the end: the half is computed from the size, or it is a constant.
    if matcher.scalar(first.input[1]) != 0 or matcher.scalar(second.input[2]) < np.iinfo(np.int32).max:
        raise MismatchError("the halves do not go from the start and to the end")
    if first.input[2] != second.input[1] or not _is_half(matcher, first.input[2], angles):
        raise MismatchError("the heads are not cut in the middle")
    for part in (first, second):
        if matcher.scalar(matcher.input_of(part, 3)) not in (-1, 3) or not matcher.is_contiguous(part):
            raise MismatchError("the halves leave channels out, or are cut along another axis")
    return Rotation(heads, angles, by_token)


def _is_half(matcher: GraphMatcher, tensor: str, angles: Angles) -> bool:
    """Tell whether a tensor is half of the size of a head."""
    node = matcher.producer(tensor)
    if node is None:
        return bool(matcher.scalar(tensor) == matcher.constant(angles.frequencies).size)
    quotient = matcher.made_by(matcher.made_by(tensor, "Unsqueeze").input[0], "Div")
    dimension = matcher.made_by(quotient.input[0], "Gather")
    return matcher.scalar(quotient.input[1]) == 2 and matcher.scalar(dimension.input[1]) in (-1, 3)


def _match_angles(matcher: GraphMatcher, tensor: str, function: str) -> tuple[Angles, bool]:
    """Match the cosines or sines of shape (1, 1, S, size) or, where the second is true, (1, S, 1, size)."""
    by_token = matcher.is_made_by(tensor, "Transpose")
    node = matcher.made_by(matcher.transposed(tensor, HEADS_FIRST) if by_token else tensor, "Unsqueeze")
    if matcher.integers(node.input[1]) != [1]:
        raise MismatchError("the angles do not get an axis for the heads")
    if matcher.is_made_by(node.input[0], "Transpose"):
        angles = _match_columns(matcher, matcher.made_by(matcher.transposed(node.input[0], [0, 2, 1]), function))
    else:
        angles = _match_rows(matcher, matcher.made_by(node.input[0], function))
    return angles, by_token


def _match_columns(matcher: GraphMatcher, function: onnx.NodeProto) -> Angles:
    """Match angles of shape (1, size, S): a product of a column of frequencies and a row of positions, twice."""
    product = matcher.made_by(_doubled(matcher, function, (1,)), "MatMul")
    frequencies = matcher.made_by(product.input[0], "Expand").input[0]
    shape = matcher.constant(frequencies).shape
    if len(shape) != 3 or shape[::2] != (1, 1):
        raise MismatchError("the frequencies are no column of one model")
    return Angles(_match_positions(matcher, product.input[1], (1, 0)), frequencies)


def _match_rows(matcher: GraphMatcher, function: onnx.NodeProto) -> Angles:
    """Match angles of shape (1, S, size): a column of positions times a row of frequencies, twice."""
    product = matcher.made_by(_doubled(matcher, function, (-1, 2)), "Mul")
    positions, frequencies = product.input
    if matcher.producer(positions) is None:
        positions, frequencies = frequencies, positions
    if matcher.constant(frequencies).size != matcher.constant(frequencies).shape[-1]:
        raise MismatchError("the frequencies are no row")
    return Angles(_match_positions(matcher, positions, (2, 0)), frequencies)


def _doubled(matcher: GraphMatcher, function: onnx.NodeProto, axes: tuple[int, ...]) -> str:
    """Return the tensor that is joined with itself, along one of these axes, for a cosine or a sine."""
    doubled = matcher.made_by(function.input[0], "Concat")
    if len(doubled.input) != 2 or doubled.input[0] != doubled.input[1] or attribute_of(doubled, "axis", 0) not in axes:
        raise MismatchError("the angles are not those of one half, twice")
    return str(doubled.input[0])


def _match_positions(matcher: GraphMatcher, tensor: str, axes: tuple[int, ...]) -> str:
    """Return the tensor 0, 1, 2 … that gets these axes, the last of them first, and is then made float."""
    positions = matcher.made_by(tensor, "Cast").input[0]
    for axis in axes:
        expanded = matcher.made_by(positions, "Unsqueeze")
        if matcher.integers(expanded.input[1]) != [axis]:
            raise MismatchError("the positions get other axes")
        positions = expanded.input[0]
    counted = matcher.made_by(positions, "Range")
    if (matcher.scalar(counted.input[0]), matcher.scalar(counted.input[2])) != (0, 1):
        raise MismatchError("the positions do not count 0, 1, 2 ...")
    return str(positions)


def _match_scores(matcher: GraphMatcher, product: onnx.NodeProto, sizes: dict[str, int]) -> Scores:
    """Match a product of queries and keys that are rotated, ``sizes`` being those of what is, and perhaps scaled."""
    if matcher.is_made_by(product.input[0], "Mul"):
        queries, keys = (matcher.made_by(part, "Mul") for part in product.input)
        turned = matcher.made_by(keys.input[0], "Transpose")
        size = sizes.get(queries.input[0])
        if size is None or not all(_is_root_of_scale(matcher, part.input[1], size, sizes) for part in (queries, keys)):
            raise MismatchError("queries and keys are not scaled by the root of the size of their heads")
        rotated, scale = queries.input[0], 1 / math.sqrt(size)
    else:
        turned = matcher.made_by(product.input[1], "Transpose")
        rotated, scale = product.input[0], None
    if rotated not in sizes or sizes.get(turned.input[0]) != sizes[rotated]:
        raise MismatchError("the product is not one of rotated queries and keys")
    return Scores(rotated, turned.input[0], list(attribute_of(turned, "perm", [])), scale)


def _is_root_of_scale(matcher: GraphMatcher, tensor: str, size: int, sizes: dict[str, int]) -> bool:
    """Tell whether a tensor is computed as the root of 1 / root of ``size``, the size of a rotated tensor's heads."""
    scale = matcher.made_by(matcher.made_by(tensor, "Sqrt").input[0], "Div")
    root = matcher.made_by(scale.input[1], "Sqrt")
    dimension = matcher.made_by(matcher.made_by(root.input[0], "Cast").input[0], "Slice")
    shape = matcher.made_by(dimension.input[0], "Shape")
    is_last = matcher.integers(dimension.input[1]) == [-1]
    return matcher.scalar(scale.input[0]) == 1 and is_last and sizes.get(shape.input[0]) == size


def _puts_heads_first(node: onnx.NodeProto | None) -> bool:
    return node is not None and node.op_type == "Transpose" and list(attribute_of(node, "perm", [])) == HEADS_FIRST


class _Writer(NodeWriter):
    """Writes rotations, and once for each kind of angles the tables of cosines and sines."""

    def __init__(self, editor: GraphEditor, matcher: GraphMatcher) -> None:
        super().__init__(editor)
        self.matcher = matcher
        self._tables: dict[Angles, tuple[str, str]] = {}

    def write_rotation(self, rotation: Rotation, total: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Return the nodes that take the place of a rotation's last node, and make the same output."""
        self.start(total)
        output = total.output[0]
        tables = self._tables_of(rotation.angles)
        first = self.editor.share_constant("first_position", np.array([0], np.int64))
        producer = self.matcher.producer(rotation.heads)
        if not rotation.by_token and not _puts_heads_first(producer):
            self.add("RotaryEmbedding", [rotation.heads, first, *tables], output=output, domain=MICROSOFT)
            return self.nodes
        # The operator is quickest on (B, S, heads * size), which is how a projection leaves its answer in memory.
        size = 2 * self.matcher.constant(rotation.angles.frequencies).size
        joined = self.editor.share_constant("heads_joined", np.array([0, 0, -1], np.int64))
        split = self.editor.share_constant("heads_split", np.array([0, 0, -1, size], np.int64))
        by_token = rotation.heads if rotation.by_token or producer is None else producer.input[0]
        flat = self.add("Reshape", [by_token, joined])
        rotated = self.add("RotaryEmbedding", [flat, first, *tables], domain=MICROSOFT)
        if rotation.by_token:
            self.add("Reshape", [rotated, split], output=output)
        else:
            self.add("Transpose", [self.add("Reshape", [rotated, split])], output=output, perm=HEADS_FIRST)
        return self.nodes

    def write_scores(self, scores: Scores, product: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Return the nodes that take the place of a product of queries and keys."""
        self.start(product)
        keys, order = scores.keys, scores.order
        if order == [0, 2, 3, 1]:  # in two steps, of which onnxruntime makes the second a part of the product
            keys, order = self.add("Transpose", [keys], perm=HEADS_FIRST), KEYS_LAST
        keys = self.add("Transpose", [keys], perm=order)
        if scores.scale is None:
            self.add("MatMul", [scores.queries, keys], output=product.output[0])
        else:
            raw = self.add("MatMul", [scores.queries, keys])
            scale = self.editor.share_constant("attention_scale", np.array(scores.scale, np.float32))
            self.add("Mul", [raw, scale], output=product.output[0])
        return self.nodes

    def _tables_of(self, angles: Angles) -> tuple[str, str]:
        """Write the cosines and sines of shape (S, size / 2)."""
        if angles not in self._tables:
            last = self.editor.share_constant("last_axis", np.array([1], np.int64))
            row = self.matcher.constant(angles.frequencies).reshape(1, -1)
            frequencies = self.editor.add_constant("frequencies", row)
            numbers = self.add("Cast", [angles.positions], to=onnx.TensorProto.FLOAT)
            column = self.add("Unsqueeze", [numbers, last])
            products = self.add("Mul", [column, frequencies])
            self._tables[angles] = (self.add("Cos", [products]), self.add("Sin", [products]))
        return self._tables[angles]
