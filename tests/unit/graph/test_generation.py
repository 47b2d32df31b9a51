"""Greedy generation with a graph's cache of keys and values, and what PyTorch's own tokens are compared with."""

from types import SimpleNamespace

import numpy as np
import pytest

from onnxproof.graph.generation import (
    continue_from_cache,
    empty_cache,
    generate_greedily,
    matched_share,
    measure_generation,
    with_empty_cache,
)
from onnxproof.inputs.model_inputs import ModelInputs

WORDS = 11
PROMPTS = {0: np.array([3, 1, 4]), 1: np.array([5])}


class Adder:
    """Runs like a session whose next token is the sum of all tokens so far; its cache holds the sum and the number."""

    def __init__(self, forgets=False):
        self.forgets, self.calls = forgets, []

    def get_inputs(self):
        cache = SimpleNamespace(name="past_key_values.0.key", shape=["batch", 1, "past", 1])
        return [SimpleNamespace(name=name, shape=["batch", "tokens"]) for name in ("input_ids", "position_ids")] + [
            cache
        ]

    def run(self, names, feed):
        self.calls.append(feed)
        past = feed["past_key_values.0.key"]
        assert feed["position_ids"][0, 0] == past.shape[2]
        ids = feed["input_ids"].astype(np.float32)
        present = np.concatenate([past, ids[:, None, :, None]], axis=2)
        seen = present[:, :, -ids.shape[1] :] if self.forgets else present
        sums = np.cumsum(seen[:, 0, :, 0], axis=1)[:, -ids.shape[1] :].astype(int) % WORDS
        outputs = {"logits": np.eye(WORDS, dtype=np.float32)[sums], "present.0.key": present}
        return [outputs[name] for name in names]


def sums_after(prompt, count):
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(sum(tokens) % WORDS)
    return [int(token) for token in tokens[len(prompt) :]]


@pytest.mark.parametrize("use_cache", [True, False])
def test_the_likeliest_token_is_taken_again_and_again(use_cache):
    session = Adder()
    assert generate_greedily(session, PROMPTS[0], 6, use_cache) == sums_after(PROMPTS[0], 6)
    assert [call["input_ids"].shape[1] for call in session.calls] == (
        [3, 1, 1, 1, 1, 1] if use_cache else [*range(3, 9)]
    )


def test_a_cache_that_is_not_read_is_noticed():
    expected = {index: sums_after(prompt, 6) for index, prompt in PROMPTS.items()}

    def measured(session):
        return measure_generation(lambda index, *how: generate_greedily(session, PROMPTS[index], *how), expected)

    assert measured(Adder()) == 1
    assert measured(Adder(forgets=True)) < 0.5


@pytest.mark.parametrize(("actual", "share"), [([1, 2, 3, 4], 1), ([1, 2, 0, 4], 0.5), ([0, 2, 3, 4], 0)])
def test_what_comes_after_the_first_other_token_counts_for_nothing(actual, share):
    assert matched_share([1, 2, 3, 4], actual) == share


def test_the_second_half_continues_the_first():
    ids = np.array([[2, 7, 1, 8]])
    whole = {"input_ids": ids, "position_ids": np.arange(4)[None], "past_key_values.0.key": np.empty((1, 1, 0, 1))}
    rest = continue_from_cache(Adder(), whole)
    assert rest["input_ids"].tolist() == [[1, 8]]
    assert rest["past_key_values.0.key"].ravel().tolist() == [2, 7]
    assert np.array_equal(Adder().run(["logits"], rest)[0], Adder().run(["logits"], whole)[0][:, 2:])


def test_inputs_get_a_cache_only_where_the_graph_takes_one():
    inputs = ModelInputs([{"input_ids": np.array([1, 2])}])
    assert with_empty_cache(inputs, Adder().get_inputs()[:2]) is inputs
    fed = with_empty_cache(inputs, Adder().get_inputs()).feed([0], ["past_key_values.0.key"])
    assert fed["past_key_values.0.key"].shape == (1, 1, 0, 1)
    assert empty_cache(Adder().get_inputs()[:2]) == {}
