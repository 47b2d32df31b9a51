"""How a float weight matrix becomes 4-bit or 8-bit integers by blocks, as onnxruntime's MatMulNBits stores them.

A block is ``size`` weights of one output that follow each other along the inputs; it has a scale of its own, and a
zero point where the format has them. The scale is searched for: the one that fits the largest weight is seldom the one
that makes the least error. Rounding is to the nearest step, or such that later inputs make up for the errors of earlier
ones (GPTQ, see ``rounding.py``), whichever changes the product on typical activations less.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.quantization.rounding import Floats, compensating, spread_of_errors

#: What a block's scale is tried at, by bits, as shares of the one that fits its largest weight. With the first share,
#: a weight of the other sign that is as large fits too, although it has one step less. With 8 bits, what is cut off
#: soon costs more than what finer steps save.
SHARES = {
    4: np.concatenate([[8 / 7, 1.07], np.linspace(1.0, 0.6, 17)]),
    8: np.concatenate([[128 / 127], np.linspace(1.0, 0.92, 5)]),
}
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class BlockFormat:
    """How blocks are stored: ``bits`` (4 or 8) a weight, ``size`` weights a block, a zero point each or none.

    Without ``zero_points`` the zero is at the middle, 8 or 128.
    """

    bits: int
    size: int
    zero_points: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: onnxruntime has no kernel for them.
        """
        if self.bits not in (4, 8):
            raise ValueError(f"bits is {self.bits}, must be 4 or 8")
        if self.size not in (16, 32, 64, 128, 256):
            raise ValueError(f"block_size is {self.size}, must be one of 16, 32, 64, 128, 256")

    @property
    def highest(self) -> int:
        """The highest integer; the lowest is 0."""
        return int(2**self.bits - 1)

    @property
    def middle(self) -> int:
        """The zero point where none is stored."""
        return int(2 ** (self.bits - 1))


@dataclass(frozen=True)
class BlockWeight:
    """A quantized matrix of shape (inputs, outputs): ``(integers - zero_points) * scales``, block by block.

    ``integers`` is uint8 (inputs, outputs); ``scales``, float32, and ``zero_points``, uint8, are (blocks, outputs).
    """

    format: BlockFormat
    integers: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.uint8]

    def dequantized(self) -> NDArray[np.float32]:
        """Return the weights that the integers stand for, float32 (inputs, outputs)."""
        inputs = len(self.integers)
        of_blocks = (self.scales, self.zero_points.astype(np.float32))
        scales, zeros = (np.repeat(values, self.format.size, axis=0)[:inputs] for values in of_blocks)
        return np.asarray((self.integers.astype(np.float32) - zeros) * scales)

    def packed(self) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8] | None]:
        """Return what MatMulNBits reads as inputs 1 to 3: weights, scales, and zero points where the format has them.

        Returns:
            uint8 (outputs, blocks, bytes of a block), of two 4-bit weights in a byte the earlier one in its low half;
            float32 (outputs, blocks); uint8 (outputs, bytes for one zero point a block), packed alike.
        """
        blocks, outputs = self.scales.shape
        whole = np.zeros((blocks * self.format.size, outputs), dtype=np.uint8)
        whole[: len(self.integers)] = self.integers
        weights = _pack(np.ascontiguousarray(whole.T).reshape(outputs, blocks, self.format.size), self.format.bits)
        zeros = _pack(np.ascontiguousarray(self.zero_points.T), self.format.bits) if self.format.zero_points else None
        return weights, np.ascontiguousarray(self.scales.T), zeros


def read_packed(
    packed: NDArray[np.uint8],
    scales: NDArray[Any],
    zero_points: NDArray[np.uint8] | None,
    format: BlockFormat,
    inputs: int,
) -> BlockWeight:
    """Return the weight, with so many inputs, that MatMulNBits reads from what ``BlockWeight.packed`` gives."""
    outputs = len(packed)
    scales = scales.reshape(outputs, -1).astype(np.float32)
    blocks = scales.shape[1]
    zeros = np.full((outputs, blocks), format.middle, dtype=np.uint8)
    if zero_points is not None:
        zeros = _unpack(zero_points.reshape(outputs, -1), format.bits)[:, :blocks]
    integers = _unpack(packed.reshape(outputs, -1), format.bits)[:, :inputs]
    return BlockWeight(format, integers.T, scales.T, zeros.T)


