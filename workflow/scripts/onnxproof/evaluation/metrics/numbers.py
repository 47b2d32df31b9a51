"""Metrics of one number an input: a regression, or the similarity of two texts."""

import numpy as np

from onnxproof.evaluation.metric import Answers, Array, Labels, Metric


def _numbers(values: Labels) -> Array:
    return np.asarray(values, dtype=np.float64)


def absolute_errors(labels: Labels, answers: Answers) -> Array:
    """Return the absolute error of each input, (n,)."""
    return np.asarray(np.abs(_numbers(answers) - _numbers(labels)))


def _mean_absolute_error(labels: Labels, answers: Answers) -> float:
    from sklearn.metrics import mean_absolute_error

    return float(mean_absolute_error(labels, answers)) if np.isfinite(_numbers(answers)).all() else float("nan")


def _root_mean_squared_error(labels: Labels, answers: Answers) -> float:
    from sklearn.metrics import root_mean_squared_error

    return float(root_mean_squared_error(labels, answers)) if np.isfinite(_numbers(answers)).all() else float("nan")


def _squared_errors(labels: Labels, answers: Answers) -> Array:
    """Return the squared error of each input beside 1, (n, 2)."""
    errors = absolute_errors(labels, answers) ** 2
    return np.stack([errors, np.ones_like(errors)], axis=1)


def _root_of_mean(counts: Array) -> Array:
    return np.asarray(np.sqrt(counts[:, 0] / counts[:, 1]))


def _vary(labels: Labels, answers: Answers) -> bool:
    """Tell whether a correlation is defined: neither all labels nor all answers are equal."""
    return bool(np.ptp(_numbers(labels)) > 0 and np.ptp(_numbers(answers)) > 0)


def pearson(labels: Labels, answers: Answers) -> float:
    """Return Pearson's correlation; NaN where all labels or all answers are equal."""
    from scipy.stats import pearsonr

    return float(pearsonr(_numbers(labels), _numbers(answers)).statistic) if _vary(labels, answers) else float("nan")


def spearman(labels: Labels, answers: Answers) -> float:
    """Return Spearman's rank correlation; NaN where all labels or all answers are equal."""
    from scipy.stats import spearmanr

    return float(spearmanr(_numbers(labels), _numbers(answers)).statistic) if _vary(labels, answers) else float("nan")


METRICS = (
    Metric(
        name="mean_absolute_error",
        title="mean absolute error",
        kinds=("regression",),
        higher_is_better=False,
        library="scikit-learn",
        value=_mean_absolute_error,
        per_input=absolute_errors,
    ),
    Metric(
        name="root_mean_squared_error",
        title="root of the mean squared error",
        kinds=("regression",),
        higher_is_better=False,
        library="scikit-learn",
        value=_root_mean_squared_error,
        counts=_squared_errors,
        from_counts=_root_of_mean,
    ),
    Metric(
        name="pearson",
        title="correlation with the labels",
        kinds=("regression", "pair"),
        higher_is_better=True,
        library="scipy",
        value=pearson,
    ),
    Metric(
        name="spearman",
        title="rank correlation with the labels",
        kinds=("regression",),
        higher_is_better=True,
        library="scipy",
        value=spearman,
    ),
    Metric(
        name="pairs_spearman",
        title="rank correlation of the similarity of pairs with the labels",
        kinds=("pair",),
        higher_is_better=True,
        library="scipy",
        value=spearman,
    ),
)
