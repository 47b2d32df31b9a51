"""Compare how fast our variants of a language model write with public tools and other runtimes, on this CPU.

The model has the shape of Qwen3-0.6B and random weights: speed depends on the shape alone. Each contender takes turns
with onnxruntime's fp32, each in a process of its own. Files made for a shape stay in the output folder, so that the
next run only measures. Writes ``{shape}.json`` with every sample, and a page over all shapes measured so far.
"""

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import project_path  # noqa: F401 - the imports below are found through it
from comparison.contenders import BASELINE, make_once, save_peer
from comparison.generator_peers import Environments, public_tools
from comparison.generators import (
    BLOCKS_OF_OTHERS,
    SKIPPED,
    render_page,
    save_block_variant,
    save_language_model,
    save_with_onnxruntime,
)
from export import export
from onnxproof.benchmark import generation
from onnxproof.benchmark.generation import WritingCase, WritingPlan, WritingResult
from onnxproof.benchmark.timing import Contender, Effort, model_files, read_model_sizes, size_mb
from onnxproof.cli import UserError, run_script
from onnxproof.files import read_json, versions_of, write_json, write_text
from onnxproof.hardware import available_cores, cpu_description
from optimize import optimize

TASK = "text-generation"


def make_contenders(
    shape: str,
    folder: Path,
    layers: int,
    hidden: int,
    vocabulary: int,
    environments: Environments,
    plan: WritingPlan,
) -> list[Contender]:
    """Return all contenders, the fp32 baseline first, their files made where they are missing."""
    source = make_once(
        folder / "source", partial(save_language_model, layers=layers, hidden=hidden, vocabulary=vocabulary)
    )
    fp32, optimized = folder / BASELINE, folder / "optimized"
    if not fp32.is_dir():
        export(shape, source, TASK, fp32, folder / "fp32.json")
    if not optimized.is_dir():
        optimize(shape, fp32, folder / "fp32.json", optimized, folder / "optimized.json")
    ours = {
        variant: make_once(folder / variant, partial(save_block_variant, optimized, variant))
        for variant in ("w8", "q4", "q4-cpu")
    }
    public = {
        f"MatMulNBitsQuantizer, {words}, blocks of {block}": make_once(
            folder / f"public-{level}-{block}", partial(save_peer, fp32, partial(save_with_onnxruntime, level, block))
        )
        for level, words in ((0, "float activations"), (4, "int8 activations"))
        for block in BLOCKS_OF_OTHERS
    }
    graphs = {BASELINE: fp32, "optimized": optimized, **ours, **public}
    return [
        *(Contender(shape, name, "onnx", path) for name, path in graphs.items()),
        *public_tools(shape, source, fp32, folder, environments, plan),
        Contender(shape, "PyTorch eager", "pytorch", source, TASK),
        Contender(shape, "PyTorch bf16", "pytorch", source, TASK, {"bfloat16": True}),
    ]


def measure(
    shape: str,
    contenders: list[Contender],
    threads: int,
    plan: WritingPlan,
    effort: Effort,
    known: Mapping[str, Any],
) -> dict[str, Any]:
    """Time every contender in turns with the first one; returns the content of the shape's JSON.

    Of contenders in ``known`` it has the figures that are given, with the day that they are of.
    """
    baseline = contenders[0]
    sizes = read_model_sizes(baseline.folder / "config.json")
    records: dict[str, Any] = {}
    for contender in contenders:
        if contender.variant in known:
            records[contender.variant] = known[contender.variant]
            continue

        def told(case: WritingCase, result: WritingResult, name: str = contender.variant) -> None:
            print(f"{name}, {case}: p50 {result.contender['p50_ms']:.1f} ms", flush=True)

        group = [contender] if contender is baseline else [contender, baseline]
        try:
            writing = generation.measure(group, [threads], plan, sizes, effort, told)
        except UserError as error:
            if contender is baseline:
                raise
            records[contender.variant] = {"skipped": str(error).splitlines()[0]}
            print(f"{contender.variant}: left out: {error}", flush=True)
            continue
        records[contender.variant] = {
            "measured": datetime.now(UTC).date().isoformat(),
            "size_mb": size_mb(model_files(contender)),
            "generation": writing,
        }
    return {
        "shape": shape,
        "threads": threads,
        "cpu": cpu_description(),
        "contenders": records,
        "skipped": SKIPPED,
        "versions": versions_of("onnxruntime", "torch", "transformers"),
    }


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, make the files, measure, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=Path("results/compare-generators"), help="folder for files and measurements"
    )
    parser.add_argument("--table", type=Path, help="Markdown file to write")
    parser.add_argument("--layers", type=int, default=28, help="of the model; fewer than Qwen3-0.6B's 28 for a trial")
    parser.add_argument("--hidden", type=int, default=1024, help="channels, a multiple of 128; Qwen3-0.6B has 1024")
    parser.add_argument("--vocabulary", type=int, default=151_936, help="tokens; Qwen3-0.6B has 151,936")
    parser.add_argument("--prompts", type=int, nargs="+", default=[32, 512], help="tokens of a prompt")
    parser.add_argument("--contexts", type=int, nargs="+", default=[128], help="tokens before the next token")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="texts that are written at once")
    parser.add_argument("--new-tokens", type=int, default=8, help="next tokens a turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender in each case")
    parser.add_argument("--only", nargs="+", help="contenders to time; of the others the figures of the last run stay")
    parser.add_argument("--threads", type=int, default=available_cores(), help="threads of each contender")
    parser.add_argument("--openvino", type=Path, help="Python of an environment with openvino and nncf")
    parser.add_argument("--onnxruntime-genai", type=Path, help="Python of an environment with onnxruntime-genai")
    parser.add_argument("--llama-cpp", type=Path, help="Python of an environment with llama-cpp-python and gguf")
    args = parser.parse_args(argv)
    if args.hidden % 128:
        raise UserError(f"--hidden {args.hidden}: must be a multiple of 128, as many channels as a block has")
    shape = f"qwen3-{args.layers}x{args.hidden}-{args.vocabulary}"
    environments = Environments(args.openvino, args.onnxruntime_genai, args.llama_cpp)
    made = args.output / "made" / shape
    plan = WritingPlan(args.prompts, args.contexts, args.batches, args.new_tokens)
    contenders = make_contenders(shape, made, args.layers, args.hidden, args.vocabulary, environments, plan)
    effort = Effort(warmup=0, rounds=args.rounds, iterations=1, seconds_per_case=60, seed=0)
    record = args.output / f"{shape}.json"
    last = read_json(record)["contenders"] if args.only and record.is_file() else {}
    known = {name: facts for name, facts in last.items() if name not in args.only}
    write_json(record, measure(shape, contenders, args.threads, plan, effort, known))
    if args.table is not None:
        write_text(args.table, render_page([read_json(path) for path in sorted(args.output.glob("*.json"))]))


if __name__ == "__main__":
    run_script(main)
