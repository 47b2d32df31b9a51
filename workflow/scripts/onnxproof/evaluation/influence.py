"""What each input contributes to the difference of two models."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxproof.evaluation.metric import Answers, Array, Labels, Metric, OfSubset

#: Into at most how many parts the inputs are put where a metric is computed again without each of them.
PARTS = 200
#: How many numbers are held at once, in float64: 32 MB.
NUMBERS_AT_ONCE = 2**22


@dataclass(frozen=True)
class Influences:
    """What parts of the inputs contribute to the difference ``variant - original``.

    Attributes:
        values: one a part, (parts,) in float64. Their mean is the difference, or nearly so for a metric that is no
            mean; their standard deviation over the root of their number is its standard error.
        changed: whether the variant changes what an input adds to the metric, (inputs,); None where it is not known,
            because parts have several inputs or every input changes.
        scores: the score of each input with the original and with the variant, (inputs,) each; None where the metric is
            no mean of scores.
    """

    values: Array
    changed: Array | None
    scores: tuple[Array, Array] | None = None


def find_influences(metric: Metric, labels: Labels, original: Answers, variant: Answers, seed: int = 0) -> Influences:
    """Return the influence of each input, or part of the inputs, on the difference of two models.

    If the metric is a mean, it is the difference of the input's scores. Otherwise it is the pseudo-value of the
    jackknife: ``parts * all - (parts - 1) * without``, where ``all`` is the difference on all inputs and ``without``
    that on all but the part (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 11). Parts are
    single inputs where the metric is a function of sums, and else at most 200 sets of equal size drawn at random.

    Args:
        metric: one of ``METRICS``.
        labels: one an input.
        original: answers, one an input.
        variant: answers, one an input.
        seed: of the random numbers that form parts.
    """
    if metric.per_input:
        before, after = metric.per_input(labels, original), metric.per_input(labels, variant)
        values = after - before
        return Influences(values, None if metric.largest_change is None else values != 0, (before, after))
    if metric.counts and metric.from_counts:
        before, after = metric.counts(labels, original), metric.counts(labels, variant)
        values = _pseudo_values(metric, after) - _pseudo_values(metric, before)
        return Influences(values, None if metric.largest_change is None else _differ(before, after))
    measures = [_of_subset(metric, labels, answers) for answers in (original, variant)]
    order = np.random.default_rng(seed).permutation(len(labels))
    parts = [order[start :: _parts(len(labels))] for start in range(_parts(len(labels)))]
    return Influences(_pseudo_values_of_parts(measures[1], parts) - _pseudo_values_of_parts(measures[0], parts), None)


def _parts(inputs: int) -> int:
    """Return the number of parts: the largest up to ``PARTS`` for which they have nearly the same size."""
    return -(-inputs // -(-inputs // PARTS))


def _of_subset(metric: Metric, labels: Labels, answers: Answers) -> OfSubset:
    if metric.of_subset:
        return metric.of_subset(labels, answers)
    return lambda places: metric.value([labels[place] for place in places], [answers[place] for place in places])


def _pseudo_values_of_parts(measure: OfSubset, parts: list[Array]) -> Array:
    together = measure(np.sort(np.concatenate(parts)))
    without = [
        measure(np.sort(np.concatenate([*parts[:place], *parts[place + 1 :]]))) if len(parts) > 1 else np.nan
        for place in range(len(parts))
    ]
    return len(parts) * together - (len(parts) - 1) * np.array(without)


def _pseudo_values(metric: Metric, counts: Any) -> Array:
    """Return the pseudo-value of each row of (n, k) counts, (n,)."""
    assert metric.from_counts
    inputs, columns = counts.shape
    total = np.asarray(counts.sum(axis=0), dtype=np.float64)
    at_once = max(1, NUMBERS_AT_ONCE // columns)
    without = [
        metric.from_counts(total - _dense(counts[start : start + at_once])) for start in range(0, inputs, at_once)
    ]
    return np.asarray(inputs * metric.from_counts(total[None]) - (inputs - 1) * np.concatenate(without))


def _dense(rows: Any) -> Array:
    return rows if isinstance(rows, np.ndarray) else np.asarray(rows.toarray())


def _differ(before: Any, after: Any) -> Array:
    """Tell which rows of two (n, k) arrays differ, (n,)."""
    return np.asarray(abs(after - before).sum(axis=1)).ravel() > 0
