"""The nodes that can be quantized: products of an activation with a constant float weight matrix."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxproof.graph.editor import GraphEditor, attribute_of

#: The remark (``doc_string``) of a product that no pass quantizes: a pass before has put it there to stay in float.
STAYS_FLOAT = "stays in float"


@dataclass(frozen=True)
class Target:
    """A MatMul, Gemm or Attention node with its weight, as ``activation @ weight + bias``.

    Attributes:
        node: the node.
        activation: the name of the tensor that the weight is multiplied with.
        shape: the weight's shape, (inputs, outputs) whatever way the node stores it.
        read_weight: returns the weight, float32 of that shape. It reads the weight anew at each call, so that the
            weights of all targets are not in memory together.
    """

    node: onnx.NodeProto
    activation: str
    shape: tuple[int, int]
    read_weight: Callable[[], NDArray[np.float32]]

    @property
    def name(self) -> str:
        """The node's name, unique in its graph."""
        return str(self.node.name)


def find_targets(editor: GraphEditor) -> list[Target]:
    """Return the graph's quantizable nodes in graph order.

    MatMul with a constant second operand of rank 2; Gemm without transposed activation and with alpha = beta
    = 1; com.microsoft Attention whose query, key and value have one size and which keeps no past. Conv is
    left out on purpose: onnxruntime's integer convolution is slower than its float one. So are products of
    two activations, and those with the remark ``STAYS_FLOAT``.
    """
    found = (_target_of(editor, node) for node in editor.of_type("MatMul", "Gemm", "Attention"))
    return [target for target in found if target is not None]


def _target_of(editor: GraphEditor, node: onnx.NodeProto) -> Target | None:
    if len(node.input) < 2 or node.input[0] == node.input[1] or node.doc_string == STAYS_FLOAT:
        return None
    read, stored = editor.float_reader(node.input[1], rank=2), editor.constant_shape(node.input[1])
    if read is None or stored is None or _selects_channels(editor.producer(node.input[0])):
        return None
    if node.op_type == "Gemm" and (
        attribute_of(node, "transA", 0) or attribute_of(node, "alpha", 1.0) != 1 or attribute_of(node, "beta", 1.0) != 1
    ):
        return None
    if node.op_type == "Attention" and not _is_plain_attention(node):
        return None
    rows, columns = stored
    if stores_transposed(node):
        return Target(node, node.input[0], (columns, rows), _transposed(read))
    return Target(node, node.input[0], (rows, columns), read)


def _transposed(read: Callable[[], NDArray[np.float32]]) -> Callable[[], NDArray[np.float32]]:
    def read_transposed() -> NDArray[np.float32]:
        return np.ascontiguousarray(read().T)

    return read_transposed


def _selects_channels(producer: onnx.NodeProto | None) -> bool:
    return producer is not None and producer.op_type == "Gather" and attribute_of(producer, "axis", 0) == -1


def stores_transposed(node: onnx.NodeProto) -> bool:
    """Tell whether a target stores its weight as (outputs, inputs)."""
    return node.op_type == "Gemm" and bool(attribute_of(node, "transB", 0))


def _is_plain_attention(node: onnx.NodeProto) -> bool:
    uneven = attribute_of(node, "qkv_hidden_sizes", None) is not None
    rotary = attribute_of(node, "do_rotary", 0) != 0
    biased = len(node.input) > 2 and bool(node.input[2])
    extras = any(node.input[4:])  # past, attention bias: the integer kernel takes no attention bias
    return biased and not (uneven or rotary or extras)


def bias_behind(editor: GraphEditor, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return the Add of a constant bias, one value an output channel, that alone reads a product; None without one."""
    readers = editor.readers(node.output[0])
    if len(readers) != 1 or readers[0].op_type != "Add" or editor.is_output(node.output[0]):
        return None
    others = [tensor for tensor in readers[0].input if tensor != node.output[0]]
    return readers[0] if len(others) == 1 and editor.float_constant(others[0], rank=1) is not None else None
