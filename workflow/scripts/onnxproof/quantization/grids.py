"""What an activation is rounded to where its scale is fixed by calibration."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

UINT8_MAX, INT8_MAX = 255, 127


class Grid(NamedTuple):
    """The values an activation is rounded to: ``(integer - zero_point) * scale`` for the integers of a type."""

    scale: np.float32
    zero_point: NDArray[Any]

    def round(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the values as QuantizeLinear and DequantizeLinear return them, of the same shape."""
        limits = np.iinfo(self.zero_point.dtype)
        integers = np.clip(np.rint(values / self.scale) + self.zero_point, limits.min, limits.max)
        return np.asarray((integers - self.zero_point) * self.scale, dtype=np.float32)


def unsigned_grid(lowest: float, highest: float) -> Grid:
    """Return the uint8 grid that reaches from the lowest to the highest value, zero always among its values."""
    low, high = min(lowest, 0.0), max(highest, 0.0)
    scale = np.float32((high - low) / UINT8_MAX or 1)
    return Grid(scale, np.array(np.clip(np.rint(-low / scale), 0, UINT8_MAX), dtype=np.uint8))


def symmetric_grid(largest: float) -> Grid:
    """Return the int8 grid around zero that reaches to the largest magnitude."""
    return Grid(np.float32(largest / INT8_MAX or 1), np.array(0, dtype=np.int8))
