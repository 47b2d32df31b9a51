"""Joining items into padded batches and taking the padding out again."""

import numpy as np
import pytest

from onnxproof.inputs.model_inputs import ModelInputs

LENGTHS = (1, 3, 2)


def texts(side: str) -> ModelInputs:
    items = [{"input_ids": np.arange(1, length + 1), "attention_mask": np.ones(length, np.int64)} for length in LENGTHS]
    return ModelInputs(items, padding_side=side, padding_values={"input_ids": 9})


@pytest.mark.parametrize(
    ("side", "ids", "mask"),
    [
        ("right", [[1, 9, 9], [1, 2, 3]], [[1, 0, 0], [1, 1, 1]]),
        ("left", [[9, 9, 1], [1, 2, 3]], [[0, 0, 1], [1, 1, 1]]),
    ],
)
def test_padding_goes_to_the_tokenizers_side(side, ids, mask):
    feed = texts(side).feed([0, 1], ["input_ids", "attention_mask", "absent"])
    assert feed.keys() == {"input_ids", "attention_mask"}
    assert feed["input_ids"].tolist() == ids
    assert feed["attention_mask"].tolist() == mask
    assert feed["input_ids"].dtype == np.int64


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_tokens_rows_come_back(side):
    inputs = texts(side)
    output = inputs.feed([1, 2], ["input_ids"])["input_ids"][..., None]
    assert inputs.tokens_of(output, 1, 2)[:, 0].tolist() == [1, 2]


def test_every_axis_is_padded():
    items = [{"input_ids": np.ones((4, 2), np.int64)}, {"input_ids": np.ones((3, 5), np.int64)}]
    assert ModelInputs(items).feed([0, 1], ["input_ids"])["input_ids"].shape == (2, 4, 5)


def test_what_is_shared_is_fed_as_it_is():
    inputs = ModelInputs([{"pixels": np.zeros(2)}] * 3, {"captions": np.ones((5, 4))})
    feed = inputs.feed([0, 1], ["pixels", "captions"])
    assert (feed["pixels"].shape, feed["captions"].shape) == ((2, 2), (5, 4))


def test_batches_mix_lengths_only_where_a_mask_tells_padding_apart():
    assert texts("right").batches(2, ["input_ids", "attention_mask"]) == [[0, 1], [2]]
    sounds = ModelInputs([{"input_values": np.zeros(size)} for size in (4, 6, 4, 6, 4)])
    assert sounds.batches(2, ["input_values"]) == [[0, 2], [4], [1, 3]]
