"""Writing in other runtimes, which a benchmark compares with: OpenVINO, onnxruntime-genai and llama.cpp."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.benchmark.writing import Text
from onnxproof.graph.generation import decoder_feed
from onnxproof.inputs.prompts import PAST, PRESENT

Array = NDArray[Any]


class OpenVinoWriter:
    """A compiled graph that takes ``past_key_values.…`` and gives ``present.…``.

    Two requests take turns: one reads the cache where the other has written it.
    """

    def __init__(self, model: Any, cache: dict[str, Array]) -> None:
        """Take a model compiled by OpenVINO, and the empty cache of one text."""
        import openvino

        self.tensor = openvino.Tensor
        self.requests = [model.create_infer_request() for _ in range(2)]
        self.names = [node.any_name for node in model.inputs if node.any_name not in cache]
        self.empty = cache

    def read(self, prompt: Array) -> Text:
        """See ``Writer``."""
        return self._run(
            prompt, {name: self.tensor(np.stack([heads] * len(prompt))) for name, heads in self.empty.items()}, 0
        )

    def step(self, text: Text) -> Text:
        """See ``Writer``."""
        return self._run(text.token, text.cache, text.length)

    def repeat(self, text: Text, batch: int) -> Text:
        """See ``Writer``."""
        cache = {name: self.tensor(values.data.repeat(batch, 0)) for name, values in text.cache.items()}
        return Text(text.token.repeat(batch, 0), cache, text.length)

    def cut(self, text: Text, length: int) -> Text:
        """See ``Writer``."""
        cache = {name: self.tensor(values.data[:, :, :length].copy()) for name, values in text.cache.items()}
        return Text(text.token, cache, length)

    def _run(self, tokens: Array, cache: dict[str, Any], length: int) -> Text:
        request = self.requests[0]
        self.requests.reverse()
        fed = decoder_feed(tokens, length, self.names)
        for name, value in {**{name: self.tensor(fed[name]) for name in self.names}, **cache}.items():
            request.set_tensor(name, value)
        request.infer()
        token = request.get_tensor("logits").data[:, -1:].argmax(axis=2)
        present = {name: request.get_tensor(PRESENT + name.removeprefix(PAST)) for name in self.empty}
        return Text(token, present, length + tokens.shape[1])


class GenaiWriter:
    """A folder of onnxruntime-genai in its own loop, which chooses the likeliest token itself.

    The cache of a ``Text`` is the generator and the prompt that it read. Its memory is taken for the longest text that
    is to be written, as that library does.
    """

    #: So many tokens may come after a prompt.
    ROOM = 256

    def __init__(self, model: Any) -> None:
        """Take a model that onnxruntime-genai has loaded."""
        self.model = model

    def read(self, prompt: Array) -> Text:
        """See ``Writer``."""
        import onnxruntime_genai

        parameters = onnxruntime_genai.GeneratorParams(self.model)
        batch, length = prompt.shape
        parameters.set_search_options(
            batch_size=batch, min_length=length + self.ROOM, max_length=length + self.ROOM, do_sample=False
        )
        generator = onnxruntime_genai.Generator(self.model, parameters)
        generator.append_tokens(prompt.astype(np.int32))
        return self._next(Text(prompt, (generator, prompt), length))

    def step(self, text: Text) -> Text:
        """See ``Writer``."""
        return self._next(replace(text, length=text.length + 1))

    def repeat(self, text: Text, batch: int) -> Text:
        """See ``Writer``: the prompts are read again, together."""
        return self.read(text.cache[1].repeat(batch, 0))

    def cut(self, text: Text, length: int) -> Text:
        """See ``Writer``: only one text can be cut, several are read again.

        The last token that stays is read once more, because the library chooses a next one only after it has read.
        """
        generator, prompt = text.cache
        if len(prompt) > 1:
            return self.read(prompt)
        last = generator.get_sequence(0)[length - 1]
        generator.rewind_to(length - 1)
        generator.append_tokens(np.array([[last]], dtype=np.int32))
        return self._next(replace(text, length=length))

    @staticmethod
    def _next(text: Text) -> Text:
        generator = text.cache[0]
        generator.generate_next_token()
        return replace(text, token=np.array(generator.get_next_tokens())[:, None])


class LlamaWriter:
    """A GGUF file in llama.cpp; each text of a batch is a sequence of its context."""

    def __init__(self, model: Any, threads: int, most_tokens: int, most_texts: int) -> None:
        """Take a loaded ``llama_model``, and how many tokens all texts of a batch and how many texts it has at most."""
        import llama_cpp

        self.api = llama_cpp
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = most_tokens, most_texts
        settings.n_batch = settings.n_ubatch = 512
        settings.n_threads = settings.n_threads_batch = threads
        settings.kv_unified = True
        self.context = llama_cpp.llama_init_from_model(model, settings)
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self.chunk = llama_cpp.llama_n_batch(self.context)  # no more than the context has room for

    def read(self, prompt: Array) -> Text:
        """See ``Writer``: one text."""
        self.api.llama_memory_clear(self.memory, True)
        (tokens,) = prompt
        for start in range(0, len(tokens), self.chunk):
            part = tokens[start : start + self.chunk]
            self._decode([(int(token), start + place, 0) for place, token in enumerate(part)], 1)
        return Text(self._likeliest(1), None, len(tokens))

    def logits(self, tokens: Array) -> Array:
        """Return the logits after each token of a text, float32 (tokens, vocabulary), from int64 (tokens,).

        At most as many tokens as are read at once: 512.
        """
        self.api.llama_memory_clear(self.memory, True)
        self._decode([(int(token), place, 0) for place, token in enumerate(tokens)], len(tokens))
        return np.stack([self._row(place, len(tokens)) for place in range(len(tokens))])

    def step(self, text: Text) -> Text:
        """See ``Writer``."""
        self._decode([(int(token), text.length, place) for place, (token,) in enumerate(text.token)], len(text.token))
        return Text(self._likeliest(len(text.token)), None, text.length + 1)

    def repeat(self, text: Text, batch: int) -> Text:
        """See ``Writer``."""
        for place in range(1, batch):
            self.api.llama_memory_seq_cp(self.memory, 0, place, -1, -1)
        return replace(text, token=text.token.repeat(batch, 0))

    def cut(self, text: Text, length: int) -> Text:
        """See ``Writer``."""
        for place in range(len(text.token)):
            self.api.llama_memory_seq_rm(self.memory, place, length, -1)
        return replace(text, length=length)

    def _decode(self, entries: list[tuple[int, int, int]], wanted: int) -> None:
        """Run (token, position, sequence) triples; the logits of the last ``wanted`` are kept."""
        batch = self.api.llama_batch_init(len(entries), 0, 1)
        try:
            batch.n_tokens = len(entries)
            for place, (token, position, sequence) in enumerate(entries):
                batch.token[place], batch.pos[place] = token, position
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, sequence
                batch.logits[place] = place >= len(entries) - wanted
            status = self.api.llama_decode(self.context, batch)
            if status:
                raise RuntimeError(f"llama_decode answered {status}")
        finally:
            self.api.llama_batch_free(batch)

    def _likeliest(self, count: int) -> Array:
        return np.array([[self._row(place, count).argmax()] for place in range(count)])

    def _row(self, place: int, count: int) -> Array:
        """Return the logits of one of the last ``count`` tokens; the next call of the runtime overwrites them."""
        row = self.api.llama_get_logits_ith(self.context, place - count)
        return np.ctypeslib.as_array(row, (self.vocabulary,))
