"""Metrics of an answer for each pixel."""

import numpy as np

from onnxproof.cli import UserError
from onnxproof.evaluation.metric import Answers, Array, Labels, Metric, mean_of, mean_of_defined, ratio, total_of

#: The label of pixels that nobody labelled; so are all below 0.
VOID = 255


def _pairs(labels: Labels, answers: Answers) -> list[tuple[Array, Array]]:
    """Return the label and the answer of each image.

    Raises:
        UserError: they have different sizes.
    """
    pairs = [(np.asarray(own), np.asarray(answer)) for own, answer in zip(labels, answers, strict=True)]
    for place, (own, answer) in enumerate(pairs):
        if own.shape != answer.shape:
            raise UserError(f"input {place}: its label has the size {own.shape}, and its answer {answer.shape}")
    return pairs


def _overlaps(labels: Labels, answers: Answers) -> Array:
    """Return the pixels in both and the pixels in either of each image and class, (n, 2 * classes)."""
    pairs = _pairs(labels, answers)
    # An answer below 0 is that of no class, and is wrong.
    classes = 1 + max(int(max(np.max(own, initial=0, where=_labelled(own)), answer.max())) for own, answer in pairs)
    rows = []
    for own, answer in pairs:
        known = _labelled(own)
        true, chosen = own[known].astype(np.int64), answer[known].astype(np.int64)
        both = np.bincount(true[true == chosen], minlength=classes)
        either = np.bincount(true, minlength=classes) + np.bincount(chosen[chosen >= 0], minlength=classes) - both
        rows.append(np.concatenate([both, either]))
    return np.array(rows, dtype=np.float64)


def _labelled(label: Array) -> Array:
    return np.asarray((label >= 0) & (label != VOID))


def _mean_iou(counts: Array) -> Array:
    """Return the mean of intersection over union over the classes that occur in labels or answers."""
    both, either = np.split(counts, 2, axis=1)
    return mean_of_defined(ratio(both, either))


def relative_errors(labels: Labels, answers: Answers) -> Array:
    """Return the mean of ``|answer - label| / label`` over the measured pixels of each image, (n,).

    The source is Eigen et al. (2014), "Depth Map Prediction from a Single Image using a Multi-Scale Deep Network". The
    answer is taken in the unit of the label: a model of relative depth is to be scaled to it before.

    Raises:
        UserError: no pixel of an image was measured.
    """
    errors = []
    for place, (own, answer) in enumerate(_pairs(labels, answers)):
        measured = np.isfinite(own) & (own > 0)
        if not measured.any():
            raise UserError(f"input {place}: no pixel of its label is a depth above 0")
        true = own[measured].astype(np.float64)
        errors.append(np.mean(np.abs(answer[measured] - true) / true))
    return np.array(errors)


METRICS = (
    Metric(
        name="mean_iou",
        title="intersection over union, mean over the classes",
        kinds=("segmentation",),
        higher_is_better=True,
        library="onnxproof",
        value=total_of(_overlaps, _mean_iou),
        counts=_overlaps,
        from_counts=_mean_iou,
        decisions=lambda answers: [np.ascontiguousarray(answer).tobytes() for answer in answers],
    ),
    Metric(
        name="depth_absolute_relative_error",
        title="absolute error of the depth, relative to it",
        kinds=("depth",),
        higher_is_better=False,
        library="onnxproof",
        value=mean_of(relative_errors),
        per_input=relative_errors,
    ),
)
