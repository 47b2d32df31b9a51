"""Cutting recorded inputs into padded batches and taking the padding out again."""

import numpy as np
import pytest

from onnxproof.reference import Reference


def reference(side: str) -> Reference:
    return Reference(
        manifest={"padding": {"side": side, "values": {"input_ids": 9, "attention_mask": 0}}},
        inputs={"input_ids": np.array([1, 2, 3, 4, 5, 6]), "attention_mask": np.ones(6, np.int64)},
        outputs={},
        lengths=np.array([1, 3, 2]),
    )


@pytest.mark.parametrize(
    ("side", "ids", "mask"),
    [
        ("right", [[1, 9, 9], [2, 3, 4]], [[1, 0, 0], [1, 1, 1]]),
        ("left", [[9, 9, 1], [2, 3, 4]], [[0, 0, 1], [1, 1, 1]]),
    ],
)
def test_padding_goes_to_the_tokenizers_side(side, ids, mask):
    feed = reference(side).feed([0, 1])
    assert feed["input_ids"].tolist() == ids
    assert feed["attention_mask"].tolist() == mask
    assert feed["input_ids"].dtype == np.int64


@pytest.mark.parametrize("side", ["right", "left"])
def test_unpadding_gives_the_tokens_back(side):
    recorded = reference(side)
    feed = recorded.feed([1, 2])
    assert recorded.unpad(feed["input_ids"][..., None], [1, 2])[:, 0].tolist() == [2, 3, 4, 5, 6]
