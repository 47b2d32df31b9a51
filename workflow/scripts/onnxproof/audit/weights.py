"""Why a file answers otherwise: its float weights beside the original's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxproof.audit.inspection import SMALLEST_WEIGHT, float_weights
from onnxproof.checkpoint.reading import Checkpoint
from onnxproof.cli import UserError, first_line

Array = NDArray[Any]
#: How near sums must be to be called the same; a float16 weight is rounded by up to one part in two thousand.
NEAR = 1e-3
#: Weights of a larger original are not compared, because all of its matrices are in memory at once.
LARGEST_BYTES = 2_000_000_000


def explain_weights(path: Path, original: Checkpoint) -> Iterator[str]:
    """Yield what the weights of a graph say about its answers, in a sentence each.

    Every matrix of the original is looked for: as it is or transposed, and in another order of its rows or columns. A
    graph with fused operators has other matrices, so nothing is said of those that are not found.

    Args:
        path: the graph; its external data are whole.
        original: with safetensors.
    """
    if sum(original.size(name) for name in original.weight_files) > LARGEST_BYTES:
        return
    known = list(_matrices(original))
    if not known:
        return
    found, moved = [], []
    try:
        model = onnx.load(path, load_external_data=False)
        weights = [(name, values) for name, values in float_weights(model, path.parent) if _is_matrix(values)]
    except Exception as error:  # a file that was readable a moment ago
        raise UserError(f"{path}: {first_line(error)}") from None
    for name, values in weights:
        values = np.asarray(values, dtype=np.float32)
        mark = _mark(values)
        same = [(theirs, matrix) for theirs, matrix, other in known if _is_near(mark, other, values, matrix)]
        if not same:
            continue
        exact = [theirs for theirs, matrix in same if _is_same(values, matrix)]
        found += exact
        if not exact:
            moved.append((name, same[0][0]))
    if not found and not moved:
        yield f"None of its {len(weights)} float matrices is one of the original's: they may be another model's."
    for name, theirs in moved[:3]:
        yield f"Its weight {name!r} has the values of the original's {theirs!r} in another order."


def _matrices(original: Checkpoint) -> Iterator[tuple[str, Array, tuple[float, float]]]:
    from safetensors import safe_open

    assert original.folder is not None
    for file in original.weight_files:
        if not file.endswith(".safetensors"):
            continue
        with safe_open(original.folder / file, framework="np") as stored:
            names = list(stored.keys())
            for name in names:
                if stored.get_slice(name).get_dtype() not in ("F32", "F16"):
                    continue  # NumPy has no bfloat16
                values = stored.get_tensor(name)
                if _is_matrix(values):
                    values = values.astype(np.float32)
                    yield name, values, _mark(values)


def _is_matrix(values: Array) -> bool:
    return values.ndim == 2 and values.size >= SMALLEST_WEIGHT


def _mark(values: Array) -> tuple[float, float]:
    """Return what the order of the values does not change: their root mean square, and the mean of their cubes."""
    exact = values.astype(np.float64)
    return float(np.sqrt((exact**2).mean())), float(np.cbrt((exact**3).mean()))


def _is_near(mark: tuple[float, float], other: tuple[float, float], values: Array, matrix: Array) -> bool:
    alike = values.shape in (matrix.shape, matrix.shape[::-1])
    return alike and all(abs(left - right) <= NEAR * mark[0] for left, right in zip(mark, other, strict=True))


def _is_same(values: Array, matrix: Array) -> bool:
    scale = float(np.abs(matrix).max()) or 1.0
    turned = [matrix] if values.shape == matrix.shape else []
    turned += [matrix.T] if values.shape == matrix.shape[::-1] else []
    return any(float(np.abs(values - each).max()) <= NEAR * scale for each in turned)
