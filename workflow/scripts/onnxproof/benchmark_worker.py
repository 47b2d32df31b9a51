"""One contender of a benchmark, alone in its process.

The parent writes one JSON object a line to stdin and reads one answer a line from stdout:

=========  =======================================  =================================================
command    arguments                                answer
=========  =======================================  =================================================
load       runtime, folder, threads, task           load_ms, rss_before_load_mb, input_types, input_ranks
prepare    batch, sequence, vocab_size, seed,       nothing
           input_types, input_ranks, item_shapes
run        iterations                               samples_ms, one a timed iteration
memory     nothing                                  peak_rss_mb
=========  =======================================  =================================================

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from onnxproof.cli import UserError
from onnxproof.generation import PAST, empty_cache
from onnxproof.snapshot import remote_code_allowed
from onnxproof.tasks.registry import TASKS

BYTES_PER_MB = 1_000_000
ONNX_DTYPES: dict[str, type[np.generic]] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(bool)": np.bool_,
}
FILLABLE_INPUTS = (
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "position_ids",
    "decoder_input_ids",
    "global_attention_mask",
    "pixel_values",
    "pixel_mask",
    "input_values",
    "input_features",
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

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model: how to call it and what loading it took.

    ``prepare`` turns numpy inputs into the runtime's own, outside the timed part. ``input_types`` maps input
    names to ONNX types, ``input_ranks`` to their numbers of axes; both are None for PyTorch, which takes what the ONNX
    graph takes. ``cache`` is the empty cache of one text, where a graph takes one: see ``empty_cache``.
    """

    predict: Callable[[Any], object]
    prepare: Callable[[Arrays], Any]
    input_types: dict[str, str] | None
    input_ranks: dict[str, int] | None
    load_ms: float
    rss_before_load_mb: float
    cache: Arrays = field(default_factory=dict)


def status_mb(field: str) -> float | None:
    """Return a memory field of ``/proc/self/status`` (such as VmHWM) in MB of 1e6 bytes, None without it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    for line in status.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key == field:
            return int(value.split()[0]) * 1024 / BYTES_PER_MB
    return None


def peak_rss_mb() -> float:
    """Return this process's peak resident memory in MB of 1e6 bytes.

    ``VmHWM`` comes first: ``ru_maxrss`` may hold the peak of the parent that forked this process. The latter
    counts KiB on Linux and bytes on macOS.
    """
    peak = status_mb("VmHWM")
    if peak is not None:
        return peak
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / BYTES_PER_MB


def current_rss_mb() -> float:
    """Return this process's resident memory in MB of 1e6 bytes; where only the peak is known, the peak."""
    current = status_mb("VmRSS")
    return peak_rss_mb() if current is None else current


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


def is_encoder_decoder(folder: Path) -> bool:
    """Tell whether a folder holds the graphs of an encoder-decoder."""
    return (folder / "encoder_model.onnx").is_file()


def open_graph(folder: Path, options: Any) -> Any:
    """Open ``folder/model.onnx``, or the graphs of an encoder-decoder."""
    import onnxruntime

    def open_session(name: str) -> Any:
        return onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])

    if not is_encoder_decoder(folder):
        return open_session("model.onnx")
    from onnxproof.encoder_decoder import EncoderDecoder
    from onnxproof.onnx_folder import DECODER_FILE, DECODER_WITH_PAST_FILE, ENCODER_FILE

    return EncoderDecoder(*map(open_session, (ENCODER_FILE, DECODER_FILE, DECODER_WITH_PAST_FILE)))


