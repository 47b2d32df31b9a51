"""How far a variant's answers are from PyTorch's, in the terms of the task.

All arrays are NumPy; ``expected`` comes from PyTorch, ``actual`` from the variant. Differences are computed in
float64. A measurement that is not finite, on either side, is reported as None, which no gate lets pass.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.cli import UserError

if TYPE_CHECKING:
    from onnxproof.records.parity import OutputDifference

Array = NDArray[Any]

SIMILARITY_DECIMALS = 7
#: The similarity of embeddings where their model names none.
COSINE = "cosine"
#: How many nearest neighbours ``rank_overlap`` compares.
NEIGHBOURS = 10
#: The longest answer to a question, in tokens.
LONGEST_SPAN = 30
#: How many of an image's detections are compared, and by how much two boxes overlap that are the same.
DETECTIONS = 10
LEAST_OVERLAP = 0.5


def finite(value: float) -> float | None:
    """Return a plain float, or None for NaN and infinity, which JSON cannot hold."""
    return float(value) if np.isfinite(value) else None


def all_finite(*answers: Array) -> bool:
    """Tell whether no value of any array is NaN or infinite."""
    return all(bool(np.isfinite(answer).all()) for answer in answers)


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


def compare_output(expected: Sequence[Array], actual: Sequence[Array]) -> "OutputDifference":
    """Compare one output over all inputs, one array an input.

    A two-dimensional array is taken as rows of features, any other as one row. ``shape`` is that of all rows together,
    with the longest row. ``max_relative_diff`` is the largest absolute difference over the largest absolute value, or
    over 1 where that is smaller.

    Raises:
        UserError: the shapes differ, so the variant computes something else altogether.
    """
    for left, right in zip(expected, actual, strict=True):
        if left.shape != right.shape:
            raise UserError(f"the outputs differ in shape: PyTorch {left.shape}, the variant {right.shape}")
    pairs = [(as_rows(left), as_rows(right)) for left, right in zip(expected, actual, strict=True)]
    differences = np.concatenate([np.abs(left.astype(np.float64) - right).ravel() for left, right in pairs])
    cosine = np.concatenate([cosine_similarity(left, right) for left, right in pairs])
    scale = max(1.0, *(float(np.abs(left).max()) for left, _ in pairs))
    return {
        "shape": [len(cosine), max(left.shape[1] for left, _ in pairs)],
        "dtype": str(actual[0].dtype),
        "max_abs_diff": finite(differences.max()),
        "mean_abs_diff": finite(differences.mean()),
        "max_relative_diff": finite(differences.max() / scale),
        "cosine_min": finite(cosine.min()),
        "cosine_mean": finite(cosine.mean()),
    }


def as_rows(array: Array) -> Array:
    """Return an array as rows of features: a matrix as it is, anything else as one row."""
    return array if array.ndim == 2 else array.reshape(1, -1)


def similarities(embeddings: Array, by: str = COSINE) -> Array:
    """Return the similarity of each pair of (n, d) embeddings, (n, n) in float64, as sentence-transformers defines it.

    Args:
        embeddings: one a row.
        by: "cosine", "dot", "euclidean" or "manhattan"; of the last two the negated distance.
    """
    vectors = embeddings.astype(np.float64)
    if by == COSINE:
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    if by in (COSINE, "dot"):
        return np.asarray(vectors @ vectors.T)
    order = {"euclidean": 2, "manhattan": 1}[by]
    return -np.stack([np.linalg.norm(vectors - vector, ord=order, axis=1) for vector in vectors])


def rank_overlap(expected: Array, actual: Array, neighbours: int = NEIGHBOURS, by: str = COSINE) -> float:
    """Return the mean share of each input's nearest neighbours that both (n, d) embeddings name.

    This is what a search engine built on the embeddings would notice. Similarities that agree to
    ``SIMILARITY_DECIMALS`` of the largest are taken for equal: beyond, they depend on the number of threads that summed
    them up. ``by`` is as in ``similarities``.
    """
    count = min(neighbours, len(expected) - 1)
    if count < 1:
        return 1.0

    def nearest(embeddings: Array) -> Array:
        similarity = similarities(embeddings, by)
        if by != COSINE:
            similarity /= max(float(np.abs(similarity).max()), 1e-12)
        similarity = similarity.round(SIMILARITY_DECIMALS)
        np.fill_diagonal(similarity, -np.inf)
        return np.argsort(-similarity, axis=1, kind="stable")[:, :count]

    pairs = zip(nearest(expected), nearest(actual), strict=True)
    return float(np.mean([len(np.intersect1d(left, right)) / count for left, right in pairs]))


def embedding_metrics(expected: Array, actual: Array, by: str = COSINE) -> dict[str, float | None]:
    """Compare (n, d) embeddings: cosine similarity to PyTorch's, and agreement on the nearest neighbours.

    Where they are compared ``by`` another similarity than the cosine, their norms count too.
    """
    cosine = cosine_similarity(expected, actual)
    metrics = {
        "cosine_min": finite(cosine.min()),
        "cosine_mean": finite(cosine.mean()),
        "rank_overlap": rank_overlap(expected, actual, by=by) if all_finite(expected, actual) else None,
    }
    if by == COSINE:
        return metrics
    norms, made = (np.linalg.norm(vectors.astype(np.float64), axis=1) for vectors in (expected, actual))
    return metrics | {"max_norm_diff": finite((np.abs(made - norms) / np.maximum(norms, 1e-12)).max())}


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
    if not all_finite(expected, actual):
        return {"top1_agreement": None, "max_probability_diff": None, "mean_kl": None}
    left, right = log_probabilities(expected), log_probabilities(actual)
    divergence = (np.exp(left) * (left - right)).sum(axis=1)
    return {
        "top1_agreement": float(np.mean(left.argmax(axis=1) == right.argmax(axis=1))),
        "max_probability_diff": finite(np.abs(np.exp(left) - np.exp(right)).max()),
        # Rounding may leave a little less than zero. NumPy's maximum keeps NaN, which Python's would hide.
        "mean_kl": finite(np.maximum(divergence.mean(), 0.0)),
    }


def token_metrics(expected: Array, actual: Array) -> dict[str, float | None]:
    """Compare (tokens, classes) logits of all inputs together: the share of tokens, or frames, with the same label."""
    metrics = classification_metrics(expected, actual)
    return {"token_agreement": metrics.pop("top1_agreement")} | metrics


def order_agreement(expected: Array, actual: Array) -> float | None:
    """Return the share of pairs of inputs that (n,) scores put into the same order: what a reranker's user reads.

    Source: M. Kendall, "A new measure of rank correlation", 1938; this is (tau + 1) / 2.
    """
    if not all_finite(expected, actual):
        return None
    first, second = np.triu_indices(len(expected), 1)
    if not len(first):
        return 1.0
    same = np.sign(expected[first] - expected[second]) == np.sign(actual[first] - actual[second])
    return float(same.mean())


def value_metrics(expected: Array, actual: Array) -> dict[str, float | None]:
    """Compare the (n, values) answers of a regression: their error, and the order that they put inputs into.

    ``value_nrmse`` is the root mean square error over the standard deviation of PyTorch's values, the larger one of
    several values.
    """
    expected, actual = expected.astype(np.float64), actual.astype(np.float64)
    if not np.isfinite(actual).all():
        return {"value_nrmse": None, "max_value_diff": None, "order_agreement": None}
    errors = np.sqrt(((actual - expected) ** 2).mean(axis=0))
    spread = np.maximum(expected.std(axis=0), np.finfo(np.float32).eps * np.abs(expected).max(axis=0))
    orders = [order_agreement(expected[:, column], actual[:, column]) for column in range(expected.shape[1])]
    return {
        "value_nrmse": finite((errors / np.maximum(spread, np.finfo(np.float64).tiny)).max()),
        "max_value_diff": finite(np.abs(actual - expected).max()),
        "order_agreement": min(order for order in orders if order is not None),
    }


def best_span(start: Array, end: Array, longest: int = LONGEST_SPAN) -> tuple[int, int]:
    """Return the first and last token, shape (tokens,) logits each, of the best span of at most ``longest`` tokens."""
    scores = start[:, None] + end[None, :]
    first, last = np.indices(scores.shape)
    valid = (first <= last) & (last < first + longest)
    return divmod(int(np.where(valid, scores, -np.inf).argmax()), len(start))


def span_metrics(expected: Sequence[Array], actual: Sequence[Array]) -> dict[str, float | None]:
    """Compare answers to questions, (2, tokens) logits of first and last token each: the share of equal spans."""
    if not all_finite(*expected, *actual):
        return {"span_agreement": None, "max_probability_diff": None, "mean_kl": None}
    same = [best_span(*left) == best_span(*right) for left, right in zip(expected, actual, strict=True)]
    ends = [classification_metrics(left, right) for left, right in zip(expected, actual, strict=True)]
    return {
        "span_agreement": float(np.mean(same)),
        "max_probability_diff": _finite_of(np.max, [metrics["max_probability_diff"] for metrics in ends]),
        "mean_kl": _finite_of(np.mean, [metrics["mean_kl"] for metrics in ends]),
    }


def _finite_of(summary: Callable[[Any], Any], values: list[float | None]) -> float | None:
    """Return a summary of measurements, None where one of them is not finite."""
    return None if None in values else finite(summary(values))


def map_metrics(expected: Sequence[Array], actual: Sequence[Array]) -> dict[str, float | None]:
    """Compare segmentations, (pixels, classes) logits each: the share of pixels with the same label."""
    return _label_metrics("pixel_agreement", expected, actual)


def next_token_metrics(expected: Sequence[Array], actual: Sequence[Array]) -> dict[str, float | None]:
    """Compare guesses of the next token, (tokens, vocabulary) logits each: the likeliest one, and all probabilities."""
    metrics = _label_metrics("next_token_agreement", expected, actual)
    return {"next_token_agreement": metrics["next_token_agreement"], "next_token_kl": metrics["mean_kl"]}


def perplexity_metrics(expected: Sequence[Array], actual: Sequence[Array]) -> dict[str, float | None]:
    """Compare log-likelihoods of the tokens of texts, (tokens,) in nats each: the ratio of the perplexities.

    A perplexity is the exponential of the mean negative log-likelihood of a token after those before it. Texts without
    such tokens tell nothing: where all are so, there is no metric.
    """
    differences = np.concatenate(expected).astype(np.float64) - np.concatenate(actual)
    return {"perplexity_ratio": finite(np.exp(differences.mean()))} if len(differences) else {}


def _label_metrics(agreement: str, expected: Sequence[Array], actual: Sequence[Array]) -> dict[str, float | None]:
    """Compare the rows of logits of one input after another: the probabilities of all together need gigabytes."""
    inputs = [classification_metrics(left, right) for left, right in zip(expected, actual, strict=True)]
    rows = [len(answer) for answer in expected]

    def mean(metric: str) -> float | None:
        values = [measured[metric] for measured in inputs]
        return _finite_of(lambda every: np.average(np.array(every, dtype=np.float64), weights=rows), values)

    return {agreement: mean("top1_agreement"), "mean_kl": mean("mean_kl")}


def field_metrics(expected: Sequence[Array], actual: Sequence[Array]) -> dict[str, float | None]:
    """Compare fields of numbers, such as depths: cosine an input, and the mean difference over the mean value."""
    pairs = [(left.reshape(1, -1), right.reshape(1, -1)) for left, right in zip(expected, actual, strict=True)]
    cosine = np.concatenate([cosine_similarity(left, right) for left, right in pairs])
    difference = sum(float(np.abs(left - right).sum()) for left, right in pairs)
    total = sum(float(np.abs(left).sum()) for left, _ in pairs)
    return {
        "cosine_min": finite(cosine.min()),
        "cosine_mean": finite(cosine.mean()),
        "mean_relative_diff": finite(difference / total) if total else finite(difference),
    }


def box_overlap(first: Array, second: Array) -> Array:
    """Return the intersection over union, shape (n, m), of (n, 4) and (m, 4) boxes given as centre and size."""
    corners = [np.hstack([box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2]) for box in (first, second)]
    low = np.maximum(corners[0][:, None, :2], corners[1][None, :, :2])
    high = np.minimum(corners[0][:, None, 2:], corners[1][None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [box[:, 2:].prod(axis=1) for box in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def detection_metrics(expected: Sequence[Array], actual: Sequence[Array]) -> dict[str, float | None]:
    """Compare detections, (queries, labels + 4) each: log-odds of the labels, then the box as centre and size.

    Agreement is the share of PyTorch's most confident detections that the variant has too, wherever in its list: the
    same label, boxes that overlap by half. The variant may rank them a little lower.
    """
    if not all_finite(*expected, *actual):
        return {"detection_agreement": None}
    found = [
        _matched_detections(left.astype(np.float64), right.astype(np.float64))
        for left, right in zip(expected, actual, strict=True)
    ]
    return {"detection_agreement": float(np.mean(found))}


def _matched_detections(expected: Array, actual: Array) -> float:
    def strongest(answer: Array, count: int) -> tuple[Array, Array]:
        kept = np.argsort(-answer[:, :-4].max(axis=1), kind="stable")[:count]
        return answer[kept, :-4].argmax(axis=1), answer[kept, -4:]

    labels, boxes = strongest(expected, DETECTIONS)
    other_labels, other_boxes = strongest(actual, 2 * DETECTIONS)
    matches = (box_overlap(boxes, other_boxes) >= LEAST_OVERLAP) & (labels[:, None] == other_labels[None, :])
    return float(matches.any(axis=1).mean())
