"""An encoder-decoder in graphs under other people's names, run as if they were Optimum's.

Besides Optimum's graphs, there are those of onnxruntime-genai and of onnxruntime's own converters: an encoder that
leaves the keys and values of the cross-attention, and one decoder that takes these and a cache that is empty at first.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from onnxproof.audit.alignment import INPUT_NAMES, TOKEN_VECTORS, TYPES, NotAlignedError, as_float, listed, plain_name
from onnxproof.graph.encoder_decoder import ENCODER_MASK, HIDDEN_STATES, Branch, EncoderDecoder, Feed
from onnxproof.graph.files import DECODER_FILE, DECODER_WITH_PAST_FILE, ENCODER_FILE, MERGED_FILE
from onnxproof.graph.generation import USE_CACHE, empty_cache
from onnxproof.graph.sessions import Session, Value, open_session
from onnxproof.graph.vision_language import feed_of
from onnxproof.inputs.model_inputs import DECODER_TOKENS, MASK, TOKENS
from onnxproof.inputs.prompts import PAST, PRESENT
from onnxproof.parity.measure import Sessions

Array = NDArray[Any]

DECODER_INPUTS = {
    TOKENS: ("input_ids", "decoder_input_ids"),
    MASK: ("attention_mask", "decoder_attention_mask"),
    HIDDEN_STATES: ("encoder_hidden_states", "encoder_last_hidden_state", "encoder_outputs", "hidden_states"),
    ENCODER_MASK: ("encoder_attention_mask", "encoder_mask"),
    USE_CACHE: (USE_CACHE,),
}
#: The cache of an encoder-decoder: the side, the layer, whose keys and values, and which of the two.
CACHES = (
    re.compile(r"(?P<side>past|present)(_key_values)?[._](?P<layer>\d+)[._](?P<of>\w+)[._](?P<part>key|value)s?"),
    re.compile(r"(?P<side>past|present)_(?P<part>key|value)s?_(?P<of>self|cross)_(?P<layer>\d+)"),
)
ATTENTIONS = {"self": "decoder", "decoder": "decoder", "cross": "encoder", "encoder": "encoder"}


class RenamedSession:
    """A session of one graph of several, whose inputs and outputs have Optimum's names, int64 and float32."""

    def __init__(self, session: Session, names: Mapping[str, str]) -> None:
        """Take a session, and Optimum's name for each of its inputs and outputs."""
        self.session, self.names = session, names
        self.theirs = {names[value.name]: value for value in session.get_inputs()}

    def get_inputs(self) -> list[Value]:
        """Return what it is fed, by Optimum's names."""
        return [self._renamed(value) for value in self.session.get_inputs()]

    def get_outputs(self) -> list[Value]:
        """Return what it makes, by Optimum's names."""
        return [self._renamed(value) for value in self.session.get_outputs()]

    def run(self, names: Sequence[str] | None, feed: Feed, /) -> list[Array]:
        """Return the named outputs, all of them for None, float32."""
        wanted = [value.name for value in self.session.get_outputs()]
        if names is not None:
            theirs = {self.names[name]: name for name in wanted}
            wanted = [theirs[name] for name in names]
        fed = {}
        for ours, values in feed.items():
            value = self.theirs[ours]
            fed[value.name] = values.astype(TYPES.get(value.type, values.dtype), copy=False)
        return [as_float(values) for values in self.session.run(wanted, fed)]

    def _renamed(self, value: Value) -> Value:
        return cast(Value, SimpleNamespace(name=self.names[value.name], type=value.type, shape=value.shape))


class StartingDecoder:
    """A decoder that goes on from a cache, run from an empty one as if it took none."""

    def __init__(self, session: Session) -> None:
        """Take a session of a decoder."""
        self.session = session
        [tokens] = [value for value in session.get_inputs() if value.name == TOKENS]
        self.takes_one_at_a_time = tokens.shape[-1] == 1

    def get_inputs(self) -> list[Value]:
        """Return its inputs without the cache of what it wrote."""
        return [value for value in self.session.get_inputs() if not _is_own_cache(value.name)]

    def get_outputs(self) -> list[Value]:
        """Return its outputs."""
        return list(self.session.get_outputs())

    def run(self, names: Sequence[str] | None, feed: Feed, /) -> list[Array]:
        """Return the named outputs, all of them for None, after all tokens of a feed."""
        tokens = feed[TOKENS]
        own = [value for value in self.session.get_inputs() if _is_own_cache(value.name)]
        past = {name: np.stack([values] * len(tokens)) for name, values in empty_cache(own).items()}
        made = [value.name for value in self.get_outputs()]
        ends = range(1, tokens.shape[1] + 1) if self.takes_one_at_a_time else [tokens.shape[1]]
        logits, outputs, start = [], {}, 0
        for end in ends:
            part = {**feed, **past, TOKENS: tokens[:, start:end]}
            part |= {MASK: feed[MASK][:, :end]} if MASK in feed else {}
            outputs = dict(zip(made, self.session.run(made, part), strict=True))
            logits.append(outputs["logits"])
            past = {name: outputs[PRESENT + name.removeprefix(PAST)] for name in past}
            start = end
        outputs["logits"] = np.concatenate(logits, axis=1)
        return [outputs[name] for name in (made if names is None else names)]


