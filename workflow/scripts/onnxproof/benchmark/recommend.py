"""Which file to run on the machine where a model was measured, and with which settings.

Each variant is timed in turns with fp32 on the CPU, in a run of its own, so variants are compared by their ratio to
fp32 in the same run; fp32's own times there put several numbers of threads on one scale.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import geometric_mean
from typing import Any

from onnxproof.formatting import format_shape
from onnxproof.vocabulary import CPU_PROVIDER, QUANTIZED_VARIANTS

#: What the smallest and the largest of the measured batch sizes speak for.
PURPOSES = ("latency", "throughput")
#: The settings of onnxruntime's session, but for its threads, that a benchmark records.
SESSION_SETTINGS = ("inter_op_threads", "execution_mode", "spinning", "memory_arena")


@dataclass(frozen=True)
class Recommendation:
    """What was fastest for a purpose: the geometric mean over ``shapes``, batch x tokens.

    ``in_float`` tells whether only float files on the CPU were looked at, or all. ``speedup`` is the ratio to fp32 on
    the CPU with the most threads that were measured.
    """

    purpose: str
    in_float: bool
    variant: str
    provider: str
    session: Mapping[str, Any]
    shapes: tuple[str, ...]
    speedup: float


@dataclass(frozen=True)
class Run:
    """The speed-ups over fp32, by batch and sequence, of one variant with one provider and number of threads."""

    variant: str
    provider: str
    session: Mapping[str, Any]
    speedups: Mapping[tuple[int, int | None], float]

    @property
    def in_float(self) -> bool:
        """Whether its answers are fp32's: another provider may compute in another type."""
        return self.variant not in QUANTIZED_VARIANTS and self.provider == CPU_PROVIDER

    def shapes(self, batch: int) -> tuple[str, ...]:
        """Return the cases of a batch size, see ``format_shape``."""
        return tuple(format_shape(batch, length) for size, length in self.speedups if size == batch)

    def speedup(self, batch: int) -> float:
        """Return the geometric mean over the cases of a batch size."""
        return geometric_mean(value for (size, _), value in self.speedups.items() if size == batch)


def batches_of_purposes(runs: Sequence[Run]) -> dict[str, int]:
    """Return the batch size that speaks for each of ``PURPOSES``; the first alone where one size was measured."""
    batches = sorted({batch for run in runs for batch, _ in run.speedups})
    return dict(zip(PURPOSES, dict.fromkeys((*batches[:1], *batches[-1:])), strict=False))


def fastest(runs: Iterable[Run], batch: int) -> Run | None:
    """Return the run with the largest speed-up at a batch size; None where none was measured with it."""
    return max((run for run in runs if run.shapes(batch)), key=lambda run: run.speedup(batch), default=None)


def recommend(benchmarks: Mapping[str, Mapping[str, Any]]) -> list[Recommendation]:
    """Return, for each purpose, the fastest of the float files, and the fastest of all where that is another one.

    Args:
        benchmarks: the content of ``benchmark/{variant}.json`` by variant, of those that passed their gates.
    """
    runs = [run for variant, record in benchmarks.items() for run in _runs(variant, record)]
    found: list[Recommendation] = []
    for purpose, batch in batches_of_purposes(runs).items():
        for in_float in (True, False):
            best = fastest((run for run in runs if run.in_float or not in_float), batch)
            if best is not None and best.in_float == in_float:
                shapes, speedup = best.shapes(batch), best.speedup(batch)
                found.append(
                    Recommendation(purpose, in_float, best.variant, best.provider, best.session, shapes, speedup)
                )
    return found


def _runs(variant: str, record: Mapping[str, Any]) -> Iterator[Run]:
    """Yield a record's runs; a case without a figure counts as not measured."""
    settings = {key: value for key, value in record.get("settings", {}).items() if key in SESSION_SETTINGS}
    for measured in (record, *record.get("other_providers", [])):
        baseline = measured.get("baseline")
        fp32 = {_key(case): case["p50_ms"] for case in (baseline or measured)["cases"] if case.get("p50_ms")}
        cases = [case for case in measured["cases"] if _key(case) in fp32 and (not baseline or _speedup(case))]
        counts = sorted({threads for _, _, threads in map(_key, cases) if threads})
        for threads in counts:
            speedups = {
                (batch, sequence): _speedup(case) * fp32[batch, sequence, counts[-1]] / fp32[_key(case)]
                for case in cases
                for batch, sequence, its_threads in [_key(case)]
                if its_threads == threads and (batch, sequence, counts[-1]) in fp32
            }
            yield Run(variant, measured["provider"], {"intra_op_threads": threads} | settings, speedups)


def _speedup(case: Mapping[str, Any]) -> float:
    """Return a case's ratio to fp32, which fp32 itself does not have."""
    return float(case.get("speedup_vs_fp32", 1.0) or 0.0)


def _key(case: Mapping[str, Any]) -> tuple[int, int | None, int | None]:
    return case["batch"], case.get("sequence"), case.get("intra_op_threads")