def load_onnx(folder: Path, threads: int) -> LoadedModel:
    """Open the model on the CPU: ``threads`` within an operator, operators one after another."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    if is_encoder_decoder(folder):
        import onnxproof.encoder_decoder  # noqa: F401 - what it imports is not the model's memory
    rss = current_rss_mb()
    start = time.perf_counter_ns()
    session = open_graph(folder, options)
    load_ms = (time.perf_counter_ns() - start) / 1e6

    def predict(feeds: Arrays) -> object:
        return session.run(None, feeds)

    return LoadedModel(
        predict=predict,
        prepare=dict,
        input_types={node.name: node.type for node in session.get_inputs()},
        input_ranks={node.name: len(node.shape) for node in session.get_inputs()},
        load_ms=load_ms,
        rss_before_load_mb=rss,
        cache=empty_cache(session.get_inputs()),
    )


def limit_torch_threads(threads: int) -> None:
    """Give torch ``threads`` within an operator and one between operators; before any other work."""
    import torch

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)


def load_pytorch(folder: Path, task: str) -> LoadedModel:
    """Load the original model for its task, in evaluation mode, from local files only.

    Sentence similarity goes through SentenceTransformer, so that pooling and normalization are timed as they
    are in the ONNX graph. ``load_ms`` includes what transformers imports only once it knows the architecture.
    """
    import torch

    model_class = pytorch_class(task)
    rss = current_rss_mb()
    start = time.perf_counter_ns()
    local = {"local_files_only": True, "trust_remote_code": remote_code_allowed(folder)}
    if task == "sentence-similarity":
        model = model_class(str(folder), device="cpu", **local)
    else:
        model = model_class.from_pretrained(folder, **local)
    model.eval()
    load_ms = (time.perf_counter_ns() - start) / 1e6

    def prepare(arrays: Arrays) -> dict[str, Any]:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def predict_features(features: dict[str, Any]) -> object:
        with torch.inference_mode():
            return model(dict(features))  # a copy: the model adds its outputs to the mapping it is given

    def predict(features: dict[str, Any]) -> object:
        with torch.inference_mode():
            return model(**features)

    return LoadedModel(
        predict=predict_features if task == "sentence-similarity" else predict,
        prepare=prepare,
        input_types=None,
        input_ranks=None,
        load_ms=load_ms,
        rss_before_load_mb=rss,
    )


def pytorch_class(task: str) -> Any:
    """Import and return the class that loads a checkpoint for ``task``, one of TASKS."""
    if task == "sentence-similarity":
        import sentence_transformers

        return sentence_transformers.SentenceTransformer
    import transformers

    return getattr(transformers, TASKS[task].auto_class)


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


class Server:
    """Answers commands about one contender; see the module's table."""

    def __init__(self) -> None:
        """Start empty: ``load`` comes first, ``prepare`` before ``run``."""
        self.contender: LoadedModel
        self.feeds: Any = None

    def load(self, runtime: str, folder: str, threads: int, task: str | None) -> dict[str, Any]:
        """Load the contender: ``runtime`` is "onnx" or "pytorch"; only the latter needs a ``task``."""
        if runtime == "onnx":
            self.contender = load_onnx(Path(folder), threads)
        else:
            if task not in TASKS:
                raise UserError(f"task {task!r}: PyTorch is timed for {', '.join(TASKS)}")
            limit_torch_threads(threads)
            self.contender = load_pytorch(Path(folder), task)
        # What is imported and loaded stays: spare every later collection the walk over it.
        gc.collect()
        gc.freeze()
        return {
            "load_ms": self.contender.load_ms,
            "rss_before_load_mb": self.contender.rss_before_load_mb,
            "input_types": self.contender.input_types,
            "input_ranks": self.contender.input_ranks,
        }

    def prepare(self, **shapes: Any) -> dict[str, Any]:
        """Make one case's inputs, see ``draw_inputs``, with an empty cache of keys and values where one is taken."""
        cache = {name: np.stack([values] * shapes["batch"]) for name, values in self.contender.cache.items()}
        self.feeds = self.contender.prepare(draw_inputs(**shapes) | cache)
        return {}

    def run(self, iterations: int) -> dict[str, Any]:
        """Time the prepared case, then come to rest before answering.

        One untimed call leads in: the other contender has had the caches since this one's last turn.
        """
        self.contender.predict(self.feeds)
        samples = time_calls(self.contender.predict, self.feeds, iterations)
        come_to_rest()
        return {"samples_ms": samples}

    def memory(self) -> dict[str, Any]:
        """Tell the peak memory so far."""
        return {"peak_rss_mb": peak_rss_mb()}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Obey one request; an exception becomes an ``error`` answer and a traceback on stderr."""
        commands: dict[str, Callable[..., dict[str, Any]]]
        commands = {"load": self.load, "prepare": self.prepare, "run": self.run, "memory": self.memory}
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
        print(json.dumps(server.answer(json.loads(line))), file=answers, flush=True)


def main() -> None:
    """Serve the parent on stdin and the original stdout; whatever a library prints goes to stderr."""
    # Ctrl-C reaches the whole process group; the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
