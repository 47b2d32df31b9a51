"""A graph under other people's names, run as if its inputs and outputs had the original's.

Names are compared first, then shapes where only one output can be meant. What cannot be told is said to be so: a wrong
guess would blame a file for what it does not do.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.checkpoint.problem import ProblemError
from onnxproof.checkpoint.reading import Checkpoint, Module
from onnxproof.checkpoint.sentence import pooling_modes
from onnxproof.cli import UserError
from onnxproof.graph.sessions import Session, Value
from onnxproof.inputs.model_inputs import MASK, POSITIONS, TOKENS, ModelInputs
from onnxproof.inputs.prompts import PAST, PRESENT
from onnxproof.records.audit import Alignment

Array = NDArray[Any]

#: How others name the inputs of text models: tf2onnx, hand-made exports, Windows ML, older tools of onnxruntime.
INPUT_NAMES = {
    TOKENS: ("input_ids", "inputs", "input", "ids", "tokens", "token_ids", "input_word_ids"),
    MASK: ("attention_mask", "input_mask", "mask", "attn_mask"),
    "token_type_ids": ("token_type_ids", "segment_ids", "token_types", "input_type_ids", "type_ids"),
    POSITIONS: ("position_ids", "positions"),
    "pixel_values": ("pixel_values", "pixels", "images", "image"),
    "input_values": ("input_values", "audio", "waveform"),
    "input_features": ("input_features", "audio_features", "mel"),
}
OUTPUT_NAMES = {
    "last_hidden_state": ("last_hidden_state", "token_embeddings", "hidden_states", "last_hidden_states"),
    "sentence_embedding": ("sentence_embedding", "sentence_embeddings", "embeddings", "embedding", "text_embeds"),
    "logits": ("logits", "scores"),
    "start_logits": ("start_logits", "output_start_logits"),
    "end_logits": ("end_logits", "output_end_logits"),
}
TOKEN_VECTORS, TEXT_VECTORS = "last_hidden_state", "sentence_embedding"
#: Outputs that have the shape of another, and are none that is compared.
OTHER_OUTPUTS = ("pooler_output", "cls", "probabilities", "hidden_states.")
#: The cache of keys and values: the layer, and which of the two.
CACHES = (
    re.compile(r"(?P<side>past|present)(_key_values)?[._](?P<layer>\d+)[._](decoder[._])?(?P<part>key|value)s?"),
    re.compile(r"(?P<side>past|present)_(?P<part>key|value)s?[._](?P<layer>\d+)"),
)
TYPES = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
}
MADE = "made "


class NotAlignedError(UserError):
    """Names and shapes of a graph do not tell what it takes, or what it gives."""


class AlignedSession:
    """A session whose inputs and outputs have the original's names and types: int64 in, float32 out."""

    def __init__(self, session: Session, inputs: ModelInputs, outputs: Mapping[str, Array], modules: Sequence[Module]):
        """Align a session.

        Args:
            session: of the graph.
            inputs: those that were recorded of the original.
            outputs: what the original answers to the first of them, by name.
            modules: those of the sentence-transformer that the repository, or else the original, is; empty for others.

        Raises:
            NotAlignedError: an input or an output cannot be told.
            UserError: the graph cannot be run on the first input.
        """
        self.session = session
        if any(value.name == "sequences" for value in session.get_outputs()):
            raise NotAlignedError("it writes whole texts itself, so that there are no logits to compare")
        self.types = {value.name: value.type for value in session.get_inputs()}
        known = inputs.items[0].keys() | inputs.shared.keys()
        self.fed = _align_inputs(session.get_inputs(), known)
        self.modules = modules
        self.given: dict[str, str] = {}
        self.computed: dict[str, str] = {}
        self.given = _align_outputs(self, inputs, outputs)
        if TEXT_VECTORS in outputs.keys() - self.given.keys() and TOKEN_VECTORS in self.given:
            self.computed[TEXT_VECTORS] = _pooled_by(modules)
        missing = outputs.keys() - self.given.keys() - self.computed.keys()
        if TEXT_VECTORS in self.given:
            missing -= {TOKEN_VECTORS}  # whoever takes the vectors of texts needs none of tokens
        if missing:
            raise NotAlignedError(
                f"none of its outputs ({listed(value.name for value in session.get_outputs())}) can be told to be the "
                f"original's {listed(sorted(missing))}"
            )

    def get_inputs(self) -> list[Value]:
        """Return what it is fed, by the original's names."""
        shapes = {value.name: value.shape for value in self.session.get_inputs()}
        found: list[Any] = [
            SimpleNamespace(name=ours, type=self.types[theirs], shape=shapes[theirs])
            for theirs, ours in self.fed.items()
            if not ours.startswith(MADE)
        ]
        if MASK not in self.fed.values() and (self.computed or any(map(_is_made, self.fed.values()))):
            found.append(SimpleNamespace(name=MASK, type="tensor(int64)", shape=[None, None]))
        return found

    def get_outputs(self) -> list[Value]:
        """Return what it makes, by the original's names."""
        caches = [ours for ours in map(_cache_name, (value.name for value in self.session.get_outputs())) if ours]
        names = [*self.given, *self.computed, *caches]
        return [SimpleNamespace(name=name, type="tensor(float)", shape=[]) for name in names]

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Array], /) -> list[Array]:
        """Return the named outputs, all of them for None, float32."""
        names = [value.name for value in self.get_outputs()] if names is None else names
        theirs = {ours: name for value in self.session.get_outputs() if (ours := _cache_name(name := value.name))}
        theirs |= self.given
        asked = [theirs[name] for name in names if name in theirs]
        if self.computed and (hidden := self.given[TOKEN_VECTORS]) not in asked:
            asked.append(hidden)
        made = dict(zip(asked, self.session.run(asked, self._feed(feed)), strict=True))
        made = {name: as_float(values) for name, values in made.items()}
        found = {name: made[theirs[name]] for name in names if name in theirs}
        for name in names:
            if name in self.computed:
                found[name] = pool(made[self.given[TOKEN_VECTORS]], feed[MASK], self.modules)
        return [found[name] for name in names]

    def _feed(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        fed = {}
        for theirs, ours in self.fed.items():
            values = _made_positions(feed) if ours.startswith(MADE) else feed[ours]
            fed[theirs] = values.astype(TYPES.get(self.types[theirs], values.dtype), copy=False)
        return fed

    @property
    def alignment(self) -> Alignment:
        """Return which names stand for which."""
        return {"inputs": dict(self.fed), "outputs": self.given | self.computed}


def _is_made(name: str) -> bool:
    return name.startswith(MADE)


def listed(names: Iterable[str]) -> str:
    """Return the first four of some names in words, and how many more there are."""
    names = list(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _cache_name(name: str) -> str | None:
    """Return the name that a part of the cache has here; None for what is none."""
    for pattern in CACHES:
        if found := pattern.fullmatch(name):
            side = PAST if found["side"] == "past" else PRESENT
            return f"{side}{found['layer']}.{found['part']}"
    return None


def plain_name(name: str) -> str:
    """Return a name without what TensorFlow and wrappers add to it, such as ``:0`` and ``model/``."""
    return re.sub(r":\d+$", "", name).rpartition("/")[2].lower()


def _align_inputs(values: Sequence[Value], known: Iterable[str]) -> dict[str, str]:
    """Return the original's name for each input of a graph."""
    known, found, unknown = set(known), {}, []
    for value in values:
        cache = _cache_name(value.name)
        same = [ours for ours, names in INPUT_NAMES.items() if plain_name(value.name) in names]
        if value.name in known:
            found[value.name] = value.name
        elif cache is not None:
            found[value.name] = cache
        elif same and same[0] in known:
            found[value.name] = same[0]
        elif same == [POSITIONS] and TOKENS in known:
            found[value.name] = f"{MADE}{POSITIONS}"
        else:
            unknown.append(value.name)
    if unknown == [value.name for value in values] and len(unknown) == 1 and len(known - {MASK, "token_type_ids"}) == 1:
        found[unknown.pop()] = (known - {MASK, "token_type_ids"}).pop()  # its only input can be nothing else
    if unknown:
        raise NotAlignedError(f"the original has no input like {listed(unknown)}; it takes {listed(sorted(known))}")
    if twice := [name for name in found.values() if list(found.values()).count(name) > 1]:
        raise NotAlignedError(f"several of its inputs could be {twice[0]}")
    return found


def _align_outputs(session: AlignedSession, inputs: ModelInputs, outputs: Mapping[str, Array]) -> dict[str, str]:
    """Return the graph's name for each output of the original that it has."""
    own = [value.name for value in session.session.get_outputs()]
    found = {}
    for ours in outputs:
        names = OUTPUT_NAMES.get(ours, (ours,))
        same = [name for name in own if name == ours] or [name for name in own if plain_name(name) in names]
        if len(same) == 1:
            found[ours] = same[0]
    left = [name for name in own if name not in found.values() and _cache_name(name) is None]
    left = [name for name in left if not plain_name(name).startswith(OTHER_OUTPUTS)]
    if not left or len(found) == len(outputs):
        return found
    shapes = _shapes_of(session, inputs, left)
    for ours in sorted(outputs.keys() - found.keys(), key=lambda name: name != TOKEN_VECTORS):
        if ours == TEXT_VECTORS and TOKEN_VECTORS in found:
            continue  # a BERT's pooler gives that shape too, under any name; what is pooled from tokens is certain
        wanted = outputs[ours].shape
        alike = [name for name, shape in shapes.items() if shape == wanted]
        rivals = [name for name in outputs if name not in found and outputs[name].shape == wanted]
        if len(alike) == 1 and len(rivals) == 1:
            found[ours] = alike[0]
    return found


def _shapes_of(session: AlignedSession, inputs: ModelInputs, names: list[str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes, without the batch axis, of what a graph answers to the first input."""
    from onnxproof.graph.generation import with_empty_cache

    fed = [value.name for value in session.get_inputs()]
    with_cache = with_empty_cache(inputs, session.get_inputs())
    made = session.session.run(names, session._feed(with_cache.feed([0], fed)))
    return {name: np.shape(values)[1:] for name, values in zip(names, made, strict=True)}


def as_float(values: Array) -> Array:
    """Return floats of other widths as float32, and anything else as it is."""
    return values.astype(np.float32) if values.dtype in (np.float16, np.float64) else values


def _made_positions(feed: Mapping[str, Array]) -> Array:
    """Return the number of each token among those that are no padding, int64 (batch, tokens), from 0."""
    tokens, mask = feed[TOKENS], feed.get(MASK)
    mask = np.ones_like(tokens) if mask is None else mask
    return np.asarray(np.maximum(mask.cumsum(axis=1) - 1, 0)[:, -tokens.shape[1] :])


# Vectors of texts from vectors of tokens


def _pooled_by(modules: Sequence[Module]) -> str:
    """Return in words how vectors of texts are made; refuse what NumPy alone cannot apply."""
    for module in modules[1:]:
        if module.kind not in ("Pooling", "Normalize", "Dropout"):
            raise NotAlignedError(
                f"it gives vectors of tokens, and vectors of texts need the module {module.kind}, which is not in it"
            )
    modes = [mode for module in modules if module.kind == "Pooling" for mode in pooling_modes(module.config)]
    if not modes:
        raise NotAlignedError("it gives vectors of tokens, and nothing says how those of texts are made of them")
    normalized = any(module.kind == "Normalize" for module in modules)
    return f"last_hidden_state, pooled by {' and '.join(modes)}{', normalized' if normalized else ''}"


def pool(hidden: Array, mask: Array, modules: Sequence[Module]) -> Array:
    """Return vectors of texts, float32 (batch, size), as modules of sentence-transformers make them.

    Args:
        hidden: vectors of tokens, float (batch, tokens, size).
        mask: int64 (batch, tokens), 0 for padding.
        modules: Pooling, and what of Normalize comes behind it.
    """
    weights = mask[..., None].astype(np.float32)
    modes = [mode for module in modules if module.kind == "Pooling" for mode in pooling_modes(module.config)]
    parts = [_POOLINGS[mode](hidden, weights) for mode in modes]
    vectors = np.concatenate(parts, axis=1).astype(np.float32)
    if any(module.kind == "Normalize" for module in modules):
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors


def _mean(hidden: Array, weights: Array) -> Array:
    total: Array = (hidden * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-9)
    return total


def _by_root(hidden: Array, weights: Array) -> Array:
    total: Array = (hidden * weights).sum(axis=1) / np.sqrt(np.maximum(weights.sum(axis=1), 1e-9))
    return total


def _rising(hidden: Array, weights: Array) -> Array:
    return _mean(hidden, weights * np.arange(1, hidden.shape[1] + 1, dtype=np.float32)[None, :, None])


def _first(hidden: Array, weights: Array) -> Array:
    return np.asarray(hidden[np.arange(len(hidden)), weights[..., 0].argmax(axis=1)])


def _last(hidden: Array, weights: Array) -> Array:
    places = hidden.shape[1] - 1 - weights[:, ::-1, 0].argmax(axis=1)
    return np.asarray(hidden[np.arange(len(hidden)), places])


def _largest(hidden: Array, weights: Array) -> Array:
    return np.asarray(np.where(weights > 0, hidden, -np.inf).max(axis=1))


_POOLINGS = {
    "cls": _first,
    "max": _largest,
    "mean": _mean,
    "mean_sqrt_len_tokens": _by_root,
    "weightedmean": _rising,
    "lasttoken": _last,
}


def modules_of(repository: Checkpoint, original: Checkpoint) -> list[Module]:
    """Return the modules that a user of a repository applies: its own, or else the original's."""
    try:
        return repository.modules or original.modules
    except ProblemError:  # a finding of its own
        return original.modules
