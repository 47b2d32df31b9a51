"""Writing texts token by token in the runtimes that a benchmark times: a prompt is read, then each step adds a token.

The likeliest token comes next and none ends a text. All texts of a batch have the same length, and none has padding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxproof.graph.generation import decoder_feed, empty_cache
from onnxproof.graph.metadata import SHARE_BUFFER
from onnxproof.inputs.model_inputs import MASK, POSITIONS, TOKENS
from onnxproof.inputs.prompts import PAST, PRESENT

Array = NDArray[Any]


@dataclass(frozen=True)
class Text:
    """A batch of texts: the cache holds ``length`` tokens of each, ``token``, int64 (batch, 1), comes after them."""

    token: Array
    cache: Any
    length: int


class Writer(Protocol):
    """A decoder with its cache of keys and values. What it is given may share memory with what it returns."""

    def read(self, prompt: Array) -> Text:
        """Return the text after a prompt, int64 (batch, tokens)."""

    def step(self, text: Text) -> Text:
        """Return the text with one more token in the cache, and the token after it."""

    def repeat(self, text: Text, batch: int) -> Text:
        """Return ``batch`` copies of the one text of a batch."""

    def cut(self, text: Text, length: int) -> Text:
        """Return the text with the first ``length`` tokens in the cache; its next token stays."""


class OnnxWriter:
    """A graph that takes ``past_key_values.…`` and gives ``present.…``, see ``graph.generation``.

    The cache stays in onnxruntime's own memory from step to step; each step gives a new one.
    """

    def __init__(self, session: Any) -> None:
        """Take an onnxruntime session of a graph for which ``can_write``."""
        self.session = session
        self.names = _own_inputs(session)
        self.empty = empty_cache(session.get_inputs())
        self.outputs = ["logits", *map(_present, self.empty)]

    def read(self, prompt: Array) -> Text:
        """See ``Writer``."""
        cache = {name: heads[None].repeat(len(prompt), 0) for name, heads in self.empty.items()}
        return self._run(prompt, _values(cache), 0)

    def step(self, text: Text) -> Text:
        """See ``Writer``."""
        return self._run(text.token, text.cache, text.length)

    def repeat(self, text: Text, batch: int) -> Text:
        """See ``Writer``."""
        cache = _values({name: value.numpy().repeat(batch, 0) for name, value in text.cache.items()})
        return Text(text.token.repeat(batch, 0), cache, text.length)

    def cut(self, text: Text, length: int) -> Text:
        """See ``Writer``."""
        cache = _values({name: value.numpy()[:, :, :length] for name, value in text.cache.items()})
        return Text(text.token, cache, length)

    def _run(self, tokens: Array, cache: dict[str, Any], length: int) -> Text:
        fed = _values(decoder_feed(tokens, length, self.names))
        logits, *present = self.session.run_with_ort_values(self.outputs, fed | cache)
        return Text(_likeliest(logits.numpy()), dict(zip(cache, present, strict=True)), length + tokens.shape[1])


@dataclass(frozen=True)
class Buffers:
    """A cache that a graph writes into, by the names of its inputs: float32 (batch, heads, room, size).

    ``binding``, onnxruntime's, has them as inputs and as outputs.
    """

    arrays: dict[str, Array]
    binding: Any


class InPlaceWriter:
    """A graph whose metadata says ``past_present_share_buffer``: it writes new keys and values into its cache.

    The cache is one buffer with room for more tokens. It is bound once, so that a step only binds its token.
    """

    #: A new buffer has room for so many more tokens.
    ROOM = 128
    #: So many tokens of a prompt are read at once. The graph gives the logits of all tokens that it reads, and only
    #: those of the last one are needed: parts take less memory, and what a product reads and gives stays in the CPU's
    #: cache. For several new tokens behind a cache, the graph takes one text.
    PART = 64

    def __init__(self, session: Any, vocabulary: int) -> None:
        """Take an onnxruntime session of such a graph, for which ``can_write``, and how many logits a token has."""
        self.session, self.vocabulary = session, vocabulary
        self.names = _own_inputs(session)
        self.empty = empty_cache(session.get_inputs())
        #: Where the last logits are: float32 (batch, tokens, vocabulary), and onnxruntime's view of that memory.
        self.logits: tuple[Array, Any] | None = None

    def read(self, prompt: Array) -> Text:
        """See ``Writer``."""
        texts, length = prompt.shape
        text = Text(prompt, self._buffers(texts, length), 0)
        part = self.PART if texts == 1 else length
        for start in range(0, length, part):
            text = self._run(prompt[:, start : start + part], text.cache, start)
        return text

    def step(self, text: Text) -> Text:
        """See ``Writer``."""
        room = next(array.shape[2] for array in text.cache.arrays.values())
        cache = text.cache if text.length < room else self._copied(text, len(text.token))
        return self._run(text.token, cache, text.length)

    def repeat(self, text: Text, batch: int) -> Text:
        """See ``Writer``."""
        return Text(text.token.repeat(batch, 0), self._copied(text, batch), text.length)

    def cut(self, text: Text, length: int) -> Text:
        """See ``Writer``: what stands behind ``length`` in a buffer is not read."""
        return replace(text, length=length)

    def _run(self, tokens: Array, cache: Buffers, length: int) -> Text:
        for name, array in decoder_feed(tokens, length, self.names).items():
            cache.binding.bind_cpu_input(name, np.ascontiguousarray(array))
        logits, value = self._logits_of(tokens)
        cache.binding.bind_ortvalue_output("logits", value)
        self.session.run_with_iobinding(cache.binding)
        return Text(_likeliest(logits), cache, length + tokens.shape[1])

    def _logits_of(self, tokens: Array) -> tuple[Array, Any]:
        """Return memory for the logits of tokens, which one step after another uses."""
        from onnxruntime import OrtValue

        shape = (*tokens.shape, self.vocabulary)
        if self.logits is None or self.logits[0].shape != shape:
            self.logits = None  # before the next one is taken
            array = np.empty(shape, np.float32)
            self.logits = array, OrtValue.ortvalue_from_numpy(array)
        return self.logits

    def _buffers(self, batch: int, length: int) -> Buffers:
        """Return empty buffers for ``length`` tokens of each text, and ``ROOM`` more."""
        arrays = {
            name: np.zeros((batch, len(heads), length + self.ROOM, heads.shape[2]), np.float32)
            for name, heads in self.empty.items()
        }
        binding = self.session.io_binding()
        for name, value in _values(arrays).items():
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(_present(name), value)
        return Buffers(arrays, binding)

    def _copied(self, text: Text, batch: int) -> Buffers:
        """Return new buffers with the tokens of a text, or of the one text of a batch for ``batch`` texts."""
        buffers = self._buffers(batch, text.length + 1)
        for name, array in buffers.arrays.items():
            array[:, :, : text.length] = text.cache.arrays[name][:, :, : text.length]
        return buffers


def make_onnx_writer(session: Any) -> Writer:
    """Return what writes with an onnxruntime session of a graph for which ``can_write``.

    A graph that does not say how large its vocabulary is has its cache copied.
    """
    (vocabulary,) = (value.shape[-1] for value in session.get_outputs() if value.name == "logits")
    in_place = session.get_modelmeta().custom_metadata_map.get(SHARE_BUFFER) == "true"
    return InPlaceWriter(session, vocabulary) if in_place and isinstance(vocabulary, int) else OnnxWriter(session)


def _own_inputs(session: Any) -> list[str]:
    """Return the names of a session's inputs, without those of its cache."""
    return [value.name for value in session.get_inputs() if not value.name.startswith(PAST)]


