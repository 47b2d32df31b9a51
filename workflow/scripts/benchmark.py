"""Measure one form of a model: latency, throughput, loading time, memory and size.

Every form but fp32 is timed in turns with the fp32 ONNX model, each in a process of its own, so that the
recorded speed-up is one of the same minutes on the same machine. Sizes and memory are in MB of 1e6 bytes.
Of a model that writes texts, the first token after a prompt and the tokens after it are timed too.
"""

import argparse
import functools
import platform
from collections.abc import Callable
from pathlib import Path
from statistics import median

from onnxproof.benchmark import generation, timing
from onnxproof.benchmark.generation import WritingCase, WritingPlan, WritingResult
from onnxproof.benchmark.timing import Case, CaseResult, Contender, Effort, Process
from onnxproof.checkpoint.inference import choose_task
from onnxproof.cli import run_script
from onnxproof.files import versions_of, write_json
from onnxproof.hardware import available_cores, cpu_description
from onnxproof.records.benchmark import BenchmarkRecord, ProviderBenchmark
from onnxproof.vocabulary import CPU_PROVIDER, SUPPORTED_TASKS

BASELINE_VARIANT = "fp32"
PYTORCH_VARIANT = "pytorch"


def positive(text: str) -> int:
    """Parse an integer of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def not_negative(text: str) -> int:
    """Parse an integer of at least 0, for argparse."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is not at least 0")
    return number


def at_least_two(text: str) -> int:
    """Parse an integer of at least 2, for argparse."""
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"{text} is not at least 2")
    return number


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the model's name, for the record")
    parser.add_argument(
        "--variant", required=True, help=f"{BASELINE_VARIANT}, optimized, int8, …, or {PYTORCH_VARIANT}"
    )
    parser.add_argument(
        "--contender",
        required=True,
        type=Path,
        help="folder with model.onnx, or for pytorch the original checkpoint",
    )
    parser.add_argument(
        "--baseline",
        required=True,
        type=Path,
        help="folder of the fp32 ONNX model, with its config.json; unused for the variant fp32",
    )
    parser.add_argument(
        "--task", choices=SUPPORTED_TASKS, help="pytorch's task; inferred from the checkpoint if left out"
    )
    parser.add_argument("--output", required=True, type=Path, help="JSON file to write")
    parser.add_argument(
        "--batch-sizes", nargs="+", type=positive, default=[1, 8], help="texts, images or sounds a call"
    )
    parser.add_argument(
        "--sequence-lengths",
        nargs="+",
        type=positive,
        default=[16, 128],
        help="tokens a text; of no use for images and sounds",
    )
    parser.add_argument(
        "--threads",
        nargs="+",
        type=positive,
        default=[available_cores()],
        help="intra-op threads; several counts are measured one after another (default: all cores)",
    )
    parser.add_argument(
        "--providers",
        nargs="+",
        default=[CPU_PROVIDER],
        help="onnxruntime's execution providers to time; of no use for pytorch",
    )
    parser.add_argument("--warmup", type=not_negative, default=3, help="untimed calls before each case")
    parser.add_argument("--rounds", type=positive, default=20, help="turns each contender gets a case")
    parser.add_argument("--iterations", type=positive, default=5, help="timed calls a turn")
    parser.add_argument(
        "--seconds-per-case", type=positive, default=10, help="a slower case gets fewer rounds, though at least three"
    )
    parser.add_argument(
        "--prompt-lengths",
        nargs="+",
        type=positive,
        default=[32, 512, 2048],
        help="tokens of a prompt whose first new token is timed; like the next three, of use for text-generation alone",
    )
    parser.add_argument(
        "--context-lengths",
        nargs="+",
        type=at_least_two,
        default=[128, 2048],
        help="tokens in the cache before the next tokens are timed",
    )
    parser.add_argument(
        "--generation-batch-sizes", nargs="+", type=positive, default=[1, 8], help="texts that are written at once"
    )
    parser.add_argument("--new-tokens", type=positive, default=16, help="next tokens that are timed a turn")
    parser.add_argument("--load-repeats", type=positive, default=3, help="fresh processes that load the model")
    parser.add_argument("--machine", help="the kind of machine that the scheduler was asked for, for the record")
    parser.add_argument("--seed", type=not_negative, default=0, help="seed of the random token ids")
    return parser.parse_args(argv)


def choose_contenders(arguments: argparse.Namespace, provider: str) -> list[Contender]:
    """Return the contender on one execution provider and, unless it is the same, the fp32 baseline on the CPU."""
    model, variant = arguments.model, arguments.variant
    baseline = Contender(model, BASELINE_VARIANT, "onnx", arguments.baseline)
    if variant == PYTORCH_VARIANT:
        task = choose_task(model, arguments.contender, arguments.task)
        return [Contender(model, variant, "pytorch", arguments.contender, task), baseline]
    contender = Contender(model, variant, "onnx", arguments.contender, options={"provider": provider})
    return [contender] if (variant, provider) == (BASELINE_VARIANT, CPU_PROVIDER) else [contender, baseline]


def progress_printer(contender: Contender) -> Callable[[CaseResult], None]:
    """Return a function that prints one line a measured case."""

    def print_progress(result: CaseResult) -> None:
        print_case(contender, Case(result.contender["batch"], result.contender["sequence"]), result)

    return print_progress


