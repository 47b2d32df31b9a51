"""Compare our int8 with fixed scales (`int8-static`) with what public tools make of the same fp32 file, in one run.

Every file runs in OpenVINO and in onnxruntime, except NNCF's, which are OpenVINO's own. The answers are compared with
those of fp32 in onnxruntime, on inputs that no tool was calibrated on. The files of one runtime take turns, and NNCF's
file takes its turn among both: all speeds are relative to it. Files stay in the output folder, and why a tool failed
does too, so that the next run only measures.
"""

import argparse
import contextlib
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import project_path
from comparison.contenders import BASELINE, STATIC, Entry, make_once, save_recipe_variant
from comparison.measuring import Field, Traffic, measure_speed
from comparison.models import OUTLIER_MODELS, OUTLIERS, TIMES_AS_LARGE, finished_model, local_model
from comparison.pages import describe_case
from comparison.static_peers import (
    ENVIRONMENTS,
    STATIC_PEERS,
    ToolError,
    calibration_items,
    interpreter_of,
    quantize_statically,
)
from onnxproof.benchmark.timing import Case, Contender, Effort, ModelSizes, check_cases, read_model_sizes
from onnxproof.cli import UserError, run_script
from onnxproof.files import read_json, versions_of, write_json, write_text
from onnxproof.hardware import available_cores, cpu_description
from onnxproof.inputs.texts import EVALUATION_TEXTS, read_texts
from onnxproof.parity.metrics import cosine_similarity, finite
from onnxproof.tasks.registry import TASKS

#: In the order of the page.
MODELS = ("all-MiniLM-L6-v2", "star-rating-tiny", *OUTLIER_MODELS)
RUNTIMES = {"openvino": "OpenVINO", "onnx": "onnxruntime"}
YARDSTICK = "NNCF"
TEXT_CASES = (Case(1, 128), Case(8, 128), Case(32, 128))
IMAGE_CASES = (Case(1, None), Case(8, None))
#: Inputs for calibration, and texts and images for the judgement, of models with random weights.
FEW_INPUTS, FEW_TEXTS, IMAGES = 16, 50, 16
MOST_TOKENS = 256
#: A tool that needs longer for one file is ended.
MOST_MINUTES = 20.0
RANDOM_WEIGHTS = (
    f"The weights are random, and {OUTLIERS} channels behind each normalization and inside each feed-forward block are "
    f"{TIMES_AS_LARGE:g} times as large as the others, as a handful of them are in trained transformers. There is no "
    "search for a recipe: our file is what the search tries first. Distances say little of a trained model. "
)
#: Texts to judge a trained model by, where there are better ones than the evaluation texts.
HELD_OUT = {"star-rating-tiny": project_path.ROOT / "examples/star-rating-heldout.jsonl"}


def our_folders(model: str, results: Path, folder: Path, tokenizer: Path) -> tuple[dict[str, Path], str]:
    """Return the folders of ``source``, fp32 and our int8-static, and the task: of a finished run, or made here.

    Raises:
        UserError: the finished run lacks one.
    """
    if model not in OUTLIER_MODELS:
        return finished_model(model, results, (BASELINE, STATIC))
    made, task = local_model(model, folder, tokenizer)
    static = partial(save_recipe_variant, made[BASELINE], task, STATIC, most=FEW_INPUTS)
    return {**made, STATIC: make_once(folder / STATIC, static)}, task


