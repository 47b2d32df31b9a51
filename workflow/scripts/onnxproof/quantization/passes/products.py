"""What the passes that quantize matrix products share: which products, and the bias behind one."""

from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxproof.graph.editor import GraphEditor
from onnxproof.quantization.targets import Target, bias_behind, find_targets


def included_targets(
    editor: GraphEditor, exclude: Collection[str] = (), include: Collection[str] | None = None
) -> list[Target]:
    """Return the quantizable nodes: those included (None: all), without those excluded.

    Raises:
        ValueError: a name belongs to no quantizable node.
    """
    targets = find_targets(editor)
    names = {target.name for target in targets}
    for parameter, listed in (("exclude", exclude), ("include", include or ())):
        unknown = sorted(set(listed) - names)
        if unknown:
            raise ValueError(f"{parameter} names {unknown[0]!r}, which is no quantizable node of this graph")
    wanted = (names if include is None else set(include)) - set(exclude)
    return [target for target in targets if target.name in wanted]


class Bias(NamedTuple):
    """The constant bias of a product: the node that adds it, which of its inputs it is, its values (outputs,)."""

    node: onnx.NodeProto
    position: int
    values: NDArray[np.float32]


def find_bias(editor: GraphEditor, target: Target) -> Bias | None:
    """Return the bias of a MatMul or a Gemm; None where it has none with one value an output channel."""
    node = target.node
    behind = bias_behind(editor, node)
    if len(node.input) > 2:
        holder, position = node, 2
    elif behind is not None:
        holder, position = behind, int(behind.input[0] == node.output[0])
    else:
        return None
    values = editor.float_constant(holder.input[position], rank=1)
    return Bias(holder, position, values) if values is not None and values.shape == target.shape[1:] else None


def with_bias(
    editor: GraphEditor, node: onnx.NodeProto, product_of: Callable[[str], list[onnx.NodeProto]]
) -> list[onnx.NodeProto]:
    """Return the nodes that take the place of a MatMul or a Gemm.

    Args:
        editor: the graph.
        node: the MatMul, or the Gemm, whose third input is the bias.
        product_of: returns the nodes that compute the product into a tensor of this name.
    """
    output = node.output[0]
    if len(node.input) < 3:
        return product_of(output)
    product = editor.new_tensor(f"{output}_product")
    return [*product_of(product), editor.new_node("Add", [product, node.input[2]], [output], f"{node.name}_bias")]
