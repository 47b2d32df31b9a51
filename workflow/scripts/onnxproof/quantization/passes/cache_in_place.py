"""Attention behind a cache as com.microsoft GroupQueryAttention, which can write new keys into the old cache.

A graph that joins its cache and the new keys gives a new cache for each token, so each step copies all of it. So does
GroupQueryAttention where the old and the new cache are two tensors. Where a program gives one buffer as both, it only
adds the new token. The buffer is then longer than the text, so nothing may read the length of the text from it:
``attention_mask`` has that length.

The mask that the graph has is added to the scores, so padding on either side, windows and additions by distance stay
as they are. The operator hides later tokens itself, too: a mask that is found to hide them and padding alone becomes
one of padding, in fewer nodes. Queries that are padding get other values, which nobody reads.
Of several texts, the operator takes one new token behind a cache, not more ("batch_size must be 1", onnxruntime 1.32).
"""

import contextlib
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxproof.graph.editor import GraphEditor, NodeWriter, attribute_of, tensors_read
from onnxproof.graph.fusions.masks import MaskReader
from onnxproof.graph.fusions.rewrites import remove_unused_nodes
from onnxproof.graph.fusions.values import HEADS_FIRST, KEYS_LAST
from onnxproof.graph.matcher import GraphMatcher, MismatchError
from onnxproof.graph.metadata import SHARE_BUFFER, read_metadata
from onnxproof.inputs.model_inputs import MASK, TOKENS
from onnxproof.inputs.prompts import PAST, PRESENT
from onnxproof.vocabulary import MICROSOFT

#: The operator takes heads of a multiple of so many channels.
CHANNELS = 8
#: The axis of a cache along which its tokens are, and how many axes it has.
TOKEN_AXIS, RANK = 2, 4
#: Operators whose first output has the shape of their first input.
KEEPS_SHAPE = {"Erf", "Gelu", "LayerNormalization", "Relu", "Sigmoid", "SimplifiedLayerNormalization", "Tanh"}


@dataclass(frozen=True)
class Attention:
    """An attention behind the cache of a ``layer``, from its queries to its answer; all but numbers name tensors.

    ``queries`` are (B, heads, S, size), the new ``keys`` and ``values`` (B, groups, S, size); or all three are
    (B, S, heads * size), where they are ``joined``. The products of queries and keys are multiplied by ``factor``, and
    ``mask`` is added. ``last`` gives the answer, the heads of each token joined, and ``joins`` read the cache.
    """

    layer: str
    queries: str
    keys: str
    values: str
    joined: bool
    factor: float
    mask: str
    heads: int
    groups: int
    last: onnx.NodeProto
    joins: tuple[onnx.NodeProto, ...]

    def past(self) -> list[str]:
        """Return the cache that the graph takes: keys, values."""
        return [f"{PAST}{self.layer}.{part}" for part in ("key", "value")]

    def present(self) -> list[str]:
        """Return the cache that the graph gives: keys, values."""
        return [f"{PRESENT}{self.layer}.{part}" for part in ("key", "value")]


def keep_cache_in_place(model: onnx.ModelProto) -> None:
    """Let every attention behind a cache be GroupQueryAttention, in place.

    Raises:
        ValueError: an attention is another one, or the length of the cache is read in another way; with the reason. The
            model is as it was.
    """
    editor = GraphEditor(model)
    matcher = GraphMatcher(editor)
    try:
        attentions = _Reader(editor, matcher).read()
        shapes = _shapes_of_cache(editor, attentions)
    except MismatchError as mismatch:
        raise ValueError(str(mismatch)) from None
    hidden = _read_masks(model, attentions)
    by_token = _vectors_of_tokens(editor, matcher)
    lengths, masks = _write_inputs(editor, shapes, hidden)
    for attention in attentions:
        mask = masks.get(attention.mask, attention.mask)
        _write_attention(editor, matcher, replace(attention, mask=mask), lengths, by_token)
    editor.finish()
    remove_unused_nodes(model.graph)
    helper.set_model_props(model, {**read_metadata(model), SHARE_BUFFER: "true"})


