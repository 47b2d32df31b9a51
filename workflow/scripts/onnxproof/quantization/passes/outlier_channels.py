"""A few outlier channels kept in float, so that the rest fits int8 well.

A handful of channels, behind a GELU above all, carry values many times larger than the others. Smoothing alone cannot
tame them: whatever is moved into the weights coarsens the weights. So their part of the product is computed
in float, a matrix product with as few inputs as there are such channels, and they are zero in the part that becomes
int8. This is the decomposition of LLM.int8() (Dettmers et al. 2022, arXiv 2208.07339), with the channels chosen at
build time, from calibration.

Taking these channels out of a large tensor keeps that tensor from being rounded where it is made: OpenVINO rounds to
integers within the product, or the GELU, that makes a tensor only if nothing else reads it. So the channels behind an
activation function can be computed a second time, by a product with as many outputs as there are such channels. It
reads what the large product reads, and becomes int8 like it; only what follows it stays in float.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxproof.graph.editor import GraphEditor
from onnxproof.quantization.activations import (
    Activation,
    Feeds,
    findings_of,
    record_activations,
    remember_activations,
)
from onnxproof.quantization.findings import key_of
from onnxproof.quantization.passes.products import included_targets
from onnxproof.quantization.targets import STAYS_FLOAT, Target, bias_behind, find_targets, stores_transposed

#: Activation functions of one input that compute each value by itself.
FUNCTIONS = {
    "FastGelu",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Mish",
    "QuickGelu",
    "Relu",
    "Sigmoid",
    "Tanh",
}


def keep_outlier_channels(
    model: onnx.ModelProto,
    calibration: Iterable[Feeds],
    *,
    ratio: float = 3.0,
    most: int = 4,
    widening: bool = True,
    include: Sequence[str] | None = None,
    anew: bool = False,
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
        anew: whether to compute the outlier channels a second time where they come from a product and an activation
            function, so that nothing else reads the large tensor between both products.

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
    tensors = _activations_of(editor) if targets else []
    editor.finish()
    recorded: dict[str, Activation] = {}

    def choose() -> dict[str, NDArray[np.int64]]:
        recorded.update(record_activations(model, calibration, tensors))
        chosen = {}
        for target in targets:
            outliers = outlier_channels(recorded[target.activation].channel_max, ratio, most)
            if len(outliers):
                chosen[target.name] = outliers
        return chosen

    key = key_of(model, outliers_of=[target.name for target in targets], ratio=ratio, most=most)
    chosen = findings_of(calibration).choose(key, choose)
    for target in targets:
        if target.name in chosen:
            rest, mask = _split(editor, target, chosen[target.name], anew)
            if target.activation in recorded:
                recorded[rest] = recorded[target.activation].masked(mask)
    editor.finish()
    if recorded:  # what follows a product changes by rounding alone, for which not all inputs are run once more
        remember_activations(model, calibration, recorded, _activations_of(editor))


def _activations_of(editor: GraphEditor) -> list[str]:
    """Return the names of the tensors that the quantizable nodes read."""
    return list(dict.fromkeys(target.activation for target in find_targets(editor)))


def outlier_channels(channel_max: NDArray[np.float32], ratio: float, most: int) -> NDArray[np.int64]:
    """Return, ascending, the positions of at most ``most`` magnitudes above ``ratio`` times the median."""
    largest = np.argsort(-channel_max, kind="stable")[:most]
    return np.sort(largest[channel_max[largest] > ratio * np.median(channel_max)])


def _split(
    editor: GraphEditor, target: Target, outliers: NDArray[np.int64], anew: bool
) -> tuple[str, NDArray[np.float32]]:
    """Split a product; return the name of the activation without its outliers, and the mask that it was made with."""
    node, tensor = target.node, target.activation
    # onnxruntime folds a bias behind an integer product into it.
    last = bias_behind(editor, node) or node
    output = last.output[0]
    weight = target.read_weight()
    mask = np.ones(len(weight), dtype=np.float32)
    mask[outliers] = 0
    rest, rest_product, product = (
        editor.new_tensor(f"{output}_{part}") for part in ("rest", "rest_product", "outlier_product")
    )
    kept_weight = np.where(mask[:, None] > 0, weight, 0)
    editor.change_constant(node, 1, kept_weight.T if stores_transposed(node) else kept_weight)
    node.input[0], last.output[0] = rest, rest_product
    mask_name = editor.add_constant(f"{node.name}_mask", mask)
    masking = editor.new_node("Mul", [tensor, mask_name], [rest], f"{node.name}_mask")
    selected = editor.new_tensor(f"{output}_outliers")
    nodes = _compute_anew(editor, target, outliers, selected) if anew else []
    is_anew = bool(nodes)
    nodes = nodes or _select(editor, target, outliers, selected)
    small_weight = editor.add_constant(f"{node.name}_outlier_weight", weight[outliers])
    small = editor.new_node("MatMul", [selected, small_weight], [product], f"{node.name}_outlier_product")
    if is_anew:  # an empty remark would be another byte in the file
        small.doc_string = STAYS_FLOAT
    editor.insert_before(node, [masking])
    sum_of = _sum_with_another(editor, output) if is_anew else None
    if sum_of is None:
        join = editor.new_node("Add", [rest_product, product], [output], f"{node.name}_join")
        editor.insert_after(last, [*nodes, small, join])
        return rest, mask
    adding, other = sum_of
    joined = editor.new_tensor(f"{other}_joined")
    editor.insert_before(
        adding, [*nodes, small, editor.new_node("Add", [other, product], [joined], f"{node.name}_join")]
    )
    adding.input[:] = [rest_product, joined]
    return rest, mask


def _sum_with_another(editor: GraphEditor, tensor: str) -> tuple[onnx.NodeProto, str] | None:
    """Return the Add that alone reads a tensor, and what it adds; None where there is none.

    Outliers are then added to that: a residual connection comes out of a normalization, whose last steps, this sum and
    the next one OpenVINO computes in one pass.
    """
    readers = editor.readers(tensor)
    if len(readers) != 1 or readers[0].op_type != "Add" or editor.is_output(tensor):
        return None
    [adding] = readers
    others = [name for name in adding.input if name != tensor]
    return (adding, others[0]) if len(others) == 1 and editor.constant_shape(others[0]) is None else None


def _select(editor: GraphEditor, target: Target, outliers: NDArray[np.int64], output: str) -> list[onnx.NodeProto]:
    """Return the node that takes the outlier channels out of the target's activation."""
    name = f"{target.name}_outliers"
    channels = editor.add_constant(name, outliers)
    return [editor.new_node("Gather", [target.activation, channels], [output], name, axis=-1)]


