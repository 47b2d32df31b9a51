"""One contender of a benchmark, alone in its process.

The parent writes one JSON object a line to stdin and reads one answer a line from stdout:

=============  =======================================  =================================================
command        arguments                                answer
=============  =======================================  =================================================
load           runtime, folder, threads, task, options  load_ms, rss_before_load_mb, input_types, input_ranks,
                                                        writes, cache_bytes: of a token, dtype: PyTorch's
prepare        batch, sequence, vocab_size, seed,       nothing
               input_types, input_ranks, item_shapes
prepare_step   step, batch, context, vocab_size, seed   nothing
prepare_texts  texts, tokenizer, batch_size,            nothing
               most_tokens, input_types
run            iterations                               samples_ms, one a timed iteration
answer         output                                   rows: one list of floats an item, of the prepared inputs
memory         nothing                                  peak_rss_mb
=============  =======================================  =================================================

A failed command answers ``{"error": …}``. The process ends when its stdin does, so it never outlives its
parent. Several ONNX Runtime sessions in one process disturb each other (their idle threads spin), and peak
memory is a figure of the whole process: hence one process a contender.
"""

import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from onnxproof.benchmark.runtimes import ONNX_DTYPES, Arrays, LoadedModel, Seeing, load_contender, peak_rss_mb
from onnxproof.benchmark.writing import Text, Writer
from onnxproof.cli import UserError
from onnxproof.inputs.image_places import image_positions, image_prompt
from onnxproof.inputs.model_inputs import TOKENS
from onnxproof.inputs.prompts import PAST
from onnxproof.vocabulary import Step

FILLABLE_INPUTS = (
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "position_ids",
    "decoder_input_ids",
    "global_attention_mask",
    "pixel_values",
    "pixel_mask",
    "pixel_attention_mask",
    "image_grid_thw",
    "input_values",
    "input_features",
    "flattened_patches",
)
# Texts beside one input: the choices of multiple choice, the captions of zero-shot classification.
TEXTS_AN_INPUT = 4
CAPTION_TOKENS = 16
# Vocabularies of transformers open with special and unused tokens; ids from here on are words and pieces.
FIRST_PLAIN_ID = 1000

# At rest: under a tenth of one core over one window. The limit keeps a busy runtime from stalling the run.
REST_WINDOW_S = 0.02
REST_CPU_SHARE = 0.1
REST_LIMIT_S = 1.0


def draw_inputs(
    input_types: dict[str, str],
    batch: int,
    sequence: int | None,
    vocab_size: int,
    seed: int,
    input_ranks: dict[str, int] | None = None,
    item_shapes: dict[str, Sequence[int]] | None = None,
) -> Arrays:
    """Return inputs in each input's own dtype, the same for the same seed.

    Texts have shape (batch, sequence), or (batch, 4, sequence) where the graph wants three axes; texts beside images
    are 4 captions of 16 tokens. ``input_ids`` are uniform over the vocabulary, without its first 1,000 ids where it
    has twice as many; ``attention_mask`` is all ones (nothing is padding), ``token_type_ids`` all zeros; an
    encoder-decoder has written one token. Inputs in
    ``item_shapes`` are standard normal, (batch, *shape), or all ones where they are integers. A cache of keys and
    values is left out.
    """
    lowest = FIRST_PLAIN_ID if vocab_size >= 2 * FIRST_PLAIN_ID else 0
    generator = np.random.default_rng([seed, batch, sequence or 0])
    shape: tuple[int, ...] = (TEXTS_AN_INPUT, CAPTION_TOKENS) if sequence is None else (batch, sequence)
    if (input_ranks or {}).get("input_ids") == 3:
        shape = (shape[0], TEXTS_AN_INPUT, shape[1])
    values: Arrays = {
        "input_ids": generator.integers(lowest, vocab_size, size=shape, dtype=np.int64),
        "attention_mask": np.ones(shape, dtype=np.int64),
        "token_type_ids": np.zeros(shape, dtype=np.int64),
        "decoder_input_ids": np.zeros((batch, 1), dtype=np.int64),
        "position_ids": np.broadcast_to(np.arange(shape[-1]), shape),
        "global_attention_mask": np.zeros(shape, dtype=np.int64),
    }
    for name, item in (item_shapes or {}).items():
        if name in input_types:
            is_float = input_types[name] == "tensor(float)"
            values[name] = generator.normal(size=(batch, *item)) if is_float else np.ones((batch, *item))
    return {
        name: values[name].astype(ONNX_DTYPES[kind]) for name, kind in input_types.items() if not name.startswith(PAST)
    }


