"""Compare our variants of a model with other runtimes, public int8 tools and this CPU's own limit, in one run.

Contenders take turns, each in a process of its own with its threads set. Writes ``{model}.json`` with every sample;
then ``samples.csv``, ``summary.csv``, a table and a plot over all models measured so far. Files made for a model stay
in the output folder, so that the next run only measures.
"""

import argparse
import contextlib
import logging
from functools import partial
from pathlib import Path
from typing import Any

import project_path  # noqa: F401 - the imports below are found through it
from comparison.contenders import (
    BASELINE,
    STATIC,
    Entry,
    Environments,
    make_entries,
    make_once,
    peak_entries,
    save_recipe_variant,
    settings_entries,
)
from comparison.limit import matrix_operations
from comparison.measuring import (
    REFERENCE,
    TRAFFIC,
    Field,
    Traffic,
    measure_quality,
    measure_speed,
    start_peaks,
)
from comparison.models import LOCAL_MODELS, finished_model, local_model
from comparison.pages import write_pages
from onnxproof.benchmark.timing import Case, Effort, ModelSizes, check_cases, read_model_sizes
from onnxproof.benchmark.worker import draw_inputs
from onnxproof.cli import UserError, run_script
from onnxproof.files import read_json, versions_of, write_json
from onnxproof.graph.files import MODEL_FILE
from onnxproof.hardware import available_cores, cpu_description
from onnxproof.inputs.texts import EVALUATION_TEXTS, read_texts
from onnxproof.tasks.registry import TASKS
from onnxproof.vocabulary import MADE_OF
from optimize import optimize

TEXT_CASES = (Case(1, 16), Case(1, 128), Case(8, 128), Case(32, 128))
IMAGE_CASES = (Case(1, None), Case(8, None), Case(32, None))
TRAFFIC_TEXTS, QUICK_TRAFFIC_TEXTS, TRAFFIC_BATCH, MOST_TOKENS = 32, 16, 8, 256
#: What a quick run leaves out: the largest batch, and torch.compile, which compiles for minutes.
QUICK_CASES = 3
SLOW_CONTENDERS = ("torch.compile",)


def our_folders(model: str, results: Path, folder: Path, tokenizer: Path) -> tuple[dict[str, Path], str]:
    """Return the folders of ``source`` and of our variants, and the task: of a finished run, or made here and now.

    Raises:
        UserError: the finished run lacks one.
    """
    variants = (BASELINE, "optimized", "int8", "int8-invariant")
    if model not in LOCAL_MODELS:
        has_static = (results / model / "onnx" / STATIC).is_dir()
        return finished_model(model, results, (*variants, STATIC) if has_static else variants)
    made, task = local_model(model, folder, tokenizer)
    fp32, optimized = made[BASELINE], folder / "optimized"
    if not optimized.is_dir():
        optimize(model, fp32, folder / "fp32.json", optimized, folder / "optimized.json")
    quantized = {
        variant: make_once(
            folder / variant, partial(save_recipe_variant, folder / MADE_OF.get(variant, "optimized"), task, variant)
        )
        for variant in (*variants[2:], STATIC)
    }
    return {**made, "optimized": optimized, **quantized}, task


def operations_of_an_item(fp32: Path, case: Case, sizes: ModelSizes) -> int:
    """Return the operations of the graph's matrix products for one item of a case."""
    import onnx

    model = onnx.load(fp32 / MODEL_FILE)
    kinds = {onnx.TensorProto.INT64: "tensor(int64)", onnx.TensorProto.FLOAT: "tensor(float)"}
    types = {value.name: kinds[value.type.tensor_type.elem_type] for value in model.graph.input}
    feeds = draw_inputs(types, 1, case.sequence, sizes.vocab_size, 0, None, dict(sizes.items))
    return matrix_operations(model, feeds)


def choose_entries(entries: list[Entry], only: list[str], quick: bool) -> list[Entry]:
    """Return the contenders to measure: the baseline and PyTorch always; see ``--only`` and ``--quick``.

    Raises:
        UserError: ``only`` names nobody.
    """
    for part in only:
        if not any(part in entry.name for entry in entries):
            raise UserError(
                f"--only {part}: no contender's name holds it; they are: {', '.join(e.name for e in entries)}"
            )
    always = (entries[0].name, REFERENCE)
    return [
        entry
        for entry in entries
        if entry.name in always
        or (any(part in entry.name for part in only) if only else not (quick and entry.name in SLOW_CONTENDERS))
    ]


