"""An encoder-decoder in three graphs, run as if it were one: onnxruntime and NumPy alone.

``encoder_model.onnx`` reads the input once, ``decoder_model.onnx`` starts a text and leaves the cache of keys and
values, ``decoder_with_past_model.onnx`` goes on from that, one token at a time. The names are Optimum's. Of a decoder
without a cache there are two. ``decoder_model_merged.onnx`` is the two decoders in one file, see ``merged_decoder``.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.graph.files import (
    DECODER_FILE,
    DECODER_WITH_PAST_FILE,
    ENCODER_FILE,
    MERGED_FILE,
    MODEL_FILE,
    VISION_FILE,
    VISION_LANGUAGE_FILES,
    graph_files,
)
from onnxproof.graph.generation import USE_CACHE, empty_cache, generate_greedily
from onnxproof.graph.sessions import Session, Value, open_session
from onnxproof.graph.vision_language import VisionLanguage, feed_of, read_image_token
from onnxproof.inputs.model_inputs import DECODER_TOKENS, MASK, TOKENS, ModelInputs
from onnxproof.inputs.prompts import NEW_TOKENS, PAST, PRESENT

Array = NDArray[Any]
Feed = Mapping[str, Array]

HIDDEN_STATES, ENCODER_MASK = "encoder_hidden_states", "encoder_attention_mask"


class EncoderDecoder:
    """The sessions of the three graphs; ``run`` takes the encoder's inputs and ``decoder_input_ids``."""

    def __init__(self, encoder: Session, decoder: Session, decoder_with_past: Session | None = None) -> None:
        """Take the sessions of the graphs."""
        self.encoder, self.decoder, self.decoder_with_past = encoder, decoder, decoder_with_past

    def get_inputs(self) -> list[Value]:
        """Return the inputs of the encoder and the decoder's tokens, as a session does."""
        tokens: Any = SimpleNamespace(
            name=DECODER_TOKENS, type="tensor(int64)", shape=["batch_size", "decoder_sequence"]
        )
        return [*self.encoder.get_inputs(), tokens]

    def get_outputs(self) -> list[Value]:
        """Return the outputs of the first decoder."""
        return list(self.decoder.get_outputs())

    def run(self, names: Sequence[str] | None, feed: Feed) -> list[Array]:
        """Return outputs of the first decoder, all of them for None, after its tokens in ``feed``."""
        state = self.encode(feed)
        return list(self.decoder.run(names, feed_of(self.decoder, state | written(feed[DECODER_TOKENS]))))

    def encode(self, feed: Feed) -> dict[str, Array]:
        """Return what every decoder reads: the encoder's vectors, (batch, tokens, size), and their mask."""
        (vectors,) = self.encoder.run(["last_hidden_state"], feed_of(self.encoder, feed))
        return {HIDDEN_STATES: vectors} | ({ENCODER_MASK: feed[MASK]} if MASK in feed else {})

    def start(self, state: Feed, tokens: Array) -> tuple[Array, dict[str, Array]]:
        """Return the logits after (batch, tokens), and the cache, by the names under which it is fed."""
        return _logits_and_cache(self.decoder, {**state, **written(tokens)})

    def generate(self, feed: Feed, count: int = NEW_TOKENS, use_cache: bool = True) -> list[int]:
        """Return the ``count`` likeliest tokens of one item, one after another; none ends the text.

        The first of ``decoder_input_ids`` starts it. Without the cache, all tokens are run again for each new one.
        """
        state, tokens = self.encode(feed), feed[DECODER_TOKENS][:, :1]
        past: dict[str, Array] = {}
        for _ in range(count):
            if past and self.decoder_with_past is not None:
                values = {**state, **past, **written(tokens), TOKENS: tokens[:, -1:]}
                logits, present = _logits_and_cache(self.decoder_with_past, values)
            else:
                logits, present = self.start(state, tokens)
            if use_cache and self.decoder_with_past is not None:
                past |= present  # what comes from the encoder stays as it was
            tokens = np.hstack([tokens, logits[:, -1:].argmax(axis=2)])
        return [int(token) for token in tokens[0, -count:]]


