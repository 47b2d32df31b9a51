"""Metrics of the similarity that a model gives to two texts."""

import numpy as np

from onnxproof.evaluation.metric import Answers, Array, Labels, Metric, OfSamples


def spearman(labels: Labels, answers: Answers) -> float:
    """Return Spearman's rank correlation; NaN where all labels or all answers are equal."""
    from scipy.stats import spearmanr

    if len(set(labels)) < 2 or len(set(answers)) < 2:
        return float("nan")
    return float(spearmanr(np.asarray(labels, np.float64), np.asarray(answers, np.float64)).statistic)


def spearman_of_samples(labels: Labels, answers: Answers) -> OfSamples:
    """Return the function that computes Spearman's rank correlation of samples, without sorting them again.

    An input that is drawn k times is one of k equal values, whose rank is the mean of the places that they take.
    """
    ranks = [_rank_of_samples(np.asarray(values, dtype=np.float64)) for values in (labels, answers)]

    def of_samples(drawn: Array) -> Array:
        first, second = (rank(drawn) for rank in ranks)
        return weighted_correlation(first, second, drawn)

    return of_samples


def _rank_of_samples(values: Array) -> OfSamples:
    """Return the function that ranks the (n,) values in each sample, (samples, n), counted from 0."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))

    def of_samples(drawn: Array) -> Array:
        sizes = np.add.reduceat(drawn[:, order], starts, axis=1)
        places = np.cumsum(sizes, axis=1) - (sizes + 1) / 2
        return np.asarray(places[:, group])

    return of_samples


def weighted_correlation(first: Array, second: Array, weights: Array) -> Array:
    """Return Pearson's correlation of each row of two (samples, n) arrays with these weights, (samples,)."""
    total = weights.sum(axis=1, keepdims=True)
    first = first - (weights * first).sum(axis=1, keepdims=True) / total
    second = second - (weights * second).sum(axis=1, keepdims=True) / total
    covariance = (weights * first * second).sum(axis=1)
    spread = (weights * first**2).sum(axis=1) * (weights * second**2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN where all values are equal
        return np.asarray(covariance / np.sqrt(spread))


METRICS = (
    Metric(
        name="pairs_spearman",
        title="rank correlation of the similarity of pairs with the labels",
        kinds=("pair",),
        higher_is_better=True,
        library="scipy",
        value=spearman,
        weighted=spearman_of_samples,
    ),
)
