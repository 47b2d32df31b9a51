"""What flows through a model on calibration inputs: channel magnitudes, and a sample of rows."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxproof.progress import Progress
from onnxproof.quantization.findings import Findings
from onnxproof.quantization.sessions import open_serialized, serialize_exposing

#: One set of model inputs by name, as ``InferenceSession.run`` takes it.
Feeds = Mapping[str, NDArray[Any]]

ROWS_PER_RUN = 6
INFINITE = np.float32(np.inf)
#: What a ``Calibration`` remembers at most, in bytes: two recordings of a model of 23 million parameters.
REMEMBERED_BYTES = 1 << 27


@dataclass(frozen=True)
class Activation:
    """A tensor's values over the calibration runs; a row is one token, a column one channel.

    ``rows``, of shape (rows, channels), holds up to ``ROWS_PER_RUN`` rows of each run, spread evenly: a short text
    counts as much as a long one. Where no run has a row, it is one of zeros. ``lowest`` and ``highest``, of shape
    (channels,), are the ends of each channel.
    """

    rows: NDArray[np.float32]
    lowest: NDArray[np.float32]
    highest: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """The memory that it takes, in bytes."""
        return self.rows.nbytes + self.lowest.nbytes + self.highest.nbytes

    @property
    def channel_low(self) -> NDArray[np.float32]:
        """The lowest value of each channel, 0 among them, (channels,)."""
        return np.minimum(self.lowest, np.float32(0))

    @property
    def channel_high(self) -> NDArray[np.float32]:
        """The highest value of each channel, 0 among them, (channels,)."""
        return np.maximum(self.highest, np.float32(0))

    def masked(self, mask: NDArray[np.float32]) -> "Activation":
        """Return the activation with each channel multiplied by a value of ``mask``, (channels,), 0 or 1."""
        return Activation(self.rows * mask, self.channel_low * mask, self.channel_high * mask)

    @property
    def channel_max(self) -> NDArray[np.float32]:
        """The largest magnitude of each channel, (channels,)."""
        return np.maximum(-self.channel_low, self.channel_high)

    def ends(self, divisor: NDArray[np.float32] | float = 1.0) -> tuple[float, float]:
        """Return the lowest and the highest of all values, each channel divided by its ``divisor``."""
        return float((self.channel_low / divisor).min()), float((self.channel_high / divisor).max())


class Calibration(list[Feeds]):
    """Calibration inputs that remember what was recorded on them last, by a digest of the model and the tensors.

    The recipes that a search tries have steps in common, and each step starts from the same model as before. Running
    all inputs again would give the same. Remembering takes no more memory than ``REMEMBERED_BYTES``.
    """

    def __init__(
        self,
        feeds: Iterable[Feeds],
        findings: Findings | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        """Take the inputs, and what passes have found out on them before; nothing is recorded yet.

        Where it takes long to go through all inputs, ``tell`` is given a line now and then.
        """
        super().__init__(feeds)
        self.findings = findings or Findings()
        self.tell = tell
        self._recorded: dict[bytes, dict[str, Activation]] = {}
        #: The scales that smoothing has chosen, by a digest of all that they depend on, see ``smooth``.
        self.smoothing: dict[bytes, NDArray[np.float32]] = {}

    def __iter__(self) -> Iterator[Feeds]:
        """Yield the inputs one by one; each counts as done when the next one is asked for."""
        progress = Progress("running the calibration inputs", len(self), self.tell)
        for feeds in super().__iter__():
            yield feeds
            progress.count(1)

    def recall(self, key: bytes) -> dict[str, Activation] | None:
        """Return what was recorded of a model, if it is still known."""
        if key in self._recorded:
            self._recorded[key] = self._recorded.pop(key)  # the last to be forgotten
        return self._recorded.get(key)

    def remember(self, key: bytes, recorded: dict[str, Activation]) -> None:
        """Keep what was recorded of a model, and forget what was asked for longest ago."""
        self._recorded[key] = recorded
        while sum(each.nbytes for kept in self._recorded.values() for each in kept.values()) > REMEMBERED_BYTES:
            del self._recorded[next(iter(self._recorded))]


def findings_of(calibration: Iterable[Feeds]) -> Findings:
    """Return what is known of models that were run on these inputs; nothing where they are plain ones."""
    return calibration.findings if isinstance(calibration, Calibration) else Findings()


def count_steps(name: str, total: int, unit: str, calibration: Iterable[Feeds]) -> Progress:
    """Return what counts the steps of a pass, and tells of them what ``calibration`` tells its own steps."""
    tell = calibration.tell if isinstance(calibration, Calibration) else print
    return Progress(name, total, tell, unit=unit)


def record_activations(
    model: onnx.ModelProto, calibration: Iterable[Feeds], tensors: Sequence[str]
) -> dict[str, Activation]:
    """Run ``model`` on each calibration input and keep what ``Activation`` holds of each tensor.

    Memory stays that of one run plus the samples, and what a ``Calibration`` remembers.

    Args:
        model: a model whose ``tensors`` are float32 with channels in the last dimension.
        calibration: model inputs, run one by one; or not at all, where a ``Calibration`` remembers what they give.
        tensors: names of tensors inside the graph.

    Raises:
        ValueError: there are no calibration inputs.
    """
    if not tensors:
        return {}
    content = serialize_exposing(model, tensors)
    key = _key_of(content, tensors)
    remembered = calibration.recall(key) if isinstance(calibration, Calibration) else None
    if remembered is not None:
        return remembered
    session = open_serialized(model, content)
    del content
    lows: dict[str, NDArray[np.float32]] = {}
    highs: dict[str, NDArray[np.float32]] = {}
    rows: dict[str, list[NDArray[np.float32]]] = {tensor: [] for tensor in tensors}
    for feeds in calibration:
        for tensor, values in zip(tensors, session.run(list(tensors), dict(feeds)), strict=True):
            tokens = values.reshape(-1, values.shape[-1])
            lows[tensor] = np.minimum(lows.get(tensor, INFINITE), tokens.min(axis=0, initial=INFINITE))
            highs[tensor] = np.maximum(highs.get(tensor, -INFINITE), tokens.max(axis=0, initial=-INFINITE))
            chosen = np.linspace(0, len(tokens) - 1, min(ROWS_PER_RUN, len(tokens))).round().astype(int)
            rows[tensor].append(tokens[chosen])
    if not lows:
        raise ValueError("needs calibration inputs, and there are none")
    for tensor, parts in rows.items():
        if not sum(map(len, parts)):  # an expert of a mixture that no token was sent to
            lows[tensor] = highs[tensor] = np.zeros_like(lows[tensor])
            parts.append(lows[tensor][None])
    recorded = {tensor: Activation(np.concatenate(rows[tensor]), lows[tensor], highs[tensor]) for tensor in tensors}
    if isinstance(calibration, Calibration):
        calibration.remember(key, recorded)
    return recorded


def remember_activations(
    model: onnx.ModelProto, calibration: Iterable[Feeds], recorded: Mapping[str, Activation], tensors: Sequence[str]
) -> None:
    """Have ``record_activations`` know what it would record, where that follows from what flowed before a change.

    Args:
        model: the model after the change.
        calibration: model inputs; nothing happens where they remember nothing.
        recorded: what is known, by the name of the tensor. Where it lacks one of ``tensors``, nothing happens.
        tensors: the names that will be asked for, in this order.
    """
    if isinstance(calibration, Calibration) and recorded.keys() >= set(tensors):
        key = _key_of(serialize_exposing(model, tensors), tensors)
        calibration.remember(key, {tensor: recorded[tensor] for tensor in tensors})


def _key_of(content: bytes, tensors: Sequence[str]) -> bytes:
    """Return what a recording is looked up by: a digest of the serialized model, and of the tensors' names."""
    digest = hashlib.sha256(content)
    digest.update("\0".join(tensors).encode())
    return digest.digest()
