"""Generating text token by token with an ONNX graph and its cache of keys and values: onnxruntime and NumPy alone.

A graph with a cache takes ``past_key_values.{layer}.key`` and ``.value``, float32 (batch, heads, past tokens, size),
and gives ``present.…`` of the same shape with the tokens it was fed appended. An empty cache has no past tokens.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.graph.sessions import Session, Value
from onnxproof.inputs.model_inputs import EMBEDDINGS, MASK, POSITIONS, TOKEN_KINDS, TOKENS, ModelInputs
from onnxproof.inputs.prompts import NEW_TOKENS, PAST, PRESENT

Array = NDArray[Any]

#: The input of a merged decoder that says whether there is a cache yet.
USE_CACHE = "use_cache_branch"


def empty_cache(graph_inputs: Iterable[Any]) -> dict[str, Array]:
    """Return an empty cache of one item, float32 (heads, 0, size) by input name; empty for a graph without a cache.

    Args:
        graph_inputs: those of an onnxruntime session, or of an ONNX graph.
    """
    return {
        value.name: np.empty(_item_shape(value), dtype=np.float32)
        for value in graph_inputs
        if value.name.startswith(PAST)
    }


def _item_shape(value: Any) -> tuple[int, ...]:
    """Return the shape of a graph's input without its batch axis; 0 for an axis that is open."""
    if hasattr(value, "shape"):
        return tuple(size if isinstance(size, int) else 0 for size in value.shape[1:])
    return tuple(size.dim_value for size in value.type.tensor_type.shape.dim[1:])


def with_empty_cache(inputs: ModelInputs, graph_inputs: Iterable[Value]) -> ModelInputs:
    """Return the inputs with an empty cache in each item, where the graph takes one."""
    cache = empty_cache(graph_inputs)
    return replace(inputs, items=[{**item, **cache} for item in inputs.items]) if cache else inputs


def continue_from_cache(session: Session, feed: Mapping[str, Array], middle: int | None = None) -> dict[str, Array]:
    """Return a feed of the second half of another's tokens, with the cache that the first half leaves behind.

    The second half begins in the middle, or behind so many tokens.
    """
    middle = fed_length(feed) // 2 if middle is None else middle
    axes = {TOKENS: 1, MASK: -1, POSITIONS: -1, EMBEDDINGS: 1, TOKEN_KINDS: -1}
    new = (TOKENS, POSITIONS, EMBEDDINGS)

    def part(name: str, places: slice) -> Array:
        return feed[name][(*[slice(None)] * (axes[name] % feed[name].ndim), places)]

    first = {name: part(name, slice(middle)) if name in axes else values for name, values in feed.items()}
    past = [name for name in feed if name.startswith(PAST)]
    present = session.run([PRESENT + name.removeprefix(PAST) for name in past], first)
    rest = {name: part(name, slice(middle, None)) for name in feed if name in new}
    return {**feed, **rest, **dict(zip(past, present, strict=True))}


def fed_length(feed: Mapping[str, Array]) -> int:
    """Return how many tokens, or vectors in their place, a decoder is fed."""
    return int(feed[TOKENS if TOKENS in feed else EMBEDDINGS].shape[1])


def has_cache(model: Any) -> bool:
    """Tell whether an ``onnx.ModelProto`` goes on from a cache of keys and values."""
    return any(value.name.startswith(PAST) for value in model.graph.input)


def decoder_feed(tokens: Array, length: int, names: Iterable[str]) -> dict[str, Array]:
    """Return those inputs of a decoder that are in ``names``, all int64, but for the cache.

    Args:
        tokens: int64 (batch, tokens), none of them padding.
        length: how many tokens of each text are in the cache.
        names: of the decoder's inputs.
    """
    end = length + tokens.shape[1]
    feed = {
        TOKENS: tokens,
        MASK: np.ones((len(tokens), end), dtype=np.int64),
        POSITIONS: np.arange(length, end)[None].repeat(len(tokens), axis=0),
    }
    return {name: feed[name] for name in names if name in feed}


def generate_greedily(session: Session, prompt: Array, count: int = NEW_TOKENS, use_cache: bool = True) -> list[int]:
    """Return the ``count`` tokens that a decoder finds likeliest after a prompt, int64 (tokens,), one after another.

    No token ends the text. Without the cache, the whole text is run again for each token.
    """
    names = [value.name for value in session.get_inputs()]
    past = {name: values[None] for name, values in empty_cache(session.get_inputs()).items()}
    outputs = ["logits", *(PRESENT + name.removeprefix(PAST) for name in past if use_cache)]
    fed, made = prompt, []
    for length in range(len(prompt), len(prompt) + count):
        known = decoder_feed(fed[None], length - len(fed), names)
        logits, *present = session.run(outputs, known | past)
        made.append(int(logits[0, -1].argmax()))
        token = np.array(made[-1:], dtype=np.int64)
        if use_cache:
            past = dict(zip(past, present, strict=True))
            fed = token
        else:
            fed = np.concatenate([fed, token])
    return made


def matched_share(expected: Sequence[int], actual: Sequence[int]) -> float:
    """Return the share of the expected tokens that come before the first other one."""
    same = np.asarray(expected) == np.asarray(actual)
    return float(same.argmin() / len(same)) if not same.all() else 1.0


def measure_generation(generate: Callable[[int, int, bool], list[int]], expected: Mapping[int, Sequence[int]]) -> float:
    """Return how much of what PyTorch generates a model generates too, with its cache or without, the lower mean.

    Args:
        generate: takes the number of an input, how many tokens, and whether to use the cache.
        expected: PyTorch's tokens, by the number of the input.
    """

    def mean_share(use_cache: bool) -> float:
        made = {index: generate(index, len(tokens), use_cache) for index, tokens in expected.items()}
        return float(np.mean([matched_share(tokens, made[index]) for index, tokens in expected.items()]))

    return min(mean_share(True), mean_share(False))