class _Reader:
    """Finds the attentions of a graph. All methods raise ``MismatchError`` with the reason."""

    def __init__(self, editor: GraphEditor, matcher: GraphMatcher) -> None:
        self.matcher = matcher
        self.inputs = {value.name: value for value in editor.model.graph.input}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in editor.nodes:
            for tensor in set(tensors_read(node)):
                self.readers[tensor].append(node)

    def read(self) -> list[Attention]:
        """Return the attentions of all layers."""
        if not {TOKENS, MASK} <= self.inputs.keys():
            raise MismatchError(f"the graph does not take {TOKENS} and {MASK}")
        names = [name.removeprefix(PAST) for name in self.inputs if name.startswith(PAST)]
        if not names:
            raise MismatchError("the graph takes no cache")
        return [self._attention(layer) for layer in dict.fromkeys(name.rsplit(".", 1)[0] for name in names)]

    def _attention(self, layer: str) -> Attention:
        sizes = {self._heads_and_size(f"{PAST}{layer}.{part}") for part in ("key", "value")}
        if len(sizes) != 1:
            raise MismatchError("keys and values of a cache have other shapes")
        groups, size = sizes.pop()
        if size % CHANNELS:
            raise MismatchError(f"heads have {size} channels, which is no multiple of {CHANNELS}")
        joining = self.matcher.producer(f"{PRESENT}{layer}.key")
        if joining is not None and joining.op_type == "MultiHeadAttention":
            return self._operator(layer, joining, groups, size)
        return self._products(layer, groups)

    def _heads_and_size(self, name: str) -> tuple[int, int]:
        shape = self.inputs[name].type.tensor_type.shape.dim if name in self.inputs else []
        if len(shape) != RANK or not shape[1].dim_value or not shape[3].dim_value:
            raise MismatchError("the heads and channels of a cache are not known")
        return shape[1].dim_value, shape[3].dim_value

    def _operator(self, layer: str, node: onnx.NodeProto, groups: int, size: int) -> Attention:
        """Return the attention of a MultiHeadAttention, which reads no cache but this one."""
        queries, keys, values, *others = node.input
        factor = attribute_of(node, "scale", 0.0) or size**-0.5
        heads = attribute_of(node, "num_heads", 0)
        found = Attention(
            layer, queries, keys, values, True, factor, self.matcher.input_of(node, 5), heads, groups, node, (node,)
        )
        is_plain = others[:2] == ["", ""] and len(others) == 5 and heads == groups
        if not is_plain or others[3:] != found.past() or list(node.output[1:]) != found.present():
            raise MismatchError("MultiHeadAttention has other inputs or outputs than a cache and a mask")
        for tensor in found.present():
            self._check_unread(tensor)
        return found

    def _products(self, layer: str, groups: int) -> Attention:
        """Return the attention that is made of plain products, whose rows may be those of a group of heads."""
        joins = tuple(self._join(layer, part) for part in ("key", "value"))
        queries, factor, mask, shares = self._read_scores(joins[0].output[0])
        heads, last = self._read_answer(shares, joins[1].output[0])
        if heads:
            queries = self._ungrouped(queries, groups)
        heads = heads or groups
        if heads % groups or factor <= 0:
            raise MismatchError("heads do not share keys evenly, or scores are multiplied by no positive number")
        keys, values = (join.input[1] for join in joins)
        return Attention(layer, queries, keys, values, False, factor, mask, heads, groups, last, joins)

    def _read_scores(self, keys: str) -> tuple[str, float, str, str]:
        """Return what is multiplied with keys, by what number scores are multiplied, what is added, and the shares."""
        turned = self._only_reader(keys, "Transpose")
        if list(attribute_of(turned, "perm", [])) != KEYS_LAST:
            raise MismatchError("keys are not transposed for their product")
        product = self._only_reader(turned.output[0], "MatMul", 1)
        factor, node = 1.0, self._only_reader(product.output[0])
        while node.op_type in ("Mul", "Div"):
            by = self._number(node.input[1])
            factor = factor * by if node.op_type == "Mul" else factor / by
            node = self._only_reader(node.output[0])
        if node.op_type == "Reshape":
            self._heads_apart(node)
            node = self._only_reader(node.output[0])
        if node.op_type != "Add":
            raise MismatchError(f"Add expected behind scores, {node.op_type} found")
        mask = next(tensor for tensor in node.input if not self._is_scores(tensor, product))
        shares = self._only_reader(node.output[0], "Softmax")
        if attribute_of(shares, "axis", -1) not in (-1, RANK - 1):
            raise MismatchError("shares are not those of the keys")
        return product.input[0], factor, self._once(mask), shares.output[0]

    def _read_answer(self, shares: str, values: str) -> tuple[int, onnx.NodeProto]:
        """Return the number of heads, 0 where those of a group do not stand below each other, and the last node."""
        node, heads = self._only_reader(shares), 0
        if node.op_type == "Reshape":
            node = self._only_reader(node.output[0])
        if node.op_type != "MatMul" or node.input[1] != values or self._only_reader(values) is not node:
            raise MismatchError("the values of a cache are not multiplied with shares alone")
        node = self._only_reader(node.output[0])
        if node.op_type == "Reshape":
            heads = self._heads_apart(node)
            node = self._only_reader(node.output[0])
        if node.op_type != "Transpose" or list(attribute_of(node, "perm", [])) != HEADS_FIRST:
            raise MismatchError("the heads of the answer are not transposed")
        return heads, self._only_reader(node.output[0], "Reshape")

    def _join(self, layer: str, part: str) -> onnx.NodeProto:
        """Return the node that puts new keys or values behind those of the cache."""
        node = self.matcher.made_by(f"{PRESENT}{layer}.{part}", "Concat")
        is_behind = len(node.input) == 2 and node.input[0] == f"{PAST}{layer}.{part}"
        if not is_behind or attribute_of(node, "axis", 0) not in (TOKEN_AXIS, TOKEN_AXIS - RANK):
            raise MismatchError("new keys or values do not come behind a cache")
        return node

    def _heads_apart(self, node: onnx.NodeProto) -> int:
        """Return into how many heads a Reshape takes the rows of groups apart."""
        first, heads, *others = self._integers(node.input[1])
        if first != 0 or others != [-1, 0] or heads < 1:
            raise MismatchError("rows of groups are not taken apart into heads")
        return heads

    def _ungrouped(self, queries: str, groups: int) -> str:
        """Return queries, (B, heads, S, size), from those whose heads stand below each other in groups."""
        node = self.matcher.made_by(queries, "Reshape")
        if self._integers(node.input[1]) != [0, groups, -1, 0]:
            raise MismatchError("the queries of a group do not stand below each other")
        return str(node.input[0])

    def _is_scores(self, tensor: str, product: onnx.NodeProto) -> bool:
        """Tell whether a tensor is made of a product, by what stands between products and masks."""
        node = self.matcher.producer(tensor)
        while node is not None and node.op_type in ("Mul", "Div", "Reshape"):
            node = self.matcher.producer(node.input[0])
        return node is not None and node.name == product.name

    def _once(self, mask: str) -> str:
        """Return a mask that is repeated for the rows of a group, once."""
        node = self.matcher.producer(mask)
        if node is None or node.op_type != "Concat" or len(set(node.input)) != 1:
            return mask
        if attribute_of(node, "axis", 0) not in (RANK - 2, -2):
            raise MismatchError("a mask is repeated along another axis than that of queries")
        return str(node.input[0])

    def _constant(self, tensor: str) -> NDArray[Any]:
        """Return the values of a constant, which a rewrite may have left in a node."""
        node = self.matcher.producer(tensor)
        if node is None or node.op_type != "Constant":
            return self.matcher.constant(tensor)
        (attribute,) = node.attribute
        values = helper.get_attribute_value(attribute)
        return numpy_helper.to_array(values) if isinstance(values, onnx.TensorProto) else np.array(values)

    def _number(self, tensor: str) -> float:
        values = self._constant(tensor)
        if values.size != 1:
            raise MismatchError("scores are multiplied by several numbers")
        return float(values.item())

    def _integers(self, tensor: str) -> list[int]:
        return [int(value) for value in self._constant(tensor).reshape(-1)]

    def _only_reader(self, tensor: str, op_type: str = "", position: int = 0) -> onnx.NodeProto:
        """Return the one node that reads a tensor, of this type, at this position."""
        if len(self.readers[tensor]) != 1:
            raise MismatchError(f"{len(self.readers[tensor])} nodes read a part of an attention")
        (node,) = self.readers[tensor]
        if op_type and (node.op_type != op_type or node.input[position] != tensor):
            raise MismatchError(f"{op_type} expected, {node.op_type} found")
        return node

    def _check_unread(self, tensor: str) -> None:
        if self.readers[tensor]:
            raise MismatchError("the new cache is read in the graph too")


