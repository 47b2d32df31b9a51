"""Rounding weights so that later ones make up for the errors of earlier ones.

Rounding each weight to its nearest step gives the smallest error of the weights, not of the product. Input by input,
the error made so far is spread over the inputs still to be rounded, as far as the activations correlate: the product
on typical activations changes least (GPTQ, Frantar et al. 2022, arXiv 2210.17323; the compensation goes back to
Optimal Brain Surgeon, Hassibi and Stork 1993). It costs nothing when the model runs.
"""

import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxproof.graph.external_data import scratch_folder
from onnxproof.quantization.activations import Feeds, count_steps, findings_of
from onnxproof.quantization.findings import key_of
from onnxproof.quantization.sessions import open_exposing
from onnxproof.quantization.targets import Target
from onnxproof.quantization.weights import (
    INT8_MAX,
    PAIR_MAX,
    REDUCED_MAX,
    QuantizedWeight,
    column_scales,
    quantize_columns,
)

Floats = NDArray[np.float64]

ROUNDINGS = ("nearest", "compensated")

#: Added to the diagonal of the correlations, as a share of its mean: keeps what was seen little of from exploding.
DAMPING = 0.01
#: Inputs whose errors are spread one by one; those of a whole block go to the rest in one product.
BLOCK = 64
#: Correlations that are summed at a time, in values: what limits memory.
VALUES_PER_RUN = 1 << 24
#: Values of further tensors that are kept in files meanwhile, 4 GB: running the model again takes longer.
VALUES_IN_FILES = 1 << 30
#: Of so many tensors at a time: a process may not have many more files open.
MOST_FILES = 256
#: Tokens gathered before their products are summed: one pass over a large matrix instead of one a text.
TOKENS_PER_SUM = 2048


def quantize_weights(
    model: onnx.ModelProto,
    targets: Sequence[Target],
    calibration: Sequence[Feeds],
    *,
    weight_range: str,
    rounding: str,
    widest: int | None = None,
) -> dict[str, QuantizedWeight]:
    """Return each target's weight as int8 columns and their scales, by the target's name.

    Args:
        model: the float model that ``targets`` are part of.
        targets: the nodes to quantize.
        calibration: model inputs; needed for compensated rounding only.
        weight_range: see ``weights.quantize_columns``.
        rounding: ``nearest``, or ``compensated``: so that the product changes least. A weight that several targets
            read is rounded to the nearest either way, because their inputs differ.
        widest: weights with more inputs than this are rounded to the nearest, because the time that compensation takes
            grows with the cube of their number; None compensates all.

    Raises:
        ValueError: the rounding or the weight range is unknown, or there are no calibration inputs and some are needed.
    """
    readers = compensated_readers(targets, rounding, widest)
    compensated = {target.name for found in readers.values() for target in found}
    quantized = {
        target.name: quantize_columns(target.read_weight(), weight_range)
        for target in targets
        if target.name not in compensated
    }
    if not compensated:
        return quantized
    findings, key = findings_of(calibration), key_of(model, weight_range=weight_range)
    rounded = {name: weight for name, weight in findings.rounded(key).items() if name in compensated}
    widths = {
        tensor: found[0].shape[0]
        for tensor, found in readers.items()
        if any(target.name not in rounded for target in found)
    }
    for tensor, correlations in record_correlations(model, calibration, widths):
        spread = spread_of_errors(correlations)
        for target in readers[tensor]:
            rounded[target.name] = round_columns(target.read_weight(), weight_range, spread)
    findings.remember_rounded(key, rounded)
    return quantized | rounded


def compensated_readers(targets: Sequence[Target], rounding: str, widest: int | None) -> dict[str, list[Target]]:
    """Return the targets whose weights are rounded with compensation, by the tensor that they read.

    See ``quantize_weights`` for the arguments.

    Raises:
        ValueError: the rounding is unknown.
    """
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding {rounding!r} is none of {', '.join(ROUNDINGS)}")
    uses = Counter(target.node.input[1] for target in targets)
    readers: dict[str, list[Target]] = {}
    for target in targets:
        alone = rounding == "compensated" and uses[target.node.input[1]] == 1
        if alone and (widest is None or target.shape[0] <= widest):
            readers.setdefault(target.activation, []).append(target)
    return readers


