"""Metrics of any number of labels an input."""

import numpy as np

from onnxproof.cli import UserError
from onnxproof.evaluation.metric import Answers, Array, Labels, Metric, ratio
from onnxproof.evaluation.metrics.classification import scores_of

#: A label whose probability is above this is part of the answer.
THRESHOLD = 0.5


def probabilities_of(scores: Array) -> Array:
    """Return the probabilities of (n, labels) scores: as they are where all lie between 0 and 1, or by the sigmoid."""
    from scipy.special import expit

    if ((scores >= 0) & (scores <= 1)).all():
        return scores
    return np.asarray(expit(scores))


def indicators(labels: Labels, classes: int) -> Array:
    """Return 1 for each label of an input and 0 for the others, (n, labels) in int64.

    Raises:
        UserError: an index is not that of one of the model's labels.
    """
    rows = np.zeros((len(labels), classes), dtype=np.int64)
    for place, own in enumerate(labels):
        for label in own:
            if not 0 <= int(label) < classes:
                raise UserError(f"input {place}: one of its labels is {label}; the model's are 0 to {classes - 1}")
            rows[place, int(label)] = 1
    return rows


def chosen(answers: Answers) -> Array:
    """Return 1 for each label in an answer and 0 for the others, (n, labels) in int64."""
    return np.asarray(probabilities_of(scores_of(answers)) > THRESHOLD, dtype=np.int64)


def micro_f1(labels: Labels, answers: Answers) -> float:
    """Return F1 over all pairs of an input and a label."""
    from sklearn.metrics import f1_score

    answered = chosen(answers)
    return float(f1_score(indicators(labels, answered.shape[1]), answered, average="micro", zero_division=np.nan))


def _micro_counts(labels: Labels, answers: Answers) -> Array:
    """Return of each input: labels in both, labels of it, labels in the answer; (n, 3)."""
    answered = chosen(answers)
    true = indicators(labels, answered.shape[1])
    return np.stack([(true & answered).sum(axis=1), true.sum(axis=1), answered.sum(axis=1)], axis=1).astype(np.float64)


def f1_from_counts(counts: Array) -> Array:
    """Return F1 of rows of (m, 3) counts: found rightly, to be found, found; NaN where there is nothing to find."""
    return ratio(2 * counts[:, 0], counts[:, 1] + counts[:, 2])


def average_precision(labels: Labels, answers: Answers) -> float:
    """Return the mean of the average precision over the labels that an input has; NaN where a score is NaN."""
    from sklearn.metrics import average_precision_score

    scores = scores_of(answers)
    true = indicators(labels, scores.shape[1])
    present = true.any(axis=0)
    if not present.any() or np.isnan(scores).any():
        return float("nan")
    return float(average_precision_score(true[:, present], scores[:, present], average="macro"))


METRICS = (
    Metric(
        name="micro_f1",
        title="F1 over all labels of all inputs",
        kinds=("multi-label",),
        higher_is_better=True,
        library="scikit-learn",
        value=micro_f1,
        counts=_micro_counts,
        from_counts=f1_from_counts,
        largest_change=1.0,
        decisions=lambda answers: [tuple(row) for row in chosen(answers).tolist()],
    ),
    Metric(
        name="average_precision",
        title="average precision, mean over the labels",
        kinds=("multi-label",),
        higher_is_better=True,
        library="scikit-learn",
        value=average_precision,
        decisions=lambda answers: [tuple(row) for row in chosen(answers).tolist()],
    ),
)
