"""The difference of a variant to the original on the same labelled inputs, and whether it is small enough."""

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from onnxproof.cli import UserError
from onnxproof.evaluation.influence import Influences, find_influences
from onnxproof.evaluation.intervals import (
    FEW,
    Interval,
    bounded_bootstrap,
    paired_proportions,
    studentized_bootstrap,
)
from onnxproof.evaluation.metric import Answers, Array, Labels, Metric

RESAMPLES = 10_000
#: Beyond this many inputs, nobody is told to collect them.
MOST_NEEDED = 100_000_000

Method = Literal["tango", "bootstrap-t", "bounded-bootstrap", "unchanged"]


@dataclass(frozen=True)
class Comparison:
    """What the original and a variant achieve on the same inputs. All values are in the metric's unit.

    Attributes:
        metric: its name.
        inputs: how many were answered.
        original: the metric of the original's answers.
        variant: the metric of the variant's answers.
        difference: ``variant - original``.
        low: the lower end of the 95 % interval of the difference.
        high: its upper end.
        method: how the interval was made, see ``onnxproof.evaluation.intervals``; ``unchanged`` where no input adds
            anything else to a metric without a bound, so that nothing tells what a changed answer would do, and the
            interval has no width.
        changed: the share of inputs that are answered differently; None where answers are real numbers.
        affected: inputs that add something else to the metric with the variant; None where practically all do.
        gained: inputs whose score is higher with the variant; None where the metric is no mean of scores.
        lost: inputs whose score is lower with the variant; None where the metric is no mean of scores.
        scores: the score of each input with the original and with the variant, (inputs,) each; None where the metric is
            no mean of scores, or they are not at hand.
    """

    metric: str
    inputs: int
    original: float
    variant: float
    difference: float
    low: float
    high: float
    method: Method
    changed: float | None
    affected: int | None
    gained: int | None
    lost: int | None
    scores: tuple[Array, Array] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Decision:
    """Whether a variant is not worse than the original by more than a limit.

    Attributes:
        passed: whether the whole interval lies within the limit.
        verdict: ``not worse``; ``worse``, where the measured difference is beyond the limit; or ``undecided``, where it
            is within the limit and the interval is not.
        inputs_needed: about how many inputs would decide it, if the difference stays as it is; None unless undecided,
            and where no number would.
        reason: a clause whose subject is the variant.
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

    The interval is that of paired proportions where each input is right or wrong; a bootstrap with bounds where fewer
    than ten inputs changed what they add to the metric; and else the bootstrap-t of the inputs' influences. The same
    seed gives the same interval.

    Args:
        metric: one of ``METRICS``.
        labels: one an input.
        original_answers: one an input, in the same order.
        variant_answers: one an input, in the same order.
        resamples: how many samples the bootstrap draws.
        seed: of its random numbers.

    Raises:
        UserError: there are no inputs, an input has no label or no answer, or one has not the form that the metric
            needs.
    """
    if not len(labels) == len(original_answers) == len(variant_answers) or not len(labels):
        raise UserError(
            f"{len(labels)} labels, {len(original_answers)} answers of the original and {len(variant_answers)} of the "
            "variant: each input needs all three, and there must be one"
        )
    original, variant = (metric.value(labels, answers) for answers in (original_answers, variant_answers))
    influences = find_influences(metric, labels, original_answers, variant_answers, seed)
    alone = metric.per_input is not None
    gained, lost = (int((sign * influences.values > 0).sum()) if alone else None for sign in (1, -1))
    method, (low, high) = _interval(metric, influences, variant - original, resamples, seed)
    return Comparison(
        metric=metric.name,
        inputs=len(labels),
        original=original,
        variant=variant,
        difference=variant - original,
        low=low,
        high=high,
        method=method,
        changed=_share_changed(metric, original_answers, variant_answers),
        affected=_affected(method, influences),
        gained=gained,
        lost=lost,
        scores=influences.scores,
    )


def _affected(method: Method, influences: Influences) -> int | None:
    if method == "unchanged":
        return 0
    return None if influences.changed is None else int(influences.changed.sum())


