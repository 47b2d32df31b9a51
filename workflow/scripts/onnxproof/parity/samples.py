"""A few real inputs with PyTorch's and a variant's answers side by side, for a reader of the report.

Which inputs are shown depends on PyTorch's answers alone, so that all variants of a model show the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.parity.metrics import log_probabilities
from onnxproof.records.parity import Sample, SampledAnswer

Array = NDArray[Any]

#: Tasks with one row of answers for each recorded text.
SAMPLED_TASKS = frozenset({"text-classification", "sentence-similarity"})

LONGEST_TEXT = 160  # characters that a reader is asked to read
MOST_LABELS = 6
CANDIDATES = 100  # texts whose pairs are looked at
#: The similarities that the pairs are to show, from the same meaning to none in common.
SIMILARITIES = (1.0, 0.75, 0.5, 0.25, 0.0)


def sample_answers(
    task: str, texts: Sequence[str], expected: Array, actual: Array, labels: Mapping[str, str] | None
) -> list[Sample]:
    """Return some inputs with both answers; none for a task that has no such sample.

    Args:
        task: what the model is for.
        texts: all inputs.
        expected: PyTorch's answers, shape (inputs, classes or dimensions), see ``tasks.answers.read_answers``.
        actual: the variant's answers, of the same shape.
        labels: the classes' names by their index, as in ``config.json``.
    """
    if not (np.isfinite(expected).all() and np.isfinite(actual).all()):
        return []
    short = [index for index, text in enumerate(texts) if len(text.strip()) > 0 and len(text) <= LONGEST_TEXT]
    if task == "text-classification":
        return _sample_labels(short, texts, expected, actual, labels or {})
    if task == "sentence-similarity":
        return _sample_similarities(short[:CANDIDATES], texts, expected, actual)
    return []


def _sample_labels(
    short: list[int], texts: Sequence[str], expected: Array, actual: Array, labels: Mapping[str, str]
) -> list[Sample]:
    """Return the first text of each label that PyTorch gives."""
    probabilities = [np.exp(log_probabilities(logits)) for logits in (expected, actual)]
    first_of: dict[int, int] = {}
    for index in short:
        first_of.setdefault(int(probabilities[0][index].argmax()), index)

    def answer(values: Array) -> SampledAnswer:
        best = int(values.argmax())
        return {"label": labels.get(str(best), f"LABEL_{best}"), "probability": float(values[best])}

    return [
        {
            "texts": [texts[index]],
            "expected": answer(probabilities[0][index]),
            "actual": answer(probabilities[1][index]),
        }
        for _, index in sorted(first_of.items())[:MOST_LABELS]
    ]


def _sample_similarities(short: list[int], texts: Sequence[str], expected: Array, actual: Array) -> list[Sample]:
    """Return the pairs of texts whose similarity is nearest to each of ``SIMILARITIES``; no text twice."""

    def cosines(vectors: Array) -> Array:
        unit = vectors[short].astype(np.float64)
        unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
        return np.asarray(unit @ unit.T)

    left, right = cosines(expected), cosines(actual)
    rows, columns = np.triu_indices(len(short), k=1)
    free = np.ones(len(short), dtype=bool)
    samples: list[Sample] = []
    for target in SIMILARITIES:
        distances = np.where(free[rows] & free[columns], np.abs(left[rows, columns] - target), np.inf)
        if not len(distances) or not np.isfinite(distances.min()):
            break
        best = int(distances.argmin())
        row, column = int(rows[best]), int(columns[best])
        free[[row, column]] = False
        samples.append(
            {
                "texts": [texts[short[row]], texts[short[column]]],
                "expected": {"similarity": float(left[row, column])},
                "actual": {"similarity": float(right[row, column])},
            }
        )
    return samples