def _shapes_of_cache(editor: GraphEditor, attentions: list[Attention]) -> list[onnx.NodeProto]:
    """Return the nodes that read the shape of a cache, and with it the length of the text.

    Raises:
        MismatchError: something else is read of a cache, which a longer buffer would change.
    """
    cache = {tensor for attention in attentions for tensor in attention.past()}
    joins = {node.name for attention in attentions for node in attention.joins}
    found = []
    for node in editor.nodes:
        if node.name in joins or not cache & set(tensors_read(node)):
            continue
        if node.op_type != "Shape":
            raise MismatchError(f"a cache is read by {node.op_type} too")
        if TOKEN_AXIS in _axes_of(node):
            found.append(node)
    return found


def _axes_of(shape: onnx.NodeProto) -> range:
    """Return the axes of a cache whose lengths a Shape node gives."""
    return range(RANK)[attribute_of(shape, "start", 0) : attribute_of(shape, "end", RANK)]


def _read_masks(model: onnx.ModelProto, attentions: list[Attention]) -> dict[str, float]:
    """Return what hides a key in each mask of a plain decoder, see ``MaskReader.read_causal``; others are left out."""
    reader = MaskReader(model)
    found = {}
    for mask in dict.fromkeys(attention.mask for attention in attentions):
        with contextlib.suppress(MismatchError):
            found[mask] = reader.read_causal(mask)
    return found


