"""A model that writes about an image, in three graphs, run as if it were one: onnxruntime and NumPy alone.

``vision_encoder.onnx`` turns the pixels into one vector an image token, ``embed_tokens.onnx`` the tokens of the prompt
into vectors of the same size. The vectors of the image take the places of the prompt's image tokens. What results goes
through ``decoder_model_merged.onnx``, which reads the prompt with an empty cache of keys and values, and the tokens
that follow with the cache that it gave before. The names are those that transformers.js reads.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.cli import UserError
from onnxproof.files import read_json
from onnxproof.graph.generation import empty_cache
from onnxproof.graph.sessions import Session, Value
from onnxproof.inputs.model_inputs import (
    EMBEDDINGS,
    GRAPH_GRID,
    GRID,
    MASK,
    PIXEL_MASK,
    PIXELS,
    POSITIONS,
    TOKEN_KINDS,
    TOKENS,
)
from onnxproof.inputs.prompts import NEW_TOKENS, PAST, PRESENT

Array = NDArray[Any]
Feed = Mapping[str, Array]

IMAGE_FEATURES = "image_features"
#: ``model_type`` → the image token that transformers takes where a configuration names none.
IMAGE_TOKENS = {"gemma3": 262_144, "idefics3": 128_257, "llava": 32_000, "smolvlm": 128_257}
IMAGE_TOKENS |= {"qwen2_vl": 151_655, "qwen2_5_vl": 151_655}


class VisionLanguage:
    """The sessions of the three graphs; ``run`` takes the pixels and the prompt."""

    def __init__(self, vision: Session, embedding: Session, decoder: Session, image_token: int) -> None:
        """Take the sessions of the graphs, and the token that stands for a part of an image."""
        self.vision, self.embedding, self.decoder, self.image_token = vision, embedding, decoder, image_token

    def get_inputs(self) -> list[Value]:
        """Return the inputs of the vision encoder and of the prompt, as a session does.

        The cache is not among them: ``run`` starts with an empty one.
        """
        own = [value for value in self.decoder.get_inputs() if not value.name.startswith((PAST, EMBEDDINGS))]
        images: list[Any] = [
            SimpleNamespace(name=item_name(value.name), type=value.type, shape=value.shape)
            for value in self.vision.get_inputs()
        ]
        return [*images, *self.embedding.get_inputs(), *own]

    def get_outputs(self) -> list[Value]:
        """Return the outputs of the decoder."""
        return list(self.decoder.get_outputs())

    def run(self, names: Sequence[str] | None, feed: Feed) -> list[Array]:
        """Return outputs of the decoder after the prompts in ``feed``, all of them for None."""
        values = {**feed, EMBEDDINGS: self.embed(feed), **self._empty_cache(len(feed[TOKENS]))}
        return list(self.decoder.run(names, feed_of(self.decoder, values)))

    def look(self, feed: Feed) -> Array:
        """Return the vectors of the images in ``feed``, float32 (image tokens, size)."""
        images = dict(feed) | {graph_name(name): array for name, array in feed.items()}
        if PIXEL_MASK in feed:
            images |= without_padding(feed[PIXELS], feed[PIXEL_MASK])
        (features,) = self.vision.run([IMAGE_FEATURES], feed_of(self.vision, images))
        return np.asarray(features.reshape(-1, features.shape[-1]))

    def embed(self, feed: Feed, features: Array | None = None) -> Array:
        """Return the vectors of prompts with those of their images in place, float32 (batch, tokens, size).

        ``features`` are those of the images, where ``look`` has been asked already.
        """
        (vectors,) = self.embedding.run([EMBEDDINGS], {TOKENS: feed[TOKENS]})
        seen = self.look(feed) if features is None else features
        return put_images(vectors, feed[TOKENS] == self.image_token, seen)

    def generate(self, feed: Feed, count: int = NEW_TOKENS, use_cache: bool = True) -> list[int]:
        """Return the ``count`` likeliest tokens after one prompt, one after another; none ends the text.

        Without the cache, the whole text is run again for each token.
        """
        start, after = self._empty_cache(1), next_position(feed)
        state = {name: feed[name] for name in (MASK, POSITIONS, TOKEN_KINDS) if name in feed}
        state |= {EMBEDDINGS: self.embed(feed)}
        past, made = start, list[int]()
        names = [value.name for value in self.get_outputs() if use_cache or not value.name.startswith(PRESENT)]
        for step in range(count):
            values = self.decoder.run(names, feed_of(self.decoder, {**state, **past}))
            outputs = dict(zip(names, values, strict=True))
            made.append(int(outputs["logits"][0, -1].argmax()))
            (vector,) = self.embedding.run([EMBEDDINGS], {TOKENS: np.array([made[-1:]])})
            state = go_on(state, vector, after + step, use_cache)
            if use_cache:
                past = {PAST + name.removeprefix(PRESENT): outputs[name] for name in names if name != "logits"}
        return made

    def _empty_cache(self, batch: int) -> dict[str, Array]:
        cache = empty_cache(self.decoder.get_inputs())
        return {name: np.repeat(values[None], batch, axis=0) for name, values in cache.items()}


def feed_of(session: Session, values: Feed) -> dict[str, Array]:
    """Return those values that a session takes."""
    return {value.name: values[value.name] for value in session.get_inputs() if value.name in values}


def without_padding(pixels: Array, mask: Array) -> dict[str, Array]:
    """Return images in tiles, of all prompts together, without those that are all 0: the graph leaves them out last.

    Args:
        pixels: float32 (batch, images, channels, height, width).
        mask: bool (batch, images, height, width).
    """
    is_real = pixels.any(axis=(2, 3, 4))
    return {PIXELS: pixels[is_real][None], PIXEL_MASK: mask[is_real][None]}


def graph_name(name: str) -> str:
    """Return the name that an input of an item may have in a graph; see ``GRAPH_GRID``."""
    return GRAPH_GRID if name == GRID else name


def item_name(name: str) -> str:
    """Return the name that an input of a graph has in an item."""
    return GRID if name == GRAPH_GRID else name


def put_images(vectors: Array, places: Array, features: Array) -> Array:
    """Return the vectors of prompts with those of images in their places, one after another.

    Args:
        vectors: float32 (batch, tokens, size).
        places: bool (batch, tokens), as many as there are features.
        features: float32 (image tokens, size).
    """
    joined = vectors.copy()
    joined[places] = features
    return joined


def next_position(feed: Feed) -> int:
    """Return the position of the first token after a prompt: after its largest, which an image may hold back."""
    return int(feed[POSITIONS].max()) + 1 if POSITIONS in feed else feed[TOKENS].shape[-1]


def go_on(state: Feed, vector: Array, position: int, use_cache: bool) -> dict[str, Array]:
    """Return what the decoder is fed for one token more: that one alone, with a cache, else the whole text."""
    after = {MASK: 1, POSITIONS: position, TOKEN_KINDS: 0}
    longer = {
        name: np.concatenate([state[name], np.full_like(state[name][..., :1], value)], axis=-1)
        for name, value in after.items()
        if name in state
    }
    if not use_cache:
        return longer | {EMBEDDINGS: np.concatenate([state[EMBEDDINGS], vector], axis=1)}
    return longer | {EMBEDDINGS: vector} | ({POSITIONS: longer[POSITIONS][..., -1:]} if POSITIONS in longer else {})


def read_image_token(folder: Path) -> int:
    """Return the token that stands for a part of an image, from a model's ``config.json``.

    A configuration that keeps the default of its model type may leave it out.

    Raises:
        UserError: it names none.
    """
    config = read_json(folder / "config.json")
    named = [config.get(name) for name in ("image_token_id", "image_token_index")]
    token = next((token for token in named if isinstance(token, int)), IMAGE_TOKENS.get(config.get("model_type")))
    if token is None:
        raise UserError(f"{folder / 'config.json'}: names no image_token_id, which stands for images in a prompt")
    return token
