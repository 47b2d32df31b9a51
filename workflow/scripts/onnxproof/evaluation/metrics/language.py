"""Metrics of the probability that a language model gives to texts."""

import numpy as np

from onnxproof.evaluation.metric import Answers, Array, Labels, Metric, total_of


def _likelihood_counts(labels: Labels, answers: Answers) -> Array:
    """Return the log-likelihood in nats and the number of tokens of each input, (n, 2)."""
    return np.array([(answer["log_likelihood"], answer["tokens"]) for answer in answers], dtype=np.float64)


def _perplexity(counts: Array) -> Array:
    return np.asarray(np.exp(-counts[:, 0] / counts[:, 1]))


METRICS = (
    Metric(
        name="perplexity",
        title="perplexity per token",
        kinds=("language-model",),
        higher_is_better=False,
        library="onnxproof",
        value=total_of(_likelihood_counts, _perplexity),
        counts=_likelihood_counts,
        from_counts=_perplexity,
    ),
)
