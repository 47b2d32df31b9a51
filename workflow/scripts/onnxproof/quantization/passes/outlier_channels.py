"""A few outlier channels kept in float, so that the rest fits int8 well.

A handful of channels, behind a GELU above all, carry values many times larger than the others. Smoothing alone cannot
tame them: whatever is moved into the weights coarsens the weights. So their part of the product is computed
in float, a matrix product with as few inputs as there are such channels, and they are zero in the part that becomes
int8. This is the decomposition of LLM.int8() (Dettmers et al. 2022, arXiv 2208.07339), with the channels chosen at
build time, from calibration.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxproof.graph.editor import GraphEditor
from onnxproof.quantization.activations import Feeds, findings_of, record_activations
from onnxproof.quantization.findings import key_of
from onnxproof.quantization.passes.products import included_targets
from onnxproof.quantization.targets import Target, bias_behind, find_targets, stores_transposed


def keep_outlier_channels(
    model: onnx.ModelProto,
    calibration: Iterable[Feeds],
    *,
    ratio: float = 3.0,
    most: int = 4,
    widening: bool = True,
    include: Sequence[str] | None = None,
) -> None:
    """Split each product that has outlier channels in two, in place. The outputs stay the same up to rounding.

    ``X @ W`` becomes ``(X * mask) @ W + X[:, outliers] @ W[outliers, :]``, where the mask is zero at the outliers.
    A quantizing pass that follows takes the first product and leaves the second. Fused Attention is left alone: its
    input comes from a layer normalization, which smoothing handles well.

    Args:
        model: the model to change.
        calibration: inputs that show which channels are large.
        ratio: a channel is an outlier where its largest magnitude is this many times the median channel's.
        most: how many channels of one activation may stay in float; the largest do.
        widening: whether to split products with more outputs than inputs too. There the float part costs most, for
            it is as wide as the output, and smoothing helps most, for layer normalizations come before them.
        include: names of the nodes to split; None means all.

    Raises:
        ValueError: ``include`` names a node that is not quantizable.
    """
    editor = GraphEditor(model)
    targets = [
        target
        for target in included_targets(editor, include=include)
        if target.node.op_type != "Attention" and (widening or target.shape[0] >= target.shape[1])
    ]
    # Of all that smoothing looks at too, so that one recording serves both.
    tensors = list(dict.fromkeys(target.activation for target in find_targets(editor))) if targets else []
    editor.finish()

    def choose() -> dict[str, NDArray[np.int64]]:
        activations = record_activations(model, calibration, tensors)
        chosen = {}
        for target in targets:
            outliers = outlier_channels(activations[target.activation].channel_max, ratio, most)
            if len(outliers):
                chosen[target.name] = outliers
        return chosen

    key = key_of(model, outliers_of=[target.name for target in targets], ratio=ratio, most=most)
    chosen = findings_of(calibration).choose(key, choose)
    for target in targets:
        if target.name in chosen:
            _split(editor, target, chosen[target.name])
    editor.finish()


def outlier_channels(channel_max: NDArray[np.float32], ratio: float, most: int) -> NDArray[np.int64]:
    """Return, ascending, the positions of at most ``most`` magnitudes above ``ratio`` times the median."""
    largest = np.argsort(-channel_max, kind="stable")[:most]
    return np.sort(largest[channel_max[largest] > ratio * np.median(channel_max)])


def _split(editor: GraphEditor, target: Target, outliers: NDArray[np.int64]) -> None:
    node, tensor = target.node, target.activation
    # onnxruntime folds a bias behind an integer product into it.
    last = bias_behind(editor, node) or node
    output = last.output[0]
    weight = target.read_weight()
    mask = np.ones(len(weight), dtype=np.float32)
    mask[outliers] = 0
    rest, selected, rest_product, product = (
        editor.new_tensor(f"{output}_{part}") for part in ("rest", "outliers", "rest_product", "outlier_product")
    )
    kept_weight = np.where(mask[:, None] > 0, weight, 0)
    editor.change_constant(node, 1, kept_weight.T if stores_transposed(node) else kept_weight)
    node.input[0], last.output[0] = rest, rest_product
    constants = {
        "mask": editor.add_constant(f"{node.name}_mask", mask),
        "channels": editor.add_constant(f"{node.name}_outliers", outliers),
        "weight": editor.add_constant(f"{node.name}_outlier_weight", weight[outliers]),
    }
    editor.insert_before(node, [editor.new_node("Mul", [tensor, constants["mask"]], [rest], f"{node.name}_mask")])
    editor.insert_after(
        last,
        [
            editor.new_node("Gather", [tensor, constants["channels"]], [selected], f"{node.name}_outliers", axis=-1),
            editor.new_node("MatMul", [selected, constants["weight"]], [product], f"{node.name}_outlier_product"),
            editor.new_node("Add", [rest_product, product], [output], f"{node.name}_join"),
        ],
    )
