"""What a release holds and what is recorded of it.

The files are ``release.json``, ``verified.json``, ``published.json``, and in the release ``manifest.json`` and
``golden.json``.
"""

from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from onnxproof.files import Files, read_manifest
from onnxproof.records.benchmark import Cpu, StepFigures, TimedCase
from onnxproof.records.common import Metrics, Versions
from onnxproof.records.evaluation import EvaluationData
from onnxproof.records.parity import JudgedInputs
from onnxproof.records.reference import (
    BatchInvariance,
    FinalRecord,
    MeasuredReference,
    Padding,
    RecordedInputs,
    RecordedOutput,
    Usage,
)
from onnxproof.records.source import Origin
from onnxproof.records.variant import Settings


class GateLimit(TypedDict):
    """One metric that the gate judged."""

    metric: str
    """A key of ``vocabulary.METRICS``."""
    measured: float | None
    """None where it is not finite."""
    allowed: float
    """The limit, which counts what a batch changes in PyTorch."""
    at_least: bool
    """Whether ``measured`` must be at least, not at most, ``allowed``."""


class Gate(TypedDict):
    """The verdict on a variant."""

    passed: bool
    """True: a release holds no other variants."""
    limits: list[GateLimit]
    """What was judged."""
    thresholds: dict[str, float]
    """The limits as they were configured, by metric."""


class ReleasedParity(TypedDict):
    """How far the answers of a variant are from PyTorch's, as ``parity/{variant}.json`` has it."""

    inputs: JudgedInputs
    """What both were asked."""
    task_metrics: Metrics
    """What the task's answers are compared by."""
    batch_invariance: BatchInvariance
    """What a batch changes in the variant's answers."""


class ReleasedCase(TimedCase):
    """One timed input shape, without raw samples."""

    shape: str
    """Batch x sequence, or the batch alone."""
    speedup_vs_fp32: NotRequired[float]
    """Median over the rounds of fp32's time over this one's; absent for fp32 on the CPU."""
    speedup_iqr: NotRequired[list[float]]
    """The lower and the upper quartile of the same."""
    fp32_p50_ms: NotRequired[float]
    """The median time of fp32 in the same run; absent for fp32 on the CPU."""


class ReleasedStep(StepFigures):
    """One step of a model that writes texts, without raw samples."""

    fp32_p50_ms: NotRequired[float]
    """The median time of fp32 in the same run; absent for fp32 on the CPU."""


class ReleasedSpeed(TypedDict):
    """How fast a variant is on one machine, see ``BenchmarkRecord``."""

    machine: NotRequired[str]
    """The kind of machine, where one was named."""
    cpu: Cpu
    """What the machine is."""
    load_ms: float
    """Median time to load the model."""
    peak_rss_mb: float
    """The most resident memory, in MB of 1e6 bytes."""
    size_mb: float
    """The files of the model, in MB of 1e6 bytes."""
    cases: list[ReleasedCase]
    """One for each shape and number of threads."""
    generation: NotRequired[list[ReleasedStep]]
    """How fast it writes; absent where it is no ``text-generation`` with a cache."""


class ReleasedBenchmark(ReleasedSpeed):
    """How fast a variant is, on the first kind of machine and on the others."""

    elsewhere: NotRequired[list[ReleasedSpeed]]
    """On each further kind of machine."""


class Evidence(TypedDict):
    """How a variant was made, and what was measured on it."""

    sha256: str
    """Of its graph, or of the list of the checksums of its graphs, in hex."""
    settings: Settings
    """How it was made."""
    opset: dict[str, int]
    """The version of each set of operators, by its domain."""
    parity: ReleasedParity
    """How far its answers are from PyTorch's."""
    gate: Gate
    """The verdict."""
    benchmark: ReleasedBenchmark
    """How fast it is."""
    versions: Versions
    """Of the libraries that made it."""


class NamedFiles(TypedDict):
    """The ONNX files of a variant in a release."""

    file: str
    """The one that clients name: the graph, or the decoder of several."""
    files: NotRequired[dict[str, str]]
    """Of several graphs, each file's path in the release, by the graph's own name."""


class FixedFile(TypedDict):
    """The form of a variant whose shapes are fixed."""

    file: str
    """The ONNX file."""
    shape: list[int]
    """The length of each axis that is free in the variant: of texts, the batch size and the tokens."""
    fitting: int
    """How many of the evaluation inputs are no longer than that; the others were not asked."""
    sha256: str
    """Of the file, in hex."""
    task_metrics: Metrics
    """How far its answers are from PyTorch's."""
    batch_invariance: BatchInvariance
    """How far they are from the variant's own answers to inputs that are not padded."""
    limits: list[GateLimit]
    """The verdict: each limit that applies."""


class Quality(TypedDict):
    """How good a variant is on labelled data beside the original."""

    metric: str
    """What was measured."""
    title: str
    """What that says."""
    original: float
    """The metric of the original's answers."""
    value: float
    """The metric of the variant's answers."""
    difference: float
    """``value - original``."""
    interval: list[float]
    """The 95 % interval of the difference."""
    allowed: float
    """By how much the variant may be worse."""
    changed: float | None
    """The share of inputs that are answered in another way; null where answers are real numbers."""
    data: EvaluationData
    """On what it was measured."""


