"""What an activation is rounded to where its scale is fixed by calibration."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

UINT8_MAX, INT8_MAX, UINT16_MAX = 255, 127, 65535
#: The integers that an activation may become: with a zero point, but for int8, which is symmetric.
ACTIVATIONS = ("uint8", "int8", "uint16")
#: How many times as far as the values seen a grid of 16 bits reaches: one bit of 16, for what inputs not seen may hold.
ROOM = 2.0


class Grid(NamedTuple):
    """The values an activation is rounded to: ``(integer - zero_point) * scale`` for the integers of a type."""

    scale: np.float32
    zero_point: NDArray[Any]

    def round(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the values as QuantizeLinear and DequantizeLinear return them, of the same shape."""
        limits = np.iinfo(self.zero_point.dtype)
        integers = np.clip(np.rint(values / self.scale) + self.zero_point, limits.min, limits.max)
        return np.asarray((integers - self.zero_point) * self.scale, dtype=np.float32)


def activation_grid(activations: str, lowest: float, highest: float) -> Grid:
    """Return the grid of a type that holds all from the lowest to the highest value, and with 16 bits twice as much.

    Raises:
        ValueError: ``activations`` is none of ``ACTIVATIONS``.
    """
    if activations == "int8":
        return symmetric_grid(max(-lowest, highest))
    if activations == "uint8":
        return unsigned_grid(lowest, highest)
    if activations == "uint16":
        return unsigned_grid(ROOM * lowest, ROOM * highest, "uint16")
    raise ValueError(f"activations {activations!r} is none of {', '.join(ACTIVATIONS)}")


def unsigned_grid(lowest: float, highest: float, integers: str = "uint8") -> Grid:
    """Return the grid that reaches from the lowest to the highest value, zero always among its values.

    ``integers`` is the type of its integers, uint8 or uint16.
    """
    most = UINT16_MAX if integers == "uint16" else UINT8_MAX
    low, high = min(lowest, 0.0), max(highest, 0.0)
    scale = np.float32((high - low) / most or 1)
    return Grid(scale, np.array(np.clip(np.rint(-low / scale), 0, most), dtype=integers))


def symmetric_grid(largest: float) -> Grid:
    """Return the int8 grid around zero that reaches to the largest magnitude."""
    return Grid(np.float32(largest / INT8_MAX or 1), np.array(0, dtype=np.int8))
