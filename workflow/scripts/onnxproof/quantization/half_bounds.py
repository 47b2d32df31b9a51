"""How large the values that a float model works with can get, node by node: what float16 can hold, and what it can't.

onnxruntime's CPU provider computes float16 operators in float32, so a run there shows no overflow. Here every node gets
a bound from what flows into it on typical inputs: of its values, of the squares that a normalization sums, and of every
partial sum of a product in any order (by the inequality of Cauchy and Schwarz). A node whose bound, times a margin for
inputs that were not seen, is beyond float16's range must stay in float32. So must one whose values, or whose constants,
are so small that float16 loses them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxproof.graph.editor import GraphEditor, attribute_of
from onnxproof.quantization.activations import Feeds
from onnxproof.quantization.passes.attention_parts import take_apart
from onnxproof.quantization.passes.block_weights import stored_weight
from onnxproof.quantization.sessions import open_exposing

#: The largest float16, and the smallest one that has all its digits.
HIGHEST, SMALLEST = 65504.0, 2.0**-14
#: Inputs that were not seen may make values so many times as large.
MARGIN = 8.0
#: The largest relative error of a constant that one number, such as an epsilon, may get.
LARGEST_ERROR = 0.01

NORMALIZATIONS = {
    "InstanceNormalization",
    "GroupNormalization",
    "LayerNormalization",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
}
SUMS = {"AveragePool", "CumSum", "GlobalAveragePool", "ReduceL1", "ReduceMean", "ReduceSum"}
SQUARES = {"LpNormalization", "ReduceL2", "ReduceSumSquare"}
ATTENTIONS = {"GroupQueryAttention", "MultiHeadAttention"}


@dataclass(frozen=True)
class Bound:
    """What a node works with is at most ``largest``, which is a bound ``of`` its values, or of sums inside of it.

    ``lost`` says what float16 would lose, empty where nothing.
    """

    largest: float
    of: str = "values"
    lost: str = ""

    @property
    def fits(self) -> bool:
        """Whether float16 holds what the node works with, with a margin."""
        return self.largest * MARGIN <= HIGHEST and not self.lost


@dataclass(frozen=True)
class Spread:
    """How large a tensor's values were: the largest one, and the largest Euclidean norms along its last two axes.

    ``rms`` is the root of the mean square of the run where that was largest, ``count`` the most values of a run.
    """

    largest: float = 0.0
    row_norm: float = 0.0
    column_norm: float = 0.0
    rms: float = 0.0
    count: int = 0

    @classmethod
    def of(cls, values: NDArray[Any]) -> "Spread":
        """Return that of an array; one without values has zeros."""
        if not values.size:
            return cls()
        squares = np.square(np.atleast_1d(values).astype(np.float64))
        return cls(
            float(np.abs(values).max()),
            float(np.sqrt(squares.sum(axis=-1).max())),
            float(np.sqrt(squares.sum(axis=-2).max() if squares.ndim > 1 else squares.max())),
            float(np.sqrt(squares.mean())),
            values.size,
        )

    def joined(self, other: "Spread") -> "Spread":
        """Return that of the values of both."""
        return Spread(*(max(pair) for pair in zip(vars(self).values(), vars(other).values(), strict=True)))


def tensor_types(model: onnx.ModelProto) -> dict[str, str]:
    """Return the type of every tensor that a node of the main graph makes, such as ``tensor(float)``."""
    made = [name for node in model.graph.node for name in node.output if name]
    types = {value.name: value.type for value in open_exposing(model, made).get_outputs()}
    return {name: types[name] for name in made}


def float_tensors(model: onnx.ModelProto) -> list[str]:
    """Return the names of the float32 tensors that nodes of the main graph make, in graph order."""
    return [name for name, type in tensor_types(model).items() if type == "tensor(float)"]


def measure_bounds(model: onnx.ModelProto, calibration: Sequence[Feeds]) -> dict[str, Bound]:
    """Return a bound for each node of a float32 model's main graph, by the node's name.

    Args:
        model: the model.
        calibration: its typical inputs, run one by one.

    Raises:
        ValueError: there are no calibration inputs.
    """
    if not calibration:
        raise ValueError("needs calibration inputs, and there are none")
    own = onnx.ModelProto()
    own.CopyFrom(model)
    editor = GraphEditor(own)
    parts = {node.name: take_apart(editor, node) for node in editor.nodes.copy()}
    editor.finish()
    spreads = _record_spreads(own, calibration)
    return {
        name: max(
            (_bound(editor, node, spreads) for node in nodes), key=lambda bound: (bool(bound.lost), bound.largest)
        )
        for name, nodes in parts.items()
    }


def _record_spreads(model: onnx.ModelProto, calibration: Sequence[Feeds]) -> dict[str, Spread]:
    """Return the spread of every float32 tensor of the main graph, over all inputs."""
    tensors = float_tensors(model)
    heads = _heads_of_tensors(model)
    session = open_exposing(model, tensors)
    spreads: dict[str, Spread] = {}
    for feeds in calibration:
        fed = [(name, values) for name, values in feeds.items() if values.dtype == np.float32]
        made = zip(tensors, session.run(tensors, dict(feeds)), strict=True)
        for name, values in (*fed, *made):
            rows = values.reshape(*values.shape[:-1], heads[name], -1) if name in heads else values
            spreads[name] = Spread.of(rows).joined(spreads.get(name, Spread()))
    return spreads


def _heads_of_tensors(model: onnx.ModelProto) -> dict[str, int]:
    """Return how many heads are joined in the queries and keys, (B, S, heads * size), that attention nodes read."""
    heads: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in ATTENTIONS:
            count = attribute_of(node, "num_heads", 1)
            heads[node.input[0]] = count
            heads[node.input[1]] = attribute_of(node, "kv_num_heads", count)
    heads.pop("", None)
    return heads


def _spread_of(editor: GraphEditor, spreads: Mapping[str, Spread], tensor: str) -> Spread | None:
    """Return the spread of a float tensor, constant or not; None for tensors of other types."""
    if tensor in spreads:
        return spreads[tensor]
    values = editor.float_constant(tensor)
    return None if values is None else Spread.of(values)


def _bound(editor: GraphEditor, node: onnx.NodeProto, spreads: Mapping[str, Spread]) -> Bound:
    inputs = [_spread_of(editor, spreads, tensor) for tensor in node.input]
    outputs = [spreads.get(tensor) for tensor in node.output]
    values = Bound(max((spread.largest for spread in (*inputs, *outputs) if spread), default=0.0))
    inside = _bound_inside(editor, node, inputs, outputs)
    larger = inside if inside and inside.largest > values.largest else values
    return replace(larger, lost=_lost(editor, node, outputs))


def _lost(editor: GraphEditor, node: onnx.NodeProto, outputs: list[Spread | None]) -> str:
    for tensor in node.input:
        if math.prod(editor.constant_shape(tensor) or (0,)) > 1:  # weights are large, and not read for this
            continue
        constant = editor.float_constant(tensor)
        if constant is not None and constant.size == 1 and abs(constant.item()) < HIGHEST:
            value = constant.item()
            if abs(float(np.float16(value)) - value) > LARGEST_ERROR * abs(value):
                return f"the constant {value:g}"
    small = [spread.rms for spread in outputs if spread and 0 < spread.rms < SMALLEST]
    return f"values of about {small[0]:.1g}" if small else ""


def _bound_inside(
    editor: GraphEditor, node: onnx.NodeProto, inputs: list[Spread | None], outputs: list[Spread | None]
) -> Bound | None:
    """Return a bound of what a node computes on the way to its outputs; None where that is no more than these."""
    first, *others = [spread or Spread() for spread in inputs] or [Spread()]
    if node.op_type in NORMALIZATIONS:
        # What is added before, another layer's answer and a bias, comes first among the inputs of the Skip operators.
        added = [others[0], *others[3:4]] if node.op_type == "SkipLayerNormalization" else others[:1]
        norm = first.row_norm + (sum(spread.row_norm for spread in added) if node.op_type.startswith("Skip") else 0.0)
        return Bound(norm**2, "sum of squares")
    if node.op_type in SQUARES:
        return Bound(first.largest**2 * _summed(first, outputs), "sum of squares")
    if node.op_type in SUMS:
        return Bound(first.largest * _summed(first, outputs), "partial sum")
    measure = _PRODUCTS.get(node.op_type)
    return Bound(measure(editor, node, first, others), "partial sum") if measure else None


def _summed(summed: Spread, outputs: list[Spread | None]) -> float:
    """Return how many values go into one sum."""
    made = next((spread.count for spread in outputs if spread and spread.count), 1)
    return max(1.0, summed.count / made)


def _matmul(editor: GraphEditor, node: onnx.NodeProto, first: Spread, others: list[Spread]) -> float:
    left = first.column_norm if attribute_of(node, "transA", 0) else first.row_norm
    right = others[0].row_norm if attribute_of(node, "transB", 0) else others[0].column_norm
    return left * right


def _block_matmul(editor: GraphEditor, node: onnx.NodeProto, first: Spread, others: list[Spread]) -> float:
    return first.row_norm * Spread.of(stored_weight(editor, node).dequantized()).column_norm


def _convolution(editor: GraphEditor, node: onnx.NodeProto, first: Spread, others: list[Spread]) -> float:
    weight = editor.float_constant(node.input[1])
    if weight is None:
        return first.largest * others[0].largest * others[0].count
    return first.largest * float(np.abs(weight).reshape(len(weight), -1).sum(axis=1).max())


def _attention(editor: GraphEditor, node: onnx.NodeProto, first: Spread, others: list[Spread]) -> float:
    """Bound a score before it is scaled: a query's norm times a key's, of the past too; each with its bias."""
    is_grouped = node.op_type == "GroupQueryAttention"
    past = others[2:3] if is_grouped else others[5:6]
    bias = 0.0 if is_grouped or len(others) < 3 else others[2].row_norm
    own = others[0] if len(node.input) > 1 and node.input[1] else first  # keys may be packed behind the queries
    return (first.row_norm + bias) * (max(key.row_norm for key in (own, *past)) + bias)


def _cubed(editor: GraphEditor, node: onnx.NodeProto, first: Spread, others: list[Spread]) -> float:
    largest = first.largest + (others[0].largest if others else 0.0)
    return float(0.0447 * largest**3)


_PRODUCTS: dict[str, Callable[[GraphEditor, onnx.NodeProto, Spread, list[Spread]], float]] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "FastGelu": _cubed,
    "FusedMatMul": _matmul,
    "Gemm": _matmul,
    "MatMul": _matmul,
    "MatMulNBits": _block_matmul,
    **dict.fromkeys(ATTENTIONS, _attention),
}
