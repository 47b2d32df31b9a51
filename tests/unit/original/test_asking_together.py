"""Many raw inputs at once have the answers that each has alone: texts of one length are a batch without padding."""

from pathlib import Path

import pytest

from onnxproof.original.final_answers import open_interface
from onnxproof.original.model import Original, load_original

pytestmark = pytest.mark.slow

STAR = Path(__file__).parents[3] / "examples/star-rating-tiny"
WORDS = ["the", "battery", "is", "not", "bad", "at", "all", "and", "I", "would", "buy", "it", "again"]
TEXTS = [" ".join(WORDS[: 1 + number % len(WORDS)]) for number in range(90)]
INPUTS = {
    "texts": [*TEXTS, "too long " * 400],
    "pairs": [[text, " ".join(WORDS[: 1 + number % 3])] for number, text in enumerate(TEXTS)],
}


@pytest.fixture(scope="module")
def original() -> Original:
    return load_original("m", STAR, "text-classification")


@pytest.mark.parametrize("inputs", INPUTS)
def test_texts_of_one_length_are_answered_together(inputs, original):
    masks = []
    hook = original.network.register_forward_pre_hook(
        lambda _, __, given: masks.append(given["attention_mask"]), with_kwargs=True
    )
    _, interface = open_interface(original, "m", STAR)
    values = INPUTS[inputs]
    alone = [interface.ask(value) for value in values]
    masks.clear()
    together = interface.ask_all(values)
    hook.remove()
    assert len(masks) < len(values) / 2
    assert all(mask.all() for mask in masks)
    assert together == [pytest.approx(answer, abs=1e-6) for answer in alone]
    assert len({round(max(answer.values()), 3) for answer in together}) > len(WORDS) / 2


def test_a_tokenizer_that_cannot_pad_has_its_texts_answered_alone(original, monkeypatch):
    monkeypatch.setattr(
        original.processor, "_special_tokens_map", original.processor._special_tokens_map | {"pad_token": None}
    )
    _, interface = open_interface(original, "m", STAR)
    assert interface.ask_all is None
    assert interface.ask("good")
