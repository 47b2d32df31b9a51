"""Metrics of documents that are ranked for a query."""

from collections.abc import Callable

import numpy as np

from onnxproof.cli import UserError
from onnxproof.evaluation.metric import Answers, Array, Labels, Metric, mean_of

#: Documents with equal scores count as changed places only within this many.
SEEN = 10


def of_queries(measure: str, result: str) -> Callable[[Labels, Answers], Array]:
    """Return the function that computes a measure of trec_eval for each query, (n,); NaN where a score is not finite.

    Args:
        measure: as trec_eval is asked for it, such as ``ndcg_cut.10``.
        result: the name under which it answers, such as ``ndcg_cut_10``.
    """

    def per_input(labels: Labels, answers: Answers) -> Array:
        from pytrec_eval import RelevanceEvaluator

        relevant = {str(query): _relevances(query, own) for query, own in enumerate(labels)}
        ranked = {
            str(query): {str(document): float(score) for document, score in answer}
            for query, answer in enumerate(answers)
        }
        results = RelevanceEvaluator(relevant, {measure}).evaluate(ranked)
        # A query for which nothing is found has no result. trec_eval would take a NaN for the best score.
        return np.array(
            [
                results.get(query, {}).get(result, 0.0) if np.isfinite(list(found.values())).all() else np.nan
                for query, found in ranked.items()
            ],
            dtype=np.float64,
        )

    return per_input


def _relevances(query: int, documents: dict[str, int]) -> dict[str, int]:
    """Return the relevance of each document as trec_eval takes it.

    Raises:
        UserError: one is no integer.
    """
    for document, relevance in documents.items():
        if relevance != int(relevance):
            raise UserError(f"input {query}: the relevance of {document} is {relevance}; it must be an integer")
    return {str(document): int(relevance) for document, relevance in documents.items()}


def first_documents(answers: Answers) -> list[tuple[str, ...]]:
    """Return the ten documents with the highest scores of each query, in the order of trec_eval."""
    return [
        tuple(str(document) for document, _ in sorted(answer, key=_place, reverse=True)[:SEEN]) for answer in answers
    ]


def _place(pair: tuple[str, float]) -> tuple[float, str]:
    return float(pair[1]), str(pair[0])


def _metric(name: str, title: str, measure: str, result: str) -> Metric:
    per_input = of_queries(measure, result)
    return Metric(
        name=name,
        title=title,
        kinds=("retrieval",),
        higher_is_better=True,
        library="pytrec-eval-terrier",
        value=mean_of(per_input),
        per_input=per_input,
        largest_change=1.0,
        decisions=first_documents,
    )


METRICS = (
    _metric("ndcg_at_10", "NDCG of the first ten documents", "ndcg_cut.10", "ndcg_cut_10"),
    _metric("recall_at_10", "share of the relevant documents among the first ten", "recall.10", "recall_10"),
    _metric("mrr", "one over the place of the first relevant document", "recip_rank", "recip_rank"),
)
