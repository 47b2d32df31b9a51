"""Metrics of one label an input."""

from dataclasses import replace
from typing import Any

import numpy as np

from onnxproof.cli import UserError
from onnxproof.evaluation.metric import Answers, Array, Labels, Metric, mean_of_defined, ratio, total_of

#: How many bins of confidence ``expected_calibration_error`` has.
BINS = 15
#: How far from 1 the sum of probabilities may lie.
ROUNDING = 1e-3


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


def probabilities_of(scores: Array) -> Array:
    """Return the probabilities of (n, labels) scores: as they are where all rows are probabilities, or by softmax."""
    from scipy.special import softmax

    if (scores >= 0).all() and (np.abs(scores.sum(axis=1) - 1) < ROUNDING).all():
        return scores
    return np.asarray(softmax(scores, axis=1))


def predicted(scores: Array) -> Array:
    """Return the label of the highest of each row of (n, labels) scores, (n,) in int64; -1 where one is NaN."""
    return np.where(np.isnan(scores).any(axis=1), -1, scores.argmax(axis=1))


def decisions(answers: Answers) -> list[int]:
    """Return the label of the highest score of each answer."""
    labels: list[int] = predicted(scores_of(answers)).tolist()
    return labels


def correct(labels: Labels, answers: Answers) -> Array:
    """Return 1 for each input whose label has the highest score and 0 for the others, (n,)."""
    scores = scores_of(answers)
    return np.asarray(predicted(scores) == true_labels(labels, scores.shape[1]), dtype=np.float64)


def accuracy(labels: Labels, answers: Answers) -> float:
    """Return the share of inputs whose label has the highest score."""
    from sklearn.metrics import accuracy_score

    scores = scores_of(answers)
    return float(accuracy_score(true_labels(labels, scores.shape[1]), predicted(scores)))


def among_five(labels: Labels, answers: Answers) -> Array:
    """Return 1 for each input with fewer than five labels scored higher than its own, (n,); 0 where a score is NaN."""
    scores = scores_of(answers)
    own = np.take_along_axis(scores, true_labels(labels, scores.shape[1])[:, None], axis=1)
    above = (scores > own).sum(axis=1)
    return np.asarray((above < 5) & ~np.isnan(scores).any(axis=1), dtype=np.float64)


def top_five(labels: Labels, answers: Answers) -> float:
    """Return the share of inputs whose label is one of the five with the highest scores."""
    return float(among_five(labels, answers).mean())


def macro_f1(labels: Labels, answers: Answers) -> float:
    """Return the mean of F1 over the labels that occur among labels or answers."""
    from sklearn.metrics import f1_score

    scores = scores_of(answers)
    true = true_labels(labels, scores.shape[1])
    chosen = predicted(scores)
    present = np.union1d(true, chosen[chosen >= 0])
    return float(f1_score(true, chosen, labels=present, average="macro", zero_division=0.0))


def _class_counts(labels: Labels, answers: Answers) -> Any:
    """Return of each input and class: right, labelled so, answered so; (n, 3 * labels), one 1 of each an input."""
    from scipy.sparse import csr_array

    scores = scores_of(answers)
    classes = scores.shape[1]
    true, chosen = true_labels(labels, classes), predicted(scores)
    inputs = np.arange(len(true))
    right, known = true == chosen, chosen >= 0
    columns = np.concatenate([true[right], classes + true, 2 * classes + chosen[known]])
    rows = np.concatenate([inputs[right], inputs, inputs[known]])
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(true), 3 * classes))


def _macro_f1_from_counts(counts: Array) -> Array:
    right, labelled, answered = np.split(counts, 3, axis=1)
    return mean_of_defined(ratio(2 * right, labelled + answered))


