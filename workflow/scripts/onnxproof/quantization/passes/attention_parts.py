"""com.microsoft Attention without its product: projections are made outside, MultiHeadAttention does the rest.

Attention takes a padding mask as integers. MultiHeadAttention could too, as its ``key_padding_mask``, but onnxruntime
has not implemented that for WebGPU. It has ``attention_bias`` everywhere, which is added to the scores, so the mask is
turned into one: on the CPU the answers are the same bits.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxproof.graph.editor import GraphEditor, attribute_of
from onnxproof.vocabulary import MICROSOFT

CARRIED = ("num_heads", "scale", "unidirectional")
#: What Attention adds to a hidden score where its attribute ``mask_filter_value`` is not set.
DEFAULT_FILTER = -10000.0


def take_apart(editor: GraphEditor, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Put its product and what comes after it in the place of an Attention node; return them.

    Any other node, and one whose weight is no constant, stays and is returned alone.
    """
    is_attention = node.op_type == "Attention" and node.domain == MICROSOFT
    weight = editor.constant_shape(node.input[1]) if is_attention else None
    if weight is None:
        return [node]
    joined = editor.new_tensor(f"{node.output[0]}_projections")
    product = editor.new_node("MatMul", node.input[:2], [joined], f"{node.name}_product")
    nodes = [product, *attend_to_joined(editor, node, joined, weight[1] // 3)]
    editor.replace(node, nodes)
    return nodes


def attend_to_joined(editor: GraphEditor, attention: onnx.NodeProto, joined: str, size: int) -> list[onnx.NodeProto]:
    """Return the nodes that do what an Attention node does from its projections, joined in one tensor of ``3 * size``.

    Their bias is not in them.
    """
    parts = [editor.new_tensor(f"{attention.output[0]}_{part}") for part in ("query", "key", "value")]
    sizes = editor.share_constant(f"{attention.name}_sizes", np.full(3, size, dtype=np.int64))
    split = editor.new_node("Split", [joined, sizes], parts, f"{attention.name}_split", axis=-1)
    return [split, attend(editor, attention, parts)]


def attend(editor: GraphEditor, attention: onnx.NodeProto, projected: Sequence[str]) -> onnx.NodeProto:
    """Return the node that computes what an Attention node does from its query, key and value, without their bias."""
    carried = {name: attribute_of(attention, name, None) for name in CARRIED}
    attributes = {name: value for name, value in carried.items() if value is not None}
    inputs = [*projected, attention.input[2]]
    if len(attention.input) > 3 and attention.input[3]:
        inputs += ["", _attention_bias(editor, attention)]
    name = f"{attention.name}_heads"
    return editor.new_node("MultiHeadAttention", inputs, attention.output, name, domain=MICROSOFT, **attributes)


def _attention_bias(editor: GraphEditor, attention: onnx.NodeProto) -> str:
    """Return what is added to the scores, float32 (B, 1, S, S); made once of a mask, before its first reader.

    The mask is int32 (B, S), 0 for what is hidden. The operator repeats a bias for all heads, but not for all queries.
    """
    mask, hidden = attention.input[3], attribute_of(attention, "mask_filter_value", DEFAULT_FILTER)
    bias = f"{mask}_bias_{hidden:g}"
    maker = editor.producer(bias)
    if maker is not None and maker.op_type == "Expand":
        return bias
    bias = editor.new_tensor(bias)
    name = {part: editor.new_tensor(f"{bias}_{part}") for part in ("is_hidden", "keys", "row", "sizes", "shape")}
    constants: dict[str, NDArray[Any]] = {
        "hidden_key": np.array(0, dtype=np.int32),
        "shown_score": np.array(0, dtype=np.float32),
        "hidden_score": np.array(hidden, dtype=np.float32),
        "middle_axes": np.array([1, 2], dtype=np.int64),
        "one_batch": np.array([1, 1], dtype=np.int64),
        "one_key": np.array([1], dtype=np.int64),
    }
    stored = {key: editor.share_constant(key, values) for key, values in constants.items()}
    steps: tuple[tuple[str, list[str], str, dict[str, Any]], ...] = (
        ("Equal", [mask, stored["hidden_key"]], name["is_hidden"], {}),
        ("Where", [name["is_hidden"], stored["hidden_score"], stored["shown_score"]], name["keys"], {}),
        ("Unsqueeze", [name["keys"], stored["middle_axes"]], name["row"], {}),
        ("Shape", [mask], name["sizes"], {"start": 1, "end": 2}),
        ("Concat", [stored["one_batch"], name["sizes"], stored["one_key"]], name["shape"], {"axis": 0}),
        ("Expand", [name["row"], name["shape"]], bias, {}),
    )
    nodes = [editor.new_node(op, inputs, [output], output, **settings) for op, inputs, output, settings in steps]
    editor.insert_before(attention, nodes)
    return bias
