"""Small exact rewrites of an ONNX graph that open the way for the optimizers after them."""

from collections import defaultdict

import onnx
from onnx import helper, numpy_helper

from onnxproof.graph.editor import tensors_read

#: Norms below this are clamped by the graphs that we rewrite; larger clamps would change real answers.
LARGEST_NORM_CLAMP = 1e-6


def normalize_with_one_node(model: onnx.ModelProto) -> int:
    """Replace ``x / expand(clip(ReduceL2(x), min))`` by ``LpNormalization(x)`` in place; return how often.

    This is how PyTorch's ``F.normalize`` arrives in a sentence-transformer's graph. The single node computes
    the same (a zero vector stays zero in both), and without it onnxruntime's symbolic shape inference gives up
    on the ``ReduceL2`` of opset 18, and with it the fusion of SkipLayerNormalization in the whole graph.

    Source: the ONNX operator specification of LpNormalization (axis, p=2).
    """
    producers = {output: node for node in model.graph.node for output in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    replaced = 0
    for index, node in enumerate(model.graph.node):
        norm = _norm_below(node, producers, constants) if node.op_type == "Div" else None
        if norm is None or norm.input[0] != node.input[0]:
            continue
        axis = numpy_helper.to_array(constants[norm.input[1]]).item()
        replacement = helper.make_node(
            "LpNormalization", [node.input[0]], list(node.output), name=node.name, axis=axis, p=2
        )
        model.graph.node[index].CopyFrom(replacement)
        replaced += 1
    if replaced:
        remove_unused_nodes(model.graph)
    return replaced


def _norm_below(
    division: onnx.NodeProto, producers: dict[str, onnx.NodeProto], constants: dict[str, onnx.TensorProto]
) -> onnx.NodeProto | None:
    """Return the ReduceL2 over one axis that a division's denominator comes from, if it does."""
    node = producers.get(division.input[1])
    if node is not None and node.op_type == "Expand":
        node = producers.get(node.input[0])
    if node is not None and node.op_type in ("Clip", "Max"):
        clamp = constants.get(node.input[1]) if len(node.input) > 1 else None
        if clamp is None or float(numpy_helper.to_array(clamp)) > LARGEST_NORM_CLAMP:
            return None
        node = producers.get(node.input[0])
    if node is None or node.op_type != "ReduceL2" or len(node.input) < 2:
        return None
    axes = constants.get(node.input[1])
    keeps_dimension = all(attribute.i == 1 for attribute in node.attribute if attribute.name == "keepdims")
    has_one_axis = axes is not None and numpy_helper.to_array(axes).size == 1
    return node if keeps_dimension and has_one_axis else None


def remove_unused_nodes(graph: onnx.GraphProto) -> None:
    """Remove, in place, nodes and initializers that no output depends on."""
    uses: dict[str, int] = defaultdict(int)
    for name in [output.name for output in graph.output] + [name for node in graph.node for name in tensors_read(node)]:
        uses[name] += 1
    for node in reversed(list(graph.node)):
        if not any(uses[output] for output in node.output):
            for name in tensors_read(node):
                uses[name] -= 1
            graph.node.remove(node)
    for tensor in [tensor for tensor in graph.initializer if not uses[tensor.name]]:
        graph.initializer.remove(tensor)


def remove_unused_domains(model: onnx.ModelProto) -> None:
    """Drop, in place, operator-set imports that no node uses: other runtimes refuse domains they don't know."""
    from onnxproof.graph.folder import nodes_of

    used = {node.domain for node in nodes_of(model.graph)} | {""}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def forget_shapes(model: onnx.ModelProto) -> None:
    """Drop, in place, the shapes of what is neither an input nor an output.

    With them, onnxruntime fuses Add and LayerNormalization at load, which is slower, see ``split_skip_layer_norm``.
    """
    del model.graph.value_info[:]
