"""``audit.json``: what was found in the ONNX files of a repository that others published."""

from typing import Literal, NotRequired, TypeAlias, TypedDict

from onnxproof.files import Files
from onnxproof.records.benchmark import Cpu, TimedCase
from onnxproof.records.common import Metrics, Versions
from onnxproof.records.parity import OutputDifference
from onnxproof.records.reference import BatchInvariance
from onnxproof.records.release import GateLimit
from onnxproof.records.source import Place

#: ``wrong``: answers are others than the original's, or there are none. ``risk``: right where it was measured, but not
#: in every client, or not for every input. ``note``: what a reader may want to know.
Severity: TypeAlias = Literal["wrong", "risk", "note"]


class Finding(TypedDict):
    """One thing that was found."""

    severity: Severity
    """How grave it is."""
    kind: str
    """Its kind, such as ``name`` or ``external-data``: see docs/auditing.md."""
    message: str
    """One sentence for a reader."""


class Alignment(TypedDict):
    """Which names of the original stand for the names of the graph."""

    inputs: dict[str, str]
    """What each input of the graph is fed with; ``made`` before a name that was computed from others."""
    outputs: dict[str, str]
    """The output of the graph, or how it was computed, for each compared output of the original."""


class FinalMeasured(TypedDict):
    """What the repository's tokenizer, the graph and the repository's settings answer together to raw inputs."""

    inputs: int
    """How many raw inputs."""
    metrics: Metrics
    """How far from the answers of the original's public interface."""


class TimesFaster(TypedDict):
    """How a file's time compares with another's, which was timed in turns with it."""

    median: float
    """Median over the rounds of the other's time over this one's: above 1, this one is faster."""
    quartiles: list[float]
    """The lower and the upper quartile of the same."""
    p50_ms: float
    """The other's median time of a call, in ms."""


class SpeedCase(TimedCase):
    """The time of one file at one shape of inputs: of the graph alone, without tokenizing and pooling beside it."""

    times_faster: dict[str, TimesFaster]
    """Compared with ``pytorch``, the original there, and with the repository's own fp32 file, by its name."""
    samples_ms: list[list[float]]
    """The times of each round's calls, in ms."""


class AuditTiming(TypedDict):
    """With what the files were timed."""

    cpu: Cpu
    """The machine."""
    fp32: str | None
    """The repository's own fp32 file that the others are compared with; None where it has none that is sound."""
    pytorch_dtype: str | None
    """The type of the original's weights in PyTorch; None where it could not be loaded there."""
    warmup: int
    """Untimed calls before each case."""
    rounds: int
    """Turns that each gets a case, at most."""
    iterations: int
    """Timed calls a turn."""
    seconds_per_case: float
    """A case that takes longer ends with fewer rounds."""
    seed: int
    """Of the inputs."""


class AuditedFile(TypedDict):
    """One ONNX model of a repository: a graph, or the graphs of an encoder-decoder."""

    name: str
    """The path of its graph, the first of several."""
    files: Files
    """All its files by their paths in the repository, with weights in files of their own."""
    promised: str | None
    """The precision that its name promises; None where the name says nothing."""
    held: str | None
    """The precision of most weights of its products; None where the file could not be read."""
    weights: dict[str, float]
    """The share of its weights in each type."""
    judged_as: str | None
    """The variant whose limits were applied; None where it was not measured."""
    opset: NotRequired[dict[str, int]]
    """The version of each set of operators, by its domain."""
    ir_version: NotRequired[int]
    """Of the ONNX file."""
    alignment: NotRequired[Alignment]
    """Absent where the graph could not be aligned, and of models of several graphs."""
    outputs: NotRequired[dict[str, OutputDifference]]
    """Each compared output, by the original's name."""
    task_metrics: NotRequired[Metrics]
    """What the task's answers are compared by."""
    batch_invariance: NotRequired[BatchInvariance]
    """What the neighbours in a padded batch change."""
    limits: NotRequired[list[GateLimit]]
    """Each metric that was judged."""
    final: NotRequired[FinalMeasured]
    """Absent where no raw inputs were asked."""
    speed: NotRequired[list[SpeedCase]]
    """Its times, where it was timed."""
    findings: list[Finding]
    """Those about this file; those about the whole repository stand beside the list of files."""
    verdict: Literal["sound", "wrong", "not judged"]
    """``not judged`` where the file could not be aligned with the original."""
    seconds: float
    """How long it took to look at and to measure it."""


class AuditRecord(TypedDict):
    """What was found in the ONNX files of one repository."""

    name: str
    """The repository's name: owner/name on the Hub, or the folder's."""
    repository: Place
    """Where it is."""
    original: Place
    """What its files are held to."""
    original_named_by: Literal["the user", "base_model of the card", "the repository's own weights"]
    """Who says that this is the original."""
    task: str
    """A key of ``TASKS``."""
    inputs: int
    """How many inputs each file was given."""
    verdict: str
    """One sentence."""
    sound: bool
    """Whether every file is sound, and nothing about the repository is wrong."""
    findings: list[Finding]
    """Those about the whole repository: tokenizer, labels, pooling, licence."""
    files: list[AuditedFile]
    """One entry a model, sorted by name."""
    timing: NotRequired[AuditTiming]
    """Absent where no file was to be timed."""
    seconds: float
    """How long it took, without the recording of the original's answers."""
    versions: Versions
    """Of the libraries that took part."""
