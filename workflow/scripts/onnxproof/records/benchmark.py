"""``benchmark/{variant}.json``: how fast one form of a model is."""

from pathlib import Path
from typing import NotRequired, TypedDict

from onnxproof.files import read_manifest
from onnxproof.records.common import Versions
from onnxproof.vocabulary import Step


class CpuDescription(TypedDict):
    """A machine, as far as it matters to the speed of a transformer."""

    model: str
    """As the processor names itself."""
    flags: list[str]
    """Of its instruction sets, those of interest; empty where the system does not tell."""
    logical_cores: int | None
    """How many, hyper-threads counted; None where the system does not tell."""
    physical_cores: int | None
    """How many, hyper-threads not counted; None where the system does not tell."""


class Cpu(CpuDescription):
    """The machine, and what a process had of it."""

    available_cores: int
    """The logical cores that the process was allowed to run on."""


class Figures(TypedDict):
    """Times of one case over all samples."""

    p50_ms: float
    """The median time of a call, in ms."""
    p90_ms: float
    """The 90th percentile, in ms."""
    p99_ms: float
    """The 99th percentile, in ms."""
    items_per_s: float
    """Items a second at the median time."""
    iterations: int
    """How many samples."""


class TimedCase(Figures):
    """One input shape at one number of threads."""

    batch: int
    """Texts, images or sounds in a call."""
    sequence: int | None
    """Tokens of each text; None where the inputs are no texts."""
    intra_op_threads: int
    """Threads of onnxruntime or PyTorch."""


class Speedup(TypedDict):
    """How many times faster than fp32 on the CPU, which is timed in turns with it."""

    speedup_vs_fp32: float
    """Median over the rounds of fp32's time over this one's."""
    speedup_iqr: list[float]
    """The lower and the upper quartile of the same."""


class RecordedCase(TimedCase):
    """One input shape at one number of threads, with the raw samples."""

    samples_ms: list[list[float]]
    """The times of each round's calls, in ms."""
    speedup_vs_fp32: NotRequired[float]
    """Median over the rounds of fp32's time over this one's; absent for fp32 on the CPU."""
    speedup_iqr: NotRequired[list[float]]
    """The lower and the upper quartile of the same."""


class Baseline(TypedDict):
    """The fp32 model on the CPU, timed in turns with the contender."""

    variant: str
    """``fp32``."""
    cases: list[RecordedCase]
    """Its times, in the order of the contender's."""


class BenchmarkSettings(TypedDict):
    """With which settings a model was timed."""

    warmup: int
    """Untimed calls before each case."""
    rounds: int
    """Turns that each contender gets a case."""
    seconds_per_case: float
    """A case that takes longer ends with fewer rounds."""
    iterations: int
    """Timed calls a turn."""
    lead_in: int
    """Untimed calls at the start of each turn."""
    inter_op_threads: int
    """Of onnxruntime's session."""
    execution_mode: str
    """Of onnxruntime's session."""
    spinning: bool
    """Whether onnxruntime's threads spin while they wait."""
    memory_arena: bool
    """Whether onnxruntime keeps the memory that it has taken."""
    seed: int
    """Of the inputs."""


class StepShape(TypedDict):
    """What is timed of a model that writes, and how much of a text there is before it."""

    step: Step
    """``first_token``: a prompt is read. ``next_token``: one token is added to a text that is in the cache."""
    batch: int
    """Texts that are written at once."""
    context: int
    """Tokens of the prompt, or in the cache before the first timed step."""


class StepFigures(StepShape):
    """Times of one step at one number of threads."""

    intra_op_threads: int
    """Threads of onnxruntime or PyTorch."""
    p50_ms: float
    """The median time of the step, in ms."""
    p90_ms: float
    """The 90th percentile, in ms."""
    p99_ms: float
    """The 99th percentile, in ms."""
    tokens_per_s: float
    """Tokens a second at the median time: those read of the prompt, or those written of all texts."""
    iterations: int
    """How many samples."""
    peak_rss_mb: float
    """The most resident memory until the end of this case, in MB of 1e6 bytes. Cases run in their order."""
    speedup_vs_fp32: NotRequired[float]
    """Median over the rounds of fp32's time over this one's; absent for fp32 on the CPU."""
    speedup_iqr: NotRequired[list[float]]
    """The lower and the upper quartile of the same."""


class TimedStep(StepFigures):
    """Times of one step at one number of threads, with the raw samples."""

    samples_ms: list[list[float]]
    """The time of each step of each round, in ms."""


class LeftOut(StepShape):
    """A case that was not timed."""

    reason: str
    """Why not."""


class WritingBaseline(TypedDict):
    """The fp32 model on the CPU, timed in turns with the contender."""

    variant: str
    """``fp32``."""
    cases: list[TimedStep]
    """Its times, in the order of the contender's."""


class Writing(TypedDict):
    """How fast a model writes, with its cache of keys and values, in a process that does nothing else."""

    new_tokens: int
    """Timed steps of each turn of ``next_token``; ``first_token`` is timed once a turn."""
    cases: list[TimedStep]
    """One for each step, shape and number of threads."""
    left_out: list[LeftOut]
    """The configured cases that were not timed."""
    baseline: WritingBaseline | None
    """None for fp32 on the CPU, which is the baseline."""


class ProviderBenchmark(TypedDict):
    """What was measured with one execution provider."""

    provider: str
    """An execution provider of onnxruntime, or ``pytorch-cpu``."""
    load_ms: float
    """Median time to load the model in a fresh process, imports excluded."""
    load_samples_ms: list[float]
    """The time of each process."""
    rss_before_load_mb: float
    """Resident memory before the model is loaded, in MB of 1e6 bytes."""
    peak_rss_mb: float
    """The most resident memory until the end of the last case, in MB of 1e6 bytes."""
    cases: list[RecordedCase]
    """One for each shape and number of threads."""
    baseline: Baseline | None
    """None for fp32 on the CPU, which is the baseline."""
    generation: NotRequired[Writing]
    """How fast it writes; absent where it is no ``text-generation`` with a cache."""


class BenchmarkRecord(ProviderBenchmark):
    """How fast one form of a model is. Load time and memory are those at the most threads."""

    model: str
    """The model's name in config.yaml."""
    variant: str
    """The variant's name, or ``pytorch``."""
    intra_op_threads: int
    """The most that were measured."""
    machine: str | None
    """The kind of machine that the scheduler was asked for; None where none was named."""
    host: str
    """The name of the machine."""
    cpu: Cpu
    """What the machine is."""
    size_mb: float
    """The files of the model, in MB of 1e6 bytes."""
    settings: BenchmarkSettings
    """How it was timed."""
    notes: list[str]
    """What a reader of the times should know."""
    versions: Versions
    """Of what was measured and of what measured it."""
    other_providers: NotRequired[list[ProviderBenchmark]]
    """What was measured with further execution providers."""


def read_benchmark(path: Path) -> BenchmarkRecord:
    """Read a ``benchmark/{variant}.json``.

    Raises:
        UserError: see ``read_manifest``.
    """
    benchmark: BenchmarkRecord = read_manifest(path)
    return benchmark
