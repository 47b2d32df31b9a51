"""SkipLayerNormalization taken apart again, for speed.

onnxruntime's CPU kernel of the fused com.microsoft operator (as of 1.32) handles one value at a time; its kernels
of Add and LayerNormalization are vectorized and use all threads. The fused operator takes a seventh of a float run,
and more of an int8 one. At load onnxruntime fuses the two again where it knows that their shapes are the same: where
every length is fixed in the graph, or where the graph names the shapes of its tensors, which is why they are dropped.
"""

import onnx

from onnxproof.graph_editor import GraphEditor, attribute_of


def split_skip_layer_normalization(model: onnx.ModelProto) -> int:
    """Replace SkipLayerNormalization by an Add of its bias, an Add of skip and LayerNormalization; return how often.

    In place. The same numbers up to float rounding. A node whose mean or variance is read, or without beta, stays.
    """
    editor = GraphEditor(model)
    nodes = [node for node in editor.of_type("SkipLayerNormalization") if _can_split(node)]
    for node in nodes:
        editor.replace(node, _parts_of(editor, node))
    editor.finish()
    return len(nodes)


def _can_split(node: onnx.NodeProto) -> bool:
    has_beta = len(node.input) > 3 and bool(node.input[3])
    statistics_read = any(node.output[1:3])
    return has_beta and not statistics_read


def _parts_of(editor: GraphEditor, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    tensor, skip, gamma, beta = node.input[:4]
    bias = node.input[4] if len(node.input) > 4 else ""
    output = node.output[0]
    total = node.output[3] if len(node.output) > 3 and node.output[3] else editor.new_tensor(f"{output}_sum")
    nodes = []
    if bias:
        biased = editor.new_tensor(f"{output}_biased")
        nodes.append(editor.new_node("Add", [tensor, bias], [biased], f"{node.name}_bias"))
        tensor = biased
    epsilon = attribute_of(node, "epsilon", 1e-12)
    nodes.append(editor.new_node("Add", [tensor, skip], [total], f"{node.name}_sum"))
    nodes.append(
        editor.new_node(
            "LayerNormalization", [total, gamma, beta], [output], f"{node.name}_norm", axis=-1, epsilon=epsilon
        )
    )
    return nodes
