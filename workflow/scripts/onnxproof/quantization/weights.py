"""How a float weight matrix becomes int8: symmetric, one scale per output channel."""

import numpy as np
from numpy.typing import NDArray

#: int8 columns, shape (inputs, outputs), and their float32 scales, shape (outputs,).
QuantizedWeight = tuple[NDArray[np.int8], NDArray[np.float32]]

INT8_MAX = 127
REDUCED_MAX = 63  # seven bits
PAIR_MAX = 128  # 255 * 128 = 32640 fits in int16, 255 * 129 does not
#: Below it a float32 has fewer than 24 bits, and a weight divided by it would round by more than half a step.
SMALLEST_SCALE = np.finfo(np.float32).tiny

#: Ways to choose the scale of a column, most precise first.
WEIGHT_RANGES = ("full", "pair_safe", "reduced")


def quantize_columns(weight: NDArray[np.float32], weight_range: str) -> QuantizedWeight:
    """Quantize a matrix of shape (inputs, outputs) with one symmetric scale per column.

    x86 CPUs without VNNI multiply uint8 activations by int8 weights two at a time and add both products in a
    saturating int16 (instruction vpmaddubsw), for the weights of inputs 2k and 2k+1. ``weight_range`` says
    what keeps those sums exact:

    - ``full``: nothing; values in [-127, 127]. Exact only where such sums are 32 bits wide (VNNI, AMX, ARM).
    - ``pair_safe``: no two paired weights of one sign add up to more than 128 in magnitude, so that no pair
      of activations can overflow. Costs a fraction of a bit, only in the columns that need it.
    - ``reduced``: values in [-63, 63], the usual way out. Costs one bit everywhere.

    Returns:
        Integers of the same shape, and float32 scales of shape (outputs,): ``weight ≈ integers * scales``. An
        all-zero column has scale 1.
    """
    scale = column_scales(weight, weight_range)
    return round_to_steps(weight, scale).astype(np.int8), scale


def round_to_steps(weight: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a matrix of shape (inputs, outputs) in steps of its columns: whole numbers in [-127, 127], still floats.

    ``scale``, of shape (outputs,), has the size of a step of each column.
    """
    steps = weight / scale
    np.rint(steps, out=steps)
    return np.asarray(np.clip(steps, -INT8_MAX, INT8_MAX, out=steps))


def count_bytes(weight: QuantizedWeight) -> int:
    """Return the memory that a quantized weight takes."""
    return sum(values.nbytes for values in weight)


def column_scales(weight: NDArray[np.float32], weight_range: str) -> NDArray[np.float32]:
    """Return the scale of each column of a weight range, shape (outputs,); an all-zero column has scale 1.

    Raises:
        ValueError: the weight range is unknown.
    """
    largest = np.maximum(weight.max(axis=0, initial=0), -weight.min(axis=0, initial=0))
    if weight_range == "full":
        scale = largest / INT8_MAX
    elif weight_range == "reduced":
        scale = largest / REDUCED_MAX
    elif weight_range == "pair_safe":
        # Rounding may add half a step to each weight of a pair: aim one step lower.
        scale = np.maximum(largest / INT8_MAX, _largest_pair(weight) / (PAIR_MAX - 1))
    else:
        raise ValueError(f"weight range {weight_range!r} is none of {', '.join(WEIGHT_RANGES)}")
    return np.where(scale > 0, np.maximum(scale, SMALLEST_SCALE), 1).astype(np.float32)


def _largest_pair(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return, per column, the largest magnitude that weights 2k and 2k+1 of one sign add up to."""
    positive, negative = pair_sums(weight)
    return np.asarray(np.maximum(positive.max(axis=0, initial=0), -negative.min(axis=0, initial=0)))


def pair_sums(weight: NDArray[np.generic]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the sums of the positive and of the negative weights in each pair of rows (2k, 2k+1).

    Both have shape (ceil(inputs / 2), outputs); a last row without partner counts alone.
    """
    values = weight.astype(np.float32, copy=False)
    if len(values) % 2:
        values = np.concatenate([values, np.zeros_like(values[:1])])
    positive, negative = np.maximum(values[::2], 0), np.minimum(values[::2], 0)
    positive += np.maximum(values[1::2], 0)
    negative += np.minimum(values[1::2], 0)
    return positive, negative
