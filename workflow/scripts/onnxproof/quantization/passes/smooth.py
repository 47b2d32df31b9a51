"""SmoothQuant: divide outlier channels of an activation by what its weights are multiplied by.

An activation's int8 scale is set by its largest value. In transformers that value sits in a few channels, the same
for every input, and the other channels are left with few steps. ``(X / s) @ (s * W)`` is the same product with the
outliers moved into the weights, which have a scale per output channel and steps to spare
(Xiao et al. 2022, arXiv 2211.10438).

How much to move is searched for, as in AWQ (Lin et al. 2023, arXiv 2306.00978): per activation, the candidate with
the smallest error of the integer product, with a scale per token, on recorded rows wins. The same choice serves one
scale per tensor that is found when the model runs. For scales that are fixed, it is the error with such a scale.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxproof.graph.editor import GraphEditor
from onnxproof.quantization.activations import (
    Activation,
    Calibration,
    Feeds,
    count_steps,
    findings_of,
    record_activations,
)
from onnxproof.quantization.findings import key_of
from onnxproof.quantization.integer_error import ExactProduct, integer_product_error, static_product_error
from onnxproof.quantization.targets import Target, find_targets, stores_transposed

#: SmoothQuant's migration strengths: 0 leaves activations alone, 1 makes all their channels alike.
STRENGTHS = (0.4, 0.5, 0.6, 0.7, 0.8)
#: Channel magnitudes above this quantile of all channels are cut down to it, the others left alone.
CAPS = (0.7, 0.9, 0.98)
#: Further ones where scales are fixed: a single channel then sets the scale of all texts.
FIXED_CAPS = (*CAPS, 0.995)
#: Scales keep this many bits behind the leading one, so that rounding noise between CPUs seldom changes the bytes.
SCALE_BITS = 4
#: The normalizations that scales are folded into, and which of their inputs is gamma; beta comes next, if at all.
NORMALIZATIONS = {"LayerNormalization": 1, "SimplifiedLayerNormalization": 1, "SkipLayerNormalization": 2}


def smooth_activations(
    model: onnx.ModelProto,
    calibration: Iterable[Feeds],
    *,
    strength: float | None = None,
    weight_range: str = "pair_safe",
    fixed_scales: bool = False,
    activations: str = "uint8",
) -> None:
    """Smooth the activation of every quantizable node, in place. The float model's outputs stay the same.

    All quantizable readers of one activation share its scales; where one of them shares its weight with other
    nodes, the activation is left alone. ``1 / s`` is folded into the producer where that is
    exact and free: into gamma and beta of a normalization that has no other readers, or into the value columns of
    the Attention that feeds an output projection. Elsewhere one Mul is inserted for all of them.

    Args:
        model: the model to change.
        calibration: inputs to record activations on.
        strength: SmoothQuant's alpha for every activation; None searches strengths and caps per activation.
        weight_range: as the quantizing pass will use it, see ``weights.quantize_columns``.
        fixed_scales: whether calibration fixes the activations' scales, see ``static_matmul``.
        activations: the type of the activations where their scales are fixed, see there too.
    """
    editor = GraphEditor(model)
    groups: dict[str, list[Target]] = {}
    for target in find_targets(editor):
        groups.setdefault(target.activation, []).append(target)
    editor.finish()

    def choose() -> dict[str, NDArray[np.float32]]:
        recorded = record_activations(model, calibration, list(groups))
        progress = count_steps("choosing scales", len(groups), "activations", calibration)
        chosen = {}
        for tensor, targets in groups.items():
            if all(_owns_weight(editor, target) for target in targets):
                search = Smoothing(recorded[tensor], targets, weight_range, fixed_scales, activations)
                scales = _best(search, tensor, calibration) if strength is None else search.by_strength(strength)
                if (scales != 1).any():
                    chosen[tensor] = scales
            progress.count(1)
        return chosen

    key = key_of(model, smooth=strength, weight_range=weight_range, fixed_scales=fixed_scales, activations=activations)
    chosen = findings_of(calibration).choose(key, choose)
    for tensor, targets in groups.items():
        if tensor not in chosen:
            continue
        for target in targets:
            editor.change_constant(target.node, 1, _scaled_weight(target, chosen[tensor]))
        if not _fold_into_producer(editor, tensor, targets, chosen[tensor]):
            _insert_division(editor, tensor, targets, chosen[tensor])
    editor.finish()


def _best(search: "Smoothing", tensor: str, calibration: Iterable[Feeds]) -> NDArray[np.float32]:
    """Return the best scales for a tensor; those chosen before, where a recipe tried before left all of it as it is."""
    if not isinstance(calibration, Calibration):
        return search.best()
    key = search.digest(tensor)
    if key not in calibration.smoothing:
        calibration.smoothing[key] = search.best()
    return calibration.smoothing[key]


@dataclass(frozen=True)
class Smoothing:
    """The choice of scales for one activation and the nodes that read it."""

    activation: Activation
    targets: Sequence[Target]
    weight_range: str
    fixed_scales: bool = False
    activations: str = "uint8"

    def best(self) -> NDArray[np.float32]:
        """Return the candidate with the smallest error, summed over the readers; all ones is a candidate."""
        candidates = [np.ones_like(self.activation.channel_max)]
        candidates += [self.by_strength(strength) for strength in STRENGTHS]
        candidates += [self.by_cap(quantile) for quantile in (FIXED_CAPS if self.fixed_scales else CAPS)]
        return min(candidates, key=self.error)

    def digest(self, tensor: str) -> bytes:
        """Return a digest of the tensor's name, what reads it, and its values as far as other passes change them.

        Passes before this one leave other tensors as they are but for the last bits, which is why the ends of the
        channels count with few bits, and the rows do not.
        """
        ends = [round_scales(end) for end in (self.activation.channel_low, self.activation.channel_high)]
        digest = hashlib.sha256(repr((tensor, self.weight_range, self.fixed_scales, self.activations)).encode())
        for values in (*ends, *self.weights):
            digest.update(np.ascontiguousarray(values).data)
        return digest.digest()

    def by_strength(self, strength: float) -> NDArray[np.float32]:
        """Return SmoothQuant's scales, ``max|X|^strength / max|W|^(1 - strength)`` per channel, shape (channels,)."""
        x_max = self.activation.channel_max
        w_max = np.max([np.abs(weight).max(axis=1) for weight in self.weights], axis=0)
        usable = (x_max > 0) & (w_max > 0)
        raw = np.ones_like(x_max)
        raw[usable] = x_max[usable] ** strength / w_max[usable] ** (1 - strength)
        return round_scales(raw / np.median(raw))

    def by_cap(self, quantile: float) -> NDArray[np.float32]:
        """Return scales that cut channels above a quantile of all channels down to it, shape (channels,)."""
        x_max = self.activation.channel_max
        cap = np.quantile(x_max, quantile)
        return round_scales(np.maximum(x_max / cap, 1)) if cap > 0 else np.ones_like(x_max)

    def error(self, scales: NDArray[np.float32]) -> float:
        """Return the relative squared error of the integer products with these scales, summed over the readers."""
        pairs = list(zip(self.weights, self.products, strict=True))
        if self.fixed_scales:
            return sum(
                static_product_error(self.activation, weight, scales, self.weight_range, exact, self.activations)
                for weight, exact in pairs
            )
        return sum(
            integer_product_error(self.activation.rows, weight, scales, self.weight_range, exact)
            for weight, exact in pairs
        )

    @cached_property
    def weights(self) -> list[NDArray[np.float32]]:
        """The weights of the nodes, read once for all candidates."""
        return [target.read_weight() for target in self.targets]

    @cached_property
    def products(self) -> list[ExactProduct]:
        """The exact products of the recorded rows, which every candidate is held to."""
        return [ExactProduct(self.activation.rows, weight) for weight in self.weights]