class AlignedEncoderDecoder(EncoderDecoder):
    """An encoder-decoder whose encoder may leave the keys and values of the cross-attention."""

    def encode(self, feed: Feed) -> dict[str, Array]:
        """Return what every decoder reads: the encoder's outputs, and the mask of its inputs."""
        names = [value.name for value in self.encoder.get_outputs()]
        made = dict(zip(names, self.encoder.run(names, feed_of(self.encoder, feed)), strict=True))
        state = {PAST + name.removeprefix(PRESENT): made[name] for name in names if name.startswith(PRESENT)}
        state |= {HIDDEN_STATES: made[TOKEN_VECTORS]} if TOKEN_VECTORS in made else {}
        return state | ({ENCODER_MASK: feed[MASK]} if MASK in feed else {})


def open_encoder_decoder(files: Mapping[str, Path], threads: int, recorded: Iterable[str]) -> Sessions:
    """Open the graphs of an encoder-decoder, and align each.

    Args:
        files: the graphs by the names in ``graph.files``: an encoder, and a decoder or a merged one.
        threads: intra-op threads.
        recorded: the names of the original's inputs.

    Raises:
        NotAlignedError: a graph is missing, or the inputs or outputs of one cannot be told.
    """
    recorded = set(recorded)
    if DECODER_TOKENS not in recorded:
        raise NotAlignedError(f"these are an encoder and a decoder, and the original takes no {DECODER_TOKENS}")
    if ENCODER_FILE not in files:
        raise NotAlignedError("it is a decoder of an encoder-decoder, and there is no encoder beside it")
    if DECODER_FILE not in files and MERGED_FILE not in files:
        raise NotAlignedError("it is an encoder, and there is no decoder beside it that can start a text")
    session = open_session(files[ENCODER_FILE], threads, as_written=False)
    encoder = RenamedSession(session, _names_of_encoder(session, files[ENCODER_FILE].name, recorded))
    decoders = {}
    for file in (DECODER_FILE, DECODER_WITH_PAST_FILE, MERGED_FILE):
        if file in files:
            session = open_session(files[file], threads, as_written=False)
            decoders[file] = RenamedSession(session, _names_of_decoder(session, files[file].name))
    merged = None
    if MERGED_FILE in decoders:
        branches = [Branch(decoders[MERGED_FILE], use_cache) for use_cache in (False, True)]
        merged = AlignedEncoderDecoder(encoder, *branches)
    if DECODER_FILE not in decoders:
        assert merged is not None
        return Sessions(merged)
    first, later = decoders[DECODER_FILE], decoders.get(DECODER_WITH_PAST_FILE)
    if any(_is_own_cache(value.name) for value in first.get_inputs()):
        return Sessions(AlignedEncoderDecoder(encoder, StartingDecoder(first), later or first), merged)
    return Sessions(AlignedEncoderDecoder(encoder, first, later), merged)


def _is_own_cache(name: str) -> bool:
    return name.startswith(PAST) and ".decoder." in name


def _cache_name(name: str) -> str | None:
    """Return Optimum's name of a part of the cache; None for what is none."""
    for pattern in CACHES:
        if (found := pattern.fullmatch(name)) and found["of"] in ATTENTIONS:
            side = PAST if found["side"] == "past" else PRESENT
            return f"{side}{found['layer']}.{ATTENTIONS[found['of']]}.{found['part']}"
    return None


def _names_of_encoder(session: Session, file: str, recorded: set[str]) -> dict[str, str]:
    """Return Optimum's name for each input and output of an encoder."""
    known = {ours: (ours, *INPUT_NAMES.get(ours, ())) for ours in recorded - {DECODER_TOKENS}}
    inputs = {value.name: plain_name(value.name).removeprefix("encoder_") for value in session.get_inputs()}
    names = _names_of(inputs, known, file, "the original's encoder")
    return names | _names_of_outputs(session, TOKEN_VECTORS, file)


def _names_of_decoder(session: Session, file: str) -> dict[str, str]:
    """Return Optimum's name for each input and output of a decoder."""
    inputs = {value.name: plain_name(value.name) for value in session.get_inputs()}
    names = _names_of(inputs, DECODER_INPUTS, file, "a decoder")
    if TOKENS not in names.values():
        raise NotAlignedError(f"{file} takes no token ids: its inputs are {listed(inputs)}")
    found = _names_of_outputs(session, "logits", file)
    if "logits" not in found.values():
        raise NotAlignedError(f"{file} gives no logits: its outputs are {listed(found)}")
    return names | found


def _names_of(inputs: Mapping[str, str], known: Mapping[str, Iterable[str]], file: str, whose: str) -> dict[str, str]:
    """Return Optimum's name for each input, given by its own name and without what tools add to that."""
    found: dict[str, str] = {}
    for name, plain in inputs.items():
        ours = _cache_name(name) or next((ours for ours, names in known.items() if plain in names), None)
        if ours is None:
            raise NotAlignedError(f"{file} takes {name}, which is like no input of {whose}: {listed(sorted(known))}")
        if ours in found.values():
            raise NotAlignedError(f"several inputs of {file} could be {ours}")
        found[name] = ours
    return found


def _names_of_outputs(session: Session, one: str, file: str) -> dict[str, str]:
    """Return Optimum's name for each output: parts of the cache, and one besides."""
    names = [value.name for value in session.get_outputs()]
    found = {name: ours for name in names if (ours := _cache_name(name))}
    others = [name for name in names if name not in found]
    if len(others) > 1:
        same = [name for name in others if plain_name(name) == one]
        if len(same) != 1:
            raise NotAlignedError(f"which output of {file} is {one} cannot be told: {listed(others)}")
        return found | {name: one if name in same else name for name in others}
    return found | dict.fromkeys(others, one)
