"""What a metric is: its value on labelled inputs, and how it is computed anew for a sample of them."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
#: One entry an input; the forms are in the docstring of the package.
Labels = Sequence[Any]
Answers = Sequence[Any]
#: Takes how often each input is drawn, (samples, n) in float64, and returns the metric of each sample, (samples,).
OfSamples = Callable[[Array], Array]

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
    """A measure of quality. Exactly one of ``per_input``, ``counts`` and ``weighted`` says how a sample is measured.

    Attributes:
        name: the key of ``METRICS``, as users write it.
        title: what is measured, for a table or a page.
        kinds: the kinds of answer that it can measure.
        higher_is_better: False for errors and losses.
        library: the distribution that computes ``value``, or ``onnxproof``.
        value: takes labels and answers, and returns the metric over all inputs.
        per_input: takes labels and answers, and returns the score of each input, (n,) in float64. Their mean is the
            value.
        binary: whether each of these scores is 0 or 1.
        counts: takes labels and answers, and returns what each input adds to the metric, (n, k) in float64 or as a
            sparse matrix of SciPy.
        from_counts: takes sums of these rows, (samples, k), and returns the metric of each, (samples,).
        weighted: takes labels and answers, and returns a function of how often each input is drawn. For metrics of
            ranks, which are no function of sums.
        largest_change: the difference that an input whose answer changes can make to its own score, in the metric's
            unit. It bounds what inputs that were not seen could do where few answers changed. None where practically
            every answer changes a little, so that the inputs seen show how much.
        decisions: takes answers, and returns of each what a user would notice, so that it is known how many changed.
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
    weighted: Callable[[Labels, Answers], OfSamples] | None = None
    largest_change: float | None = None
    decisions: Callable[[Answers], Sequence[Hashable]] | None = None

    def of_samples(self, labels: Labels, answers: Answers) -> OfSamples:
        """Return the function that computes the metric of samples of these inputs.

        A sample in which the metric is not defined, such as a correlation of equal numbers, gives NaN.
        """
        if self.per_input:
            scores = self.per_input(labels, answers)
            return lambda drawn: np.asarray(drawn @ scores / drawn.sum(axis=1))
        if self.weighted:
            return self.weighted(labels, answers)
        if not (self.counts and self.from_counts):
            raise TypeError(f"{self.name} has no per_input, no weighted, and no counts with from_counts")
        counts, from_counts = self.counts(labels, answers), self.from_counts
        return lambda drawn: from_counts(np.asarray(drawn @ counts))