def round_scales(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to ``SCALE_BITS`` bits behind the leading one."""
    mantissa, exponent = np.frexp(scales)
    steps = 2 ** (SCALE_BITS + 1)
    return np.asarray(np.ldexp(np.rint(mantissa * steps) / steps, exponent), dtype=np.float32)


def _scaled_weight(target: Target, scales: NDArray[np.float32]) -> NDArray[np.float32]:
    weight = target.read_weight() * scales[:, None]
    return np.asarray(weight.T if stores_transposed(target.node) else weight)


def _owns_weight(editor: GraphEditor, target: Target) -> bool:
    """Tell whether no other node reads the weight; smoothing a shared one would store it once for each reader."""
    return len(editor.readers(target.node.input[1])) == 1


def _fold_into_producer(
    editor: GraphEditor, tensor: str, targets: Sequence[Target], scales: NDArray[np.float32]
) -> bool:
    """Divide the producer's constants by ``scales``, where all that reads its output is ``targets``."""
    producer = editor.producer(tensor)
    readers = {node.name for node in editor.readers(tensor)}
    if producer is None or editor.is_output(tensor) or readers != {target.name for target in targets}:
        return False
    if producer.op_type in NORMALIZATIONS and producer.output[0] == tensor:
        first = NORMALIZATIONS[producer.op_type]
        return _divide_constants(editor, producer, range(first, min(first + 2, len(producer.input))), scales)
    if producer.op_type == "Mul":
        return _divide_constants(editor, producer, (1,), scales)
    attentions = [target for target in find_targets(editor) if target.node.op_type == "Attention"]
    if any(target.name == producer.name and _owns_weight(editor, target) for target in attentions):
        # An output channel of attention is a weighted mean of the same channel of the values.
        query_key = np.ones(2 * len(scales), dtype=np.float32)
        return _divide_constants(editor, producer, (1, 2), np.concatenate([query_key, scales]))
    return False


def _divide_constants(
    editor: GraphEditor, node: onnx.NodeProto, positions: Iterable[int], divisor: NDArray[np.float32]
) -> bool:
    """Divide these inputs by ``divisor`` along their last dimension; none of them where one is no constant."""
    named = [position for position in positions if node.input[position]]
    divided = []
    for position in named:
        value = editor.float_constant(node.input[position])
        if value is None or value.shape[-1:] != divisor.shape:
            return False
        divided.append(value / divisor)
    for position, value in zip(named, divided, strict=True):
        editor.change_constant(node, position, value)
    return True


def _insert_division(editor: GraphEditor, tensor: str, targets: Sequence[Target], scales: NDArray[np.float32]) -> None:
    smoothed = editor.new_tensor(f"{tensor}_smoothed")
    factor = editor.add_constant(f"{tensor}_smoothing", 1 / scales)
    editor.insert_before(targets[0].node, [editor.new_node("Mul", [tensor, factor], [smoothed], f"{tensor}_smooth")])
    for target in targets:
        target.node.input[0] = smoothed
