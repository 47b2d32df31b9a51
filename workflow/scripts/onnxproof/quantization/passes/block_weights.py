"""Matrix products whose weights alone are quantized, to 4 or 8 bits by blocks: com.microsoft MatMulNBits.

A product of one row, as a language model makes for each token it writes, is bound by the memory its weights are read
from: with 4 bits there is an eighth to read. With many rows the weights are turned back into floats for each call, and
dynamic int8 is faster.
"""

from collections.abc import Sequence

import onnx

from onnxproof.graph.editor import GraphEditor, attribute_of
from onnxproof.quantization.activations import Feeds
from onnxproof.quantization.blocks import BlockFormat, BlockWeight, quantize_to_blocks, read_packed
from onnxproof.quantization.passes.attention_parts import attend_to_joined
from onnxproof.quantization.passes.joined_products import join_products
from onnxproof.quantization.passes.products import included_targets, with_bias
from onnxproof.quantization.rounding import compensated_readers, record_correlations
from onnxproof.quantization.targets import Target
from onnxproof.vocabulary import MICROSOFT


def quantize_block_weights(
    model: onnx.ModelProto,
    calibration: Sequence[Feeds] = (),
    *,
    bits: int = 4,
    block_size: int = 32,
    zero_points: bool = False,
    rounding: str = "nearest",
    widest: int | None = None,
    accuracy_level: int = 0,
    eight_bit: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> None:
    """Turn products with constant weights into products with weights by blocks, in place.

    Args:
        model: the model to change.
        calibration: model inputs; needed for compensated rounding only.
        bits: 4 or 8 bits a weight.
        block_size: weights that share a scale, which follow each other along the inputs.
        zero_points: whether a block has a zero point of its own.
        rounding: ``nearest``; or ``compensated``: scales and integers such that the product on the calibration inputs
            changes least, see ``blocks.quantize_to_blocks``. A weight that several targets read is rounded to the
            nearest either way, because their inputs differ.
        widest: weights with more inputs than this are rounded to the nearest; None compensates all.
        accuracy_level: of onnxruntime's kernel: 0 leaves the choice to it, 4 lets it round activations to int8, which
            is twice as fast on CPUs.
        eight_bit: names of nodes whose weights have 8 bits whatever ``bits`` says.
        exclude: names of nodes that stay in float.

    Raises:
        ValueError: there is no such format or rounding; ``eight_bit`` or ``exclude`` names a node that is not
            quantizable; or the calibration inputs are needed and there are none.
    """
    formats = {width: BlockFormat(width, block_size, zero_points) for width in (bits, 8)}
    editor = GraphEditor(model)
    wider = {target.name for target in included_targets(editor, include=eight_bit)} if eight_bit else set()
    targets = included_targets(editor, exclude)
    editor.finish()

    def format_of(target: Target) -> BlockFormat:
        return formats[8 if target.name in wider else bits]

    compensated = compensated_readers(targets, rounding, widest)
    quantized: dict[str, BlockWeight] = {}
    widths = {tensor: found[0].shape[0] for tensor, found in compensated.items()}
    for tensor, correlations in record_correlations(model, calibration, widths):
        for target in compensated[tensor]:
            quantized[target.name] = quantize_to_blocks(
                target.read_weight(), format_of(target), correlations, compensate=True
            )
    for target in targets:
        weight = quantized.pop(target.name, None) or quantize_to_blocks(target.read_weight(), format_of(target))
        editor.replace(target.node, _product(editor, target, weight, accuracy_level))
    editor.finish()
    join_products(model)


def _product(editor: GraphEditor, target: Target, weight: BlockWeight, accuracy_level: int) -> list[onnx.NodeProto]:
    node, output = target.node, target.node.output[0]
    stored = store_blocks(editor, node.input[1], weight)
    if node.op_type == "Attention":
        joined = editor.new_tensor(f"{output}_projections")
        return [
            _block_product(editor, target, stored, weight, joined, accuracy_level),
            *attend_to_joined(editor, node, joined, weight.integers.shape[1] // 3),
        ]
    return biased_product(editor, target, stored, weight, accuracy_level)


def store_blocks(editor: GraphEditor, name: str, weight: BlockWeight) -> list[str]:
    """Store what MatMulNBits reads of a weight, once for all its readers, under names made from ``name``; return them.

    The weights, (outputs, blocks, bytes of a block); the scales, (outputs, blocks); the zero points where there are
    some.
    """
    integers, scales, zero_points = weight.packed()
    bits = weight.format.bits
    stored = [
        editor.share_constant(f"{name}_q{bits}", integers),
        editor.share_constant(f"{name}_q{bits}_scales", scales),
    ]
    if zero_points is not None:
        stored.append(editor.share_constant(f"{name}_q{bits}_zero_points", zero_points))
    return stored


def stored_weight(editor: GraphEditor, node: onnx.NodeProto) -> BlockWeight:
    """Return the weight that a MatMulNBits node reads.

    Raises:
        ValueError: onnxruntime has no such format.
    """
    size, bits, inputs = (attribute_of(node, name, 0) for name in ("block_size", "bits", "K"))
    packed, scales, *others = (editor.constant(tensor) for tensor in node.input[1:4] if tensor)
    assert packed is not None, "MatMulNBits reads constants"
    assert scales is not None, "MatMulNBits reads constants"
    zero_points = others[0] if others else None
    return read_packed(packed, scales, zero_points, BlockFormat(bits, size, zero_points is not None), inputs)


def biased_product(
    editor: GraphEditor, target: Target, stored: list[str], weight: BlockWeight, accuracy_level: int
) -> list[onnx.NodeProto]:
    """Return the nodes that take a MatMul's or a Gemm's place: the product with stored blocks, and its bias."""
    return with_bias(
        editor,
        target.node,
        lambda product: [_block_product(editor, target, stored, weight, product, accuracy_level)],
    )


def _block_product(
    editor: GraphEditor, target: Target, stored: list[str], weight: BlockWeight, output: str, accuracy_level: int
) -> onnx.NodeProto:
    inputs, outputs = weight.integers.shape
    level = {"accuracy_level": accuracy_level} if accuracy_level else {}
    return editor.new_node(
        "MatMulNBits",
        [target.activation, *stored],
        [output],
        f"{target.name}_q{weight.format.bits}",
        domain=MICROSOFT,
        K=inputs,
        N=outputs,
        bits=weight.format.bits,
        block_size=weight.format.size,
        **level,
    )
