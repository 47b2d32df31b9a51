"""Metrics of texts that a model writes: transcripts, translations, summaries.

Texts are compared as they are, with their case and punctuation.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from onnxproof.cli import UserError
from onnxproof.evaluation.metric import Answers, Array, Labels, Metric, mean_of, same_text, share_of_counts

WORD = re.compile(r"[^\W_]+")


def references_of(labels: Labels) -> list[list[str]]:
    """Return the accepted texts of each input.

    Raises:
        UserError: an input has none.
    """
    references = [[own] if isinstance(own, str) else list(own) for own in labels]
    for place, own in enumerate(references):
        if not own:
            raise UserError(f"input {place}: it has no text to compare with")
    return references


def one_reference(labels: Labels) -> list[str]:
    """Return the text of each input.

    Raises:
        UserError: an input has none, or several.
    """
    references = references_of(labels)
    for place, own in enumerate(references):
        if len(own) != 1:
            raise UserError(f"input {place}: it has {len(own)} texts; error rates compare with one")
    return [own[0] for own in references]


def _error_rate(measure: str) -> Callable[[Labels, Answers], float]:
    """Return the ``value`` that is a measure of jiwer, ``wer`` or ``cer``."""

    def value(labels: Labels, answers: Answers) -> float:
        import jiwer

        texts = one_reference(labels)
        return float(getattr(jiwer, measure)(texts, list(answers))) if any(text.split() for text in texts) else np.nan

    return value


def _error_counts(process: str) -> Callable[[Labels, Answers], Array]:
    """Return the ``counts`` of a function of jiwer: errors and the length of the reference, (n, 2)."""

    def counts(labels: Labels, answers: Answers) -> Array:
        import jiwer

        pairs = zip(one_reference(labels), answers, strict=True)
        aligned = [getattr(jiwer, process)(text, answer) for text, answer in pairs]
        return np.array(
            [
                (
                    one.substitutions + one.deletions + one.insertions,
                    one.hits + one.substitutions + one.deletions,
                )
                for one in aligned
            ],
            dtype=np.float64,
        )

    return counts


def _sacrebleu(name: str) -> Any:
    import sacrebleu

    return getattr(sacrebleu, name)()


def _corpus_score(name: str) -> Callable[[Labels, Answers], float]:
    """Return the ``value`` that is a metric of sacrebleu with its defaults, from 0 to 100."""

    def value(labels: Labels, answers: Answers) -> float:
        return float(_sacrebleu(name).corpus_score(list(answers), _streams(labels)).score)

    return value


def _streams(labels: Labels) -> list[list[str | None]]:
    """Return the references as sacrebleu takes them: the first of each input, the second of each, …; None: no more."""
    references = references_of(labels)
    most = max(map(len, references))
    return [[own[place] if place < len(own) else None for own in references] for place in range(most)]


def _corpus_counts(name: str) -> Callable[[Labels, Answers], Array]:
    """Return the ``counts`` of a metric of sacrebleu.

    It is what ``sacrebleu.significance`` sums up for its samples. sacrebleu has no public function for it, so its
    version is bounded in ``pyproject.toml``.
    """

    def counts(labels: Labels, answers: Answers) -> Array:
        metric = _sacrebleu(name)
        return np.array(metric._extract_corpus_statistics(list(answers), _streams(labels)), dtype=np.float64)

    return counts


def _from_corpus_counts(name: str) -> Callable[[Array], Array]:
    """Return the ``from_counts`` of a metric of sacrebleu."""

    def from_counts(counts: Array) -> Array:
        metric = _sacrebleu(name)
        return np.array([metric._compute_score_from_stats(row).score for row in counts.round().astype(np.int64)])

    return from_counts


class Words:
    """Takes a text apart for rouge-score as its own tokenizer does, and keeps letters beyond the English ones."""

    def tokenize(self, text: str) -> list[str]:
        """Return the words and numbers in lower case."""
        return WORD.findall(text.lower())


def longest_common(labels: Labels, answers: Answers) -> Array:
    """Return ROUGE-L of each answer and the nearest accepted text, from 0 to 1, (n,)."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=Words())
    pairs = zip(references_of(labels), answers, strict=True)
    return np.array([scorer.score_multi(own, answer)["rougeL"].fmeasure for own, answer in pairs], dtype=np.float64)


def _error_metric(name: str, title: str, measure: str, process: str) -> Metric:
    return Metric(
        name=name,
        title=title,
        kinds=("text",),
        higher_is_better=False,
        library="jiwer",
        value=_error_rate(measure),
        counts=_error_counts(process),
        from_counts=share_of_counts,
        largest_change=1.0,
        decisions=same_text,
    )


def _corpus_metric(name: str, title: str, kind: str) -> Metric:
    return Metric(
        name=name,
        title=title,
        kinds=("text",),
        higher_is_better=True,
        library="sacrebleu",
        value=_corpus_score(kind),
        counts=_corpus_counts(kind),
        from_counts=_from_corpus_counts(kind),
        largest_change=100.0,
        decisions=same_text,
    )


METRICS = (
    _error_metric(
        "word_error_rate", "wrong, missing and additional words per word of the reference", "wer", "process_words"
    ),
    _error_metric(
        "character_error_rate",
        "wrong, missing and additional characters per character of the reference",
        "cer",
        "process_characters",
    ),
    _corpus_metric("bleu", "BLEU of the corpus, from 0 to 100", "BLEU"),
    _corpus_metric("chrf", "chrF of the corpus, from 0 to 100", "CHRF"),
    Metric(
        name="rouge_l",
        title="ROUGE-L, mean over the inputs",
        kinds=("text",),
        higher_is_better=True,
        library="rouge-score",
        value=mean_of(longest_common),
        per_input=longest_common,
        largest_change=1.0,
        decisions=same_text,
    ),
)
