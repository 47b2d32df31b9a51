"""Metrics of answers to questions, as texts.

They are those of SQuAD: Rajpurkar et al. (2016), "SQuAD: 100,000+ Questions for Machine Comprehension of Text", section
6.1, and the evaluation script v1.1 beside it. A question without an accepted answer is answered rightly by an empty
text, as in SQuAD 2.0.
"""

import re
import string
from collections import Counter
from collections.abc import Callable

import numpy as np

from onnxproof.evaluation.metric import Answers, Array, Labels, Metric, mean_of, same_text

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def words_of(answer: str) -> list[str]:
    """Return the words that count: in lower case, without ASCII punctuation and English articles."""
    return ARTICLES.sub(" ", answer.lower().translate(PUNCTUATION)).split()


def _same(accepted: list[str], answer: list[str]) -> float:
    return float(accepted == answer)


def _overlap(accepted: list[str], answer: list[str]) -> float:
    """Return F1 of the words of two answers; an empty one is only like another empty one."""
    if not accepted or not answer:
        return float(accepted == answer)
    common = (Counter(accepted) & Counter(answer)).total()
    return 2 * common / (len(accepted) + len(answer))


def _best(labels: Labels, answers: Answers, compare: Callable[[list[str], list[str]], float]) -> Array:
    """Return how well each answer compares with the accepted one that is nearest to it, (n,)."""
    pairs = zip(labels, answers, strict=True)
    return np.array([max(compare(words_of(text), words_of(answer)) for text in own or [""]) for own, answer in pairs])


def matches(labels: Labels, answers: Answers) -> Array:
    """Return 1 for each answer whose words are those of an accepted one and 0 for the others, (n,)."""
    return _best(labels, answers, _same)


def overlaps(labels: Labels, answers: Answers) -> Array:
    """Return F1 of the words of each answer and the nearest accepted one, (n,)."""
    return _best(labels, answers, _overlap)


METRICS = (
    Metric(
        name="exact_match",
        title="share of answers that are accepted",
        kinds=("question-answering",),
        higher_is_better=True,
        library="onnxproof",
        value=mean_of(matches),
        per_input=matches,
        binary=True,
        largest_change=1.0,
        decisions=same_text,
    ),
    Metric(
        name="answer_f1",
        title="F1 of the words of answers",
        kinds=("question-answering",),
        higher_is_better=True,
        library="onnxproof",
        value=mean_of(overlaps),
        per_input=overlaps,
        largest_change=1.0,
        decisions=same_text,
    ),
)