def record_correlations(
    model: onnx.ModelProto, calibration: Sequence[Feeds], widths: Mapping[str, int]
) -> Iterator[tuple[str, Floats]]:
    """Yield the mean product of each pair of channels over all tokens, shape (channels, channels), tensor by tensor.

    The model is run once for all tensors. Sums of as many as memory allows are kept while it runs; what flows through
    the others is kept in files, as far as that is allowed, and summed afterwards. For what is left it is run again.

    Args:
        model: a float model.
        calibration: model inputs, run one by one.
        widths: the number of channels of each tensor of interest, by its name.

    Raises:
        ValueError: there are no calibration inputs.
    """
    if widths and not calibration:
        raise ValueError("needs calibration inputs, and there are none")
    progress = count_steps("rounding weights", len(widths), "activations", calibration)
    left = dict(widths)
    while left:
        tensors = list(left)
        at_once = _summed_at_once(left)
        sums = {tensor: _Products(left[tensor]) for tensor in tensors[:at_once]}
        with ExitStack() as files:
            kept = {
                tensor: _Kept(files, scratch_folder(model), left[tensor])
                for tensor in tensors[at_once : at_once + MOST_FILES]
            }
            session = open_exposing(model, [*sums, *kept])
            for feeds in calibration:
                asked = [*sums, *kept]
                for tensor, values in zip(asked, session.run(asked, dict(feeds)), strict=True):
                    (sums.get(tensor) or kept[tensor]).add(values.reshape(-1, values.shape[-1]))
                while sum(each.values for each in kept.values()) > VALUES_IN_FILES:
                    kept.popitem()[1].forget()
            del session
            for tensor in [*sums, *kept]:
                products = sums.pop(tensor, None) or kept[tensor].products()
                yield tensor, products.mean()
                progress.count(1)
                del left[tensor]


class _Products:
    """The sum over tokens of each pair of channels' product, in float64."""

    def __init__(self, width: int) -> None:
        self.sum = np.zeros((width, width))
        self.waiting: list[NDArray[np.float32]] = []
        self.tokens = self.summed = 0

    def add(self, tokens: NDArray[np.float32]) -> None:
        """Take more tokens, shape (tokens, channels)."""
        self.waiting.append(tokens)
        self.tokens += len(tokens)
        if self.tokens - self.summed >= TOKENS_PER_SUM:
            self._sum_up()

    def mean(self) -> Floats:
        """Return the mean product a token, shape (channels, channels); zeros where there was none."""
        self._sum_up()
        return self.sum / max(1, self.tokens)

    def _sum_up(self) -> None:
        if not self.waiting:
            return
        tokens = np.concatenate(self.waiting).astype(np.float64)
        self.sum += tokens.T @ tokens
        self.waiting, self.summed = [], self.tokens


class _Kept:
    """Tokens of a tensor in a file, in the order in which they came."""

    def __init__(self, files: ExitStack, folder: Path | None, width: int) -> None:
        """Open a file without a name in ``folder``, which is gone when ``files`` are closed.

        ``width`` is the number of channels. Without a folder, it is where the system has such files.
        """
        self.file = files.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 - closed with the others
        self.width, self.values = width, 0
        self.runs: list[int] = []

    def add(self, tokens: NDArray[np.float32]) -> None:
        """Keep more tokens, shape (tokens, channels)."""
        self.file.write(np.ascontiguousarray(tokens, dtype=np.float32).data)
        self.runs.append(len(tokens))
        self.values += tokens.size

    def forget(self) -> None:
        """Give the room of the file back."""
        self.file.close()

    def products(self) -> _Products:
        """Return the products of all tokens, summed as they would have been when they came."""
        products = _Products(self.width)
        self.file.seek(0)
        for tokens in self.runs:
            content = self.file.read(tokens * self.width * np.float32().itemsize)
            products.add(np.frombuffer(content, dtype=np.float32).reshape(tokens, self.width))
        return products


def _summed_at_once(widths: Mapping[str, int]) -> int:
    """Return of how many tensors, the first ones, the sums take no more than ``VALUES_PER_RUN``; of one in any case."""
    sizes = itertools.accumulate(width**2 for width in widths.values())
    return max(1, sum(size <= VALUES_PER_RUN for size in sizes))