def measure_model(model: str, args: argparse.Namespace, environments: Environments, effort: Effort) -> dict[str, Any]:
    """Make the contenders of one model and measure them all; returns the content of its JSON."""
    folder = args.output / "made" / model
    tokenizer = args.results / args.tokenizer_of / "source"
    ours, task = our_folders(model, args.results, folder, tokenizer)
    every = [*make_entries(model, task, ours, folder, environments), *settings_entries(model, ours["int8"])]
    if args.make_only:
        peak_entries(args.output / "made")
        return {}
    entries = choose_entries(every, args.only, args.quick)
    sizes = read_model_sizes(ours[BASELINE] / "config.json")
    texts = read_texts(EVALUATION_TEXTS)
    most = min(MOST_TOKENS, sizes.max_tokens or MOST_TOKENS)
    serve = partial(Traffic, tokenizer=str(ours["source"] / "tokenizer.json"), most_tokens=most)
    is_text = not sizes.items
    cases = (TEXT_CASES if is_text else IMAGE_CASES)[: QUICK_CASES if args.quick else None]
    plan: dict[str, Case | Traffic] = {str(case): case for case in cases}
    if is_text:
        count = QUICK_TRAFFIC_TEXTS if args.quick else TRAFFIC_TEXTS
        plan[TRAFFIC] = serve(texts[:: len(texts) // count][:count], batch_size=TRAFFIC_BATCH)
    asked = {label: plan[label] for label in args.cases or plan}
    timed = {label: case for label, case in asked.items() if isinstance(case, Case)}
    check_cases(model, sizes, list(timed.values()))
    operations = {
        label: case.batch * operations_of_an_item(ours[BASELINE], case, sizes) for label, case in timed.items()
    }
    peaks: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        field = Field(entries, args.threads, stack)
        judged = serve(texts[:: len(texts) // args.judged], batch_size=1) if is_text else Case(8, None)
        if next(iter(asked)) == next(iter(plan)):
            measure_quality(field, judged, sizes, TASKS[task].outputs[-1], effort.seed)
        peak_workers = start_peaks(peak_entries(args.output / "made"), args.threads, stack)
        for label, case in asked.items():
            rates = measure_speed(field, peak_workers, label, case, sizes, effort, operations.get(label))
            for kind, rate in rates.items():
                peaks.setdefault(kind, []).append(rate)
        for name, answer in field.ask("memory").items():
            field.records[name] |= answer
    return {
        "model": model,
        "task": task,
        "random_weights": model in LOCAL_MODELS,
        "quick": args.quick,
        "threads": args.threads,
        "cpu": cpu_description(),
        "peak_giga_operations_per_s": {kind: max(rates) for kind, rates in peaks.items()},
        "items_judged": len(judged.texts) if isinstance(judged, Traffic) else judged.batch,
        "contenders": field.records,
        "versions": versions_of("onnxruntime", "sentence-transformers", "torch", "transformers"),
    }


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a run of some cases, with the cases and the quality that an earlier run measured."""
    contenders = {name: dict(facts) for name, facts in old["contenders"].items()}
    for name, facts in new["contenders"].items():
        earlier = contenders.get(name, {"cases": {}})
        contenders[name] = earlier | facts | {"cases": earlier["cases"] | facts["cases"]}
    peaks = (old["peak_giga_operations_per_s"], new["peak_giga_operations_per_s"])
    highest = {kind: max(found[kind] for found in peaks) for kind in peaks[1]}
    return new | {"contenders": contenders, "peak_giga_operations_per_s": highest}


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, measure the models one after another, write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"), help="results of a finished run")
    parser.add_argument(
        "--output", type=Path, default=Path("results/compare-runtimes"), help="folder for files and measurements"
    )
    parser.add_argument("--table", type=Path, help="Markdown file to write; its plots lie beside it")
    parser.add_argument(
        "--models", nargs="+", default=["all-MiniLM-L6-v2", *LOCAL_MODELS], help="of the results, or made on the spot"
    )
    parser.add_argument("--tokenizer-of", default="all-MiniLM-L6-v2", help="whose tokenizer the made models borrow")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="contenders whose names hold this")
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="such as 1x128; those measured before are kept")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and cases, without torch.compile")
    parser.add_argument("--make-only", action="store_true", help="make the contenders' files and measure nothing")
    parser.add_argument("--threads", type=int, default=available_cores(), help="threads of each contender")
    parser.add_argument("--rounds", type=int, help="turns of each contender in each case")
    parser.add_argument("--openvino", type=Path, help="Python of an environment with openvino and nncf")
    parser.add_argument("--onnxruntime-openvino", type=Path, help="Python of an environment with onnxruntime-openvino")
    args = parser.parse_args(argv)
    args.judged = 24 if args.quick else 150
    logging.disable(logging.WARNING)  # the peers' notes on their own presets
    effort = Effort(
        warmup=1,
        rounds=args.rounds or (7 if args.quick else 20),
        iterations=1 if args.quick else 2,
        seconds_per_case=25 if args.quick else 300,
        seed=0,
    )
    environments = Environments(args.openvino, args.onnxruntime_openvino)
    for model in args.models:
        record = measure_model(model, args, environments, effort)
        if record:
            path = args.output / f"{model}.json"
            write_json(path, merge(read_json(path), record) if args.cases and path.is_file() else record)
    if not args.make_only:
        write_pages(args.output, args.table)


if __name__ == "__main__":
    run_script(main)
