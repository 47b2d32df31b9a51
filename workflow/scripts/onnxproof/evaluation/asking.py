"""Asking a model about labelled inputs."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.cli import UserError
from onnxproof.evaluation.aside import Chooser
from onnxproof.evaluation.data import Place, Row, read_rows, text_of
from onnxproof.evaluation.forms import Example, best, unit_vector
from onnxproof.evaluation.plan import Plan

Array = NDArray[Any]

#: Takes one raw input and returns the answer, as the original's public interface gives it.
Ask = Callable[[Any], Any]
#: Takes many raw inputs and returns their answers.
AskAll = Callable[[Sequence[Any]], list[Any]]
#: How many labelled inputs are asked about at once, where they can be.
TOGETHER = 1024
#: Seconds between two lines of progress.
TOLD_EVERY = 10.0


def examples_of(plan: Plan, kept_aside: bool = False) -> Iterator[Example]:
    """Yield the labelled inputs of a plan's file: those that are judged, or those that are kept aside.

    Raises:
        UserError: see ``read_rows`` and ``Form.example``.
    """
    chooser = Chooser(plan.search_share)
    for place, row in read_rows(plan.file, plan.most):
        if chooser.chooses([row.get(name) for name in plan.inputs]) == kept_aside:
            yield plan.form.example(row, place, plan.settings, plan.model)


def rows_kept_aside(plan: Plan) -> list[int]:
    """Return the numbers of the rows that are kept aside for the search, from 1 on.

    Raises:
        UserError: see ``read_rows``.
    """
    chooser, rows = Chooser(plan.search_share), read_rows(plan.file, plan.most)
    return [place.number for place, row in rows if chooser.chooses([row.get(name) for name in plan.inputs])]


def count_examples(plan: Plan) -> int:
    """Return how many labelled inputs there are, once each of them has been read without a complaint.

    Raises:
        UserError: see ``examples_of``; or a query's document is not in the file of documents, or all rows are kept
            aside.
    """
    documents = plan.settings.documents
    key = plan.settings.document[0]
    known = None if documents is None else {str(row.get(key)) for _, row in read_rows(documents)}
    count = 0
    for example in examples_of(plan):
        count += 1
        if known is not None and (missing := sorted(set(example.label) - known)):
            raise UserError(f"{example.place}: the document {missing[0]!r} is not in {documents}")
    if not count:
        raise UserError(
            f"{plan.file}: evaluation.search_share is {plan.search_share:g}, which leaves no row to judge by"
        )
    return count


def answers_to(plan: Plan, count: int, ask: Ask, ask_all: AskAll | None = None) -> Iterator[tuple[Example, Any]]:
    """Yield the labelled inputs, each with its answer; print how far it is, and how much is left.

    Args:
        plan: what is asked.
        count: how many labelled inputs there are.
        ask: answers one raw input.
        ask_all: answers many raw inputs faster, where there are no documents to look for.
    """
    if plan.settings.documents is not None:
        library = Library(plan.settings.documents, ask, plan.settings.document)
        ask, ask_all = library.asked_by(ask), None
    start = told = time.monotonic()
    number, examples = 0, examples_of(plan)
    while together := list(islice(examples, TOGETHER if ask_all is not None else 1)):
        raw = [each for example in together for each in example.raw]
        answers = iter(ask_all(raw) if ask_all is not None else map(ask, raw))
        for example in together:
            yield example, plan.form.answer(list(islice(answers, len(example.raw))), example, plan.model)
        number += len(together)
        now = time.monotonic()
        if now - told >= TOLD_EVERY or number == count:
            told = now
            left = (now - start) / number * (count - number)
            print(f"answered {number} of {count}, {left:.0f} s left", flush=True)


def text_of_document(row: Row, place: Place, fields: tuple[str, ...]) -> str:
    """Return the text of a document: that of its fields but for the id, joined by a space.

    Raises:
        UserError: a field is missing, or holds no text.
    """
    return " ".join(text_of(row, name, place) for name in fields[1:]).strip()


class Library:
    """Documents that queries are looked for in, as the unit vectors that a model makes of them."""

    def __init__(self, file: Path, ask: Ask, fields: tuple[str, ...]) -> None:
        """Embed the documents of a file, one a row, with these fields; see ``Settings``. float32 (documents, size).

        Raises:
            UserError: two documents have the same id, or see ``read_rows``.
        """
        places: dict[str, Place] = {}
        vectors = []
        for place, row in read_rows(file):
            name = str(row.get(fields[0]))
            if fields[0] not in row or name in places:
                first = f"that of {places[name]}" if name in places else "missing"
                raise UserError(f"{place}: each document needs an {fields[0]!r} of its own; this one's is {first}")
            places[name] = place
            vectors.append(unit_vector(ask(text_of_document(row, place, fields))).astype(np.float32))
        self.names = list(places)
        self.vectors = np.stack(vectors)

    def asked_by(self, ask: Ask) -> Ask:
        """Return what answers a query with the documents nearest to its embedding, ``[id, cosine similarity]`` each."""

        def search(query: Any) -> list[list[Any]]:
            similarities = self.vectors @ unit_vector(ask(query)).astype(np.float32)
            return best(list(zip(self.names, map(float, similarities), strict=True)))

        return search
