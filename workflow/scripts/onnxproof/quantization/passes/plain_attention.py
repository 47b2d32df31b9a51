"""Attention written in plain operators: projections, their products, and the softmax between them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxproof.graph.editor import GraphEditor, attribute_of
from onnxproof.quantization.passes.products import Bias, find_bias
from onnxproof.quantization.targets import Target, find_targets, stores_transposed

Floats = NDArray[np.float32]

#: What may stand between the product of queries and keys and its softmax.
SCALE_AND_MASK = {"Add", "Div", "Mul", "Where"}
#: What may stand between a projection and a product of attention: it moves values and changes none.
MOVES = {"Reshape", "Transpose"}
#: How heads are put in front of tokens, of four axes; and how keys are besides transposed.
HEADS_FIRST, TRANSPOSED = (0, 2, 1, 3), (0, 2, 3, 1)


@dataclass(frozen=True)
class Factor:
    """One factor of a product of attention.

    Attributes:
        tensor: what its projection makes, bias included.
        order: where its axes come from, of the four that heads are made of; None if it is not moved in this way.
        channels: of one head; None if the graph does not say.
        alone: whether nothing but the product reads it.
    """

    tensor: str
    order: tuple[int, ...] | None
    channels: int | None
    alone: bool


@dataclass(frozen=True)
class PlainAttention:
    """The factors of attention that come from a projection as they are, and the output, in the layout of the values.

    ``scaling`` is the Mul of scores by a constant right behind their product, None where there is none. ``output`` is
    None where heads are not put together again, or something else reads what comes before.
    """

    query: Factor | None
    key: Factor | None
    value: Factor | None
    scaling: onnx.NodeProto | None
    output: str | None


def plain_attentions(editor: GraphEditor) -> Iterator[PlainAttention]:
    """Yield the attentions of a graph, in graph order."""
    projections = {target.node.output[0]: target.shape[1] for target in find_targets(editor)}
    for softmax in editor.of_type("Softmax"):
        scores = editor.producer(softmax.input[0])
        scaling = None
        while scores is not None and scores.op_type in SCALE_AND_MASK:
            scaling, scores = scores, editor.producer(scores.input[0])
        if scores is None or scores.op_type != "MatMul":
            continue
        query, key = (_factor(editor, projections, name) for name in scores.input)
        readers = editor.readers(softmax.output[0])
        value = output = None
        if len(readers) == 1 and readers[0].op_type == "MatMul" and readers[0].input[0] == softmax.output[0]:
            value = _factor(editor, projections, readers[0].input[1])
            output = _joined_heads(editor, readers[0].output[0])
        yield PlainAttention(query, key, value, _by_a_number(editor, scaling), output)


def _factor(editor: GraphEditor, projections: Mapping[str, int], tensor: str) -> Factor | None:
    """Return the factor of a product that reads ``tensor``; None where that is no projection that was only moved.

    ``projections`` are the tensors that products with weights make, and how many channels each has.
    """
    order, splits, alone = [0, 1, 2, 3], list[str](), _is_read_once(editor, tensor)
    maker = editor.producer(tensor)
    while maker is not None and maker.op_type in MOVES:
        if maker.op_type == "Reshape":
            splits.append(maker.input[1])
        else:
            moved = attribute_of(maker, "perm", [])
            order = [moved[axis] for axis in order] if len(moved) == len(order) and not splits else []
        tensor = maker.input[0]
        alone = alone and _is_read_once(editor, tensor)
        maker = editor.producer(tensor)
    made = [tensor, *(maker.input if maker is not None and maker.op_type == "Add" else [])]
    widths = [projections[name] for name in made if name in projections]
    if not widths:
        return None
    channels = _last_length(editor, splits[0]) if splits else widths[0]
    return Factor(tensor, tuple(order) if order and len(splits) == 1 else None, channels, alone)


def _last_length(editor: GraphEditor, shape: str) -> int | None:
    """Return the length of the last axis in a shape that a Reshape reads; None if the graph does not hold it."""
    maker = editor.producer(shape)
    lengths = editor.constant(maker.input[-1] if maker is not None and maker.op_type == "Concat" else shape)
    return None if lengths is None or lengths[-1] < 1 else int(lengths[-1])


def _by_a_number(editor: GraphEditor, node: onnx.NodeProto | None) -> onnx.NodeProto | None:
    """Return a node if it multiplies what comes first by one constant number, and alone reads that."""
    if node is None or node.op_type != "Mul" or editor.constant_shape(node.input[1]) not in ((), (1,)):
        return None
    is_float = editor.float_constant(node.input[1]) is not None
    return node if is_float and _is_read_once(editor, node.input[0]) and not editor.is_output(node.output[0]) else None


def _joined_heads(editor: GraphEditor, tensor: str) -> str | None:
    """Return what becomes of an attention's product after its heads are put behind the tokens and joined."""
    for operator in ("Transpose", "Reshape"):
        readers = editor.readers(tensor)
        if not _is_read_once(editor, tensor) or readers[0].op_type != operator:
            return None
        if operator == "Transpose" and tuple(attribute_of(readers[0], "perm", [])) != HEADS_FIRST:
            return None
        tensor = readers[0].output[0]
    return tensor


def _is_read_once(editor: GraphEditor, tensor: str) -> bool:
    return len(editor.readers(tensor)) == 1 and not editor.is_output(tensor)


@dataclass(frozen=True)
class Projection:
    """A product that makes queries, keys or values, and its bias."""

    target: Target
    bias: Bias

    def change(self, editor: GraphEditor, factor: Floats, offset: Floats) -> None:
        """Multiply each output channel by its ``factor``, and add its ``offset`` to that."""
        weight = self.target.read_weight() * factor
        node = self.target.node
        editor.change_constant(node, 1, weight.T if stores_transposed(node) else weight)
        editor.change_constant(self.bias.node, self.bias.position, self.bias.values * factor + offset)


def projections_of(editor: GraphEditor) -> dict[str, Projection]:
    """Return the products with a bias and a weight of their own, by the tensor that they make, bias included."""
    found = {}
    for target in find_targets(editor):
        bias = find_bias(editor, target)
        if target.node.op_type != "Attention" and bias and len(editor.readers(target.node.input[1])) == 1:
            found[bias.node.output[0]] = Projection(target, bias)
    return found


def projection_of(
    factor: Factor | None, order: tuple[int, ...], projections: dict[str, Projection]
) -> Projection | None:
    """Return what makes a factor that nothing else reads, and whose axes come in this order."""
    if factor is None or not factor.alone or factor.order != order:
        return None
    return projections.get(factor.tensor)
