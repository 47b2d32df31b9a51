"""The verdict on a variant: each measured difference against what the configuration allows."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxproof.cli import UserError
from onnxproof.vocabulary import METRICS

if TYPE_CHECKING:
    from onnxproof.records.parity import Judged
    from onnxproof.records.release import GateLimit


@dataclass(frozen=True)
class Verdict:
    """One metric's measurement held against its threshold; ``measured`` is None where it was not finite."""

    metric: str
    measured: float | None
    allowed: float
    at_least: bool

    @property
    def passed(self) -> bool:
        """Whether the measurement is within the threshold; what could not be measured is not."""
        if self.measured is None:
            return False
        return self.measured >= self.allowed if self.at_least else self.measured <= self.allowed

    @property
    def bound(self) -> str:
        """What is allowed, such as ">= 0.99"."""
        return f"{'>=' if self.at_least else '<='} {self.allowed:g}"

    def as_record(self) -> "GateLimit":
        """Return it as JSON holds it."""
        return {
            "metric": self.metric,
            "measured": self.measured,
            "allowed": self.allowed,
            "at_least": self.at_least,
        }

    def __str__(self) -> str:
        """Say what was measured and what is allowed."""
        measured = "not finite" if self.measured is None else f"{self.measured:.6g}"
        return f"{self.metric}: measured {measured}, allowed {self.bound}"


def measurements(parity: "Judged") -> dict[str, float | None]:
    """Return every metric of a parity file by the name that thresholds use.

    ``max_abs_diff`` and ``max_relative_diff`` are the largest over all outputs; the batch metrics compare an input
    alone and in a batch.
    """
    outputs, invariance = parity["outputs"].values(), parity["batch_invariance"]
    return {
        "max_abs_diff": _largest(output["max_abs_diff"] for output in outputs),
        "max_relative_diff": _largest(output["max_relative_diff"] for output in outputs),
        **parity["task_metrics"],
        "batch_max_abs_diff": invariance["max_abs_diff"],
        "batch_cosine_min": invariance["cosine_min"],
    }


def _largest(differences: Iterable[float | None]) -> float | None:
    """Return the largest of some differences; None where one of them is not finite."""
    largest = max(math.inf if difference is None else difference for difference in differences)
    return largest if math.isfinite(largest) else None


def _fair_limit(metric: str, allowed: float, parity: "Judged") -> float:
    """Return the limit of a batch metric, set against what PyTorch itself loses in a batch: a variant adds to that.

    Where a batch changes what the model computes, a variant has one error alone and another one in a batch. Each may
    move its two answers further apart, by as much as the variant is off; but both together no further than PyTorch's.
    """
    own = parity["reference_batch_invariance"]
    if metric == "batch_cosine_min" and own["cosine_min"] is not None:
        errors = min(2 * _own_error(parity), 1 - own["cosine_min"])
        return min(allowed, own["cosine_min"] - (1 - allowed) - errors)
    if metric == "batch_max_abs_diff" and own["max_abs_diff"] is not None:
        return allowed + own["max_abs_diff"]
    return allowed


def _own_error(parity: "Judged") -> float:
    """Return how far a variant's outputs are from PyTorch's at most, in 1 - cosine, as far as they are finite."""
    cosines = (output["cosine_min"] for output in parity["outputs"].values())
    return max((1 - cosine for cosine in cosines if cosine is not None), default=0.0)


def limits_of_few(limits: Mapping[str, float], count: int) -> dict[str, float]:
    """Return the limits that hold for ``count`` inputs, from those for all inputs: see ``Metric.of_few``."""
    few = {}
    for metric, allowed in limits.items():
        how = METRICS[metric].of_few if metric in METRICS else "held"
        if how != "not held":
            few[metric] = math.floor(allowed * count + 1e-9) / count if how == "whole inputs" else allowed
    return few


def judge(parity: "Judged", thresholds: Mapping[str, float | None]) -> list[Verdict]:
    """Hold a parity file against the thresholds of its variant; metrics of other tasks are left out.

    What a batch may change is counted on top of what it changes in PyTorch.

    Raises:
        UserError: no threshold applies, so nothing would be proven.
    """
    measured = measurements(parity)
    verdicts = [
        Verdict(metric, measured[metric], _fair_limit(metric, allowed, parity), METRICS[metric].bound == "at least")
        for metric, allowed in thresholds.items()
        if allowed is not None and metric in measured
    ]
    if not verdicts:
        raise UserError(
            f"{parity['model']} {parity['variant']}: none of the thresholds {sorted(thresholds)} applies to the "
            f"task {parity['task']}, so the gate would prove nothing; set one of: {', '.join(sorted(measured))}"
        )
    return verdicts