class Branch:
    """One branch of a merged decoder's session, run as if it were a session of a decoder of its own."""

    def __init__(self, session: Session, use_cache: bool) -> None:
        """Take a session of a merged decoder, and which of its branches to run."""
        self.session, self.use_cache = session, use_cache

    def get_inputs(self) -> list[Value]:
        """Return the inputs that the branch reads."""
        unread = USE_CACHE if self.use_cache else (USE_CACHE, PAST)
        return [value for value in self.session.get_inputs() if not value.name.startswith(unread)]

    def get_outputs(self) -> list[Value]:
        """Return the outputs that the branch makes."""
        return [value for value in self.session.get_outputs() if not (self.use_cache and ".encoder." in value.name)]

    def run(self, names: Sequence[str] | None, feed: Feed) -> list[Array]:
        """Return outputs of the branch, all of them for None."""
        empty = {name: values[None] for name, values in empty_cache(self.session.get_inputs()).items()}
        names = [value.name for value in self.get_outputs()] if names is None else names
        return list(self.session.run(names, {**empty, **feed, USE_CACHE: np.array([self.use_cache])}))


def written(tokens: Array) -> dict[str, Array]:
    """Return what a decoder is fed of a text, int64 (batch, tokens): these, and a mask that tells all from padding."""
    return {TOKENS: tokens, MASK: np.ones_like(tokens)}


def _logits_and_cache(session: Session, values: Feed) -> tuple[Array, dict[str, Array]]:
    names = [value.name for value in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, feed_of(session, values)), strict=True))
    cache = {PAST + name.removeprefix(PRESENT): outputs[name] for name in names if name.startswith(PRESENT)}
    return outputs["logits"], cache


def open_variant(folder: Path, threads: int) -> Session:
    """Open an ONNX folder: a session of its one graph, or those of several, run as if they were one."""
    return open_graphs(files_of_variant(folder), folder, partial(open_session, threads=threads))


def files_of_variant(folder: Path) -> dict[str, Path]:
    """Return the files of an ONNX folder's graphs by the names in ``graph_files``."""
    return {name: folder / name for name in graph_files(folder) or [MODEL_FILE]}


def open_merged(
    files: Mapping[str, Path], open_graph: Callable[[Path], Session], separate: Session
) -> EncoderDecoder | None:
    """Open a merged decoder beside the encoder that ``open_graphs`` opened; None where there is none."""
    if MERGED_FILE not in files or not isinstance(separate, EncoderDecoder):
        return None
    decoder = open_graph(files[MERGED_FILE])
    return EncoderDecoder(separate.encoder, Branch(decoder, False), Branch(decoder, True))


def open_graphs(files: Mapping[str, Path], folder: Path, open_graph: Callable[[Path], Session]) -> Session:
    """Return what ``open_graph`` makes of a model's one graph, or a model of what it makes of each of several.

    Args:
        files: the graphs by the names in ``graph_files``. In a release, files have other names than their graphs.
        folder: where the model's ``config.json`` is.
        open_graph: takes the path of one graph.
    """
    if VISION_FILE in files:
        vision, embedding, decoder = (open_graph(files[name]) for name in VISION_LANGUAGE_FILES)
        return VisionLanguage(vision, embedding, decoder, read_image_token(folder))
    if ENCODER_FILE not in files:
        return open_graph(files[MODEL_FILE])
    names = (ENCODER_FILE, DECODER_FILE, DECODER_WITH_PAST_FILE)
    return EncoderDecoder(*(open_graph(files[name]) for name in names if name in files))


def generate_after(session: Session, inputs: ModelInputs, index: int, count: int, use_cache: bool) -> list[int]:
    """Return the likeliest ``count`` tokens after one of the inputs, of any kind of model."""
    if isinstance(session, EncoderDecoder | VisionLanguage):
        names = [value.name for value in session.get_inputs()]
        return session.generate(inputs.feed([index], names), count, use_cache)
    return generate_greedily(session, inputs.items[index][TOKENS], count, use_cache)
