"""``parity/browser.json``: what the files of a release answer in Node and in a browser."""

from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from onnxproof.files import read_manifest
from onnxproof.records.common import Metrics, Versions
from onnxproof.records.parity import OutputDifference
from onnxproof.records.reference import BatchInvariance


class BrowserAnswers(TypedDict):
    """How far the answers of a variant in Node or a browser are from the original's."""

    outputs: dict[str, OutputDifference]
    """Each output of the graphs, by name."""
    task_metrics: Metrics
    """What the task's answers are compared by."""
    batch_invariance: BatchInvariance
    """What a batch changes in the answers."""


class BrowserRun(TypedDict):
    """One variant on one device of transformers.js."""

    variant: str
    """The variant's name."""
    device: Literal["cpu", "wasm", "webgpu"]
    """What transformers.js was told to use: ``cpu`` in Node, the others in a browser."""
    sha256: str
    """Of its graph, or of the list of the checksums of its graphs, in hex."""
    loads: bool
    """Whether transformers.js opens all graphs."""
    error: str | None
    """The first line of what stopped it; None where it answered."""
    answers: NotRequired[BrowserAnswers]
    """What was measured; absent where something stopped it."""


class BrowserInputs(TypedDict):
    """The inputs: those that a release carries with answers."""

    count: int
    """How many."""


class BrowserRecord(TypedDict):
    """What the ONNX files of a model answer in Node and in a browser."""

    model: str
    """The model's name in config.yaml."""
    task: str
    """A key of ``TASKS``."""
    inputs: BrowserInputs
    """What was asked."""
    adapter: str | None
    """What computes WebGPU, with ``shader-f16`` and ``subgroups`` where it has them; None without WebGPU."""
    runs: list[BrowserRun]
    """Each variant on each device."""
    versions: Versions
    """Of the programs and the libraries that took part."""


def read_browser(path: Path) -> BrowserRecord:
    """Read a ``parity/browser.json``.

    Raises:
        UserError: see ``read_manifest``.
    """
    record: BrowserRecord = read_manifest(path)
    return record
