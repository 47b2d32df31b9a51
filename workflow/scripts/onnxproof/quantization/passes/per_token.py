"""Matrix products in int8 with one activation scale per token: an answer no longer depends on its batch.

With one scale per tensor, the largest value of a batch sets the steps for every text in it, and padding or a
neighbour changes the answer. Here each row (token) is divided by its own range before it is rounded around a zero
point fixed at build time; the integer product is scaled back row by row. That is also more exact: an outlier token
coarsens its own row only.

The quantized row is shared by all readers of an activation. com.microsoft Attention has no kernel with a scale per
row, so its three projections are computed outside, and MultiHeadAttention, still fused, does the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxproof.graph.editor import GraphEditor
from onnxproof.quantization.activations import Feeds, record_activations
from onnxproof.quantization.integer_error import UINT8_MAX, choose_zero_point
from onnxproof.quantization.passes.attention_parts import attend
from onnxproof.quantization.passes.dynamic_matmul import store_weight
from onnxproof.quantization.passes.products import included_targets, with_bias
from onnxproof.quantization.rounding import quantize_weights
from onnxproof.quantization.targets import Target, bias_behind
from onnxproof.quantization.weights import QuantizedWeight
from onnxproof.vocabulary import MICROSOFT

SMALLEST_RANGE = np.float32(1e-12)  # an all-zero row must not be divided by zero


@dataclass(frozen=True)
class QuantizedRows:
    """Tensor names: uint8 rows, the range each row was divided by, and the constants that undo the rest."""

    integers: str
    row_range: str
    step: str
    zero_point: str


def quantize_per_token(
    model: onnx.ModelProto,
    calibration: Sequence[Feeds],
    *,
    weight_range: str = "pair_safe",
    rounding: str = "nearest",
    widest: int | None = None,
    exclude: Sequence[str] = (),
    include: Sequence[str] | None = None,
) -> None:
    """Turn products with constant weights into int8 products with one activation scale per token, in place.

    Args:
        model: the model to change.
        calibration: inputs to choose each activation's zero point on. Any input is rounded without clipping,
            whatever the zero point; it only decides how fine the steps are.
        weight_range: how the weights keep int16 sums exact, see ``weights.quantize_columns``.
        rounding: of the weights, see ``rounding.quantize_weights``.
        widest: the most inputs of a weight that is rounded with compensation, see there too.
        exclude: names of nodes that stay as they are.
        include: names of the only nodes to change; None means all.

    Raises:
        ValueError: ``exclude`` or ``include`` names a node that is not quantizable.
    """
    editor = GraphEditor(model)
    targets = included_targets(editor, exclude, include)
    editor.finish()
    tensors = list(dict.fromkeys(target.activation for target in targets))
    activations = record_activations(model, calibration, tensors)
    weights = quantize_weights(model, targets, calibration, weight_range=weight_range, rounding=rounding, widest=widest)
    quantized: dict[str, QuantizedRows] = {}
    for target in targets:
        tensor = target.activation
        if tensor not in quantized:
            zero_point = choose_zero_point(activations[tensor].rows)
            quantized[tensor] = _quantize_rows(editor, target, zero_point)
        rewrite = _attention_per_token if target.node.op_type == "Attention" else _matmul_per_token
        editor.replace(target.node, rewrite(editor, target, quantized[tensor], weights[target.name]))
    editor.finish()


def _quantize_rows(editor: GraphEditor, reader: Target, zero_point: int) -> QuantizedRows:
    """Insert, before an activation's first reader, the nodes that bring each row to uint8.

    ``range = max(max(row), -min(row) * (255 - z) / z)``; ``integers = round(row / range * (255 - z)) + z``. The
    highest value meets 255 or the lowest meets 0, and nothing is clipped.
    """
    tensor = reader.activation
    name = {
        part: editor.new_tensor(f"{tensor}_{part}")
        for part in ("highest", "lowest", "scaled_lowest", "range", "inverse_range", "normalized", "rows")
    }
    above = UINT8_MAX - zero_point
    last_axis = editor.share_constant("last_axis", np.array([-1], dtype=np.int64))
    ratio = editor.share_constant(f"zero_point_{zero_point}_ratio", np.array(-above / zero_point, dtype=np.float32))
    smallest = editor.share_constant("smallest_range", np.array(SMALLEST_RANGE))
    step = editor.share_constant(f"zero_point_{zero_point}_step", np.array(1 / above, dtype=np.float32))
    stored_zero_point = editor.share_constant(f"zero_point_{zero_point}", np.array(zero_point, dtype=np.uint8))
    steps = (
        ("ReduceMax", [tensor, last_axis], "highest"),
        ("ReduceMin", [tensor, last_axis], "lowest"),
        ("Mul", [name["lowest"], ratio], "scaled_lowest"),
        ("Max", [name["highest"], name["scaled_lowest"], smallest], "range"),
        ("Reciprocal", [name["range"]], "inverse_range"),
        ("Mul", [tensor, name["inverse_range"]], "normalized"),
        ("QuantizeLinear", [name["normalized"], step, stored_zero_point], "rows"),
    )
    nodes = [editor.new_node(op, inputs, [name[part]], f"{tensor}_{part}") for op, inputs, part in steps]
    editor.insert_before(reader.node, nodes)
    return QuantizedRows(name["rows"], name["range"], step, stored_zero_point)


def _matmul_per_token(
    editor: GraphEditor, target: Target, rows: QuantizedRows, quantized: QuantizedWeight
) -> list[onnx.NodeProto]:
    node = target.node
    _keep_from_fusing(editor, node)
    return with_bias(editor, node, lambda product: _product(editor, node.input[1], quantized, rows, product, node.name))


def _keep_from_fusing(editor: GraphEditor, product: onnx.NodeProto) -> None:
    """Give the bias behind a product a second dimension, so that onnxruntime doesn't fuse it with a Gelu at load.

    Here the bias can't be folded into the integer product, and BiasGelu is slower than the two, see split_bias_gelu.
    """
    add = bias_behind(editor, product)
    if add is None:
        return
    for position, tensor in enumerate(add.input):
        bias = editor.float_constant(tensor, rank=1)
        if bias is not None:
            editor.change_constant(add, position, bias[np.newaxis])


def _attention_per_token(
    editor: GraphEditor, target: Target, rows: QuantizedRows, quantized: QuantizedWeight
) -> list[onnx.NodeProto]:
    node = target.node
    nodes, projected = [], []
    parts = zip(*(np.split(values, 3, axis=-1) for values in quantized), strict=True)
    for part, weight in zip(("query", "key", "value"), parts, strict=True):
        product = editor.new_tensor(f"{node.output[0]}_{part}")
        stored = f"{node.input[1]}_{part}"
        nodes += _product(editor, stored, weight, rows, product, f"{node.name}_{part}")
        projected.append(product)
    nodes.append(attend(editor, node, projected))
    return nodes


def _product(
    editor: GraphEditor,
    stored_name: str,
    quantized: QuantizedWeight,
    rows: QuantizedRows,
    output: str,
    node_name: str,
) -> list[onnx.NodeProto]:
    """Return the nodes of ``rows @ weight``; the scale of each column is applied inside the integer product."""
    stored, stored_scale = store_weight(editor, stored_name, quantized)
    unscaled = editor.new_tensor(f"{output}_unscaled")
    inputs = [rows.integers, stored, rows.step, stored_scale, rows.zero_point]
    return [
        editor.new_node("MatMulIntegerToFloat", inputs, [unscaled], f"{node_name}_quant", domain=MICROSOFT),
        editor.new_node("Mul", [unscaled, rows.row_range], [output], f"{node_name}_dequantize"),
    ]