def round_columns(weight: NDArray[np.float32], weight_range: str, spread: Floats) -> QuantizedWeight:
    """Quantize a matrix of shape (inputs, outputs) with the scales of ``weights.quantize_columns``, errors made up for.

    Args:
        weight: float weights.
        weight_range: see ``weights.quantize_columns``; what it keeps exact stays exact.
        spread: of the inputs' errors, shape (inputs, inputs), see ``spread_of_errors``.

    Returns:
        Integers of the same shape, and float32 scales of shape (outputs,).
    """
    scale = column_scales(weight, weight_range)
    remaining = weight.astype(np.float64) / scale
    integers = np.zeros(weight.shape, dtype=np.int8)
    for start in range(0, len(weight), BLOCK):
        for row in compensating(remaining, spread, slice(start, min(start + BLOCK, len(weight)))):
            integers[row] = _nearest(remaining[row], integers[row - 1] if row % 2 else None, weight_range)
            remaining[row] -= integers[row]
    return integers, scale


def compensating(remaining: Floats, spread: Floats, block: slice) -> Iterator[int]:
    """Yield the rows of a block one by one, each made up for the errors of the rows before it, in place.

    Args:
        remaining: what is left of the weights, (inputs, outputs). Of the row that was yielded, the caller must subtract
            what it is rounded to: its error stays.
        spread: of the inputs' errors, see ``spread_of_errors``.
        block: the rows. A row takes the errors of those before it when it is its turn, in one product: to change all
            later rows after each one would take four times the memory traffic. The rows behind the block take all of
            its errors together.
    """
    errors = np.zeros((block.stop - block.start, remaining.shape[1]))
    for done, row in enumerate(range(block.start, block.stop)):
        remaining[row] -= spread[block.start : row, row] @ errors[:done]
        yield row
        errors[done] = remaining[row] / spread[row, row]
    remaining[block.stop :] -= spread[block, block.stop :].T @ errors


def spread_of_errors(correlations: Floats) -> Floats:
    """Return how each input's error is shared by those after it: row k for input k, shape (inputs, inputs).

    It is the upper Cholesky factor of the inverse of the damped ``correlations``. All in float64: the last bits, which
    depend on the number of threads, must not decide how a weight is rounded.
    """
    level = max(DAMPING * float(np.diag(correlations).mean()), float(np.finfo(np.float32).tiny))
    # With the inputs in reverse order, the factor of the inverse is the inverse of the factor: one matrix less.
    damped = np.array(correlations[::-1, ::-1], order="C")
    damped[np.diag_indices_from(damped)] += level
    return np.ascontiguousarray(inverse_of_factor(damped)[::-1, ::-1])


def inverse_of_factor(matrix: Floats) -> Floats:
    """Return the inverse of the lower Cholesky factor of a positive definite matrix, which is overwritten.

    It is found half by half, such that nearly all of the work is products of matrices: they take two thirds of the time
    of LAPACK's factorization and an inversion of what it returns.
    """
    size = len(matrix)
    if size <= BLOCK:
        return np.asarray(np.tril(np.linalg.inv(np.linalg.cholesky(matrix))))
    half = size // 2
    inverse = np.zeros_like(matrix)
    upper = inverse[:half, :half] = inverse_of_factor(matrix[:half, :half])
    below = matrix[half:, :half] @ upper.T
    matrix[half:, half:] -= below @ below.T
    lower = inverse[half:, half:] = inverse_of_factor(matrix[half:, half:])
    inverse[half:, :half] = -lower @ (below @ upper)
    return inverse


def _nearest(values: Floats, partner: NDArray[np.int8] | None, weight_range: str) -> NDArray[np.int8]:
    """Round one row within the weight range; ``partner`` is the row whose products share an int16 sum with it."""
    most = REDUCED_MAX if weight_range == "reduced" else INT8_MAX
    integers = np.clip(np.rint(values), -most, most).astype(np.int8)
    if weight_range != "pair_safe" or partner is None:
        return integers
    wide = partner.astype(np.int16)
    low, high = -PAIR_MAX - np.minimum(wide, 0), PAIR_MAX - np.maximum(wide, 0)
    return np.clip(integers, low, high).astype(np.int8)
