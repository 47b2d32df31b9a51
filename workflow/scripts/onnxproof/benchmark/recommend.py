"""Which file to run on the machine where a model was measured, and with which settings.

Each variant is timed in turns with fp32 on the CPU, in a run of its own, so variants are compared by their ratio to
fp32 in the same run; fp32's own times there put several numbers of threads on one scale. Models that write texts are
compared by the times of their next tokens.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import geometric_mean
from typing import TypeVar, cast

from onnxproof.formatting import format_shape
from onnxproof.records.benchmark import (
    Baseline,
    BenchmarkRecord,
    ProviderBenchmark,
    TimedCase,
    TimedStep,
    Writing,
    WritingBaseline,
)
from onnxproof.records.release import Session
from onnxproof.vocabulary import CPU_PROVIDER, QUANTIZED_VARIANTS

#: What the smallest and the largest of the measured batch sizes speak for.
PURPOSES = ("latency", "throughput")


@dataclass(frozen=True)
class Recommendation:
    """What was fastest for a purpose: the geometric mean over ``shapes``, batch x tokens.

    The tokens are those of the inputs; of a model that writes texts, those before the next token, as ``writes`` tells.
    ``in_float`` tells whether only float files on the CPU were looked at, or all. ``speedup`` is the ratio to fp32 on
    the CPU with the most threads that were measured.
    """

    purpose: str
    in_float: bool
    variant: str
    provider: str
    session: Session
    shapes: tuple[str, ...]
    speedup: float
    writes: bool = False


@dataclass(frozen=True)
class Run:
    """The speed-ups over fp32, by batch and sequence, of one variant, timed in one way."""

    variant: str
    speedups: Mapping[tuple[int, int | None], float]

    def shapes(self, batch: int) -> tuple[str, ...]:
        """Return the cases of a batch size, see ``format_shape``."""
        return tuple(format_shape(batch, length) for size, length in self.speedups if size == batch)

    def speedup(self, batch: int) -> float:
        """Return the geometric mean over the cases of a batch size."""
        return geometric_mean(value for (size, _), value in self.speedups.items() if size == batch)


@dataclass(frozen=True)
class ProviderRun(Run):
    """A run with one execution provider and one number of threads."""

    provider: str
    session: Session
    writes: bool

    @property
    def in_float(self) -> bool:
        """Whether its answers are fp32's: another provider may compute in another type."""
        return self.variant not in QUANTIZED_VARIANTS and self.provider == CPU_PROVIDER


AnyRun = TypeVar("AnyRun", bound=Run)


def batches_of_purposes(runs: Sequence[Run]) -> dict[str, int]:
    """Return the batch size that speaks for each of ``PURPOSES``; the first alone where one size was measured."""
    batches = sorted({batch for run in runs for batch, _ in run.speedups})
    return dict(zip(PURPOSES, dict.fromkeys((*batches[:1], *batches[-1:])), strict=False))


def fastest(runs: Iterable[AnyRun], batch: int) -> AnyRun | None:
    """Return the run with the largest speed-up at a batch size; None where none was measured with it."""
    return max((run for run in runs if run.shapes(batch)), key=lambda run: run.speedup(batch), default=None)


def recommend(
    benchmarks: Mapping[str, BenchmarkRecord], unfit: Collection[tuple[str, str]] = ()
) -> list[Recommendation]:
    """Return, for each purpose, the fastest of the float files, and the fastest of all where that is another one.

    Args:
        benchmarks: the content of ``benchmark/{variant}.json`` by variant, of those that passed their gates.
        unfit: variants and execution providers that are never recommended together: their answers miss a limit.
    """
    timed = (run for variant, record in benchmarks.items() for run in _runs(variant, record))
    every = [run for run in timed if (run.variant, run.provider) not in unfit]
    runs = [run for run in every if run.writes] or every  # next tokens and other calls are not compared
    found: list[Recommendation] = []
    for purpose, batch in batches_of_purposes(runs).items():
        for in_float in (True, False):
            best = fastest((run for run in runs if run.in_float or not in_float), batch)
            if best is not None and best.in_float == in_float:
                found.append(
                    Recommendation(
                        purpose,
                        in_float,
                        best.variant,
                        best.provider,
                        best.session,
                        best.shapes(batch),
                        best.speedup(batch),
                        best.writes,
                    )
                )
    return found


@dataclass(frozen=True)
class _Timed:
    """A case as far as it counts: its shape, its number of threads, its time, and fp32's over it where both ran."""

    batch: int
    length: int | None
    threads: int
    p50_ms: float
    speedup: float

    @classmethod
    def of(cls, case: TimedCase | TimedStep, length: int | None) -> "_Timed":
        """Return what counts of a recorded case; fp32 itself has no speed-up."""
        speedup = cast(float, case.get("speedup_vs_fp32", 1.0))
        return cls(case["batch"], length, case["intra_op_threads"], case["p50_ms"], speedup)

    @property
    def key(self) -> tuple[int, int | None, int]:
        return self.batch, self.length, self.threads


def _next_tokens(writing: Writing | WritingBaseline) -> list[_Timed]:
    """Return the cases of a writer that count: its next tokens."""
    return [_Timed.of(case, case["context"]) for case in writing["cases"] if case["step"] == "next_token"]


def _calls(measured: ProviderBenchmark | Baseline) -> list[_Timed]:
    """Return the cases of any other model."""
    return [_Timed.of(case, case["sequence"]) for case in measured["cases"]]


def _timed(measured: ProviderBenchmark) -> tuple[list[_Timed], list[_Timed], bool]:
    """Return the cases that count, fp32's in the same run, and whether they are next tokens."""
    writing = measured.get("generation")
    if writing is not None and (cases := _next_tokens(writing)):
        return cases, _next_tokens(writing["baseline"] or writing), True
    return _calls(measured), _calls(measured["baseline"] or measured), False


def _runs(variant: str, record: BenchmarkRecord) -> Iterator[ProviderRun]:
    """Yield a record's runs."""
    settings = record["settings"]
    parts: list[ProviderBenchmark] = [record, *record.get("other_providers", [])]
    for measured in parts:
        cases, baseline, writes = _timed(measured)
        fp32 = {case.key: case.p50_ms for case in baseline}
        counts = sorted({case.threads for case in cases})
        for threads in counts:
            speedups = {
                (case.batch, case.length): case.speedup * fp32[case.batch, case.length, counts[-1]] / fp32[case.key]
                for case in cases
                if case.threads == threads
            }
            session: Session = {
                "intra_op_threads": threads,
                "inter_op_threads": settings["inter_op_threads"],
                "execution_mode": settings["execution_mode"],
                "spinning": settings["spinning"],
                "memory_arena": settings["memory_arena"],
            }
            yield ProviderRun(variant, speedups, measured["provider"], session, writes)
