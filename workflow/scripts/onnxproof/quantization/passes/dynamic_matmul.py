"""Matrix products in int8, the activation's scale computed at run time, one per tensor.

The result is what onnxruntime's ``quantize_dynamic`` writes, so its kernels and fusions apply: at load,
MatMulInteger and what surrounds it become DynamicQuantizeMatMul or MatMulIntegerToFloat, and com.microsoft
Attention becomes QAttention. Writing the nodes ourselves gives the weight ranges of
``weights.quantize_columns``, needs no temporary files, and works on optimized graphs, whose types onnx cannot
infer.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx

from onnxproof.graph.editor import GraphEditor
from onnxproof.quantization.activations import Feeds
from onnxproof.quantization.passes.products import included_targets, with_bias
from onnxproof.quantization.rounding import quantize_weights
from onnxproof.quantization.targets import Target
from onnxproof.quantization.weights import QuantizedWeight
from onnxproof.vocabulary import MICROSOFT

#: What stands for zero where weights are stored as uint8: they are int8 with another sign bit.
UNSIGNED_ZERO = 128


def quantize_dynamic_matmul(
    model: onnx.ModelProto,
    calibration: Sequence[Feeds] = (),
    *,
    weight_range: str = "pair_safe",
    rounding: str = "nearest",
    widest: int | None = None,
    unsigned: bool = False,
    exclude: Sequence[str] = (),
) -> None:
    """Turn products with constant weights into int8 products, in place.

    Weights: int8, symmetric, one scale per output channel. Activations: uint8 with a zero point, one scale
    per tensor, computed at run time (DynamicQuantizeLinear), once for all readers of a tensor.

    Args:
        model: the model to change.
        calibration: model inputs; needed for compensated rounding only.
        weight_range: how the weights keep int16 sums exact, see ``weights.quantize_columns``.
        rounding: of the weights, see ``rounding.quantize_weights``.
        widest: the most inputs of a weight that is rounded with compensation, see there too.
        unsigned: store the weights as uint8 with the zero point 128. CPUs multiply them by other instructions, which
            are slower on most and saturate on none, so that ``weight_range`` may be ``full``.
        exclude: names of nodes that stay in float.

    Raises:
        ValueError: ``exclude`` names a node that is not quantizable; or see ``rounding.quantize_weights``.
    """
    editor = GraphEditor(model)
    targets = included_targets(editor, exclude)
    weights = quantize_weights(model, targets, calibration, weight_range=weight_range, rounding=rounding, widest=widest)
    activations: dict[str, QuantizedActivation] = {}
    for target in targets:
        if target.activation not in activations:
            activations[target.activation] = _quantize_activation(editor, target)
        rewrite = _integer_attention if target.node.op_type == "Attention" else _integer_matmul
        weight = _store_weight(editor, target.node.input[1], weights[target.name], unsigned)
        editor.replace(target.node, rewrite(editor, target, activations[target.activation], weight))
    editor.finish()


def read_rounded_weights(model: onnx.ModelProto) -> dict[str, QuantizedWeight]:
    """Return the weights of a model that ``quantize_dynamic_matmul`` has made, by the names that its nodes had before.

    Weights that are stored as uint8 are left out.
    """
    editor = GraphEditor(model)
    scales = {node.name: node.input[1] for node in editor.of_type("Mul")}
    weights: dict[str, QuantizedWeight] = {}
    for node in editor.of_type("MatMulInteger", "QAttention"):
        name = node.name.removesuffix("_quant")
        integers = editor.constant(node.input[1])
        scale = editor.constant(node.input[4] if node.op_type == "QAttention" else scales.get(f"{name}_scale", ""))
        if integers is not None and integers.dtype == np.int8 and scale is not None:
            weights[name] = integers, scale
    return weights


class StoredWeight(NamedTuple):
    """Names of the tensors that hold a weight as integers and its scales, and whether the integers are ``unsigned``."""

    integers: str
    scale: str
    unsigned: bool


class QuantizedActivation:
    """Names of the tensors that hold an activation as integers, its scale and its zero point."""

    def __init__(self, integers: str, scale: str, zero_point: str) -> None:
        """Store the three names."""
        self.integers, self.scale, self.zero_point = integers, scale, zero_point


def _quantize_activation(editor: GraphEditor, target: Target) -> QuantizedActivation:
    """Insert a DynamicQuantizeLinear before the activation's first reader."""
    tensor = target.activation
    names = [editor.new_tensor(f"{tensor}_{part}") for part in ("quantized", "scale", "zero_point")]
    node = editor.new_node("DynamicQuantizeLinear", [tensor], names, f"{tensor}_DynamicQuantizeLinear")
    editor.insert_before(target.node, [node])
    return QuantizedActivation(*names)


def _integer_matmul(
    editor: GraphEditor, target: Target, activation: QuantizedActivation, weight: StoredWeight
) -> list[onnx.NodeProto]:
    node, output = target.node, target.node.output[0]
    integer, value, scale = (editor.new_tensor(f"{output}_{part}") for part in ("int32", "unscaled", "output_scale"))
    factors = [activation.integers, weight.integers, activation.zero_point]
    if weight.unsigned:
        factors.append(editor.share_constant("weight_zero_point", np.array(UNSIGNED_ZERO, dtype=np.uint8)))

    def product_of(product: str) -> list[onnx.NodeProto]:
        return [
            editor.new_node("MatMulInteger", factors, [integer], f"{node.name}_quant"),
            editor.new_node("Cast", [integer], [value], f"{node.name}_cast", to=onnx.TensorProto.FLOAT),
            editor.new_node("Mul", [activation.scale, weight.scale], [scale], f"{node.name}_scale"),
            editor.new_node("Mul", [value, scale], [product], f"{node.name}_dequantize"),
        ]

    return with_bias(editor, node, product_of)


def _integer_attention(
    editor: GraphEditor, target: Target, activation: QuantizedActivation, weight: StoredWeight
) -> list[onnx.NodeProto]:
    node = target.node
    zeros = np.full(target.shape[1], UNSIGNED_ZERO, np.uint8) if weight.unsigned else np.zeros(target.shape[1], np.int8)
    zero_point = editor.add_constant(f"{weight.integers}_zero_point", zeros)
    mask = node.input[3] if len(node.input) > 3 else ""
    inputs = [activation.integers, weight.integers, node.input[2], activation.scale, weight.scale]
    inputs += [mask, activation.zero_point, zero_point]
    attention = editor.new_node("QAttention", inputs, node.output, f"{node.name}_quant", domain=MICROSOFT)
    attention.attribute.extend(node.attribute)
    return [attention]


def _store_weight(editor: GraphEditor, name: str, quantized: QuantizedWeight, unsigned: bool) -> StoredWeight:
    if not unsigned:
        return StoredWeight(*store_weight(editor, name, quantized), unsigned=False)
    integers, scale = quantized
    shifted = (integers.astype(np.int16) + UNSIGNED_ZERO).astype(np.uint8)
    stored = editor.share_constant(f"{name}_uint8", shifted), editor.share_constant(f"{name}_scale", scale)
    return StoredWeight(*stored, unsigned=True)


def store_weight(editor: GraphEditor, name: str, quantized: QuantizedWeight) -> tuple[str, str]:
    """Store int8 columns and their scales, once for all their readers, under names made from ``name``; return both."""
    integers, scale = quantized
    return editor.share_constant(f"{name}_int8", integers), editor.share_constant(f"{name}_scale", scale)
