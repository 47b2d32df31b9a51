"""Matrix products in int8 with scales fixed by calibration, written as QuantizeLinear and DequantizeLinear.

``dynamic_matmul`` finds the range of an activation at each run, with operators that only onnxruntime's CPU provider
has. Scales that the file holds, around plain operators, are what OpenVINO and other execution providers turn into their
own integer products (the QDQ format of onnxruntime's documentation, "Quantize ONNX models"). Which of them take which
types is in ``resources/targets/``; the parameters of this pass are there to meet them. An answer does not depend on its
batch, because no scale does.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxproof.graph.editor import GraphEditor
from onnxproof.quantization.activations import Activation, Feeds, record_activations
from onnxproof.quantization.grids import Grid, activation_grid, symmetric_grid
from onnxproof.quantization.passes.plain_attention import plain_attentions
from onnxproof.quantization.passes.products import find_bias, included_targets, with_bias
from onnxproof.quantization.passes.smooth import NORMALIZATIONS
from onnxproof.quantization.rounding import quantize_weights
from onnxproof.quantization.targets import Target
from onnxproof.quantization.weights import QuantizedWeight
from onnxproof.vocabulary import MICROSOFT

#: How many times as far as the values seen a grid reaches. Other inputs hold larger values: to cut one off costs more
#: than coarser steps do. A normalization leaves less to be surprised by.
ROOM, ROOM_NORMALIZED = 1.2, 1.1
#: With heads of at most so many channels, queries and keys stay in float. On CPUs with AMX, OpenVINO 2026.4 gives wrong
#: answers where integer queries and keys have 4 to 32 channels, values are float, and there are as many tokens.
NARROW_HEAD = 32
#: The zero point of weights that are stored as uint8.
MIDDLE = 128
#: From this opset on, ONNX's own QuantizeLinear has 16 bits; before, onnxruntime's has.
SIXTEEN_BITS = 21


def quantize_static_matmul(
    model: onnx.ModelProto,
    calibration: Sequence[Feeds],
    *,
    weight_range: str = "pair_safe",
    rounding: str = "nearest",
    widest: int | None = None,
    activations: str = "uint8",
    unsigned: bool = False,
    outputs: bool = False,
    scores: bool = True,
    room: bool = False,
    exclude: Sequence[str] = (),
) -> None:
    """Put the inputs of products with constant weights on integer grids, in place. All operators stay plain ONNX.

    Weights: int8, symmetric, one scale per output channel. Activations: one scale per tensor, wide enough for all that
    the calibration inputs showed. What rounding moves a product's mean by is taken off its bias (Nagel et al. 2019,
    arXiv 1906.04721), where it has one.

    Args:
        model: a float model of plain operators, opset 13 or later.
        calibration: model inputs.
        weight_range: how the weights keep int16 sums exact, see ``weights.quantize_columns``.
        rounding: of the weights, see ``rounding.quantize_weights``.
        widest: the most inputs of a weight that is rounded with compensation, see there too.
        activations: the type of the activations, see ``grids.ACTIVATIONS``. With uint16 and an opset below 21, the
            nodes that round are onnxruntime's.
        unsigned: store the same weights as uint8 with the zero point 128 and one scale per tensor. What is left of the
            scale of each output channel is multiplied in behind the product.
        outputs: round the outputs of products as well, to the type of the activations.
        scores: round queries and keys as well, to symmetric int8, so that attention scores are integer products, where
            ``has_integer_scores`` says so. What changes on its way from its projection, by rotary embeddings for
            example, stays in float.
        room: whether the grids of activations reach farther than the calibration inputs showed, see ``ROOM``.
        exclude: names of nodes that stay in float.

    Raises:
        ValueError: ``exclude`` names a node that is not quantizable, the type of the activations is unknown, or there
            are no calibration inputs.
    """
    editor = GraphEditor(model)
    readers: dict[str, list[Target]] = {}
    targets = included_targets(editor, exclude)
    for target in targets:
        readers.setdefault(target.activation, []).append(target)
    scored = list(dict.fromkeys(_queries_and_keys(editor))) if scores else []
    made = [target.node.output[0] for target in targets] if outputs else []
    recorded = record_activations(model, calibration, list(dict.fromkeys([*readers, *scored, *made])))
    weights = quantize_weights(model, targets, calibration, weight_range=weight_range, rounding=rounding, widest=widest)
    for tensor, found in readers.items():
        reach = _reach(editor, tensor) if room else 1.0
        low, high = recorded[tensor].ends()
        grid = activation_grid(activations, reach * low, reach * high)
        rounded, nodes = _grid_nodes(editor, tensor, grid)
        editor.insert_before(found[0].node, nodes)
        for target in found:
            stored = _store(weights[target.name], unsigned)
            ends = _product_ends(editor, target, recorded[target.node.output[0]], stored) if outputs else None
            _correct_bias(editor, target, recorded[tensor].rows, grid, weights[target.name])
            _multiply_rounded(editor, target, rounded, stored, activation_grid(activations, *ends) if ends else None)
    for tensor in scored:
        _round_for_all(editor, tensor, symmetric_grid(float(recorded[tensor].channel_max.max())))
    editor.finish()


def _reach(editor: GraphEditor, tensor: str) -> float:
    """Return how many times as far as the values seen the grid of a tensor reaches."""
    maker = editor.producer(tensor)
    return ROOM_NORMALIZED if maker is not None and maker.op_type in NORMALIZATIONS else ROOM


def has_integer_scores(model: onnx.ModelProto) -> bool:
    """Return whether there are attentions whose queries and keys ``scores`` rounds: those with heads wide enough."""
    return next(_queries_and_keys(GraphEditor(model)), None) is not None


def _queries_and_keys(editor: GraphEditor) -> Iterator[str]:
    """Yield the tensors of queries and keys as their projections make them, bias included, if heads are wide enough."""
    for attention in plain_attentions(editor):
        factors = [factor for factor in (attention.query, attention.key) if factor]
        yield from (factor.tensor for factor in factors if factor.channels and factor.channels > NARROW_HEAD)


def _round_for_all(editor: GraphEditor, tensor: str, grid: Grid) -> None:
    """Let all that reads a tensor read it rounded to a grid."""
    maker, readers = editor.producer(tensor), editor.readers(tensor)
    assert maker is not None, "queries and keys are made by a projection"
    rounded, nodes = _grid_nodes(editor, tensor, grid)
    editor.insert_after(maker, nodes)
    for reader in readers:
        for position, name in enumerate(reader.input):
            if name == tensor:
                reader.input[position] = rounded


def _grid_nodes(editor: GraphEditor, tensor: str, grid: Grid) -> tuple[str, list[onnx.NodeProto]]:
    """Return the name of a tensor rounded to a grid, and the two nodes that make it."""
    scale = editor.add_constant(f"{tensor}_scale", np.asarray(grid.scale))
    zero_point = editor.add_constant(f"{tensor}_zero_point", grid.zero_point)
    integers, rounded = editor.new_tensor(f"{tensor}_quantized"), editor.new_tensor(f"{tensor}_dequantized")
    domain = MICROSOFT if grid.zero_point.dtype == np.uint16 and editor.opset < SIXTEEN_BITS else ""
    return rounded, [
        editor.new_node("QuantizeLinear", [tensor, scale, zero_point], [integers], f"{tensor}_QuantizeLinear", domain),
        editor.new_node(
            "DequantizeLinear", [integers, scale, zero_point], [rounded], f"{tensor}_DequantizeLinear", domain
        ),
    ]


class _Stored(NamedTuple):
    """A weight as a file holds it: ``(integers - zero_point) * scale``, each output channel multiplied by ``behind``.

    ``scale`` and ``zero_point`` have one value an output channel, and ``behind`` is None; or they have one for all.
    """

    integers: NDArray[Any]
    scale: NDArray[np.float32]
    zero_point: NDArray[Any]
    behind: NDArray[np.float32] | None


def _store(weight: QuantizedWeight, unsigned: bool) -> _Stored:
    integers, scale = weight
    if not unsigned:
        return _Stored(integers, scale, np.zeros(len(scale), dtype=np.int8), None)
    common = np.asarray(np.median(scale), dtype=np.float32)
    shifted = (integers.astype(np.int16) + MIDDLE).astype(np.uint8)
    return _Stored(shifted, common, np.array(MIDDLE, dtype=np.uint8), (scale / common).astype(np.float32))


def _product_ends(editor: GraphEditor, target: Target, made: Activation, stored: _Stored) -> tuple[float, float]:
    """Return the lowest and the highest value of a product, before its bias and what is multiplied in behind it."""
    node = target.node
    bias = editor.float_constant(node.input[2]) if len(node.input) > 2 else None
    offset = np.float32(0) if bias is None else bias.reshape(-1)
    factor = np.float32(1) if stored.behind is None else stored.behind
    low, high = ((end - offset) / factor for end in (made.channel_low, made.channel_high))
    return float(low.min()), float(high.max())


def _correct_bias(
    editor: GraphEditor, target: Target, rows: NDArray[np.float32], grid: Grid, weight: QuantizedWeight
) -> None:
    """Take off the bias what rounding adds to each output channel, as a mean over the recorded rows."""
    bias = find_bias(editor, target)
    if bias is None:
        return
    integers, scale = weight
    error = (grid.round(rows) @ (integers * scale) - rows @ target.read_weight()).mean(axis=0)
    editor.change_constant(bias.node, bias.position, (bias.values - error).astype(np.float32))


def _multiply_rounded(
    editor: GraphEditor, target: Target, activation: str, stored: _Stored, output: Grid | None
) -> None:
    """Put a MatMul of rounded factors in the place of a target; what it makes is rounded to the grid of ``output``."""
    node = target.node
    name = f"{node.input[1]}_{stored.integers.dtype}"
    integers = editor.share_constant(name, stored.integers)
    scale = editor.share_constant(f"{node.input[1]}_scale", stored.scale)
    zero_point = editor.share_constant(f"{integers}_zero_point", stored.zero_point)
    rounded = editor.new_tensor(f"{integers}_dequantized")

    def product_of(product: str) -> list[onnx.NodeProto]:
        sources = [integers, scale, zero_point]
        weight = editor.new_node("DequantizeLinear", sources, [rounded], f"{integers}_DequantizeLinear", axis=1)
        made = editor.new_tensor(f"{product}_quant")
        nodes = [weight, editor.new_node("MatMul", [activation, rounded], [made], f"{node.name}_quant")]
        if output is not None:
            made, rounding = _grid_nodes(editor, made, output)
            nodes += rounding
        if stored.behind is not None:
            factor = editor.share_constant(f"{integers}_column_scale", stored.behind)
            nodes.append(editor.new_node("Mul", [made, factor], [product], f"{node.name}_rescale"))
        nodes[-1].output[0] = product
        return nodes

    editor.replace(node, with_bias(editor, node, product_of))
