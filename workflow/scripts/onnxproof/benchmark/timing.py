"""Timing one form of a model against its fp32 ONNX form, in turns, one process a contender.

Neighbours on a shared machine slow everything down by the same factor for a while. Two contenders timed in
turns (A B, B A, A B, …) feel the same neighbours, so their ratio within a round is worth more than their
absolute times, and the median of the rounds' ratios more than one ratio.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from onnxproof.benchmark.runtimes import BYTES_PER_MB, ONNX_DTYPES, has_several_graphs
from onnxproof.benchmark.worker import FILLABLE_INPUTS
from onnxproof.checkpoint.text_limits import most_tokens, text_settings
from onnxproof.cli import UserError
from onnxproof.files import read_json
from onnxproof.formatting import format_shape
from onnxproof.graph.files import graph_files, separate_graphs
from onnxproof.inputs.preprocessing import item_shapes
from onnxproof.inputs.prompts import PAST
from onnxproof.places import SCRIPTS
from onnxproof.records.benchmark import Figures, RecordedCase, Speedup
from onnxproof.tasks.model_types import is_open_detector, model_takes
from onnxproof.tasks.registry import TASKS

STDERR_TAIL_LINES = 10
#: Writers about images have at least so many tokens where their configuration leaves the default of their type out.
LEAST_VOCABULARY = 32_000
EXIT_GRACE_S = 10.0
FEWEST_ROUNDS = 3

# Per round, the times of the round's iterations in ms.
Rounds = list[list[float]]


@dataclass(frozen=True)
class Contender:
    """A form of a model, as files: ``runtime`` is "onnx" or "openvino" (a graph) or "pytorch" (a checkpoint).

    ``task`` is what PyTorch loads the checkpoint for; graphs need none. ``options`` are those of the runtime, see
    ``worker``; ``python`` is the interpreter whose environment has it.
    """

    model: str
    variant: str
    runtime: str
    folder: Path
    task: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    python: str = sys.executable

    @property
    def label(self) -> str:
        """How messages name this contender."""
        return f"model {self.model}, variant {self.variant}"


@dataclass(frozen=True)
class Case:
    """One input shape: ``batch`` texts of ``sequence`` tokens each, none of them padding; or images or sounds."""

    batch: int
    sequence: int | None

    def __str__(self) -> str:
        """Return batch x sequence, or the batch alone."""
        return format_shape(self.batch, self.sequence)


@dataclass(frozen=True)
class Effort:
    """How often to repeat: untimed calls a case, rounds, timed calls a round; and the inputs' seed.

    A case that takes longer than ``seconds_per_case`` ends with fewer rounds, but not with fewer than FEWEST_ROUNDS.
    """

    warmup: int
    rounds: int
    iterations: int
    seconds_per_case: float
    seed: int


@dataclass(frozen=True)
class ModelSizes:
    """What the inputs depend on: ids in [0, ``vocab_size``); at most ``max_tokens`` of them, None if open.

    ``items`` holds the shapes of what is no text: pixels, samples, spectrograms, without a batch axis. A graph takes at
    most ``largest_batch`` of them at once, None for any number. ``has_prompts`` says that there is a text to each.
    """

    vocab_size: int
    max_tokens: int | None
    items: dict[str, tuple[int, ...]] = field(default_factory=dict)
    largest_batch: int | None = None
    has_prompts: bool = False


def read_model_sizes(config_file: Path) -> ModelSizes:
    """Read the sizes of a model's inputs from its ``config.json`` and the files beside it.

    Raises:
        UserError: the file is missing, or a text model has no vocabulary.
    """
    config = read_json(config_file)
    takes = model_takes(config.get("model_type"))
    items = item_shapes(config_file.parent, config, takes)
    if takes in ("image", "sound"):
        return ModelSizes(1, None, items)
    largest_batch = None
    if takes == "image+texts":
        largest_batch = TASKS["zero-shot-object-detection"].largest_batch if is_open_detector(config) else None
        config = config.get("text_config", {}) | {"model_type": ""}
    if takes == "image+prompt":
        config = {"vocab_size": LEAST_VOCABULARY} | dict(text_settings(config)) | {"model_type": ""}
    vocab_size = config.get("vocab_size")
    if not isinstance(vocab_size, int) or vocab_size < 1:
        raise UserError(
            f"{config_file}: vocab_size is {vocab_size!r}; the benchmark draws token ids from a vocabulary "
            "and needs a positive integer"
        )
    return ModelSizes(vocab_size, most_tokens(config), items, largest_batch, has_prompts=takes == "image+prompt")


def check_cases(model: str, sizes: ModelSizes, cases: list[Case]) -> None:
    """Refuse a case with more tokens than the model has positions.

    Raises:
        UserError: names the first such case and the longest sequence allowed.
    """
    limit = sizes.max_tokens
    for case in cases:
        if limit is not None and case.sequence is not None and case.sequence > limit:
            raise UserError(
                f"model {model}: case {case} (batch x sequence): a sequence of {case.sequence} tokens is too "
                f"long, this model takes 1 to {limit}"
            )


def choose_cases(sizes: ModelSizes, batch_sizes: list[int], sequence_lengths: list[int]) -> list[Case]:
    """Return every batch size with every sequence length; of images and sounds without a prompt, every batch size.

    Batches that the graph does not take become the largest that it takes.
    """
    batches = dict.fromkeys(min(batch, sizes.largest_batch or batch) for batch in batch_sizes)
    lengths: list[int | None] = [*sequence_lengths] if sizes.has_prompts or not sizes.items else [None]
    return [Case(batch, length) for batch in batches for length in lengths]


def check_inputs(contender: Contender, input_types: dict[str, str]) -> None:
    """Refuse a graph with an input that cannot be filled.

    Raises:
        UserError: names the input, and those that can be filled.
    """
    for name, kind in input_types.items():
        if name not in FILLABLE_INPUTS and not name.startswith(PAST):
            raise UserError(
                f"{contender.label}: model.onnx has an input {name!r}, which the benchmark cannot fill; it "
                f"fills {', '.join(FILLABLE_INPUTS)}"
            )
        if kind not in ONNX_DTYPES:
            raise UserError(
                f"{contender.label}: input {name!r} of model.onnx is a {kind}; the benchmark fills "
                f"{', '.join(ONNX_DTYPES)}"
            )


def model_files(contender: Contender) -> list[Path]:
    """Return the files that hold the model: the graph and its external data, a GGUF file, or a checkpoint's weights.

    Of a checkpoint folder with several formats, only what is loaded counts: safetensors before pickles.

    Raises:
        UserError: there are none.
    """
    if contender.runtime == "openvino" and (contender.folder / "model.xml").is_file():
        return [contender.folder / "model.xml", contender.folder / "model.bin"]
    if contender.runtime == "llama" and (contender.folder / "model.gguf").is_file():
        return [contender.folder / "model.gguf"]
    if contender.runtime != "pytorch":
        if not (has_several_graphs(contender.folder) or (contender.folder / "model.onnx").is_file()):
            raise UserError(f"{contender.label}: {contender.folder / 'model.onnx'}: no such file")
        # A merged decoder holds the two decoders once more; it is not what is timed.
        left_out = set(graph_files(contender.folder)) - set(separate_graphs(contender.folder))
        return sorted(path for path in contender.folder.glob("*.onnx*") if not path.name.startswith(tuple(left_out)))
    folders = [contender.folder, *sorted(path for path in contender.folder.glob("*") if path.is_dir())]
    files: list[Path] = []
    for folder in folders:
        files += sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise UserError(
            f"{contender.label}: {contender.folder} holds no weights; looked for model*.safetensors and "
            "pytorch_model*.bin"
        )
    return files


def size_mb(files: list[Path]) -> float:
    """Return the files' total size in MB of 1e6 bytes."""
    return sum(path.stat().st_size for path in files) / BYTES_PER_MB