def make_files(
    model: str,
    task: str,
    fp32: Path,
    folder: Path,
    given: dict[str, Path | None],
    left_out: Sequence[str] = (),
    most_minutes: float = MOST_MINUTES,
) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the folder that each tool filled, and why the others filled none, both by the names in the table.

    Why a tool failed stays in ``{tool}-failed.txt``, so that the next run does not wait for it again. Without that
    file, the tool runs again.
    """
    random = model in OUTLIER_MODELS
    items = calibration_items(fp32, task, FEW_INPUTS if random else None)
    made, missing = {}, {}
    for peer in STATIC_PEERS:
        python, failed = interpreter_of(peer, given), folder / f"{peer.tool}-failed.txt"
        if peer.tool in left_out:
            missing[peer.name] = "left out by --leave-out"
        elif peer.searches and random:
            missing[peer.name] = "left out: which parts to keep in float says nothing with random weights"
        elif python is None:
            missing[peer.name] = f"left out: no --{peer.environment} was given"
        elif failed.is_file():
            missing[peer.name] = failed.read_text(encoding="utf-8").strip()
        else:
            try:
                quantize = partial(quantize_statically, peer.tool, python, fp32, items, most_minutes=most_minutes)
                made[peer.name] = make_once(folder / peer.tool, quantize)
            except UserError as error:
                missing[peer.name] = str(error)
                if isinstance(error, ToolError):
                    write_text(failed, f"{error}\n")
                print(f"without {peer.name}: {error}", flush=True)
    return made, missing


def entries_of(runtime: str, model: str, ours: dict[str, Path], made: dict[str, Path], python: Path) -> list[Entry]:
    """Return the contenders of one runtime, NNCF's file first, fp32 second."""

    def entry(name: str, path: Path, where: str, is_ours: bool = False) -> Entry:
        own = {"python": str(python)} if where == "openvino" else {}
        return Entry(name, Contender(model, name, where, path, **own), ours=is_ours)

    runs_in = {peer.name: peer.runtimes for peer in STATIC_PEERS}
    return [
        entry(YARDSTICK, made[YARDSTICK], "openvino"),
        entry(BASELINE, ours[BASELINE], runtime),
        entry(STATIC, ours[STATIC], runtime, is_ours=True),
        *(entry(name, path, runtime) for name, path in made.items() if name != YARDSTICK and runtime in runs_in[name]),
    ]


def judge(field: Field, inputs: Case | Traffic, sizes: ModelSizes, output: str) -> dict[str, np.ndarray]:
    """Return every contender's answers, float64 (items, values), to inputs that nothing was calibrated on."""
    field.prepare(inputs, sizes, seed=0)
    return {name: np.array(answer["rows"]) for name, answer in field.ask("answer", output=output).items()}


def compare_answers(exact: np.ndarray, values: np.ndarray, classifies: bool) -> dict[str, Any]:
    """Return how far answers, (items, values), are from exact ones: cosines; for classes, how many differ."""
    cosines = cosine_similarity(exact, values)
    compared: dict[str, Any] = {
        "cosine_min": finite(float(cosines.min())),
        "cosine_mean": finite(float(cosines.mean())),
    }
    if classifies:
        compared["other_answers"] = int((exact.argmax(axis=1) != values.argmax(axis=1)).sum())
    return compared