def _unpack(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return the integers of bytes along the last axis."""
    if bits == 8:
        return values
    return np.stack([values & 15, values >> 4], axis=-1).reshape(*values.shape[:-1], -1)


def _pack(integers: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return integers as bytes along the last axis; an odd one gets a zero beside it."""
    if bits == 8:
        return integers
    if integers.shape[-1] % 2:
        integers = np.concatenate([integers, np.zeros((*integers.shape[:-1], 1), dtype=np.uint8)], axis=-1)
    return np.asarray(integers[..., ::2] | (integers[..., 1::2] << 4))


def quantize_to_blocks(
    weight: NDArray[np.float32], format: BlockFormat, correlations: Floats | None = None, compensate: bool = False
) -> BlockWeight:
    """Quantize a matrix of shape (inputs, outputs).

    Args:
        weight: float weights.
        format: how blocks are stored.
        correlations: the mean product of each pair of inputs on typical activations, (inputs, inputs); the error of an
            input that is large there counts more. None weighs all alike.
        compensate: whether to let later inputs make up for the errors of earlier ones too, and to take what that gives
            where the product then changes less. Needs ``correlations``.
    """
    importance = np.ones(len(weight)) if correlations is None else _importance(correlations)
    nearest = _round_nearest(weight, format, importance)
    if correlations is None or not compensate:
        return nearest
    compensated = _round_compensated(weight, format, correlations)
    errors = [product_error(weight, rounded, correlations) for rounded in (nearest, compensated)]
    return nearest if errors[0] <= errors[1] else compensated


def product_error(weight: NDArray[np.float32], rounded: BlockWeight, correlations: Floats) -> float:
    """Return the squared error of the product a token, over all outputs, on activations with these correlations."""
    error = weight.astype(np.float64) - rounded.dequantized()
    return float(np.einsum("kn,kn->", correlations @ error, error))


def _importance(correlations: Floats) -> Floats:
    """Return the weight of each input's squared error; of inputs that were never seen, a little."""
    squares = np.diag(correlations)
    return np.asarray(np.maximum(squares, max(1e-3 * float(squares.mean()), SMALLEST_SCALE)))


def _round_nearest(weight: NDArray[np.float32], format: BlockFormat, importance: Floats) -> BlockWeight:
    parts = []
    for start in range(0, len(weight), format.size):
        block = slice(start, start + format.size)
        parts.append(_fit_block(weight[block].astype(np.float64), format, importance[block]))
    return _joined(format, parts)


def _round_compensated(weight: NDArray[np.float32], format: BlockFormat, correlations: Floats) -> BlockWeight:
    """Fit each block to what is left of its weights after the errors of the blocks before it, then round row by row."""
    spread = spread_of_errors(correlations)
    remaining = weight.astype(np.float64)
    parts = []
    for start in range(0, len(weight), format.size):
        block = slice(start, min(start + format.size, len(weight)))
        # What an error of an input costs once the later ones have made up for it as well as they can.
        fitted = _fit_block(remaining[block], format, np.diag(spread)[block] ** -2.0)
        scale, zero = fitted.scales[0].astype(np.float64), fitted.zero_points[0].astype(np.float64)
        integers = np.empty(fitted.integers.shape, dtype=np.uint8)
        for row in compensating(remaining, spread, block):
            steps = np.clip(np.rint(remaining[row] / scale) + zero, 0, format.highest)
            integers[row - start] = steps
            remaining[row] -= (steps - zero) * scale
        parts.append(replace(fitted, integers=integers))
    return _joined(format, parts)


def _joined(format: BlockFormat, parts: list[BlockWeight]) -> BlockWeight:
    return BlockWeight(
        format,
        np.concatenate([part.integers for part in parts]),
        np.concatenate([part.scales for part in parts]),
        np.concatenate([part.zero_points for part in parts]),
    )


def _fit_block(weights: Floats, format: BlockFormat, importance: Floats) -> BlockWeight:
    """Return one block of every output, (size, outputs), with the scales of least error that were found.

    Each share of the scale that fits the largest weight is tried. For the integers that it gives, the best scale is
    known in closed form (least squares), and they are rounded once more with it.
    """
    low, high = np.minimum(weights.min(axis=0), 0.0), np.maximum(weights.max(axis=0), 0.0)
    if format.zero_points:
        widest = np.maximum((high - low) / format.highest, SMALLEST_SCALE)
        zero = np.clip(np.rint(-low / widest), 0, format.highest)
    else:
        # The lowest integer is one further from the middle than the highest: the largest weight gets that side.
        largest = np.where(high > -low, high, low)
        widest = np.where(largest == 0, 1.0, -largest / format.middle)
        zero = np.full(weights.shape[1], float(format.middle))
    first, *others = SHARES[format.bits]
    error, integers, scale = _try_scale(weights, first * widest, zero, format, importance)
    for share in others:
        tried = _try_scale(weights, share * widest, zero, format, importance)
        better = tried[0] < error
        error, integers, scale = (
            np.where(better, new, old) for new, old in zip(tried, (error, integers, scale), strict=True)
        )
    return BlockWeight(
        format,
        integers.astype(np.uint8),
        scale.astype(np.float32)[None],
        zero.astype(np.uint8)[None],
    )


def _try_scale(
    weights: Floats, scale: Floats, zero: Floats, format: BlockFormat, importance: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return the weighted squared error of each output, (outputs,), and the integers and the scale that it is of."""
    integers = np.clip(np.rint(weights / scale) + zero, 0, format.highest)
    steps = integers - zero
    weighted = importance[:, None] * steps
    length = (weighted * steps).sum(axis=0)
    better = np.divide((weighted * weights).sum(axis=0), length, out=scale.copy(), where=length > 0)
    # As float32, which is what is stored. A scale may be negative, but not so small that dividing by it overflows.
    better = np.where(np.abs(better) < SMALLEST_SCALE, scale, better).astype(np.float32).astype(np.float64)
    integers = np.clip(np.rint(weights / better) + zero, 0, format.highest)
    error = (importance[:, None] * (weights - (integers - zero) * better) ** 2).sum(axis=0)
    return error, integers, better
