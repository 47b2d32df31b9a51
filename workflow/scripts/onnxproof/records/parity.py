"""``parity/{variant}.json``: how far a variant's answers are from PyTorch's."""

from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from onnxproof.files import read_manifest
from onnxproof.records.common import Metrics, Versions
from onnxproof.records.reference import BatchInvariance, OwnInvariance


class OutputDifference(TypedDict):
    """One output of a graph against PyTorch's, over all inputs; None where a value is not finite."""

    shape: list[int]
    """Rows over all inputs, and features of the longest row."""
    dtype: str
    """As NumPy names it."""
    max_abs_diff: float | None
    """The largest absolute difference."""
    mean_abs_diff: float | None
    """The mean absolute difference."""
    max_relative_diff: float | None
    """The largest absolute difference over the largest absolute value, or over 1 where that is smaller."""
    cosine_min: float | None
    """The lowest cosine of two rows."""
    cosine_mean: float | None
    """The mean cosine of two rows."""


class JudgedInputs(TypedDict):
    """The evaluation inputs."""

    count: int
    """How many."""
    sha256: str
    """Of the file that holds them, in hex."""


class SampledAnswer(TypedDict):
    """An answer to a sample: a label of one text, or the similarity of two."""

    label: NotRequired[str]
    """The likeliest label."""
    probability: NotRequired[float]
    """Its probability."""
    similarity: NotRequired[float]
    """The cosine."""


class Sample(TypedDict):
    """Texts with both answers to them, for a reader of the report."""

    texts: list[str]
    """One text, or the two that are compared."""
    expected: SampledAnswer
    """PyTorch's."""
    actual: SampledAnswer
    """The variant's."""


class Judged(TypedDict):
    """What a gate judges."""

    model: str
    """The model's name in config.yaml."""
    variant: str
    """The variant's name."""
    task: str
    """A key of ``TASKS``."""
    outputs: dict[str, OutputDifference]
    """Each output of the graphs, by name; those of a merged decoder have its file in their names."""
    task_metrics: Metrics
    """What the task's answers are compared by."""
    batch_invariance: BatchInvariance
    """What a batch changes in the variant's answers."""
    reference_batch_invariance: OwnInvariance
    """What a batch changes in PyTorch's own answers: a variant is allowed its limit on top of that."""


class ProvenFiles(TypedDict):
    """The files whose answers were compared."""

    model_sha256: str
    """Of the variant's graph, the first of several, in hex."""
    weights_sha256: NotRequired[dict[str, str]]
    """Of the others, by name, in hex: weights beside a graph, and further graphs."""


class ParityRecord(Judged, ProvenFiles):
    """How far the answers of one variant are from PyTorch's."""

    provider: str
    """The execution provider of onnxruntime that computed the variant's answers."""
    reference: Literal["pytorch"]
    """Whose answers it is compared with."""
    inputs: JudgedInputs
    """What both were asked."""
    samples: list[Sample]
    """A few inputs with both answers; empty for most tasks."""
    emulates_float16: bool
    """Whether the graph was computed as hardware with float16 does it; a CPU computes it in float32."""
    intra_op_threads: int
    """Threads of onnxruntime."""
    versions: Versions
    """Of the libraries that took part."""


def read_parity(path: Path) -> ParityRecord:
    """Read a ``parity/{variant}.json``.

    Raises:
        UserError: see ``read_manifest``.
    """
    parity: ParityRecord = read_manifest(path)
    return parity