def log_loss(labels: Labels, answers: Answers) -> float:
    """Return the mean of the negative logarithm, in nats, of the label's probability."""
    from sklearn.metrics import log_loss as of_probabilities

    scores = scores_of(answers)
    if not np.isfinite(scores).all():
        return float("nan")
    classes = scores.shape[1]
    return float(of_probabilities(true_labels(labels, classes), probabilities_of(scores), labels=range(classes)))


def loss_of_each(labels: Labels, answers: Answers) -> Array:
    """Return the negative logarithm, in nats, of the probability of each input's label, (n,).

    A probability is at least the precision of float64, as in scikit-learn.
    """
    probabilities = probabilities_of(scores_of(answers))
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    own = np.take_along_axis(probabilities, true_labels(labels, probabilities.shape[1])[:, None], axis=1)[:, 0]
    precision = np.finfo(np.float64).eps
    return np.asarray(-np.log(np.clip(own, precision, 1 - precision)))


def _calibration_counts(labels: Labels, answers: Answers) -> Any:
    """Return the confidence and the correctness of each input in the columns of its bin, (n, 2 * BINS)."""
    from scipy.sparse import csr_array

    probabilities = probabilities_of(scores_of(answers))
    confidence = probabilities.max(axis=1)
    bins = np.clip(np.ceil(np.nan_to_num(confidence) * BINS).astype(np.int64) - 1, 0, BINS - 1)
    inputs = np.arange(len(bins))
    values = np.concatenate([confidence, correct(labels, answers)])
    places = (np.concatenate([inputs, inputs]), np.concatenate([bins, BINS + bins]))
    by_bin = csr_array((values, places), shape=(len(bins), 2 * BINS))
    return _with_ones(by_bin)


def _with_ones(counts: Any) -> Any:
    """Return the rows with a column of ones in front, so that their sum tells how many there are."""
    from scipy.sparse import csr_array, hstack

    return csr_array(hstack([csr_array(np.ones((counts.shape[0], 1))), counts]))


def _calibration_from_counts(counts: Array) -> Array:
    """Return the gaps of the bins, weighted by their inputs: |right - sum of confidences| summed over the bins, / n."""
    confidence, right = np.split(counts[:, 1:], 2, axis=1)
    return np.asarray(np.abs(right - confidence).sum(axis=1) / counts[:, 0])


ACCURACY = Metric(
    name="accuracy",
    title="share of inputs with the right label",
    kinds=("classification",),
    higher_is_better=True,
    library="scikit-learn",
    value=accuracy,
    per_input=correct,
    binary=True,
    largest_change=1.0,
    decisions=decisions,
)

METRICS = (
    ACCURACY,
    replace(ACCURACY, name="top_1", title="share of images with the right label"),
    Metric(
        name="top_5",
        title="share of images whose label is among the five with the highest scores",
        kinds=("classification",),
        higher_is_better=True,
        library="onnxproof",
        value=top_five,
        per_input=among_five,
        binary=True,
        largest_change=1.0,
        decisions=decisions,
    ),
    Metric(
        name="macro_f1",
        title="F1, mean over the labels",
        kinds=("classification",),
        higher_is_better=True,
        library="scikit-learn",
        value=macro_f1,
        counts=_class_counts,
        from_counts=_macro_f1_from_counts,
        largest_change=1.0,
        decisions=decisions,
    ),
    Metric(
        name="log_loss",
        title="negative log-likelihood of the label, in nats",
        kinds=("classification",),
        higher_is_better=False,
        library="scikit-learn",
        value=log_loss,
        per_input=loss_of_each,
        decisions=decisions,
    ),
    # Guo et al. (2017), "On Calibration of Modern Neural Networks", equation 5, with 15 bins of equal width.
    Metric(
        name="expected_calibration_error",
        title="gap between confidence and accuracy, mean over 15 bins of confidence",
        kinds=("classification",),
        higher_is_better=False,
        library="onnxproof",
        value=total_of(_calibration_counts, _calibration_from_counts),
        counts=_calibration_counts,
        from_counts=_calibration_from_counts,
        decisions=decisions,
    ),
)
