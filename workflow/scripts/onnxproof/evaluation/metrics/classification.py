"""Metrics of one label an input."""

import numpy as np

from onnxproof.cli import UserError
from onnxproof.evaluation.metric import Answers, Array, Labels, Metric


def scores_of(answers: Answers) -> Array:
    """Return the scores of all inputs, (n, labels) in float64.

    Raises:
        UserError: the answers have scores for different numbers of labels.
    """
    rows = [np.asarray(answer["scores"], dtype=np.float64) for answer in answers]
    for place, row in enumerate(rows):
        if row.shape != rows[0].shape:
            raise UserError(f"input {place}: it has scores for {row.size} labels, and input 0 for {rows[0].size}")
    return np.stack(rows)


def true_labels(labels: Labels, classes: int) -> Array:
    """Return the index of each input's label, (n,) in int64.

    Raises:
        UserError: an index is not that of one of the model's labels.
    """
    for place, label in enumerate(labels):
        if not 0 <= int(label) < classes:
            raise UserError(f"input {place}: its label is {label}; the model's labels are 0 to {classes - 1}")
    return np.array([int(label) for label in labels], dtype=np.int64)


def predicted(answers: Answers) -> Array:
    """Return the label of the highest score of each input, (n,) in int64; -1 where a score is NaN."""
    scores = scores_of(answers)
    return np.where(np.isnan(scores).any(axis=1), -1, scores.argmax(axis=1))


def correct(labels: Labels, answers: Answers) -> Array:
    """Return 1 for each input whose label has the highest score and 0 for the others, (n,)."""
    chosen = predicted(answers)
    return np.asarray(chosen == true_labels(labels, scores_of(answers).shape[1]), dtype=np.float64)


def _accuracy(labels: Labels, answers: Answers) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(true_labels(labels, scores_of(answers).shape[1]), predicted(answers)))


METRICS = (
    Metric(
        name="accuracy",
        title="share of inputs with the right label",
        kinds=("classification",),
        higher_is_better=True,
        library="scikit-learn",
        value=_accuracy,
        per_input=correct,
        binary=True,
        largest_change=1.0,
        decisions=lambda answers: predicted(answers).tolist(),
    ),
)