class ReleasedQuality(TypedDict):
    """How a model was evaluated on labelled data, so that it can be measured again: ``release/evaluation.json``."""

    use: str
    """What the model is used for."""
    task: str
    """The task."""
    labels: list[str]
    """The model's labels, by index."""
    rate: int | None
    """Samples a second, of a model that takes sounds."""
    new_tokens: int
    """How many tokens a text that is written has at most."""
    settings: dict[str, Any]
    """``evaluation`` of the configuration, see ``Reproduction``."""
    data: EvaluationData
    """What was answered."""
    scores: dict[str, list[float] | None]
    """The scores of the first inputs that each variant answered, 1,000 at most; null where inputs have none."""


class Copied(TypedDict):
    """The copy of a variant in a release."""

    copied_as: NotRequired[NamedFiles]
    """The same graphs under the other name that transformers.js has for them; absent where there is none."""


class ReleasedVariant(NamedFiles, Copied, Evidence):
    """A variant in a release."""

    evaluation: NotRequired[Quality]
    """How good it is on labelled data, where the configuration names some."""
    fixed: NotRequired[list[FixedFile]]
    """Its forms with fixed shapes; absent where ``release.fixed_shapes`` does not ask."""


class ReleasedReference(TypedDict):
    """What the original was asked and answered, as ``reference.json`` has it."""

    inputs: RecordedInputs
    """The evaluation inputs."""
    outputs: dict[str, RecordedOutput]
    """Its outputs by name."""
    padding: Padding
    """How inputs are padded."""
    usage: Usage
    """What a model card must know."""
    versions: Versions
    """Of the libraries that answered."""


class Headline(TypedDict):
    """What the first table of a model card shows."""

    metric: str
    """The first metric of the task."""
    meaning: str
    """What it says."""
    cases: list[str]
    """The timed shapes."""


class Session(TypedDict):
    """Settings of onnxruntime's session."""

    intra_op_threads: int
    """Threads in an operator."""
    inter_op_threads: int
    """Threads between operators."""
    execution_mode: str
    """``sequential``."""
    spinning: bool
    """Whether threads spin while they wait."""
    memory_arena: bool
    """Whether memory that was taken is kept."""


class AnswersElsewhere(TypedDict):
    """How far a file's answers are from PyTorch's with another execution provider than that of the CPU."""

    file: str
    """The path in the release."""
    variant: str
    """What is in it."""
    provider: str
    """The execution provider."""
    task_metrics: Metrics
    """What the task's answers are compared by."""
    missed: list[str]
    """The metrics that are beyond the limits of the variant. No gate judges them, but no file is recommended with a
    provider with which it misses one."""


class RecommendedFile(TypedDict):
    """What was fastest for a purpose."""

    file: str
    """The ONNX file, see ``NamedFiles``."""
    purpose: str
    """``latency`` or ``throughput``."""
    in_float: bool
    """Whether only float files on the CPU were looked at."""
    variant: str
    """The variant's name."""
    provider: str
    """The execution provider of onnxruntime."""
    session: Session
    """The settings that it was timed with."""
    shapes: list[str]
    """The timed shapes that ``speedup`` is the geometric mean over."""
    speedup: float
    """The time of fp32 on the CPU, with the most threads that were measured, over its own."""


class ProvenInputs(TypedDict):
    """The files that a release was made from, of each folder."""

    source: Files
    """The snapshot."""
    reference: Files
    """The original's answers."""
    onnx: dict[str, Files]
    """Each variant."""


class Reproduction(TypedDict):
    """How to make a release again."""

    config: dict[str, Any]
    """The content of config.yaml."""
    commands: list[str]
    """What to run in a checkout of this project."""


class RefusedNodes(TypedDict):
    """Nodes that an execution provider refuses for one reason."""

    operator: str
    """Theirs; of another domain than ONNX's own with the domain before it."""
    reason: str
    """Which condition they do not meet."""
    nodes: list[str]
    """Their names."""


class TargetVerdict(TypedDict):
    """What the documentation of an execution provider says of a file. Nothing was run."""

    nodes: int
    """How many nodes the provider is given; without those that are computed when the file is loaded."""
    refused: list[RefusedNodes]
    """Those of them that it does not take."""
    not_fixed: list[str]
    """Inputs whose shapes must be fixed first."""
    documented: str
    """What was read of the documentation, and what was not."""
    sources: list[str]
    """The documentation."""


class BrowserResults(TypedDict):
    """What was measured in a browser, and what is announced of it."""

    adapter: str | None
    """What computed WebGPU; None where there was none."""
    inputs: int
    """How many inputs were asked."""
    announced: dict[str, str]
    """The dtype that transformers.js takes by itself, by device."""
    not_announced: list[str]
    """A line for each file and device where it does not answer within its limits."""
    failed: dict[str, dict[str, str]]
    """The same reasons, by variant and device."""
    versions: Versions
    """Of the browser and the libraries that took part."""


