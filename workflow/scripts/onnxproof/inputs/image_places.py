"""Prompts with an image: which tokens stand for the image, and what positions they have."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnxproof.checkpoint.text_limits import text_settings
from onnxproof.inputs.model_inputs import Array

#: Of the keys of ``config.json``, those that name the tokens before and after an image.
MARKS = (("vision_start_token_id", "vision_end_token_id"), ("boi_token_index", "eoi_token_index"))


def image_marks(config: Mapping[str, Any]) -> list[int]:
    """Return the tokens that stand before and after an image, from a ``config.json``; none where it names none.

    Defaults that a small vocabulary does not hold count as none.
    """
    words = text_settings(config).get("vocab_size") or float("inf")
    for names in MARKS:
        marks = [config.get(name) for name in names]
        if all(isinstance(mark, int) and mark < words for mark in marks):
            return [int(mark) for mark in marks if mark is not None]
    return []


def image_prompt(
    words: Array, image_token: int, count: int, has_start: bool, marks: Sequence[int] = ()
) -> tuple[Array, Array]:
    """Return a prompt with the places of an image in it, and which of its tokens these are: both int64 (tokens,).

    Args:
        words: the tokens of the text, int64.
        image_token: the token that stands for a part of an image.
        count: how many of them an image takes.
        has_start: whether the first token only starts a text; the image comes after it then, else first.
        marks: see ``image_marks``.
    """
    image = [*marks[:1], *[image_token] * count, *marks[1:]]
    tokens = np.concatenate([words[: int(has_start)], image, words[int(has_start) :]]).astype(np.int64)
    start = int(has_start) + len(marks[:1])
    kinds = np.zeros_like(tokens)
    kinds[start : start + count] = 1
    return tokens, kinds


def image_positions(kinds: Array, grid: Array, merged: int) -> Array:
    """Return the positions of a prompt with one image, in time, height and width: int64 (3, tokens).

    Source: P. Wang et al., "Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution",
    2024, section 2.1.

    Args:
        kinds: which tokens are the image's, see ``image_prompt``.
        grid: how many patches the image has along time, height and width.
        merged: how many patches a side become one token.
    """
    sizes = [int(grid[0]), int(grid[1]) // merged, int(grid[2]) // merged]
    start, count = int(kinds.argmax()), int(kinds.sum())
    before = np.broadcast_to(np.arange(start), (3, start))
    image = start + np.indices(sizes).reshape(3, -1)
    rest = len(kinds) - start - count
    after = np.broadcast_to(start + max(sizes[1:]) + np.arange(rest), (3, rest))
    return np.concatenate([before, image, after], axis=1).astype(np.int64)
