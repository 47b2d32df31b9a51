"""The difference of a variant to the original on the same labelled inputs, and whether it is small enough."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxproof.cli import UserError
from onnxproof.evaluation.intervals import paired_proportions, percentile, resampled_differences
from onnxproof.evaluation.metric import Answers, Labels, Metric

RESAMPLES = 10_000


@dataclass(frozen=True)
class Comparison:
    """What a variant and the original are worth on the same inputs. All values are in the metric's unit.

    Attributes:
        metric: its name.
        inputs: how many were answered.
        original: the metric of the original's answers.
        variant: the metric of the variant's answers.
        difference: ``variant - original``.
        low: the lower end of the 95 % interval of the difference.
        high: its upper end.
        method: how the interval was made.
        changed: the share of inputs that are answered differently; None where answers are real numbers.
        gained: inputs whose score is higher with the variant; None where inputs have no score of their own.
        lost: inputs whose score is lower with the variant; None where inputs have no score of their own.
    """

    metric: str
    inputs: int
    original: float
    variant: float
    difference: float
    low: float
    high: float
    method: Literal["tango", "bootstrap"]
    changed: float | None
    gained: int | None
    lost: int | None


@dataclass(frozen=True)
class Decision:
    """Whether a variant is not worse than the original by more than a limit.

    Attributes:
        passed: whether the whole interval lies within the limit.
        verdict: ``not worse``; ``worse``, where the measured difference is beyond the limit; or ``undecided``, where it
            is within the limit, and the interval is not.
        inputs_needed: about how many inputs would decide it, if the difference stays as it is; None unless undecided.
        reason: one sentence without the names of the model and the metric.
    """

    passed: bool
    verdict: Literal["not worse", "worse", "undecided"]
    inputs_needed: int | None
    reason: str


def compare(
    metric: Metric,
    labels: Labels,
    original_answers: Answers,
    variant_answers: Answers,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Measure two models on the same inputs.

    Args:
        metric: one of ``METRICS``.
        labels: one an input.
        original_answers: one an input, in the same order.
        variant_answers: one an input, in the same order.
        resamples: how many samples the bootstrap draws.
        seed: of its random numbers.

    Raises:
        UserError: there are no inputs, or an input has no label or no answer.
    """
    if not len(labels) == len(original_answers) == len(variant_answers) or not len(labels):
        raise UserError(
            f"{len(labels)} labels, {len(original_answers)} answers of the original and {len(variant_answers)} of the "
            "variant: each input needs all three"
        )
    inputs = len(labels)
    gained = lost = None
    if metric.per_input:
        changes = metric.per_input(labels, variant_answers) - metric.per_input(labels, original_answers)
        gained, lost = int((changes > 0).sum()), int((changes < 0).sum())
    if metric.binary and gained is not None and lost is not None:
        method: Literal["tango", "bootstrap"] = "tango"
        low, high = paired_proportions(gained, lost, inputs)
    else:
        method = "bootstrap"
        original, variant = (metric.of_samples(labels, answers) for answers in (original_answers, variant_answers))
        low, high = percentile(
            resampled_differences(lambda drawn: variant(drawn) - original(drawn), inputs, resamples, seed)
        )
    values = [metric.value(labels, answers) for answers in (original_answers, variant_answers)]
    return Comparison(
        metric=metric.name,
        inputs=inputs,
        original=values[0],
        variant=values[1],
        difference=values[1] - values[0],
        low=low,
        high=high,
        method=method,
        changed=_share_changed(metric, original_answers, variant_answers),
        gained=gained,
        lost=lost,
    )


def _share_changed(metric: Metric, original: Answers, variant: Answers) -> float | None:
    if metric.decisions is None:
        return None
    pairs = zip(metric.decisions(original), metric.decisions(variant), strict=True)
    return float(np.mean([before != after for before, after in pairs]))


def judge(comparison: Comparison, not_worse_by: float, higher_is_better: bool) -> Decision:
    """Decide whether a variant is not worse than the original by more than ``not_worse_by``.

    It is a test of non-inferiority: it passes only where the 95 % interval of the difference does not reach beyond the
    limit, so that a variant that is worse by the limit passes in at most about 2.5 % of all draws of the inputs.

    Args:
        comparison: what was measured.
        not_worse_by: how much worse the variant may be, in the metric's unit; not below 0.
        higher_is_better: whether a higher value of the metric is better.
    """
    loss = -comparison.difference if higher_is_better else comparison.difference
    worst = -comparison.low if higher_is_better else comparison.high
    if not math.isfinite(loss) or not math.isfinite(worst):
        return Decision(False, "worse", None, "the difference is not a finite number")
    if worst <= not_worse_by:
        return Decision(True, "not worse", None, f"it is worse by at most {worst:.4g}; {not_worse_by:g} is allowed")
    if loss > not_worse_by:
        return Decision(False, "worse", None, f"it is worse by {loss:.4g}; {not_worse_by:g} is allowed")
    return Decision(False, "undecided", None, "the inputs are too few")
