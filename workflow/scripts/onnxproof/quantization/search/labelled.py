"""What a recipe makes of labelled inputs that were kept aside: the task's own metric, with NumPy alone.

The metrics are those of ``onnxproof.evaluation``, as a test holds. They are written a second time because a search runs
again when a module changes that it imports, and takes minutes to hours.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.records.evaluation import KeptAside, read_kept_aside

Array = NDArray[Any]
#: Of the documents found for a query, so many count.
FIRST = 10
#: What a name of a metric begins with in the record of a search: the others compare answers with the float model's.
PREFIX = "labelled_"
SMALLEST_LIMIT = 1e-6  # of a metric that may lose nothing, which still ranks what loses more


@dataclass(frozen=True)
class Examples:
    """Labelled inputs, and what a recipe must keep on them."""

    given: KeptAside

    @property
    def entries(self) -> list[Any]:
        """What the model is asked: a text, or a pair of them, or one text after the other, documents first."""
        inputs = self.given["inputs"]
        if self.given["kind"] == "pair":
            return [text for pair in inputs for text in pair]
        return [
            *self.given["documents"].values(),
            *(tuple(entry) if isinstance(entry, list) else entry for entry in inputs),
        ]

    @property
    def name(self) -> str:
        """What the metric is called in the record of a search."""
        return f"{PREFIX}{self.given['metric']}"

    def quality(self, answers: Sequence[Array]) -> float:
        """Return the metric of the answers to all entries, see ``read_answers``; NaN if one is not finite.

        Of a classifier, an answer has logits, (1, labels); of an embedder, a vector, (1, size).
        """
        rows = np.concatenate(answers).astype(np.float64)
        if not np.isfinite(rows).all():
            return math.nan
        return _METRICS[self.given["kind"]](rows, self.given)

    def distance(self, quality: float | None, of_float: float) -> float:
        """Return how far a recipe is on its way to the limit: 0 loses nothing, 1 is at it; infinite if not finite."""
        if quality is None or not math.isfinite(quality):
            return math.inf
        return max(of_float - quality, 0.0) / max(self.given["not_worse_by"], SMALLEST_LIMIT)


def read_examples(file: Path) -> Examples:
    """Read ``evaluation/kept_aside.json``."""
    return Examples(read_kept_aside(file))


def _accuracy(rows: Array, given: KeptAside) -> float:
    return float((rows.argmax(axis=1) == np.array(given["labels"])).mean())


def _spearman(rows: Array, given: KeptAside) -> float:
    vectors = _unit(rows)
    similarities = (vectors[::2] * vectors[1::2]).sum(axis=1)
    left, right = (_ranks(values) for values in (similarities, np.array(given["labels"], dtype=np.float64)))
    if not left.std() or not right.std():
        return math.nan
    return float(np.corrcoef(left, right)[0, 1])


def _ndcg(rows: Array, given: KeptAside) -> float:
    vectors, names = _unit(rows), np.array(list(given["documents"]))
    found = vectors[len(names) :] @ vectors[: len(names)].T
    values = []
    for scores, relevance in zip(found, given["labels"], strict=True):
        order = np.lexsort((names, scores))[::-1][:FIRST]  # of equal scores, the last name first, as trec_eval has it
        best = sorted(relevance.values(), reverse=True)[:FIRST]
        ideal = _gain(best)
        values.append(_gain([relevance.get(name, 0) for name in names[order]]) / ideal if ideal else 0.0)
    return float(np.mean(values))


def _gain(relevances: Sequence[int]) -> float:
    return float(sum(relevance / math.log2(place + 2) for place, relevance in enumerate(relevances)))


def _unit(rows: Array) -> Array:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _ranks(values: Array) -> Array:
    """Return the ranks of values, equal ones with the mean of theirs, (n,)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])


_METRICS: Mapping[str, Callable[[Array, KeptAside], float]] = {
    "classification": _accuracy,
    "pair": _spearman,
    "retrieval": _ndcg,
}
