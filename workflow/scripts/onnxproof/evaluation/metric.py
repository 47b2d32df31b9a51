"""What a metric is: its value on labelled inputs, and what each input adds to it."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
#: One entry an input; the forms are in the docstring of the package.
Labels = Sequence[Any]
Answers = Sequence[Any]
#: Takes the places of some of the inputs, (m,) in int64, and returns the metric of them.
OfSubset = Callable[[Array], float]

Kind = Literal[
    "classification",
    "multi-label",
    "regression",
    "token-classification",
    "question-answering",
    "text",
    "pair",
    "retrieval",
    "language-model",
    "detection",
    "segmentation",
    "depth",
]


@dataclass(frozen=True)
class Metric:
    """A measure of quality.

    A metric is either the mean of a score of each input (``per_input``), or a function of sums over the inputs
    (``counts`` and ``from_counts``), or neither: then it is computed again for parts of the inputs.

    Attributes:
        name: the key of ``METRICS``, as users write it.
        title: what is measured, for a table or a page.
        kinds: the kinds of answer that it can measure.
        higher_is_better: False for errors and losses.
        library: the distribution that computes it, or ``onnxproof``.
        value: takes labels and answers, and returns the metric over all inputs.
        per_input: takes labels and answers, and returns the score of each input, (n,) in float64. Their mean is the
            value.
        binary: whether each of these scores is 0 or 1.
        counts: takes labels and answers, and returns what each input adds, (n, k), as an array or a ``csr_array``.
        from_counts: takes sums of such rows, (m, k) in float64, and returns the metric of each, (m,).
        of_subset: takes labels and answers, and returns the function that measures a part of them. Where it is None,
            ``value`` is called for each part.
        largest_change: by how much an input whose answer changes can change its own score, in the metric's unit. It
            bounds what inputs that were not seen could do where few of those seen changed. None where practically
            every input changes a little, so that those seen show how much.
        decisions: takes answers, and returns of each what a user would notice, so that changed answers can be counted.
            None where answers are real numbers.
    """

    name: str
    title: str
    kinds: tuple[Kind, ...]
    higher_is_better: bool
    library: str
    value: Callable[[Labels, Answers], float]
    per_input: Callable[[Labels, Answers], Array] | None = None
    binary: bool = False
    counts: Callable[[Labels, Answers], Any] | None = None
    from_counts: Callable[[Array], Array] | None = None
    of_subset: Callable[[Labels, Answers], OfSubset] | None = None
    largest_change: float | None = None
    decisions: Callable[[Answers], Sequence[Hashable]] | None = None


def mean_of(per_input: Callable[[Labels, Answers], Array]) -> Callable[[Labels, Answers], float]:
    """Return the ``value`` of a metric that is the mean of a score of each input."""
    return lambda labels, answers: float(np.mean(per_input(labels, answers)))


def total_of(
    counts: Callable[[Labels, Answers], Any], from_counts: Callable[[Array], Array]
) -> Callable[[Labels, Answers], float]:
    """Return the ``value`` of a metric that is a function of sums over the inputs."""
    return lambda labels, answers: float(from_counts(np.asarray(counts(labels, answers).sum(axis=0))[None])[0])


def ratio(numerators: Array, denominators: Array) -> Array:
    """Return the ratios of two arrays of the same shape; NaN where a denominator is 0."""
    undefined = np.full(np.shape(denominators), np.nan)
    return np.asarray(np.divide(numerators, denominators, out=undefined, where=denominators != 0))


def share_of_counts(counts: Array) -> Array:
    """Return the ratio of the two columns of (m, 2) counts, (m,); NaN where the second is 0."""
    return ratio(counts[:, 0], counts[:, 1])


def mean_of_defined(values: Array) -> Array:
    """Return the mean of each row of (m, k) values without those that are NaN, (m,); NaN where all are."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1))


def same_text(answers: Answers) -> list[str]:
    """Return texts without the space around and between words that nobody notices."""
    return [" ".join(answer.split()) for answer in answers]