def print_case(contender: Contender, case: Case | WritingCase, result: CaseResult | WritingResult) -> None:
    """Print one line of a measured case."""
    record = result.contender
    ratio = f", {record['speedup_vs_fp32']:.2f}x fp32" if result.baseline else ""
    print(
        f"{contender.model} {contender.variant} {case} threads={record['intra_op_threads']}: "
        f"p50 {record['p50_ms']:.2f} ms{ratio}",
        flush=True,
    )


def crowding_notes(thread_counts: list[int], cores: int) -> list[str]:
    """Return a note for every thread count that the cores at hand cannot serve."""
    return [
        f"{threads} threads shared {cores} available cores: their times say little about {threads} cores"
        for threads in thread_counts
        if threads > cores
    ]


def precision_notes(dtype: str | None) -> list[str]:
    """Return a note where PyTorch has weights of another type than the fp32 that it is compared with."""
    if dtype in (None, "float32"):
        return []
    return [f"PyTorch computed in {dtype}, the type that transformers loads this checkpoint in"]


def runtime_versions(contender: Contender) -> dict[str, str]:
    """Return the versions of what was measured and of what measured it."""
    distributions = ["numpy", "onnxruntime"]
    if contender.runtime == "pytorch":
        distributions += ["torch", "transformers"]
    if contender.task == "sentence-similarity" and contender.runtime == "pytorch":
        distributions.append("sentence-transformers")
    return versions_of(*distributions)


def build_record(
    contender: Contender,
    machine: str | None,
    thread_counts: list[int],
    effort: Effort,
    load_samples: list[float],
    results: list[CaseResult],
    process: Process,
) -> BenchmarkRecord:
    """Return the record of one execution provider."""
    baseline_cases = [result.baseline for result in results if result.baseline is not None]
    return {
        "model": contender.model,
        "variant": contender.variant,
        "provider": "pytorch-cpu" if contender.runtime == "pytorch" else contender.options["provider"],
        "intra_op_threads": thread_counts[-1],
        "machine": machine,
        "host": platform.node(),
        "cpu": {**cpu_description(), "available_cores": available_cores()},
        "load_ms": median(load_samples),
        "load_samples_ms": load_samples,
        "rss_before_load_mb": process.rss_before_load_mb,
        "peak_rss_mb": process.peak_rss_mb,
        "size_mb": timing.size_mb(timing.model_files(contender)),
        "settings": {
            "warmup": effort.warmup,
            "rounds": effort.rounds,
            "seconds_per_case": effort.seconds_per_case,
            "iterations": effort.iterations,
            "lead_in": 1,
            "inter_op_threads": 1,
            "execution_mode": "sequential",
            "spinning": True,
            "memory_arena": True,
            "seed": effort.seed,
        },
        "cases": [result.contender for result in results],
        "baseline": {"variant": BASELINE_VARIANT, "cases": baseline_cases} if baseline_cases else None,
        "notes": crowding_notes(thread_counts, available_cores()) + precision_notes(process.dtype),
        "versions": runtime_versions(contender),
    }


def measure_on_provider(arguments: argparse.Namespace, provider: str) -> BenchmarkRecord:
    """Measure one form of a model on one execution provider; returns the record."""
    contenders = choose_contenders(arguments, provider)
    for contender in contenders:
        timing.model_files(contender)
    sizes = timing.read_model_sizes(contenders[-1].folder / "config.json")
    cases = timing.choose_cases(sizes, arguments.batch_sizes, arguments.sequence_lengths)
    timing.check_cases(arguments.model, sizes, cases)
    effort = Effort(
        arguments.warmup, arguments.rounds, arguments.iterations, arguments.seconds_per_case, arguments.seed
    )
    thread_counts = sorted(set(arguments.threads))

    # The process that is timed at the end loads the model once more.
    load_samples = timing.sample_loading(contenders[0], thread_counts[-1], arguments.load_repeats - 1)
    results = []
    for threads in thread_counts:
        measured, process = timing.measure(contenders, threads, cases, sizes, effort, progress_printer(contenders[0]))
        results += measured
    load_samples.append(process.load_ms)
    record = build_record(contenders[0], arguments.machine, thread_counts, effort, load_samples, results, process)
    if process.writes:
        plan = WritingPlan(
            arguments.prompt_lengths, arguments.context_lengths, arguments.generation_batch_sizes, arguments.new_tokens
        )
        record["generation"] = generation.measure(
            contenders, thread_counts, plan, sizes, effort, functools.partial(print_case, contenders[0])
        )
    return record


def part_of_provider(record: BenchmarkRecord) -> ProviderBenchmark:
    """Return what differs between a record's providers; the rest is said once."""
    part: ProviderBenchmark = {
        "provider": record["provider"],
        "load_ms": record["load_ms"],
        "load_samples_ms": record["load_samples_ms"],
        "rss_before_load_mb": record["rss_before_load_mb"],
        "peak_rss_mb": record["peak_rss_mb"],
        "cases": record["cases"],
        "baseline": record["baseline"],
    }
    return {**part, "generation": record["generation"]} if "generation" in record else part


def main(argv: list[str] | None = None) -> None:
    """Measure one form of a model and write the record: of the first provider, the others' beside it."""
    arguments = parse_arguments(argv)
    providers = [CPU_PROVIDER] if arguments.variant == PYTORCH_VARIANT else arguments.providers
    record, *others = [measure_on_provider(arguments, provider) for provider in providers]
    if others:
        record["other_providers"] = [part_of_provider(other) for other in others]
    write_json(arguments.output, record)


if __name__ == "__main__":
    run_script(main)
