"""Metrics of a label for each word."""

import re

import numpy as np

from onnxproof.cli import UserError
from onnxproof.evaluation.metric import Answers, Array, Labels, Metric, share_of_counts, total_of
from onnxproof.evaluation.metrics.multi_label import f1_from_counts

#: A label of a word outside all entities, or in one: IOB1, IOB2, IOE, IOBES, BILOU.
ENTITY_LABEL = re.compile(r"O|[BIESLU]-.+")


def _check_lengths(labels: Labels, answers: Answers) -> None:
    for place, (own, answer) in enumerate(zip(labels, answers, strict=True)):
        if len(own) != len(answer):
            raise UserError(f"input {place}: {len(own)} words have a label, and {len(answer)} an answer")


def _check(labels: Labels, answers: Answers) -> None:
    """Raise a UserError unless all labels are those of entities, one a word."""
    _check_lengths(labels, answers)
    for place, row in enumerate((*labels, *answers)):
        for label in row:
            if not ENTITY_LABEL.fullmatch(label):
                raise UserError(
                    f"input {place % len(labels)}: {label} is not the label of an entity (O, B-…, I-…); "
                    "use token_accuracy for other labels"
                )


def entity_f1(labels: Labels, answers: Answers) -> float:
    """Return F1 over all entities; one is found where its words and its type are the same.

    Raises:
        UserError: a label is not that of an entity, or an answer has not one label a word.
    """
    from seqeval.metrics import f1_score

    _check(labels, answers)
    found = f1_score([list(row) for row in labels], [list(row) for row in answers], zero_division=0)
    return float(found) if any(label != "O" for row in (*labels, *answers) for label in row) else float("nan")


def _entity_counts(labels: Labels, answers: Answers) -> Array:
    """Return of each input: entities found rightly, entities labelled, entities answered; (n, 3)."""
    from seqeval.metrics.sequence_labeling import get_entities

    _check(labels, answers)
    pairs = [
        (set(get_entities(list(own))), set(get_entities(list(answer))))
        for own, answer in zip(labels, answers, strict=True)
    ]
    return np.array([(len(own & found), len(own), len(found)) for own, found in pairs], dtype=np.float64)


def _word_counts(labels: Labels, answers: Answers) -> Array:
    """Return of each input: words with the right label, words; (n, 2).

    Raises:
        UserError: an answer has not one label a word.
    """
    _check_lengths(labels, answers)
    pairs = zip(labels, answers, strict=True)
    return np.array(
        [(sum(map(str.__eq__, own, answer)), len(own)) for own, answer in pairs],
        dtype=np.float64,
    )


METRICS = (
    Metric(
        name="entity_f1",
        title="F1 over the entities",
        kinds=("token-classification",),
        higher_is_better=True,
        library="seqeval",
        value=entity_f1,
        counts=_entity_counts,
        from_counts=f1_from_counts,
        largest_change=1.0,
        decisions=lambda answers: [tuple(row) for row in answers],
    ),
    Metric(
        name="token_accuracy",
        title="share of words with the right label",
        kinds=("token-classification",),
        higher_is_better=True,
        library="onnxproof",
        value=total_of(_word_counts, share_of_counts),
        counts=_word_counts,
        from_counts=share_of_counts,
        largest_change=1.0,
        decisions=lambda answers: [tuple(row) for row in answers],
    ),
)