def _compute_anew(
    editor: GraphEditor, target: Target, outliers: NDArray[np.int64], output: str
) -> list[onnx.NodeProto]:
    """Return the nodes that compute the outlier channels of the target's activation from what its maker reads.

    They are a product, its bias where it has one, and the activation function. There are none where the activation
    comes from anything else.
    """
    function = editor.producer(target.activation)
    if function is None or function.op_type not in FUNCTIONS or len(function.input) != 1:
        return []
    maker, bias = _maker_of(editor, function.input[0])
    if maker is None:
        return []
    name = f"{target.name}_outliers"
    weight = editor.add_constant(f"{name}_weight", np.ascontiguousarray(maker.read_weight()[:, outliers]))
    made = editor.new_tensor(f"{name}_made")
    product = editor.new_node("MatMul", [maker.activation, weight], [made], f"{name}_product")
    nodes = [product]
    if bias is not None:
        added = editor.new_tensor(f"{name}_biased")
        nodes.append(
            editor.new_node("Add", [made, editor.add_constant(f"{name}_bias", bias[outliers])], [added], f"{name}_bias")
        )
        made = added
    computed = editor.new_node(function.op_type, [made], [output], f"{name}_function", function.domain)
    computed.attribute.extend(function.attribute)
    return [*nodes, computed]


def _maker_of(editor: GraphEditor, tensor: str) -> tuple[Target | None, NDArray[np.float32] | None]:
    """Return the product that makes a tensor, and its bias; None where it has no bias, twice where no product does."""
    products = {made.node.output[0]: made for made in find_targets(editor) if made.node.op_type != "Attention"}
    if tensor in products:
        node = products[tensor].node
        bias = editor.float_constant(node.input[2], rank=1) if len(node.input) > 2 else None
        return (products[tensor], bias) if bias is not None or len(node.input) == 2 else (None, None)
    last = editor.producer(tensor)
    if last is None:
        return None, None
    for product in products.keys() & set(last.input):
        node = products[product].node
        if len(node.input) == 2 and bias_behind(editor, node) is last:
            [other] = (name for name in last.input if name != product)
            return products[product], editor.float_constant(other, rank=1)
    return None, None