def add_images(drawn: Arrays, seeing: Seeing) -> Arrays:
    """Return drawn inputs of a model that writes about images, with an image before the text of each prompt.

    Patches of several images follow each other, and their grids are square.
    """
    feed, batch = dict(drawn), len(drawn["input_ids"])
    if "image_grid_thw" in feed:
        patches, values = feed["pixel_values"].shape[1:]
        side = round(patches**0.5)
        feed["pixel_values"] = feed["pixel_values"].reshape(batch * patches, values)
        feed["image_grid_thw"] = np.array([[1, side, side]] * batch)
    count = seeing.count(feed) // batch
    prompts = [image_prompt(words, seeing.image_token, count, has_start=False) for words in drawn["input_ids"]]
    feed["input_ids"] = np.stack([tokens for tokens, _ in prompts])
    kinds = prompts[0][1]
    positions = np.arange(len(kinds))
    if "image_grid_thw" in feed:
        merged = round((patches / count) ** 0.5)
        positions = image_positions(kinds, feed["image_grid_thw"][0], merged)[:, None]
    made = {
        "attention_mask": np.ones_like(kinds),
        "token_type_ids": kinds,
        "position_ids": positions,
    }
    for name, values in made.items():
        if name in feed:
            feed[name] = np.repeat(values[None], batch, axis=0) if values.ndim == 1 else values.repeat(batch, axis=1)
    return feed


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep Python's cycle collector out of the timed part, as ``timeit`` does."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def time_calls(predict: Callable[[Any], object], feeds: Any, iterations: int) -> list[float]:
    """Return the wall-clock time of each of ``iterations`` calls in ms; freeing the outputs is not timed."""
    samples = []
    with no_garbage_collection():
        for _ in range(iterations):
            start = time.perf_counter_ns()
            outputs = predict(feeds)
            samples.append((time.perf_counter_ns() - start) / 1e6)
            del outputs
    return samples


def come_to_rest() -> None:
    """Wait until this process's idle threads have stopped spinning.

    ONNX Runtime's and OpenMP's pools spin for tens of milliseconds after a call, in case another one follows.
    On a machine without cores to spare that would slow down the contender whose turn is next.
    """
    deadline = time.perf_counter() + REST_LIMIT_S
    while time.perf_counter() < deadline:
        wall, cpu = time.perf_counter(), time.process_time()
        time.sleep(REST_WINDOW_S)
        if time.process_time() - cpu < REST_CPU_SHARE * (time.perf_counter() - wall):
            return


def time_steps(writer: Writer, text: Text, steps: int) -> tuple[Text, list[float]]:
    """Return the text after ``steps`` more tokens, and the wall-clock time of each of them in ms."""
    samples = []
    with no_garbage_collection():
        for _ in range(steps):
            start = time.perf_counter_ns()
            text = writer.step(text)
            samples.append((time.perf_counter_ns() - start) / 1e6)
    return text, samples


class FirstTokens:
    """How long a prompt, int64 (1, tokens), is read until the first token is known."""

    def __init__(self, writer: Writer, prompt: NDArray[np.int64]) -> None:
        """Read the prompt once: the first call of a shape takes memory from the system."""
        self.writer, self.prompt = writer, prompt
        writer.read(prompt)

    def time(self, iterations: int) -> list[float]:
        """Return the times of ``iterations`` readings in ms, after an untimed one of a single token."""
        self.writer.read(self.prompt[:, :1])
        return time_calls(self.writer.read, self.prompt, iterations)


class NextTokens:
    """How long each token takes once the cache holds the tokens of a prompt, for a batch of the same text.

    The prompt is read once, one token short: each turn begins with an untimed step. What a turn has added to the cache
    is cut off before the next one.
    """

    def __init__(self, writer: Writer, prompt: NDArray[np.int64], batch: int) -> None:
        """Read the prompt, int64 (1, tokens), at least two of them."""
        self.writer, self.context = writer, prompt.shape[1] - 1
        self.text = writer.repeat(writer.read(prompt[:, :-1]), batch)

    def time(self, iterations: int) -> list[float]:
        """Return the times of ``iterations`` steps in ms, after an untimed one."""
        start = self.writer.cut(self.text, self.context)
        self.text, samples = time_steps(self.writer, self.writer.step(start), iterations)
        return samples


class TextServing:
    """Texts answered as a service would: tokenized, put into batches padded to their longest text, run.

    ``sequence`` of token ids is cut at ``most_tokens``. Only inputs in ``input_types`` are made.
    """

    def __init__(
        self, model: LoadedModel, tokenizer: Path, batch_size: int, most_tokens: int, input_types: dict[str, str]
    ) -> None:
        """Read the tokenizer, a ``tokenizer.json``."""
        from tokenizers import Tokenizer

        self.model, self.batch_size, self.input_types = model, batch_size, input_types
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        self.tokenizer.enable_truncation(most_tokens)
        padding = self.tokenizer.padding or {}
        self.tokenizer.enable_padding(pad_id=padding.get("pad_id", 0), pad_token=padding.get("pad_token", "[PAD]"))

    def predict(self, texts: list[str]) -> list[Any]:
        """Return the runtime's outputs, one a batch."""
        return [self.answer(texts[start : start + self.batch_size]) for start in range(0, len(texts), self.batch_size)]

    def answer(self, texts: list[str]) -> Any:
        """Return the runtime's outputs for one batch."""
        encodings = self.tokenizer.encode_batch(texts)
        values = {
            "input_ids": [encoding.ids for encoding in encodings],
            "attention_mask": [encoding.attention_mask for encoding in encodings],
            "token_type_ids": [encoding.type_ids for encoding in encodings],
        }
        arrays = {name: np.array(values[name], dtype=ONNX_DTYPES[kind]) for name, kind in self.input_types.items()}
        return self.model.predict(self.model.prepare(arrays))

    def read(self, outputs: list[Any], name: str) -> NDArray[Any]:
        """Return one output of all texts, one row a text."""
        return np.concatenate([self.model.read(batch, name) for batch in outputs])


