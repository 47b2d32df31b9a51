"""Measure the variants of a model on a GPU: how far they are from PyTorch, and how long they take.

python tools/on_gpu.py results/MODEL [--variants fp32 fp16 q4f16]

Needs the package onnxruntime-gpu and a GPU of NVIDIA's; where there is none, the script says so and ends with status 0.
Parity is measured on the recorded inputs and answers of a finished run, with the functions of the parity check. Speed
is that of drawn inputs that lie on the GPU, and of answers that stay there; all take turns. Where PyTorch sees the GPU
too, a model of the same configuration takes part, in float32 and in float16.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import project_path  # noqa: F401
from onnxproof.benchmark.timing import read_model_sizes
from onnxproof.benchmark.worker import draw_inputs
from onnxproof.benchmark.writing import can_write
from onnxproof.cli import UserError, run_script
from onnxproof.formatting import format_shape
from onnxproof.graph.encoder_decoder import files_of_variant, open_graphs
from onnxproof.graph.generation import decoder_feed, empty_cache
from onnxproof.inputs.prompts import PAST, PRESENT
from onnxproof.inputs.reference import read_reference
from onnxproof.parity.measure import Sessions, measure_sessions

if TYPE_CHECKING:
    from onnxproof.graph.sessions import Session

CUDA, DEVICE = "CUDAExecutionProvider", "cuda"
BATCH_SIZE = 8
#: Texts x tokens of an encoder, and of a prompt; the next token comes after the prompt.
SHAPES = ((1, 128), (8, 128), (32, 128))
PROMPTS = ((1, 128), (1, 512), (8, 128))
ROUNDS, CALLS = 7, 20

#: Runs once, to its end.
Call = Callable[[], object]


class NoGpuError(Exception):
    """onnxruntime computes on the CPU alone."""


def open_on_gpu(path: Path) -> "Session":
    """Open a graph on the GPU; what the GPU has no kernel for runs on the CPU.

    Raises:
        NoGpuError: this onnxruntime was not built for such a GPU, or found none, or not its libraries.
    """
    import onnxruntime

    if CUDA not in onnxruntime.get_available_providers():
        raise NoGpuError(f"onnxruntime has no {CUDA} here")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session: Any = onnxruntime.InferenceSession(str(path), options, providers=[CUDA, "CPUExecutionProvider"])
    if CUDA not in session.get_providers():
        raise NoGpuError(f"{CUDA} found no GPU here, or not its libraries")
    opened: Session = session
    return opened


def bind(session: Any, feed: dict[str, Any]) -> Any:
    """Return what a run of the session reads and writes: arrays go to the GPU, answers stay there."""
    from onnxruntime import OrtValue

    binding = session.io_binding()
    for name, value in feed.items():
        moved = value if isinstance(value, OrtValue) else OrtValue.ortvalue_from_numpy(value, DEVICE, 0)
        binding.bind_ortvalue_input(name, moved)
    for output in session.get_outputs():
        binding.bind_output(output.name, DEVICE)
    return binding


def run_bound(session: Any, binding: Any) -> None:
    """Run to the end."""
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()


def graph_calls(session: Any, vocabulary: int) -> Iterator[tuple[str, Call]]:
    """Yield what is timed of a graph, each with its title: batches of texts, or prompts and the token after them."""
    kinds = {value.name: value.type for value in session.get_inputs()}
    if not can_write(session):
        for batch, length in SHAPES:
            binding = bind(session, draw_inputs(kinds, batch, length, vocabulary, seed=0))
            yield format_shape(batch, length), partial(run_bound, session, binding)
        return
    past = [name for name in kinds if name.startswith(PAST)]
    own = [name for name in kinds if name not in past]
    for batch, length in PROMPTS:
        tokens = draw_inputs({"input_ids": kinds["input_ids"]}, batch, length, vocabulary, seed=0)["input_ids"]
        nothing = {name: values[None].repeat(batch, 0) for name, values in empty_cache(session.get_inputs()).items()}
        binding = bind(session, decoder_feed(tokens, 0, own) | nothing)
        yield f"first token, {format_shape(batch, length)}", partial(run_bound, session, binding)
        run_bound(session, binding)
        outputs = dict(zip([output.name for output in session.get_outputs()], binding.get_outputs(), strict=True))
        cache = {name: outputs[PRESENT + name.removeprefix(PAST)] for name in past}
        step = bind(session, decoder_feed(tokens[:, -1:], length, own) | cache)
        yield f"next token, {format_shape(batch, length)}", partial(run_bound, session, step)


def torch_calls(config: Path, vocabulary: int, dtype: str, writes: bool) -> Iterator[tuple[str, Call]]:
    """Yield the same for a model of PyTorch's with random weights, by the configuration of the original."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    kind: Any = AutoModelForCausalLM if writes else AutoModel
    model = kind.from_config(AutoConfig.from_pretrained(config)).to("cuda", getattr(torch, dtype)).eval()

    def call(**inputs: Any) -> Any:
        with torch.inference_mode():
            outputs = model(**inputs)
        torch.cuda.synchronize()
        return outputs

    for batch, length in PROMPTS if writes else SHAPES:
        names = {"input_ids": "tensor(int64)", "attention_mask": "tensor(int64)"}
        drawn = draw_inputs(names, batch, length, vocabulary, seed=0)
        inputs = {name: torch.from_numpy(values).to("cuda") for name, values in drawn.items()}
        if not writes:
            yield format_shape(batch, length), partial(call, **inputs)
            continue
        # Like `generate`, which wants the logits of the last token alone.
        read = partial(call, **inputs, use_cache=True, logits_to_keep=1)
        yield f"first token, {format_shape(batch, length)}", read
        cache = call(**inputs, use_cache=True).past_key_values
        fed = {
            "input_ids": inputs["input_ids"][:, -1:],
            "attention_mask": torch.ones((batch, length + 1), dtype=torch.int64, device="cuda"),
        }

        def step(cache: Any = cache, fed: dict[str, Any] = fed) -> None:
            call(**fed, past_key_values=cache, use_cache=True)
            cache.crop(-1)

        yield f"next token, {format_shape(batch, length)}", step