def _write_inputs(
    editor: GraphEditor, shapes: list[onnx.NodeProto], hidden: dict[str, float]
) -> tuple[list[str], dict[str, str]]:
    """Write nodes that find out the length of the text, and let the shapes of caches be what they would be with it.

    The operator hides later tokens itself, so that a mask that also hides padding by a number, ``hidden``, is made in
    a few steps of ``attention_mask``. Exporters take some forty.

    Returns:
        What every attention reads: the place of the last token of each text, int32 (B,), and the length of the text,
        int32 (1,). And what takes the place of each mask.
    """
    writer = NodeWriter(editor)
    writer.name = "cache"
    number = {value: editor.share_constant(f"axis_{value}", np.array([value], np.int64)) for value in range(RANK)}
    mask_shape, fed_shape = (writer.add("Shape", [tensor], f"{tensor}_shape") for tensor in (MASK, TOKENS))
    total = writer.add("Gather", [mask_shape, number[1]], "total")
    fed = writer.add("Gather", [fed_shape, number[1]], "fed")
    length = writer.add("Sub", [total, fed], "length")
    last = writer.add("Sub", [total, number[1]], "last")
    batch = writer.add("Gather", [fed_shape, number[0]], "batch")
    last_of_each = writer.add("Expand", [last, batch], "last_of_each")
    attended = [writer.add("Cast", [last_of_each], "seqlens", to=onnx.TensorProto.INT32)]
    attended.append(writer.add("Cast", [total], "total_length", to=onnx.TensorProto.INT32))
    for shape in shapes:
        whole = writer.add("Shape", [shape.input[0]], "shape")
        parts = [
            length if axis == TOKEN_AXIS else writer.add("Gather", [whole, number[axis]], "axis")
            for axis in _axes_of(shape)
        ]
        writer.add("Concat", parts, "shape_of_text", shape.output[0], axis=0)
        editor.replace(shape, [])
    masks = {mask: _write_mask(writer, fed, number[1], value) for mask, value in hidden.items()}
    editor.nodes[:0] = writer.nodes
    return attended, masks


def _write_mask(writer: NodeWriter, fed: str, one: str, hidden: float) -> str:
    """Write a mask, float32 (B, 1, S, P + S), that hides padding alone by a number; ``fed`` is S, int64 (1,)."""
    shown, lowest = (
        writer.editor.share_constant(name, np.array(value, np.float32))
        for name, value in (("shown", 0.0), ("hidden", hidden))
    )
    middle = writer.editor.share_constant("middle_axes", np.array([1, 2], np.int64))
    given = writer.add("Cast", [MASK], "given", to=onnx.TensorProto.BOOL)
    row = writer.add("Unsqueeze", [writer.add("Where", [given, shown, lowest], "row"), middle], "rows_of_all")
    shape = writer.add("Concat", [one, one, fed, one], "mask_shape", axis=0)
    return writer.add("Expand", [row, shape], "mask")