def _interval(
    metric: Metric, influences: Influences, difference: float, resamples: int, seed: int
) -> tuple[Method, Interval]:
    values, changed = influences.values, influences.changed
    if metric.binary:
        return "tango", paired_proportions(int((values > 0).sum()), int((values < 0).sum()), len(values))
    if not math.isfinite(difference) or not np.isfinite(values).all():
        return "bootstrap-t", (math.nan, math.nan)
    if metric.largest_change is not None and changed is not None and changed.sum() < FEW:
        bound = metric.largest_change
        return "bounded-bootstrap", bounded_bootstrap(values, changed, bound, difference, resamples, seed)
    if len(values) > 1 and difference == 0 and not values.any():
        return "unchanged", (0.0, 0.0)
    return "bootstrap-t", studentized_bootstrap(values, difference, resamples, seed)


def _share_changed(metric: Metric, original: Answers, variant: Answers) -> float | None:
    if metric.decisions is None:
        return None
    pairs = zip(metric.decisions(original), metric.decisions(variant), strict=True)
    return float(np.mean([before != after for before, after in pairs]))


def judge(comparison: Comparison, not_worse_by: float, higher_is_better: bool) -> Decision:
    """Decide whether a variant is not worse than the original by more than ``not_worse_by``.

    It is a test of non-inferiority: it passes only where the 95 % interval of the difference does not reach beyond the
    limit. A variant that is worse by the limit then passes for about 2.5 % of all draws of the inputs.

    Args:
        comparison: what was measured.
        not_worse_by: how much worse the variant may be, in the metric's unit; not below 0.
        higher_is_better: whether a higher value of the metric is better.
    """
    loss = -comparison.difference if higher_is_better else comparison.difference
    worst = -comparison.low if higher_is_better else comparison.high
    allowed = f"{not_worse_by:g} is allowed"
    if not math.isfinite(loss):
        return Decision(False, "worse", None, "has no finite difference to the original")
    if loss > not_worse_by:
        return Decision(False, "worse", None, f"is worse by {loss:.3g} ({allowed})")
    if not math.isfinite(worst):
        return Decision(False, "undecided", None, f"was measured on too few inputs ({comparison.inputs})")
    if comparison.method == "unchanged":
        return Decision(True, "not worse", None, f"changes nothing that any of them adds to the metric ({allowed})")
    if worst <= not_worse_by:
        found = f"is worse by {worst:.3g} at most" if worst > 0 else "is not worse"
        return Decision(True, "not worse", None, f"{found} ({allowed})")
    needed = inputs_needed(comparison, not_worse_by, higher_is_better)
    more = f"about {needed} inputs would decide it" if needed else "no number of inputs would show that it is not"
    return Decision(
        False, "undecided", needed, f"may be worse by up to {worst:.3g} ({allowed}): {comparison.inputs} inputs, {more}"
    )


def inputs_needed(comparison: Comparison, not_worse_by: float, higher_is_better: bool) -> int | None:
    """Return how many inputs would bring the interval within the limit, if the difference and its spread stay.

    With ``loss`` the measured difference to the worse, ``worst`` the interval's end there, and ``n`` the inputs:

    - right or wrong: the smallest number at which the interval of paired proportions, with the same shares of inputs
      gained and lost, lies within the limit;
    - no change at all in a metric with a bound: ``n * worst / limit``, because the end falls as 1 / n;
    - all others: ``n * ((worst - loss) / (limit - loss))²``, because it falls as 1 / √n.

    It is None where ``loss`` leaves no room below the limit, or more than a hundred million inputs would be needed.
    """
    loss = -comparison.difference if higher_is_better else comparison.difference
    worst = -comparison.low if higher_is_better else comparison.high
    room = not_worse_by - loss
    if room <= 0:
        return None
    if comparison.method == "tango":
        return _proportions_needed(comparison, not_worse_by, higher_is_better)
    power = 1 if comparison.affected == 0 else 2
    needed = comparison.inputs * ((worst - loss) / room) ** power
    return math.ceil(needed) if needed <= MOST_NEEDED else None


def _proportions_needed(comparison: Comparison, not_worse_by: float, higher_is_better: bool) -> int | None:
    """Return the smallest number of inputs, by bisection, at which Tango's interval lies within the limit."""
    gained, lost = (count or 0 for count in (comparison.gained, comparison.lost))

    def suffices(inputs: int) -> bool:
        times = inputs / comparison.inputs
        low, high = paired_proportions(gained * times, lost * times, inputs)
        return (-low if higher_is_better else high) <= not_worse_by

    if not suffices(MOST_NEEDED):
        return None
    too_few, enough = comparison.inputs, MOST_NEEDED
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if suffices(middle) else (middle, enough)
    return enough
