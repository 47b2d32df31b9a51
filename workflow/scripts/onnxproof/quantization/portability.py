"""On which CPUs an int8 model computes the same integers, proven from its weights and tried on the CPU at hand.

x86 CPUs without VNNI (AVX2, and AVX-512 before Cascade Lake) multiply uint8 activations by int8 weights with
vpmaddubsw, which adds the products for inputs 2k and 2k+1 in a saturating int16. A quantized activation may reach
from 0 to 255, so whether that can overflow depends on the weights alone: it cannot where
``255 * (sum of the pair's weights of one sign)`` fits. Unsigned weights are widened to 16 bits there and added in
int32, by onnxruntime's other kernel. VNNI, AMX and ARM's dot product add in int32 and are always
exact. So a model that passes this check passes parity alike on all of them; one that does not may be right where it
was tested and wrong where it runs.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxproof.graph.external_data import read_tensor
from onnxproof.hardware import cpu_description
from onnxproof.quantization.sessions import open_session
from onnxproof.quantization.weights import pair_sums
from onnxproof.records.variant import Portability, TriedHere

UINT8_MAX = 255
INTEGERS = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
INT16_LIMITS = np.iinfo(np.int16)

#: Kinds of CPU by how they add integer products, and the flag of ``cpu.FLAGS_OF_INTEREST`` that tells one; of
#: two that fit, the first is what a CPU uses.
EXACT_SETS = {
    "x86 with VNNI or AMX": ("amx_int8", "avx512_vnni", "avx_vnni"),
    "ARM with dot product": ("asimddp",),
}
SATURATING_SETS = {"x86 with AVX-512, without VNNI": ("avx512bw",), "x86 with AVX2": ("avx2",)}

#: Where each operator holds its weight. A weight with fixed scales comes through a DequantizeLinear, see
#: ``passes/static_matmul.py``.
WEIGHT_INPUT = {
    "DequantizeLinear": 0,
    "DynamicQuantizeMatMul": 1,
    "MatMulInteger": 1,
    "MatMulIntegerToFloat": 1,
    "QAttention": 1,
}


def check_portability(model: onnx.ModelProto) -> Portability:
    """Return which kinds of CPU compute this model's integer products exactly."""
    worst, checked, saturating = 0, 0, []
    for node, weight in _integer_weights(model):
        checked += 1
        if weight.dtype == np.uint8:
            continue
        positive, negative = pair_sums(weight)
        highest, lowest = UINT8_MAX * int(positive.max(initial=0)), UINT8_MAX * int(negative.min(initial=0))
        worst = max(worst, highest, -lowest)
        if highest > INT16_LIMITS.max or lowest < INT16_LIMITS.min:
            saturating.append(node.name)
    without_vnni = "may saturate" if saturating else "exact"
    return {
        "integer_products": checked,
        "instruction_sets": dict.fromkeys(EXACT_SETS, "exact") | dict.fromkeys(SATURATING_SETS, without_vnni),
        "worst_pair_sum": worst,
        "pair_sum_limit": int(INT16_LIMITS.max),
        "may_saturate": saturating,
    }


def try_on_this_cpu(model: onnx.ModelProto) -> TriedHere:
    """Run every integer weight on the inputs that strain it most and compare with exact arithmetic.

    The inputs are 255 wherever a column's weight is positive, or wherever it is negative, for the columns with the
    largest pair sums, and 255 everywhere.
    """
    tried, wrong = 0, []
    for node, weight in _integer_weights(model):
        tried += 1
        inputs = _straining_inputs(weight)
        exact = inputs.astype(np.float64) @ weight.astype(np.float64)  # which holds integers of such a size exactly
        if not np.array_equal(_integer_product(inputs, weight), exact):
            wrong.append(node.name)
    return {"instruction_set": instruction_set(cpu_description()["flags"]), "products": tried, "wrong": wrong}


def instruction_set(flags: list[str]) -> str | None:
    """Return which kind of CPU these flags belong to, None where no kind is known."""
    kinds = EXACT_SETS | SATURATING_SETS
    return next((name for name, telling in kinds.items() if set(telling) & set(flags)), None)


def _integer_weights(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, NDArray[Any]]]:
    """Yield the nodes that multiply by a constant int8 or uint8 weight, each with it, shape (inputs, outputs)."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        weight = constants.get(node.input[WEIGHT_INPUT[node.op_type]]) if node.op_type in WEIGHT_INPUT else None
        if weight is not None and weight.data_type in INTEGERS and len(weight.dims) == 2:
            yield node, read_tensor(model, weight)


def _straining_inputs(weight: NDArray[Any]) -> NDArray[np.uint8]:
    positive, negative = (np.abs(sums).max(axis=0, initial=0) for sums in pair_sums(weight))
    rows = [np.ones(len(weight), dtype=bool)]
    if weight.size:
        rows += [weight[:, positive.argmax()] > 0, weight[:, negative.argmax()] < 0]
    return np.asarray(np.stack(rows) * np.uint8(UINT8_MAX))


def _integer_product(inputs: NDArray[np.uint8], weight: NDArray[Any]) -> NDArray[np.int32]:
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, ["rows", len(weight)])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.INT32, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return np.asarray(open_session(model, threads=1).run(None, {"x": inputs})[0])
