"""Run every case of ``architectures`` through the chain and write docs/coverage.md: ``make coverage``.

Two processes share the cases; starting Python for each step of each case would take hours.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "workflow" / "scripts"), str(ROOT / "tests")]

from architectures import Architecture, all_cases  # noqa: E402 - found through the path above
from onnxproof.cli import UserError  # noqa: E402

#: What int8 must keep of a tiny model with random weights, which averages out less than a real one.
INT8_THRESHOLDS = {
    "cosine_min": 0.95,
    "cosine_mean": 0.98,
    "top1_agreement": 0.85,
    "token_agreement": 0.93,
    "span_agreement": 0.85,
    "greedy_token_match": 0.1,
    "next_token_agreement": 0.85,
    "order_agreement": 0.95,
    "detection_agreement": 0.85,
    "pixel_agreement": 0.95,
    "mean_relative_diff": 0.05,
    "batch_cosine_min": 0.9,
}
LONGEST_REASON = 250
EVALUATION_TEXTS = 24
INTEGER_OPERATORS = ("QAttention", "MatMulInteger", "DynamicQuantizeMatMul", "DequantizeLinear")
#: The rewrite of ours that stands for a fusion, but whose nodes are plain ones.
REWRITTEN = "DisentangledAttention"


@dataclass
class Row:
    """What became of one case; ``reason`` is empty where it passed the whole chain."""

    name: str
    task: str
    fused: str = ""
    integers: str = ""
    fp32: str = ""
    int8: str = ""
    reason: str = ""
    seconds: float = 0.0


def few_texts(folder: Path) -> Path:
    """Write every twelfth of the bundled evaluation texts to a file: all languages and lengths."""
    from onnxproof.texts import EVALUATION_TEXTS as BUNDLED
    from onnxproof.texts import read_texts

    texts = read_texts(BUNDLED)
    chosen = [" ".join(text.split()) for text in texts[:: len(texts) // EVALUATION_TEXTS]][:EVALUATION_TEXTS]
    file = folder / "texts.txt"
    file.write_text("\n".join(chosen) + "\n", encoding="utf-8")
    return file


def run_case(case: Architecture) -> Row:
    """Build a case's model, run the chain on it and judge every variant."""
    import torch

    from chain import missed, run_chain

    torch.set_num_threads(1)
    row = Row(case.name, case.task)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        case.save(folder / "model")
        try:
            for manifest, parity in run_chain(
                case.name, folder / "model", folder / "results", few_texts(folder), INT8_THRESHOLDS, case.requested
            ):
                variant = parity["variant"]
                if parity["task"] != case.task:
                    row.reason = f"taken for a model of the task {parity['task']}"
                    break
                if variant == "fp32":
                    largest = max(output["max_relative_diff"] for output in parity["outputs"].values())
                    row.fp32 = f"{largest:.0e}"
                elif variant == "optimized":
                    row.fused = describe_counts(fused_of(manifest["settings"])) or "none"
                else:
                    operators = manifest["operators"]
                    row.integers = describe_counts({name: operators.get(name, 0) for name in INTEGER_OPERATORS})
                    row.int8 = describe_metrics(parity["task_metrics"])
                failures = missed(parity, INT8_THRESHOLDS if variant == "int8" else None)
                if failures:
                    row.reason = f"{variant}: {'; '.join(map(str, failures))}"
                    break
        except UserError as error:
            row.reason = str(error).removeprefix(f"{case.name}: ")[:LONGEST_REASON]
        except Exception as error:  # a defect of ours, which must not hide the other cases
            row.reason = f"a step crashed: {type(error).__name__}: {' '.join(str(error).split())}"[:LONGEST_REASON]
    row.seconds = time.monotonic() - start
    return row


def fused_of(settings: dict[str, Any]) -> dict[str, int]:
    """Return how often each fused operator occurs, in all graphs of a model together, and DeBERTa's attention."""
    counts: Counter[str] = Counter()
    for graph in settings.get("graphs", {"": settings}).values():
        counts.update(graph["fused"])
        counts[REWRITTEN] += graph.get("rewrites", {}).get(REWRITTEN, 0)
    return dict(counts)


def describe_counts(counts: dict[str, int]) -> str:
    """Return "4 MatMulInteger, 2 QAttention" for the operators that occur."""
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def describe_metrics(metrics: dict[str, float | None]) -> str:
    """Return a task's first metric, the one that its users would name first; of generated text its second too.

    A text written freely goes another way after the first other token, which with random weights comes soon.
    """
    shown = list(metrics.items())[: 2 if "greedy_token_match" in metrics else 1]
    return ", ".join(f"{name} {'not finite' if value is None else format(value, '.4f')}" for name, value in shown)


def run_cases(cases: Sequence[Architecture], processes: int) -> list[Row]:
    """Run cases in a few processes of one thread each; print a line for each."""
    rows = []
    context = multiprocessing.get_context("spawn")
    names = [case.name for case in cases]
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for row in pool.map(run_named_case, names):
            rows.append(row)
            print(f"{row.seconds:5.1f} s  {row.name}: {row.reason or 'passed'}", file=sys.__stdout__, flush=True)
    return rows


def run_named_case(name: str) -> Row:
    """Run the case of this name, with the chain's own output left out."""
    import contextlib

    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        return run_case(next(case for case in all_cases() if case.name == name))


def write_table(rows: Iterable[Row], file: Path) -> None:
    """Write the table of all cases, those that did not pass first."""
    rows = list(rows)
    passed = [row for row in rows if not row.reason]
    versions = ", ".join(f"{name} {version}" for name, version in tool_versions().items())
    lines = [
        "# Architectures and tasks that were run through the chain",
        "",
        f"{len(passed)} of {len(rows)} cases pass every step and every gate. Each is a tiny model with random weights, "
        "made from transformers' own config class: what is proven is that the architecture goes through export, "
        "optimization and quantization and stays equal, not how well a trained model of it survives int8. "
        f"Written by `make coverage`, with {versions}.",
        "",
        "The fp32 column is the largest difference from PyTorch over the largest value; int8 is the task's own measure "
        "on 24 texts, 24 images or 16 sounds. DisentangledAttention is no operator: it stands for attentions that are "
        "rewritten with fewer nodes.",
        "",
        "## Not through",
        "",
        "| case | why |",
        "| --- | --- |",
        *[f"| {row.name} | {row.reason.replace('|', '/')} |" for row in rows if row.reason],
        "",
        "## Through",
        "",
        "| case | fused operators | integer operators | fp32 | int8 |",
        "| --- | --- | --- | --- | --- |",
        *[f"| {row.name} | {row.fused} | {row.integers} | {row.fp32} | {row.int8} |" for row in passed],
        "",
    ]
    file.write_text("\n".join(lines), encoding="utf-8")


def tool_versions() -> dict[str, Any]:
    """Return the versions that decide what can be exported and run."""
    from onnxproof.files import versions_of

    return versions_of("optimum-onnx", "transformers", "onnxruntime")


def main(argv: list[str] | None = None) -> None:
    """Run all cases, or those whose names contain one of the given words."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only cases whose names contain one of these")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, help="file to write the table to; only printed when left out")
    args = parser.parse_args(argv)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    cases = [case for case in all_cases() if not args.words or any(word in case.name for word in args.words)]
    start = time.monotonic()
    rows = run_cases(cases, args.processes)
    print(f"{sum(not row.reason for row in rows)} of {len(rows)} passed in {time.monotonic() - start:.0f} s")
    if args.output:
        write_table(rows, args.output)


if __name__ == "__main__":
    main()