def _present(past: str) -> str:
    """Return the name of the output that is the cache of an input, one step later."""
    return PRESENT + past.removeprefix(PAST)


def _likeliest(logits: Array) -> Array:
    """Return the likeliest token after each text, int64 (batch, 1), from float (batch, tokens, vocabulary)."""
    return np.asarray(logits[:, -1:].argmax(axis=2))


def _values(arrays: dict[str, Array]) -> dict[str, Any]:
    from onnxruntime import OrtValue

    return {
        name: OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array, array.dtype)) for name, array in arrays.items()
    }


def can_write(session: Any) -> bool:
    """Tell whether a session is one graph that goes on with texts from its cache, fed by tokens alone."""
    inputs = {value.name: value for value in session.get_inputs()}
    own = set(_own_inputs(session))
    is_plain = TOKENS in own and own <= {TOKENS, MASK, POSITIONS}
    return len(own) < len(inputs) and is_plain and all(len(inputs[name].shape) == 2 for name in own)


class TorchWriter:
    """A model of transformers with the cache that it makes itself, called as its ``generate`` calls it."""

    def __init__(self, predict: Callable[[Any], Any], prepare: Callable[[Any], Any], arguments: Sequence[str]) -> None:
        """Take how the model is called, how arrays become its inputs, and which arguments it has.

        ``generate`` wants the logits of the last token alone where the model can leave out the others.
        """
        self.predict, self.prepare = predict, prepare
        self.cache = "cache" if "cache" in arguments else "past_key_values"  # the second in code of a model's own
        self.settings = {"use_cache": True} | ({"logits_to_keep": 1} if "logits_to_keep" in arguments else {})

    def read(self, prompt: Array) -> Text:
        """See ``Writer``."""
        text = self._run(prompt, None, 0)
        text.cache.activate_past_recording()  # else what has left a sliding window could not come back, see ``cut``
        return text

    def step(self, text: Text) -> Text:
        """See ``Writer``."""
        return self._run(text.token, text.cache, text.length)

    def repeat(self, text: Text, batch: int) -> Text:
        """See ``Writer``."""
        text.cache.batch_repeat_interleave(batch)
        return replace(text, token=text.token.repeat(batch, 0))

    def cut(self, text: Text, length: int) -> Text:
        """See ``Writer``."""
        text.cache.crop(length - text.length)
        return replace(text, length=length)

    def _run(self, tokens: Array, cache: Any, length: int) -> Text:
        features = self.prepare(decoder_feed(tokens, length, [TOKENS, MASK]))
        outputs = self.predict({**features, self.cache: cache, **self.settings})
        token = outputs["logits"][:, -1:].argmax(-1).numpy()
        return Text(token, outputs[self.cache], length + tokens.shape[1])
