"""What is read from the outputs of a batch."""

import numpy as np
import pytest

from onnxproof.inputs.model_inputs import LIKELIHOODS, MASKED_POSITIONS, TOKENS, ModelInputs
from onnxproof.parity.answers import measure_likelihoods, outputs_of_item

TEXTS = [[3, 1, 4, 1, 5], [2, 6]]


def text_inputs(padding_side):
    items = [{TOKENS: np.array(text), MASKED_POSITIONS: np.array([1, len(text) - 1])} for text in TEXTS]
    return ModelInputs(items, padding_side=padding_side)


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_likelihoods_are_those_of_the_own_tokens_after_the_first_place(padding_side):
    logits = np.random.default_rng(0).normal(size=(2, 5, 7)).astype(np.float32)
    inputs = text_inputs(padding_side)
    first, second = (outputs_of_item("text-generation", {"logits": logits}, inputs, row, row) for row in (0, 1))
    probabilities = np.exp(logits[0].astype(np.float64))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    # Rows 1, 2 and 3 of the logits guess tokens 2, 3 and 4.
    assert first[LIKELIHOODS] == pytest.approx(np.log([probabilities[row, TEXTS[0][row + 1]] for row in (1, 2, 3)]))
    assert first[LIKELIHOODS].dtype == np.float32
    assert first["logits"].shape == (2, 7)
    assert second[LIKELIHOODS].shape == (0,), "after the last token comes none"
    assert LIKELIHOODS not in outputs_of_item("fill-mask", {"logits": logits}, inputs, 0, 0)


@pytest.mark.filterwarnings("error")
def test_a_logit_that_is_not_finite_gives_no_perplexity():
    logits = np.zeros((1, 5, 7), dtype=np.float32)
    good = outputs_of_item("text-generation", {"logits": logits}, text_inputs("right"), 0, 0)
    assert measure_likelihoods({LIKELIHOODS: [good[LIKELIHOODS]]}, {LIKELIHOODS: [good[LIKELIHOODS]]}) == {
        "perplexity_ratio": 1.0
    }
    for broken in (np.nan, np.inf, -np.inf):
        logits[0, 2, 1] = broken
        bad = outputs_of_item("text-generation", {"logits": logits}, text_inputs("right"), 0, 0)
        measured = measure_likelihoods({LIKELIHOODS: [good[LIKELIHOODS]]}, {LIKELIHOODS: [bad[LIKELIHOODS]]})
        assert measured == {"perplexity_ratio": None}, broken
