"""How far a variant's answers are from PyTorch's, in the terms of the task.

All arrays are NumPy; ``expected`` comes from PyTorch, ``actual`` from the variant. Differences are computed in
float64. A measurement that is not finite is reported as None, which no gate lets pass.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.cli import UserError

Array = NDArray[Any]

#: How many nearest neighbours ``rank_overlap`` compares.
NEIGHBOURS = 10


def finite(value: float) -> float | None:
    """Return a plain float, or None for NaN and infinity, which JSON cannot hold."""
    return float(value) if np.isfinite(value) else None


def cosine_similarity(expected: Array, actual: Array) -> Array:
    """Return the cosine similarity of each row, shape (n,), of two (n, d) arrays.

    Two zero rows are equal (1); a zero row beside a non-zero one shares no direction with it (0).
    """
    expected, actual = expected.astype(np.float64), actual.astype(np.float64)
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(actual, axis=1)
    products = np.einsum("nd,nd->n", expected, actual)
    both_zero = ~expected.any(axis=1) & ~actual.any(axis=1)
    with np.errstate(invalid="ignore"):  # infinite vectors give NaN, which is the right answer for them
        similarity = np.divide(products, norms, out=np.zeros_like(products), where=norms != 0)
    return np.where(both_zero, 1.0, similarity)


def compare_output(expected: Array, actual: Array) -> dict[str, Any]:
    """Compare one output over all inputs; both arrays have shape (rows, features).

    Raises:
        UserError: the shapes differ, so the variant computes something else altogether.
    """
    if expected.shape != actual.shape:
        raise UserError(f"the outputs differ in shape: PyTorch {expected.shape}, the variant {actual.shape}")
    difference = np.abs(expected.astype(np.float64) - actual.astype(np.float64))
    cosine = cosine_similarity(expected, actual)
    return {
        "shape": list(actual.shape),
        "dtype": str(actual.dtype),
        "max_abs_diff": finite(difference.max()),
        "mean_abs_diff": finite(difference.mean()),
        "cosine_min": finite(cosine.min()),
        "cosine_mean": finite(cosine.mean()),
    }


def rank_overlap(expected: Array, actual: Array, neighbours: int = NEIGHBOURS) -> float:
    """Return the mean share of each input's nearest neighbours, by cosine, that both (n, d) embeddings name.

    This is what a search engine built on the embeddings would notice.
    """
    count = min(neighbours, len(expected) - 1)
    if count < 1:
        return 1.0

    def nearest(embeddings: Array) -> Array:
        unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
        similarity = unit @ unit.T
        np.fill_diagonal(similarity, -np.inf)
        return np.argsort(-similarity, axis=1, kind="stable")[:, :count]

    pairs = zip(nearest(expected), nearest(actual), strict=True)
    return float(np.mean([len(np.intersect1d(left, right)) / count for left, right in pairs]))


def embedding_metrics(expected: Array, actual: Array) -> dict[str, float | None]:
    """Compare (n, d) embeddings: cosine similarity to PyTorch's, and agreement on the nearest neighbours."""
    cosine = cosine_similarity(expected, actual)
    is_finite = np.isfinite(actual).all()
    return {
        "cosine_min": finite(cosine.min()),
        "cosine_mean": finite(cosine.mean()),
        "rank_overlap": rank_overlap(expected, actual) if is_finite else None,
    }


def log_probabilities(logits: Array) -> Array:
    """Return log-probabilities, shape (n, classes), of (n, classes) logits by a softmax.

    A single logit, as rerankers give, becomes the two classes of its sigmoid.
    """
    logits = logits.astype(np.float64)
    if logits.shape[1] == 1:
        logits = np.hstack([np.zeros_like(logits), logits])
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def classification_metrics(expected: Array, actual: Array) -> dict[str, float | None]:
    """Compare (n, classes) logits: labels, probabilities, and the mean KL divergence from PyTorch's answer."""
    if not np.isfinite(actual).all():
        return {"top1_agreement": None, "max_probability_diff": None, "mean_kl": None}
    left, right = log_probabilities(expected), log_probabilities(actual)
    divergence = (np.exp(left) * (left - right)).sum(axis=1)
    return {
        "top1_agreement": float(np.mean(left.argmax(axis=1) == right.argmax(axis=1))),
        "max_probability_diff": finite(np.abs(np.exp(left) - np.exp(right)).max()),
        "mean_kl": finite(max(0.0, divergence.mean())),
    }


def pool_tokens(vectors: Array, lengths: Array) -> Array:
    """Return the mean token vector of each input, shape (n, d), from concatenated (sum of lengths, d) vectors."""
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return np.asarray(np.add.reduceat(vectors, starts, axis=0) / lengths[:, None])


def answers_of(task: str, outputs: dict[str, Array], lengths: Array) -> Array:
    """Return what a user of the task reads, one row an input: logits, or the embedding of a whole text.

    A plain encoder gives token vectors only; their mean stands for the text.
    """
    if task == "text-classification":
        return outputs["logits"]
    if task == "sentence-similarity":
        return outputs["sentence_embedding"]
    return pool_tokens(outputs["last_hidden_state"], lengths)


def task_metrics(task: str, expected: Array, actual: Array) -> dict[str, float | None]:
    """Return the metrics of a task from its answers (see ``answers_of``)."""
    if task == "text-classification":
        return classification_metrics(expected, actual)
    return embedding_metrics(expected, actual)
