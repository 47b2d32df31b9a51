"""Which runs a variant's parity takes, and what they notice."""

from types import SimpleNamespace

import numpy as np
import pytest

from onnxproof.inputs.model_inputs import MASK, TOKENS, ModelInputs, Reference
from onnxproof.parity.answers import FIRST_BATCHES
from onnxproof.parity.measure import Sessions, measure_sessions
from records import make_reference

#: Of the texts, in tokens: many are short, some as long as they may be.
LENGTHS = [3 + (7 * number) % 20 for number in range(100)] + [64] * 28
BATCH = 8


def answer(tokens):
    """What the original answers to one text: a row a token, (tokens, 4)."""
    return np.stack([np.sin(tokens), np.cos(tokens), np.ones(len(tokens)), tokens / 100], axis=1).astype(np.float32)


@pytest.fixture
def reference():
    random = np.random.default_rng(0)
    texts = [random.integers(1, 100, length) for length in LENGTHS]
    items = [{TOKENS: text, MASK: np.ones_like(text)} for text in texts]
    return Reference(
        manifest=make_reference("feature-extraction", label_count=0),
        inputs=ModelInputs(items),
        outputs={"last_hidden_state": [answer(text) for text in texts]},
    )


class Session:
    """Answers as the original does, but for a fault; notes the shape of each run and its tokens that are no padding."""

    def __init__(self, fault=lambda answers, tokens: answers):
        self.fault, self.shapes, self.tokens = fault, [], 0

    def get_inputs(self):
        return [SimpleNamespace(name=name, shape=["batch", "length"]) for name in (TOKENS, MASK)]

    def get_outputs(self):
        return [SimpleNamespace(name="last_hidden_state")]

    def run(self, names, feed):
        tokens = feed[TOKENS]
        self.shapes.append(tokens.shape)
        self.tokens += int(feed[MASK].sum())
        return [self.fault(np.stack([answer(row) for row in tokens]), tokens)]


def measure(reference, session):
    told = []
    measured = measure_sessions("m", Sessions(session), reference, BATCH, told.append)
    assert sum(told) == 2 * len(LENGTHS)
    return measured


def test_where_neighbours_change_nothing_texts_of_one_length_share_a_run(reference):
    session = Session()
    measured = measure(reference, session)
    assert measured.outputs["last_hidden_state"]["max_abs_diff"] == 0
    assert len(measured.answers) == len(LENGTHS)
    batched = measured.batch_invariance["inputs"]
    alone = [shape for shape in session.shapes if shape[0] == 1]
    assert BATCH * (FIRST_BATCHES + 1) == batched <= len(alone) < len(LENGTHS)
    assert session.tokens == sum(LENGTHS) + sum(LENGTHS[index] for index in first_of(reference))
    assert sum(shape == (BATCH, 64) for shape in session.shapes) >= 2, "texts of the largest length share runs"


def first_of(reference):
    """The texts that a session is shown in padded batches, if their neighbours change nothing."""
    seen = []

    class Noting(Session):
        def run(self, names, feed):
            if len(feed[MASK]) > 1 and not feed[MASK].all():
                seen.extend(tuple(row[mask > 0]) for row, mask in zip(feed[TOKENS], feed[MASK], strict=True))
            return super().run(names, feed)

    measure(reference, Noting())
    numbers = {tuple(item[TOKENS]): index for index, item in enumerate(reference.inputs.items)}
    return [numbers[text] for text in seen]


def test_the_batch_with_the_most_padding_and_batches_of_all_sizes_but_the_largest_are_run(reference):
    batches = reference.inputs.batches(BATCH, [TOKENS, MASK])
    sizes = [len(batch) * max(LENGTHS[index] for index in batch) for batch in batches]
    padding = [size - sum(LENGTHS[index] for index in batch) for size, batch in zip(sizes, batches, strict=True)]
    session = Session()
    measure(reference, session)
    run = [shape for shape in session.shapes if shape[0] == BATCH]
    worst = int(np.argmax(padding))
    assert run[0] == (BATCH, max(LENGTHS[index] for index in batches[worst]))
    assert [shape[1] for shape in run[1 : FIRST_BATCHES + 1]] == sorted(
        shape[1] for shape in run[1 : FIRST_BATCHES + 1]
    )
    assert measure(reference, Session()).batch_invariance["inputs"] == BATCH * (FIRST_BATCHES + 1)


def test_where_neighbours_change_answers_each_text_is_run_alone_and_each_in_a_batch(reference):
    def add_mean(answers, tokens):
        return answers + np.float32(0.01) * (len(tokens) > 1) * answers.mean()

    session = Session(add_mean)
    measured = measure(reference, session)
    assert sum(shape[0] == 1 for shape in session.shapes) == len(LENGTHS)
    assert measured.batch_invariance["inputs"] == len(LENGTHS)
    assert measured.batch_invariance["max_abs_diff"] > 0
    assert measured.outputs["last_hidden_state"]["max_abs_diff"] == 0, "of answers alone"


@pytest.mark.parametrize("text", [0, 50, 99, 127])
def test_a_wrong_answer_to_any_text_is_noticed(reference, text):
    wrong = reference.inputs.items[text][TOKENS]

    def spoil(answers, tokens):
        for row, of_row in zip(answers, tokens, strict=True):
            if np.array_equal(of_row[: len(wrong)], wrong) and not of_row[len(wrong) :].any():
                row[: len(wrong)] += 0.5
        return answers

    measured = measure(reference, Session(spoil))
    assert measured.outputs["last_hidden_state"]["max_abs_diff"] == pytest.approx(0.5, abs=1e-3)


def test_rows_that_change_places_without_padding_are_noticed(reference):
    """A fault that padded batches do not show: it is there only where all rows have the same length."""

    def exchange(answers, tokens):
        return answers[::-1] if (tokens > 0).all() else answers

    assert measure(reference, Session(exchange)).outputs["last_hidden_state"]["max_abs_diff"] > 0.5
