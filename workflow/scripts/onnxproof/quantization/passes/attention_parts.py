"""com.microsoft Attention without its product: projections are made outside, MultiHeadAttention does the rest."""

from collections.abc import Sequence

import numpy as np
import onnx

from onnxproof.graph.editor import GraphEditor, attribute_of
from onnxproof.vocabulary import MICROSOFT

CARRIED = ("num_heads", "scale", "unidirectional", "mask_filter_value")


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
    mask = attention.input[3] if len(attention.input) > 3 else ""
    inputs = [*projected, attention.input[2], mask]
    name = f"{attention.name}_heads"
    return editor.new_node("MultiHeadAttention", inputs, attention.output, name, domain=MICROSOFT, **attributes)
