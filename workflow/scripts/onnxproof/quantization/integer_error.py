"""What int8 arithmetic with a scale per token, or a fixed one, does to a matrix product: in numpy, on recorded rows."""

import numpy as np
from numpy.typing import NDArray

from onnxproof.quantization.activations import Activation
from onnxproof.quantization.grids import activation_grid
from onnxproof.quantization.weights import quantize_columns

UINT8_MAX = 255
SYMMETRIC_ZERO_POINT = 128

Floats = NDArray[np.float32]


def integer_product_error(
    rows: Floats, weight: Floats, smoothing: Floats, weight_range: str, expected: Floats | None = None
) -> float:
    """Return the squared error of the integer product on ``rows``, relative to the exact product's own square.

    Args:
        rows: float activations before smoothing, shape (rows, inputs).
        weight: the float weight before smoothing, shape (inputs, outputs).
        smoothing: scales the activation is divided and the weight multiplied by, shape (inputs,).
        weight_range: see ``weights.quantize_columns``.
        expected: the exact product, shape (rows, outputs), where it is known already.
    """
    expected = rows @ weight if expected is None else expected
    smoothed = rows / smoothing
    integers, scale = quantize_columns(weight * smoothing[:, None], weight_range)
    actual = round_rows(smoothed, choose_zero_point(smoothed)) @ integers.astype(np.float32) * scale
    power = float(np.square(expected).sum())
    return float(np.square(actual - expected).sum()) / power if power else 0.0


def static_product_error(
    activation: Activation, weight: Floats, smoothing: Floats, weight_range: str, expected: Floats, activations: str
) -> float:
    """Return the same for a fixed scale that holds all values of an activation; a bias takes up the mean error.

    ``activations`` is the type of its integers, see ``grids.ACTIVATIONS``.
    """
    grid = activation_grid(activations, *activation.ends(smoothing))
    integers, scale = quantize_columns(weight * smoothing[:, None], weight_range)
    error = grid.round(activation.rows / smoothing) @ (integers * scale) - expected
    power = float(np.square(expected).sum())
    return float(np.square(error - error.mean(axis=0)).sum()) / power if power else 0.0


def round_rows(rows: Floats, zero_point: int) -> Floats:
    """Round each row to uint8 with the smallest scale that fits it around a fixed zero point."""
    step = row_range(rows, zero_point) / (UINT8_MAX - zero_point)
    integers = np.clip(np.rint(rows / step) + zero_point, 0, UINT8_MAX)
    return np.asarray((integers - zero_point) * step, dtype=np.float32)


def row_range(rows: Floats, zero_point: int) -> Floats:
    """Return what each row is divided by, shape (rows, 1): its highest value meets 255 or its lowest meets 0."""
    ratio = (UINT8_MAX - zero_point) / zero_point
    needed = np.maximum(rows.max(axis=1, keepdims=True), -rows.min(axis=1, keepdims=True) * ratio)
    return np.asarray(np.where(needed > 0, needed, 1), dtype=np.float32)


def choose_zero_point(rows: Floats) -> int:
    """Return the zero point that gives these rows the finest steps: small where rows are mostly positive."""
    high, low = np.maximum(rows.max(axis=1), 0), np.maximum(-rows.min(axis=1), 0)
    positive = [*range(8, SYMMETRIC_ZERO_POINT, 8)]
    candidates: list[int] = [SYMMETRIC_ZERO_POINT, *positive, *(UINT8_MAX - zero_point for zero_point in positive)]
    costs = [
        float(np.square(np.maximum(high / (UINT8_MAX - zero_point), low / zero_point)).mean())
        for zero_point in candidates
    ]
    best: int = candidates[int(np.argmin(costs))]
    return best