class Worker:
    """A child process that holds one contender and nothing else; a context manager that always reaps it."""

    def __init__(self, contender: Contender, threads: int) -> None:
        """Start the process, which imports what every contender needs. It loads its own when it is entered."""
        self.contender, self.threads = contender, threads
        self.loaded: dict[str, Any] = {}  #: the answer to ``load``
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the worker)
        # The command line keeps the current folder off the path (-P): its files must not shadow a library.
        self.process = subprocess.Popen(
            [contender.python, "-P", "-m", "onnxproof.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            env=worker_environment(threads),
            text=True,
            encoding="utf-8",
        )

    def __enter__(self) -> Self:
        """Load the contender and return the worker.

        Raises:
            UserError: the contender could not be loaded.
        """
        contender = self.contender
        try:
            self.loaded = self.ask(
                "load",
                runtime=contender.runtime,
                folder=str(contender.folder),
                threads=self.threads,
                task=contender.task,
                options=contender.options,
            )
            if contender.runtime != "pytorch":
                check_inputs(contender, self.loaded["input_types"])
        except BaseException:
            self.kill()
            raise
        return self

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and return its answer.

        Raises:
            UserError: the worker answered with an error or died; the message holds the end of its stderr.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # a dead worker gives no answer either
            self.process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line.endswith("\n"):
            status = self.process.wait()
            raise self.failure(command, f"the worker process died with status {status}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise self.failure(command, answer["error"])
        return answer

    def failure(self, command: str, reason: str) -> UserError:
        """Return the error for a failed command: who, what, where, why, and the worker's last words."""
        self.stderr.seek(0)
        lines = self.stderr.read().decode("utf-8", errors="replace").splitlines()
        tail = "".join(f"\n  | {line}" for line in lines[-STDERR_TAIL_LINES:])
        contender = self.contender
        return UserError(f"{contender.label}: benchmark step {command!r} failed on {contender.folder}: {reason}{tail}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the process end by itself after success; kill it after an error or Ctrl-C."""
        try:
            if kind is None and self.process.stdin is not None:
                with contextlib.suppress(BrokenPipeError, subprocess.TimeoutExpired):
                    self.process.stdin.close()
                    self.process.wait(EXIT_GRACE_S)
        finally:
            self.kill()

    def kill(self) -> None:
        """End the process if it still runs, and reap it."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def worker_environment(threads: int) -> dict[str, str]:
    """Return the child's environment: our package on its path, its thread count, and no network."""
    path = os.pathsep.join(filter(None, [str(SCRIPTS), os.environ.get("PYTHONPATH")]))
    pools = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, "PYTHONPATH": path, **pools, **offline}


def start_workers(contenders: Sequence[Contender], threads: int, stack: contextlib.ExitStack) -> list[Worker]:
    """Start a process for each contender, all at once, so that their imports take as long as those of one.

    All have finished their imports and wait, so that none disturbs the loading of another. Each is to be entered. Those
    that are not are killed at the end of ``stack``.
    """
    workers = []
    for contender in contenders:
        workers.append(Worker(contender, threads))
        stack.callback(workers[-1].kill)
    for worker in workers:
        worker.ask("memory")
    return workers


def sample_loading(contender: Contender, threads: int, repeats: int) -> list[float]:
    """Return the loading times in ms of ``repeats`` fresh processes, imports excluded; one loads after the other."""
    samples = []
    with contextlib.ExitStack() as stack:
        for worker in start_workers([contender] * repeats, threads, stack):
            with worker:
                samples.append(worker.loaded["load_ms"])
    return samples


def time_in_turns(workers: list[Worker], effort: Effort) -> list[Rounds]:
    """Return each worker's samples in ms, round by round; every other round runs the workers backwards.

    The workers' inputs are prepared; each is warmed up before the first round. A slow case ends early, see Effort.
    """
    deadline = time.monotonic() + effort.seconds_per_case
    for worker in workers:
        if effort.warmup:
            worker.ask("run", iterations=effort.warmup)
    samples: list[Rounds] = [[] for _ in workers]
    for number in range(effort.rounds):
        if number >= FEWEST_ROUNDS and time.monotonic() > deadline:
            break
        turns = list(enumerate(workers))
        for index, worker in turns if number % 2 == 0 else reversed(turns):
            samples[index].append(worker.ask("run", iterations=effort.iterations)["samples_ms"])
    return samples


def summarize(batch: int, rounds: Rounds) -> Figures:
    """Return percentiles in ms over all samples, items a second at the median time, and the sample count.

    Percentiles interpolate linearly between samples (numpy's default).
    """
    times = np.concatenate([np.asarray(samples, dtype=np.float64) for samples in rounds])
    p50, p90, p99 = (float(value) for value in np.percentile(times, [50, 90, 99]))
    return {
        "p50_ms": p50,
        "p90_ms": p90,
        "p99_ms": p99,
        "items_per_s": batch / (p50 / 1000),
        "iterations": int(times.size),
    }


def compare(rounds: Rounds, baseline: Rounds) -> Speedup:
    """Return how many times faster than the baseline: the median over rounds, and the quartiles.

    A round's speed-up is the baseline's median time over the contender's own, both of that round.
    """
    ratios = [np.median(theirs) / np.median(ours) for ours, theirs in zip(rounds, baseline, strict=True)]
    q25, q50, q75 = (float(value) for value in np.percentile(ratios, [25, 50, 75]))
    return {"speedup_vs_fp32": q50, "speedup_iqr": [q25, q75]}


@dataclass(frozen=True)
class CaseResult:
    """One case at one thread count: the record of the contender and, where there is one, of the baseline."""

    contender: RecordedCase
    baseline: RecordedCase | None


def case_record(case: Case, threads: int, rounds: Rounds) -> RecordedCase:
    """Return a case's shape, thread count, figures and raw samples."""
    figures = summarize(case.batch, rounds)
    return {
        "batch": case.batch,
        "sequence": case.sequence,
        "intra_op_threads": threads,
        "p50_ms": figures["p50_ms"],
        "p90_ms": figures["p90_ms"],
        "p99_ms": figures["p99_ms"],
        "items_per_s": figures["items_per_s"],
        "iterations": figures["iterations"],
        "samples_ms": rounds,
    }


def prepare_case(workers: list[Worker], case: Case, sizes: ModelSizes, seed: int) -> None:
    """Have every worker make the inputs of one case, the same for all; at least one worker must hold a graph."""
    graph = next(worker.loaded for worker in workers if worker.loaded["input_types"])
    for worker in workers:
        # PyTorch has no graph: it takes whatever the ONNX graph beside it takes.
        own = worker.loaded if worker.loaded["input_types"] else graph
        worker.ask(
            "prepare",
            **asdict(case),
            vocab_size=sizes.vocab_size,
            item_shapes=sizes.items,
            seed=seed,
            input_types=own["input_types"],
            input_ranks=own["input_ranks"],
        )


def measure_case(workers: list[Worker], case: Case, threads: int, sizes: ModelSizes, effort: Effort) -> CaseResult:
    """Time one case; the first worker is the contender, the last, if another, the fp32 baseline."""
    prepare_case(workers, case, sizes, effort.seed)
    samples = time_in_turns(workers, effort)
    records = [case_record(case, threads, rounds) for rounds in samples]
    if len(records) == 1:
        return CaseResult(records[0], None)
    return CaseResult({**records[0], **compare(samples[0], samples[1])}, records[1])


@dataclass(frozen=True)
class Process:
    """What a worker's process told beside the times of cases.

    How long it took to load its model, in ms; its resident memory in MB of 1e6 bytes, before it loaded its model, and
    its peak at the end; the type of PyTorch's weights, None for a graph; and whether all of the models that took turns
    write texts token by token.
    """

    load_ms: float
    rss_before_load_mb: float
    peak_rss_mb: float
    dtype: str | None
    writes: bool


def measure(
    contenders: list[Contender],
    threads: int,
    cases: list[Case],
    sizes: ModelSizes,
    effort: Effort,
    report: Callable[[CaseResult], None],
) -> tuple[list[CaseResult], Process]:
    """Time every case at one thread count, one fresh worker a contender; ``report`` hears of each result.

    ``contenders`` holds the contender and, unless it is the baseline itself, the fp32 baseline. The process is
    the contender's, after all cases.

    Raises:
        UserError: a worker failed.
    """
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(worker) for worker in start_workers(contenders, threads, stack)]
        results = []
        for case in cases:
            results.append(measure_case(workers, case, threads, sizes, effort))
            report(results[-1])
        peak = workers[0].ask("memory")["peak_rss_mb"]
        writes = all(worker.loaded["writes"] for worker in workers)
        own = workers[0].loaded
        return results, Process(own["load_ms"], own["rss_before_load_mb"], peak, own["dtype"], writes)