def measure_model(model: str, args: argparse.Namespace, given: dict[str, Path | None]) -> dict[str, Any]:
    """Make the files of one model and measure them in both runtimes; returns the content of its JSON.

    With ``--make-only``, that is empty.
    """
    folder = args.output / "made" / model
    ours, task = our_folders(model, args.results, folder, args.results / args.tokenizer_of / "source")
    made, missing = make_files(model, task, ours[BASELINE], folder, given, args.leave_out, args.minutes)
    if YARDSTICK not in made:
        raise UserError(f"{model}: {missing[YARDSTICK]}; the speed of every file is relative to that of {YARDSTICK}'s")
    if args.make_only:
        return {}
    sizes = read_model_sizes(ours[BASELINE] / "config.json")
    random, is_text = model in OUTLIER_MODELS, not sizes.items
    cases = (TEXT_CASES if is_text else IMAGE_CASES)[: 1 if args.quick else None]
    check_cases(model, sizes, list(cases))
    judged: Case | Traffic = Case(IMAGES, None)
    if is_text:
        texts = read_texts(HELD_OUT.get(model, EVALUATION_TEXTS))
        texts = texts[:: max(1, len(texts) // FEW_TEXTS)] if random or args.quick else texts
        tokenizer = str(ours["source"] / "tokenizer.json")
        judged = Traffic(texts, tokenizer, batch_size=1, most_tokens=min(MOST_TOKENS, sizes.max_tokens or MOST_TOKENS))
    effort = Effort(warmup=1, rounds=args.rounds, iterations=2, seconds_per_case=args.seconds, seed=0)
    exact: np.ndarray | None = None
    contenders: dict[str, dict[str, Any]] = {}
    for runtime in ("onnx", "openvino"):  # the exact answers are those of fp32 in onnxruntime
        with contextlib.ExitStack() as stack:
            entries = entries_of(runtime, model, ours, made, given["openvino"] or Path())
            is_measured = runtime == "openvino" or not args.openvino_only
            entries = entries if is_measured else [entry for entry in entries if entry.name == BASELINE]
            field = Field(entries, args.threads, stack)
            answers = judge(field, judged, sizes, TASKS[task].outputs[-1])
            exact = answers[BASELINE] if exact is None else exact
            for name, values in answers.items():
                quality = compare_answers(exact, values, TASKS[task].outputs[-1] == "logits")
                field.records[name]["quality"] = quality
                print(f"{RUNTIMES[runtime]}, {name}: {quality}", flush=True)
            if not is_measured:
                continue
            for case in cases:
                measure_speed(field, {}, str(case), case, sizes, effort, None)
            contenders[runtime] = field.records
    return {
        "model": model,
        "task": task,
        "random_weights": random,
        "quick": args.quick,
        "threads": args.threads,
        "cpu": cpu_description(),
        "calibrated_on": len(calibration_items(ours[BASELINE], task, FEW_INPUTS if random else None)),
        "judged_on": len(judged.texts) if isinstance(judged, Traffic) else judged.batch,
        "runtimes": contenders,
        "missing": missing,
        "versions": versions_of("onnxruntime"),
    }


def describe_row(runtime: str, name: str, facts: dict[str, Any], labels: list[str], classifies: bool) -> str:
    """Return a contender's row of the table."""
    quality = facts.get("quality", {})
    cells = [RUNTIMES[runtime], f"**{name}**" if facts["ours"] else name]
    cells += ["–" if quality.get(key) is None else f"{quality[key]:.4f}" for key in ("cosine_min", "cosine_mean")]
    if classifies:
        cells.append(str(quality.get("other_answers", "–")))
    cells.append(f"{facts['size_mb']:.1f}")
    cells += [describe_case(facts["cases"][label]) if label in facts["cases"] else "–" for label in labels]
    return f"| {' | '.join(cells)} |"


def compare_with_yardstick(record: dict[str, Any]) -> str:
    """Return a sentence: what our file's lowest and mean cosine and speed are in OpenVINO, and NNCF's."""
    ours, theirs = (record["runtimes"]["openvino"][name] for name in (STATIC, YARDSTICK))
    cosines = [
        " / ".join(f"{facts['quality'][key]:.4f}" for key in ("cosine_min", "cosine_mean")) for facts in (ours, theirs)
    ]
    speeds = " / ".join(f"{case['speedup']:.2f}" for case in ours["cases"].values())
    return (
        f"In OpenVINO, the lowest and the mean cosine of `{STATIC}` are {cosines[0]}, those of {YARDSTICK}'s file "
        f"{cosines[1]}. Its speed is {speeds} of {YARDSTICK}'s at {' / '.join(ours['cases'])}."
    )


def section(record: dict[str, Any]) -> list[str]:
    """Return the part of the page about one model."""
    yardstick = record["runtimes"]["openvino"][YARDSTICK]
    labels = list(yardstick["cases"])
    classifies = "other_answers" in yardstick["quality"]
    heads = ["runtime", "file", "cosine, lowest", "cosine, mean", *(["other answers"] if classifies else []), "MB"]
    heads += [f"speed at {label}" for label in labels]
    lines = [
        f"## {record['model']}",
        "",
        f"Calibrated on {record['calibrated_on']} inputs, judged on {record['judged_on']} others. "
        + (RANDOM_WEIGHTS if record["random_weights"] else "")
        + compare_with_yardstick(record),
        "",
        f"| {' | '.join(heads)} |",
        "|" + " --- |" * len(heads),
    ]
    for runtime, contenders in reversed(record["runtimes"].items()):
        lines += [
            describe_row(runtime, name, facts, labels, classifies)
            for name, facts in contenders.items()
            if runtime == "openvino" or name != YARDSTICK
        ]
    failed = {
        f"{name} in {RUNTIMES[runtime]}": facts["failed"]
        for runtime, contenders in record["runtimes"].items()
        for name, facts in contenders.items()
        if "failed" in facts
    }
    notes = [f"- {name}: {reason}" for name, reason in (record["missing"] | failed).items()]
    return [*lines, *(["", *notes] if notes else []), ""]


def measured_so_far(folder: Path) -> list[dict[str, Any]]:
    """Return the records in ``folder``, of this run and of earlier ones, in the order of the page.

    Raises:
        UserError: there are none.
    """
    records = [record for record in map(read_json, sorted(folder.glob("*.json"))) if "runtimes" in record]
    if not records:
        raise UserError(f"{folder}: holds no measurements; name models to measure with --models")
    order = {model: place for place, model in enumerate(MODELS)}
    return sorted(records, key=lambda record: order.get(record["model"], len(order)))


def render_page(records: list[dict[str, Any]], note: str) -> str:
    """Return the page of Markdown over the models of one or several runs on one machine; ``note`` ends its preface."""
    first = records[0]
    cpu = first["cpu"]
    return "\n".join(
        [
            "# int8 with fixed scales, ours and what public tools make",
            "",
            f"`make bench-static` writes this page. It was measured on {cpu['model']} "
            f"({', '.join(cpu['flags']) or 'no flags known'}) with {first['threads']} threads. Cosines compare the "
            "answers with those of `fp32` in onnxruntime; *other answers* counts the inputs with another class. "
            f"Speed is relative to {YARDSTICK}'s file in OpenVINO: the median of the rounds' ratios, its 95 % interval "
            "and the median time. The files of one runtime took turns, each in a process of its own, so that other "
            f"work on the machine disturbed them alike. {note}".strip(),
            "",
            *(line for record in records for line in section(record)),
            f"Versions: onnxruntime {first['versions']['onnxruntime']}; those of the tools are in `envs/`.",
            "",
        ]
    )


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, measure the models one after another, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"), help="results of a finished run")
    parser.add_argument(
        "--output", type=Path, default=Path("results/compare-static"), help="folder for files and measurements"
    )
    parser.add_argument("--table", type=Path, help="Markdown file to write")
    parser.add_argument("--note", default="", help="a sentence for the page, such as what else the machine was doing")
    parser.add_argument(
        "--models",
        nargs="*",
        default=list(MODELS),
        help="of the results, or made on the spot; the page has those measured before too",
    )
    parser.add_argument("--tokenizer-of", default="all-MiniLM-L6-v2", help="whose tokenizer the made models borrow")
    tools = [peer.tool for peer in STATIC_PEERS if peer.name != YARDSTICK]
    parser.add_argument("--leave-out", nargs="+", choices=tools, default=[], metavar="TOOL", help=", ".join(tools))
    parser.add_argument("--minutes", type=float, default=MOST_MINUTES, help="a tool that needs more is ended")
    parser.add_argument("--openvino-only", action="store_true", help="do not measure the files in onnxruntime")
    parser.add_argument("--make-only", action="store_true", help="make the contenders' files and measure nothing")
    parser.add_argument("--quick", action="store_true", help="fewer inputs, and the first case alone")
    parser.add_argument("--threads", type=int, default=available_cores(), help="threads of each contender")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each contender in each case")
    parser.add_argument("--seconds", type=float, default=300, help="for each case and runtime, with 3 turns at least")
    for name in ENVIRONMENTS:
        parser.add_argument(f"--{name}", type=Path, help=f"Python of the environment with {name}")
    args = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    given = {name: getattr(args, name.replace("-", "_")) for name in ENVIRONMENTS}
    for model in args.models:
        record = measure_model(model, args, given)
        if record:
            write_json(args.output / f"{model}.json", record)
            if args.table is not None:  # after each model: a run that is ended keeps what it measured
                write_text(args.table, render_page(measured_so_far(args.output), args.note))
    if not args.models and args.table is not None:
        write_text(args.table, render_page(measured_so_far(args.output), args.note))


if __name__ == "__main__":
    run_script(main)