def time_in_turns(calls: dict[str, Call]) -> dict[str, float]:
    """Return the median time of a call of each contender, in milliseconds, over rounds in which all take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(ROUNDS + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            if number:  # the first round warms up
                times[name].append((time.perf_counter() - start) / CALLS * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


def measure_parity(results: Path, sessions: "dict[str, Session]") -> None:
    """Print how far each variant is from the recorded answers of PyTorch."""
    if not (results / "reference.json").is_file():
        print(f"{results} has no reference.json: parity was not measured")
        return
    reference = read_reference(results / "reference", results / "reference.json")
    for variant, session in sessions.items():
        measured = measure_sessions(variant, Sessions(session), reference, BATCH_SIZE)
        print(f"{variant}: {measured.task_metrics}", flush=True)


def measure_speed(results: Path, sessions: "dict[str, Session]") -> None:
    """Print a table of the times of graphs that take texts: a row for each contender, a column for each shape."""
    first, session = next(iter(sessions.items()))
    takes_texts = {value.name for value in session.get_inputs()} >= {"input_ids", "attention_mask"}
    if not takes_texts or not hasattr(session, "io_binding"):
        print(f"{results} is not one graph that takes texts: its speed was not measured")
        return
    config = results / "onnx" / first / "config.json"
    vocabulary = read_model_sizes(config).vocab_size
    columns = {variant: dict(graph_calls(session, vocabulary)) for variant, session in sessions.items()}
    if sees_gpu():
        for dtype in ("float32", "float16"):
            columns[f"PyTorch {dtype}"] = dict(torch_calls(config, vocabulary, dtype, can_write(session)))
    titles = list(columns[first])
    print(f"| ms | {' | '.join(titles)} |\n| --- |{' --- |' * len(titles)}")
    times = {title: time_in_turns({name: calls[title] for name, calls in columns.items()}) for title in titles}
    for name in columns:
        print(f"| {name} | {' | '.join(f'{times[title][name]:.2f}' for title in titles)} |", flush=True)


def sees_gpu() -> bool:
    """Tell whether PyTorch computes on a GPU here."""
    import torch

    return torch.cuda.is_available()


def main(argv: list[str] | None = None) -> int:
    """Measure each variant that is there, in turns.

    Raises:
        UserError: none of the variants is there.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("results", type=Path, help="a model's folder below results/")
    parser.add_argument("--variants", nargs="+", default=["fp32", "fp16", "q4f16"], help="[%(default)s]")
    args = parser.parse_args(argv)
    folders = {variant: args.results / "onnx" / variant for variant in args.variants}
    try:
        sessions = {
            variant: open_graphs(files_of_variant(folder), folder, open_on_gpu)
            for variant, folder in folders.items()
            if folder.is_dir()
        }
    except NoGpuError as error:
        print(f"{error}: nothing was measured on a GPU")
        return 0
    if not sessions:
        raise UserError(f"{args.results}/onnx has no folder of these variants: {', '.join(args.variants)}")
    measure_parity(args.results, sessions)
    measure_speed(args.results, sessions)
    return 0


if __name__ == "__main__":
    run_script(main)
