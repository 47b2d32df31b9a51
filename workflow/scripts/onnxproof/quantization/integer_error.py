"""What int8 arithmetic with a scale per token, or a fixed one, does to a matrix product: in numpy, on recorded rows."""

import numpy as np
from numpy.typing import NDArray

from onnxproof.quantization.activations import Activation
from onnxproof.quantization.grids import activation_grid
from onnxproof.quantization.weights import column_scales, quantize_columns, round_to_steps

UINT8_MAX = 255
SYMMETRIC_ZERO_POINT = 128

#: What zero points are chosen from: small ones are for rows that are mostly positive.
_POSITIVE = tuple(range(8, SYMMETRIC_ZERO_POINT, 8))
ZERO_POINTS = (SYMMETRIC_ZERO_POINT, *_POSITIVE, *(UINT8_MAX - zero_point for zero_point in _POSITIVE))

Floats = NDArray[np.float32]


class ExactProduct:
    """A product in float, which those in integers are held to.

    ``values`` has the shape (rows, outputs); ``power`` is the sum of their squares.
    """

    def __init__(self, rows: Floats, weight: Floats) -> None:
        """Multiply activations, shape (rows, inputs), by a weight, shape (inputs, outputs)."""
        self.values = rows @ weight
        self.power = float(np.square(self.values).sum())


def integer_product_error(
    rows: Floats, weight: Floats, smoothing: Floats, weight_range: str, exact: ExactProduct | None = None
) -> float:
    """Return the squared error of the integer product on ``rows``, relative to the exact product's own square.

    A search asks this hundreds of times, so that arrays are changed in place: new ones of this size take as long to
    fill as the product itself.

    Args:
        rows: float activations before smoothing, shape (rows, inputs).
        weight: the float weight before smoothing, shape (inputs, outputs).
        smoothing: scales the activation is divided and the weight multiplied by, shape (inputs,).
        weight_range: see ``weights.quantize_columns``.
        exact: the exact product, where it is known already.
    """
    exact = exact or ExactProduct(rows, weight)
    if not exact.power:
        return 0.0
    smoothed, scaled = rows / smoothing, weight * smoothing[:, None]
    scale = column_scales(scaled, weight_range)
    error = round_rows(smoothed, choose_zero_point(smoothed)) @ round_to_steps(scaled, scale)
    error *= scale
    error -= exact.values
    return float(np.square(error, out=error).sum()) / exact.power


def static_product_error(
    activation: Activation, weight: Floats, smoothing: Floats, weight_range: str, exact: ExactProduct, activations: str
) -> float:
    """Return the same for a fixed scale that holds all values of an activation; a bias takes up the mean error.

    ``activations`` is the type of its integers, see ``grids.ACTIVATIONS``.
    """
    grid = activation_grid(activations, *activation.ends(smoothing))
    integers, scale = quantize_columns(weight * smoothing[:, None], weight_range)
    error = grid.round(activation.rows / smoothing) @ (integers * scale) - exact.values
    return float(np.square(error - error.mean(axis=0)).sum()) / exact.power if exact.power else 0.0


def round_rows(rows: Floats, zero_point: int) -> Floats:
    """Round each row to uint8 with the smallest scale that fits it around a fixed zero point."""
    step = row_range(rows, zero_point) / (UINT8_MAX - zero_point)
    integers: Floats = np.asarray(rows / step, dtype=np.float32)
    np.rint(integers, out=integers)
    integers += zero_point
    np.clip(integers, 0, UINT8_MAX, out=integers)
    integers -= zero_point
    integers *= step
    return integers


def row_range(rows: Floats, zero_point: int) -> Floats:
    """Return what each row is divided by, shape (rows, 1): its highest value meets 255 or its lowest meets 0."""
    ratio = (UINT8_MAX - zero_point) / zero_point
    needed = np.maximum(rows.max(axis=1, keepdims=True), -rows.min(axis=1, keepdims=True) * ratio)
    return np.asarray(np.where(needed > 0, needed, 1), dtype=np.float32)


def choose_zero_point(rows: Floats) -> int:
    """Return the zero point that gives these rows the finest steps: small where rows are mostly positive."""
    high, low = np.maximum(rows.max(axis=1), 0), np.maximum(-rows.min(axis=1), 0)
    below = np.array(ZERO_POINTS, dtype=np.float32)[:, None]
    steps = np.maximum(high / (UINT8_MAX - below), low / below)
    return ZERO_POINTS[int(np.square(steps).mean(axis=1).argmin())]
