"""Channels around zero and of like ranges, so that one fixed scale for all of them wastes few of its steps.

A channel of an activation has a range of its own: it may lie between 8 and 12 where others lie between -1 and 1. A
scale that all channels share must hold them all. So a constant is taken off each channel, such that its range lies
around zero, and what it contributes to a product goes to the product's bias (Outlier Suppression+, Wei et al. 2023,
arXiv 2304.09145). This is done where it costs nothing when the model runs:

- Behind a normalization: in its beta. Where others read it too, products read a second one. OpenVINO takes
  normalizations apart, and computes the mean and the variance once for both.
- Behind attention: its weights of a query add up to 1, so that a constant taken off the values is taken off the output.
- For keys: what is taken off all keys is taken off all scores of a query, which softmax does not notice.

A channel of queries and the same channel of keys are multiplied with each other. What one is divided by, the other is
multiplied by, such that both have the same range. The queries also take over what their products are multiplied by.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxproof.graph.editor import GraphEditor
from onnxproof.quantization.activations import Activation, Feeds, record_activations
from onnxproof.quantization.passes.plain_attention import (
    HEADS_FIRST,
    TRANSPOSED,
    PlainAttention,
    Projection,
    plain_attentions,
    projection_of,
    projections_of,
)
from onnxproof.quantization.passes.products import find_bias
from onnxproof.quantization.passes.smooth import round_scales
from onnxproof.quantization.targets import Target, find_targets

Floats = NDArray[np.float32]
BETA = 2  # which input of a LayerNormalization


def center_channels(model: onnx.ModelProto, calibration: Sequence[Feeds]) -> None:
    """Center the inputs of products, keys and values, and even out queries and keys, in place.

    The outputs of the float model stay the same up to rounding. What has no bias stays as it is.

    Args:
        model: a float model of plain operators.
        calibration: inputs that show the range of each channel.

    Raises:
        ValueError: there are no calibration inputs.
    """
    editor = GraphEditor(model)
    found = list(plain_attentions(editor))
    factors = [factor.tensor for attention in found for factor in (attention.query, attention.key) if factor]
    activations = [target.activation for target in find_targets(editor)]
    editor.finish()
    recorded = record_activations(model, calibration, list(dict.fromkeys([*activations, *factors])))
    projections = projections_of(editor)
    for attention in found:
        _even_out(editor, attention, projections, recorded)
    projections, groups = projections_of(editor), _groups(editor)  # with the changed weights
    for attention in found:
        _center_values(editor, attention, projections, groups.get(attention.output or "", []), recorded)
    for tensor, targets in _groups(editor).items():
        _center_normalized(editor, tensor, targets, recorded[tensor])
    editor.finish()


def _groups(editor: GraphEditor) -> dict[str, list[Target]]:
    """Return the products by the tensor that they read."""
    groups: dict[str, list[Target]] = {}
    for target in find_targets(editor):
        groups.setdefault(target.activation, []).append(target)
    return groups


def middle(activation: Activation) -> Floats:
    """Return the middle of each channel's range, (channels,)."""
    return np.asarray((activation.lowest + activation.highest) / 2, dtype=np.float32)


def _even_out(
    editor: GraphEditor,
    attention: PlainAttention,
    projections: dict[str, Projection],
    recorded: dict[str, Activation],
) -> None:
    """Center the keys, and let queries and keys have the same range."""
    keys = projection_of(attention.key, TRANSPOSED, projections)
    if attention.key is None or keys is None:
        return
    offset = -middle(recorded[attention.key.tensor])
    factor = np.ones_like(offset)
    queries = projection_of(attention.query, HEADS_FIRST, projections)
    if attention.query is not None and queries is not None and queries.target.shape[1] == len(offset):
        reach, spread = recorded[attention.query.tensor].channel_max, recorded[attention.key.tensor].highest + offset
        usable = (reach > 0) & (spread > 0)
        factor[usable] = round_scales(np.sqrt(reach[usable] / spread[usable]))
        root = _take_out(editor, attention.scaling)
        queries.change(editor, np.asarray(root / factor, dtype=np.float32), np.zeros_like(offset))
    keys.change(editor, factor, offset * factor)


def _take_out(editor: GraphEditor, scaling: onnx.NodeProto | None) -> float:
    """Remove the node that multiplies scores, and return by what; 1 if there is none."""
    if scaling is None:
        return 1.0
    factor = editor.float_constant(scaling.input[1])
    assert factor is not None, "it is one because of its constant"
    for reader in editor.readers(scaling.output[0]):
        for position, name in enumerate(reader.input):
            if name == scaling.output[0]:
                reader.input[position] = scaling.input[0]
    editor.nodes.remove(scaling)
    return float(factor.reshape(()))


def _center_values(
    editor: GraphEditor,
    attention: PlainAttention,
    projections: dict[str, Projection],
    readers: list[Target],
    recorded: dict[str, Activation],
) -> None:
    """Center what attention hands to its output projection, by the bias of its values."""
    values = projection_of(attention.value, HEADS_FIRST, projections)
    if attention.output is None or values is None or not readers:
        return
    offset = middle(recorded[attention.output])
    is_alone = values.target.shape[1] == len(offset) and _is_read_by(editor, attention.output, readers)
    if is_alone and _add_to_biases(editor, readers, offset):
        values.change(editor, np.ones_like(offset), -offset)


def _center_normalized(editor: GraphEditor, tensor: str, readers: list[Target], activation: Activation) -> None:
    """Let products read a normalization with another beta."""
    node = editor.producer(tensor)
    if node is None or node.op_type != "LayerNormalization" or node.output[0] != tensor:
        return
    offset = middle(activation)
    beta = editor.float_constant(node.input[BETA], rank=1) if len(node.input) > BETA else np.zeros_like(offset)
    if beta is None or beta.shape != offset.shape or not _add_to_biases(editor, readers, offset):
        return
    name = editor.add_constant(f"{tensor}_centered_beta", beta - offset)
    centered = editor.new_tensor(f"{tensor}_centered")
    second = editor.new_node("LayerNormalization", [*node.input[:BETA], name], [centered], f"{node.name}_centered")
    second.attribute.extend(node.attribute)
    editor.insert_after(node, [second])
    if _is_read_by(editor, tensor, readers):
        editor.nodes.remove(node)
    for reader in readers:
        reader.node.input[0] = centered


def _is_read_by(editor: GraphEditor, tensor: str, readers: list[Target]) -> bool:
    """Tell whether nothing else reads a tensor."""
    names = {reader.name for reader in readers}
    return {node.name for node in editor.readers(tensor)} == names and not editor.is_output(tensor)


def _add_to_biases(editor: GraphEditor, readers: list[Target], offset: Floats) -> bool:
    """Add to each product's bias what ``offset`` adds to its output; to none of them if one has no bias."""
    biases = [find_bias(editor, reader) for reader in readers]
    for reader, bias in zip(readers, biases, strict=True):
        if bias is None or reader.node.op_type == "Attention":
            return False
    for reader, bias in zip(readers, biases, strict=True):
        assert bias is not None
        values = bias.values + offset @ reader.read_weight()
        editor.change_constant(bias.node, bias.position, np.asarray(values, dtype=np.float32))
    return True