def _write_attention(
    editor: GraphEditor, matcher: GraphMatcher, attention: Attention, lengths: list[str], by_token: set[str]
) -> None:
    """Put GroupQueryAttention, and what its inputs need, in the place of an attention.

    ``by_token`` names tensors that are known to be (B, S, channels).
    """
    writer = NodeWriter(editor)
    writer.start(attention.last)
    parts = [attention.queries, attention.keys, attention.values]
    answer, rows = attention.last.output[0], ""
    if not attention.joined:
        rows = attention.last.input[1]
        parts = [_join_heads(writer, matcher, tensor, rows, by_token) for tensor in parts]
        if _count_axes(matcher, rows) == 3:
            rows = ""  # as the operator gives it
    operator = editor.new_node(
        "GroupQueryAttention",
        [*parts, *attention.past(), *lengths, "", "", "", attention.mask],
        [editor.new_tensor(f"{answer}_in_place") if rows else answer, *attention.present()],
        f"{attention.last.name}_in_place",
        domain=MICROSOFT,
        num_heads=attention.heads,
        kv_num_heads=attention.groups,
        scale=attention.factor,
    )
    writer.nodes.append(operator)
    if rows:
        writer.add("Reshape", [operator.output[0], rows], "rows", answer)
    editor.replace(attention.last, writer.nodes)
    for node in attention.joins:
        if node.name != attention.last.name:
            editor.replace(node, [])


def _join_heads(writer: NodeWriter, matcher: GraphMatcher, tensor: str, rows: str, by_token: set[str]) -> str:
    """Return (B, S, heads * size) of (B, heads, S, size); ``rows`` is the shape of the attention's answer.

    Where heads were split and transposed, that is undone.
    """
    node = matcher.producer(tensor)
    is_rotated = node is not None and (node.domain, node.op_type) == (MICROSOFT, "RotaryEmbedding")
    if node is not None and is_rotated and _tokens_first(matcher, node.input[0]):
        joined = _join_heads(writer, matcher, node.input[0], rows, by_token)
        kept = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        return writer.add("RotaryEmbedding", [joined, *node.input[1:]], "rotated", domain=node.domain, **kept)
    heads = _tokens_first(matcher, tensor)
    if not heads:
        heads = writer.add("Transpose", [tensor], "by_token", perm=HEADS_FIRST)
    elif matcher.is_made_by(heads, "Reshape"):
        whole = str(matcher.made_by(heads, "Reshape").input[0])
        if whole in by_token:
            return whole
        if _is_by_text_and_token(matcher, rows):  # whatever the shape in front of the split was
            return writer.add("Reshape", [whole, rows], "joined")
    flat = writer.editor.share_constant("joined_heads", np.array([0, 0, -1], np.int64))
    return writer.add("Reshape", [heads, flat], "joined")


def _vectors_of_tokens(editor: GraphEditor, matcher: GraphMatcher) -> set[str]:
    """Return tensors that are known to be (B, S, channels): embeddings of tokens, and what is made of them."""
    known: set[str] = set()
    for node in editor.nodes:
        axes = {tensor: len(shape) for tensor in node.input if (shape := editor.constant_shape(tensor)) is not None}
        is_read = bool(node.input) and node.input[0] in known
        if node.op_type == "Gather":
            is_known = node.input[1] == TOKENS and axes == {node.input[0]: 2} and not attribute_of(node, "axis", 0)
        elif node.op_type == "MatMul":
            is_known = is_read and axes == {node.input[1]: 2}
        elif node.op_type in ("Add", "Mul"):
            parts = [tensor in known or axes.get(tensor, RANK) <= 1 for tensor in node.input]
            is_known = all(parts) and not known.isdisjoint(node.input)
        elif node.op_type == "Reshape":
            is_known = _is_by_text_and_token(matcher, node.input[1])
        else:
            is_known = is_read and node.op_type in KEEPS_SHAPE
        if is_known:
            known.add(node.output[0])
    return known


def _count_axes(matcher: GraphMatcher, shape: str) -> int | None:
    """Return how many axes a shape has; None where that is not known."""
    values = matcher.editor.constant(shape)
    if values is not None:
        return int(values.size)
    node = matcher.producer(shape)
    return len(node.input) if node is not None and node.op_type == "Concat" else None


def _is_by_text_and_token(matcher: GraphMatcher, shape: str) -> bool:
    """Tell whether a shape is computed as the numbers of texts and tokens, and what is left."""
    node = matcher.producer(shape)
    if node is None or node.op_type != "Concat" or len(node.input) != 3:
        return False
    first, second, last = (matcher.editor.constant(part) for part in node.input)
    return first is None and second is None and last is not None and last.reshape(-1).tolist() == [-1]


def _tokens_first(matcher: GraphMatcher, tensor: str) -> str:
    """Return the (B, S, heads, size) that is transposed to a tensor; empty where none is."""
    node = matcher.producer(tensor)
    is_transposed = node is not None and node.op_type == "Transpose"
    if node is None or not is_transposed or list(attribute_of(node, "perm", [])) != HEADS_FIRST:
        return ""
    return str(node.input[0])