class ReleaseDescription(TypedDict):
    """What is known of a release before its files are put together."""

    model: str
    """The model's name in config.yaml."""
    task: str
    """A key of ``TASKS``."""
    source: Origin
    """Where the model came from; of a local model, no folder above its own."""
    reference: ReleasedReference
    """The original."""
    headline: Headline
    """What the model card shows first."""
    variants: dict[str, ReleasedVariant]
    """The variants that are shipped, by name."""
    other_providers: NotRequired[list[AnswersElsewhere]]
    """The answers with other execution providers; absent where none was timed."""
    recommended: list[RecommendedFile]
    """Which file to run."""
    inputs: ProvenInputs
    """What it was made from."""
    versions: Versions
    """Of the libraries that put it together."""
    reproduce: Reproduction
    """How to make it again."""
    browser: NotRequired[BrowserResults]
    """What answers in a browser; absent where ``parity.browser`` does not ask."""
    targets: NotRequired[dict[str, dict[str, TargetVerdict]]]
    """For each ONNX file, by provider, what is documented of it; absent where ``release.targets`` is empty."""


class GoldenCounts(TypedDict):
    """How many inputs a release carries."""

    count: int
    """The inputs."""
    answered: int
    """Those with answers, the first ones."""


class PreparedRelease(ReleaseDescription):
    """What a model card is made from."""

    changed_files: dict[str, str]
    """What was changed in files of the source, by file."""
    golden: GoldenCounts
    """The inputs that it can be verified with."""


class ReleaseManifest(PreparedRelease):
    """What is shipped, how it was made, and what was measured."""

    files: Files
    """Those of the release, but for the manifest itself and ``SHA256SUMS``."""


class ReleaseRecord(TypedDict):
    """The files of a release."""

    model: str
    """The model's name in config.yaml."""
    folder: str
    """The folder beside this file."""
    variants: dict[str, str]
    """For each variant, the ONNX file that clients name."""
    files: Files
    """All files of the folder."""


class GoldenRecord(TypedDict):
    """What belongs to the arrays in ``golden.npz``."""

    manifest: MeasuredReference
    """What a measurement must know."""
    final: NotRequired[FinalRecord]
    """Raw inputs and the original's answers; absent where the card has no program that takes raw inputs."""
    generated: NotRequired[dict[str, list[int]]]
    """The tokens that PyTorch generates after some of the inputs, by the input's number."""
    texts: NotRequired[list[str | list[str]]]
    """Texts, or pairs, that a tokenizer alone must turn into the recorded ids."""
    max_tokens: NotRequired[int]
    """What they are cut to."""


class GoldenReference(MeasuredReference):
    """What is read back of a golden reference."""

    max_tokens: int | None
    """What the texts are cut to; None without texts."""


class VerificationCheck(TypedDict):
    """One thing that was looked at."""

    subject: str
    """The file, or what was looked at in several."""
    what: str
    """What was checked."""
    seen: str
    """What was found here."""
    allowed: str
    """What is allowed; empty where that goes without saying."""
    verdict: Literal["pass", "FAIL", "skipped"]
    """``skipped`` where the golden inputs do not tell."""


class VerificationRecord(TypedDict):
    """What ``verify_release.py`` found."""

    model: str
    """The model's name in config.yaml."""
    passed: bool
    """Whether no check failed."""
    signature: Literal["absent", "not checked", "verified", "refused"]
    """Whether the release is signed. It is checked only if a public key is given."""
    cpu: str
    """As the processor names itself."""
    versions: Versions
    """Of what ran the release."""
    checks: list[VerificationCheck]
    """Everything that was looked at."""


class PublicationRecord(TypedDict):
    """What was sent to the Hub, or would have been."""

    model: str
    """The model's name in config.yaml."""
    repo: str
    """The repository, owner/name."""
    branch: str | None
    """None for a pull request."""
    dry_run: bool
    """Whether nothing was sent."""
    commit: str | None
    """The commit, 40 hex digits; None in a dry run."""
    url: str | None
    """Of the pull request or the commit; None in a dry run."""
    files: Files
    """What was sent."""
    versions: Versions
    """Of the libraries that took part."""


def read_release(path: Path) -> ReleaseRecord:
    """Read a ``release.json``.

    Raises:
        UserError: see ``read_manifest``.
    """
    release: ReleaseRecord = read_manifest(path)
    return release


def read_release_manifest(path: Path) -> ReleaseManifest:
    """Read the ``manifest.json`` of a release.

    Raises:
        UserError: see ``read_manifest``.
    """
    manifest: ReleaseManifest = read_manifest(path)
    return manifest


def read_verification(path: Path) -> VerificationRecord:
    """Read a ``verified.json``.

    Raises:
        UserError: see ``read_manifest``.
    """
    verification: VerificationRecord = read_manifest(path)
    return verification
