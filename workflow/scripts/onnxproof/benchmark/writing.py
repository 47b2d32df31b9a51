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

    The cache stays in onnxruntime's own memory from step to step. Where the graph allows it, both are one buffer with
    room for more tokens.
    """

    #: A new buffer has room for so many more tokens.
    ROOM = 128

    def __init__(self, session: Any) -> None:
        """Take an onnxruntime session of a graph for which ``can_write``."""
        self.session = session
        self.names = [value.name for value in session.get_inputs() if not value.name.startswith(PAST)]
        self.past = [value.name for value in session.get_inputs() if value.name.startswith(PAST)]
        self.outputs = ["logits", *(PRESENT + name.removeprefix(PAST) for name in self.past)]
        self.in_place = session.get_modelmeta().custom_metadata_map.get(SHARE_BUFFER) == "true"

    def read(self, prompt: Array) -> Text:
        """See ``Writer``."""
        empty = {name: values[None] for name, values in empty_cache(self.session.get_inputs()).items()}
        return self._run(prompt, self._values({name: empty[name].repeat(len(prompt), 0) for name in self.past}), 0)

    def step(self, text: Text) -> Text:
        """See ``Writer``."""
        return self._run(text.token, text.cache, text.length)

    def repeat(self, text: Text, batch: int) -> Text:
        """See ``Writer``."""
        cache = self._values({name: value.numpy().repeat(batch, 0) for name, value in text.cache.items()})
        return Text(text.token.repeat(batch, 0), cache, text.length)

    def cut(self, text: Text, length: int) -> Text:
        """See ``Writer``."""
        cache = self._values({name: value.numpy()[:, :, :length] for name, value in text.cache.items()})
        return Text(text.token, cache, length)

    def _run(self, tokens: Array, cache: dict[str, Any], length: int) -> Text:
        fed = decoder_feed(tokens, length, self.names)
        end = length + tokens.shape[1]
        if self.in_place:
            cache = self._with_room(cache, length, end)
            logits = self._run_in_place(fed, cache)
        else:
            logits, *present = self.session.run_with_ort_values(self.outputs, self._values(fed) | cache)
            cache = dict(zip(self.past, present, strict=True))
        return Text(logits.numpy()[:, -1:].argmax(axis=2), cache, end)

    def _run_in_place(self, fed: dict[str, Array], cache: dict[str, Any]) -> Any:
        """Return the logits; the new keys and values are then in the cache."""
        binding = self.session.io_binding()
        for name, array in fed.items():
            binding.bind_cpu_input(name, array)
        first, *presents = self.outputs
        binding.bind_output(first)
        for name, present in zip(self.past, presents, strict=True):
            binding.bind_ortvalue_input(name, cache[name])
            binding.bind_ortvalue_output(present, cache[name])
        self.session.run_with_iobinding(binding)
        return binding.get_outputs()[0]

    def _with_room(self, cache: dict[str, Any], length: int, end: int) -> dict[str, Any]:
        """Return a cache of ``length`` tokens with room for ``end``: itself, or a copy in larger buffers."""
        if all(value.shape()[2] >= end for value in cache.values()):
            return cache
        larger = {}
        for name, value in cache.items():
            batch, heads, _, size = value.shape()
            larger[name] = np.zeros((batch, heads, end + self.ROOM, size), dtype=np.float32)
            larger[name][:, :, :length] = value.numpy()[:, :, :length]
        return self._values(larger)

    @staticmethod
    def _values(arrays: dict[str, Array]) -> dict[str, Any]:
        from onnxruntime import OrtValue

        return {
            name: OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array, array.dtype))
            for name, array in arrays.items()
        }


def can_write(session: Any) -> bool:
    """Tell whether a session is one graph that goes on with texts from its cache, fed by tokens alone."""
    inputs = {value.name: value for value in session.get_inputs()}
    own = {name for name in inputs if not name.startswith(PAST)}
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
