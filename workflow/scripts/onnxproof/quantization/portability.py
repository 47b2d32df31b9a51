"""On which CPUs an int8 model computes the same integers, proven from its weights.

x86 CPUs without VNNI (AVX2, and AVX-512 before Cascade Lake) multiply uint8 activations by int8 weights with
vpmaddubsw, which adds the products for inputs 2k and 2k+1 in a saturating int16. Whether that can overflow depends on
the weights alone: it cannot where ``255 * (sum of the pair's weights of one sign)`` fits. VNNI, AMX and ARM's dot
product add in int32 and are always exact. So a model that passes this check passes parity alike on all of them; one
that does not may be right where it was tested and wrong where it runs.
"""

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnxproof.quantization.weights import pair_sums

UINT8_MAX = 255
INT16_LIMITS = np.iinfo(np.int16)

#: Where each operator holds its weight.
WEIGHT_INPUT = {"DynamicQuantizeMatMul": 1, "MatMulInteger": 1, "MatMulIntegerToFloat": 1, "QAttention": 1}


def check_portability(model: onnx.ModelProto) -> dict[str, Any]:
    """Return which kinds of CPU compute this model's integer products exactly.

    Returns:
        ``{integer_products, instruction_sets: {name: "exact" or "may saturate"}, worst_pair_sum, pair_sum_limit,
        may_saturate: [node names]}``. ``worst_pair_sum`` is the largest magnitude that two adjacent products with the
        largest activations can add up to; int16 holds ``pair_sum_limit``.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    worst, checked, saturating = 0, 0, []
    for node in model.graph.node:
        weight = constants.get(node.input[WEIGHT_INPUT[node.op_type]]) if node.op_type in WEIGHT_INPUT else None
        if weight is None or weight.data_type != onnx.TensorProto.INT8:
            continue  # uint8 weights take another instruction, which does not saturate
        checked += 1
        positive, negative = pair_sums(numpy_helper.to_array(weight))
        highest, lowest = UINT8_MAX * int(positive.max(initial=0)), UINT8_MAX * int(negative.min(initial=0))
        worst = max(worst, highest, -lowest)
        if highest > INT16_LIMITS.max or lowest < INT16_LIMITS.min:
            saturating.append(node.name)
    without_vnni = "may saturate" if saturating else "exact"
    return {
        "integer_products": checked,
        "instruction_sets": {
            "x86 with VNNI or AMX": "exact",
            "x86 without VNNI (AVX2, AVX-512)": without_vnni,
            "ARM with dot product": "exact",
        },
        "worst_pair_sum": worst,
        "pair_sum_limit": int(INT16_LIMITS.max),
        "may_saturate": saturating,
    }