class Server:
    """Answers commands about one contender; see the module's table."""

    def __init__(self) -> None:
        """Start empty: ``load`` comes first, ``prepare`` before ``run``."""
        self.contender: LoadedModel
        self.serving: LoadedModel | TextServing
        self.feeds: Any = None
        self.steps: FirstTokens | NextTokens | None = None

    def load(
        self, runtime: str, folder: str, threads: int, task: str | None, options: dict[str, Any]
    ) -> dict[str, Any]:
        """Load the contender, see ``load_contender``."""
        self.contender = load_contender(runtime, Path(folder), threads, task, options)
        # What is imported and loaded stays: spare every later collection the walk over it.
        gc.collect()
        gc.freeze()
        return {
            "load_ms": self.contender.load_ms,
            "rss_before_load_mb": self.contender.rss_before_load_mb,
            "input_types": self.contender.input_types,
            "input_ranks": self.contender.input_ranks,
            "dtype": self.contender.dtype,
            "writes": self.contender.writer is not None,
            "cache_bytes": sum(len(heads) * heads.shape[2] * heads.itemsize for heads in self.contender.cache.values()),
        }

    def prepare(self, **shapes: Any) -> dict[str, Any]:
        """Make one case's inputs, see ``draw_inputs``, with an empty cache of keys and values where one is taken."""
        self.serving = self.contender
        cache = {name: np.stack([values] * shapes["batch"]) for name, values in self.contender.cache.items()}
        drawn = draw_inputs(**shapes)
        if self.contender.seeing is not None:
            drawn = add_images(drawn, self.contender.seeing)
        self.feeds = self.contender.prepare(drawn | cache)
        return {}

    def prepare_step(self, step: Step, batch: int, context: int, vocab_size: int, seed: int) -> dict[str, Any]:
        """Draw a prompt of ``context`` tokens and read it, for ``FirstTokens`` or ``NextTokens``."""
        assert self.contender.writer is not None
        self.steps = None  # the last case's cache goes before the next one comes
        prompt = draw_inputs({TOKENS: "tensor(int64)"}, 1, context, vocab_size, seed)[TOKENS]
        writer = self.contender.writer
        self.steps = FirstTokens(writer, prompt) if step == "first_token" else NextTokens(writer, prompt, batch)
        return {}

    def prepare_texts(self, texts: list[str], tokenizer: str, **settings: Any) -> dict[str, Any]:
        """Take texts that are tokenized within the timed calls, see ``TextServing``."""
        self.serving = TextServing(self.contender, Path(tokenizer), **settings)
        self.feeds = texts
        return {}

    def run(self, iterations: int) -> dict[str, Any]:
        """Time the prepared case, then come to rest before answering.

        One untimed call leads in: the other contender has had the caches since this one's last turn.
        """
        if self.steps is not None:
            samples = self.steps.time(iterations)
        else:
            self.serving.predict(self.feeds)
            samples = time_calls(self.serving.predict, self.feeds, iterations)
        come_to_rest()
        return {"samples_ms": samples}

    def answer_rows(self, output: str) -> dict[str, Any]:
        """Run the prepared inputs once and return one output, a flat list of floats an item."""
        values = self.serving.read(self.serving.predict(self.feeds), output)
        come_to_rest()
        return {"rows": values.reshape(len(values), -1).astype(float).tolist()}

    def memory(self) -> dict[str, Any]:
        """Tell the peak memory so far."""
        return {"peak_rss_mb": peak_rss_mb()}

    def obey(self, request: dict[str, Any]) -> dict[str, Any]:
        """Obey one request; an exception becomes an ``error`` answer and a traceback on stderr."""
        commands: dict[str, Callable[..., dict[str, Any]]]
        commands = {
            "load": self.load,
            "prepare": self.prepare,
            "prepare_step": self.prepare_step,
            "prepare_texts": self.prepare_texts,
            "run": self.run,
            "answer": self.answer_rows,
            "memory": self.memory,
        }
        command = request.pop("command")
        try:
            return commands[command](**request)
        except UserError as error:
            return {"error": str(error)}
        except Exception as error:
            traceback.print_exc()
            return {"error": f"{type(error).__name__}: {error}"}


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer every request line until the requests end."""
    server = Server()
    for line in requests:
        print(json.dumps(server.obey(json.loads(line))), file=answers, flush=True)


def main() -> None:
    """Serve the parent on stdin and the original stdout; whatever a library prints goes to stderr."""
    # Ctrl-C reaches the whole process group; the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
