"""Compare our int8 files with what the public tools make of the same fp32 file, in one run.

Accuracy is measured on the recorded reference, like every variant's parity; speed in turns, one process a contender,
as in ``benchmark.py``. Every contender starts from ``onnx/fp32`` of one model of a finished run, and no public tool is
given more than its documentation names: presets as they are, per-channel on and off.
"""

import argparse
import contextlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import project_path  # noqa: F401 - the imports below are found through it
from comparison.peers import (
    quantize_with_onnxruntime,
    quantize_with_optimum,
    quantize_with_sentence_transformers,
)
from measure_parity import measure
from onnxproof.benchmark.timing import (
    Case,
    Contender,
    Effort,
    Worker,
    compare,
    model_files,
    prepare_case,
    read_model_sizes,
    size_mb,
    time_in_turns,
)
from onnxproof.cli import UserError, run_script
from onnxproof.files import describe_files, read_json, versions_of, write_json, write_text
from onnxproof.graph.files import MODEL_FILE
from onnxproof.graph.support_files import copy_support_files
from onnxproof.hardware import cpu_description
from onnxproof.inputs.reference import read_reference

BASELINE = "fp32"
OURS = ("optimized", "int8", "int8-invariant")
CASES = (Case(1, 16), Case(1, 128), Case(8, 128))


#: Who takes part, by the name in the table.
PEERS: dict[str, Callable[[Path, Path], None]] = {
    "onnxruntime quantize_dynamic": quantize_with_onnxruntime,
    "Optimum avx2": quantize_with_optimum("avx2", per_channel=False),
    "Optimum avx2, per channel": quantize_with_optimum("avx2", per_channel=True),
    "Optimum avx512_vnni": quantize_with_optimum("avx512_vnni", per_channel=False),
    "Optimum avx512_vnni, per channel": quantize_with_optimum("avx512_vnni", per_channel=True),
    "sentence-transformers qint8 avx512_vnni": quantize_with_sentence_transformers("avx512_vnni"),
}


def make_contenders(results: Path, scratch: Path) -> dict[str, Path]:
    """Return ``{name: folder with model.onnx and config.json}``: the baseline, our variants, the peers'.

    Raises:
        UserError: the results lack fp32 or hold none of our variants.
    """
    folders = {name: results / "onnx" / name for name in (BASELINE, *OURS)}
    present = {name: folder for name, folder in folders.items() if (folder / MODEL_FILE).is_file()}
    if BASELINE not in present or len(present) == 1:
        raise UserError(f"{results}: holds no fp32 and quantized variants; run snakemake first")
    for number, (name, quantize) in enumerate(PEERS.items()):
        source, folder = scratch / f"source{number}", scratch / f"made{number}"
        # A copy for each: quantize_dynamic writes beside its input.
        shutil.copytree(folders[BASELINE], source)
        folder.mkdir()
        quantize(source, folder)
        copy_support_files(source, folder)
        shutil.rmtree(source)
        present[name] = folder
        print(f"made {name}", flush=True)
    return present


def measure_accuracy(model: str, folders: dict[str, Path], results: Path, threads: int) -> dict[str, dict[str, Any]]:
    """Return each contender's parity with PyTorch, in the fields of ``parity/{variant}.json``."""
    reference = read_reference(results / "reference", results / "reference.json")
    parity = {}
    for name, folder in folders.items():
        manifest = {"model": model, "variant": name, "files": describe_files(folder)}
        parity[name] = measure(folder, manifest, reference, 8, threads)
        print(f"{name}: {parity[name]['task_metrics']}", flush=True)
    return parity


def measure_speed(
    model: str, folders: dict[str, Path], threads: int, effort: Effort
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return ``{contender: {case_tN: {p50_ms, speedup_vs_fp32, speedup_iqr, samples_ms}}}``, all timed in turns."""
    sizes = read_model_sizes(folders[BASELINE] / "config.json")
    speed: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in folders}
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(Contender(model, name, "onnx", folder), threads))
            for name, folder in folders.items()
        ]
        for case in CASES:
            prepare_case(workers, case, sizes, effort.seed)
            samples = dict(zip(folders, time_in_turns(workers, effort), strict=True))
            for name, rounds in samples.items():
                p50 = median(sample for samples_of_round in rounds for sample in samples_of_round)
                compared = compare(rounds, samples[BASELINE])
                speed[name][case_key(case, threads)] = {"p50_ms": p50, **compared, "samples_ms": rounds}
            print(f"timed {case_key(case, threads)}", flush=True)
    return speed


def case_key(case: Case, threads: int) -> str:
    """Return the name of a case at a thread count, as in ``summary.csv``."""
    return f"{case}_t{threads}"


def describe_row(
    name: str, parity: dict[str, Any], size: float, speed: dict[str, dict[str, Any]], threads: Sequence[int]
) -> str:
    """Return one row of the table."""
    label = f"**{name}**" if name in OURS else name
    metrics, invariance = parity["task_metrics"], parity["batch_invariance"]["cosine_min"]
    speedups = [
        " / ".join(f"{speed[case_key(case, count)]['speedup_vs_fp32']:.2f}" for case in CASES) for count in threads
    ]
    figures = [metrics["cosine_min"], metrics["cosine_mean"], metrics["rank_overlap"], invariance]
    cells = [label, *("not finite" if value is None else f"{value:.4f}" for value in figures), f"{size:.1f}", *speedups]
    return f"| {' | '.join(cells)} |"


def write_table(record: dict[str, Any], path: Path) -> None:
    """Write the comparison as a page of Markdown."""
    cases = " / ".join(map(str, CASES))
    rows = [
        describe_row(name, facts["parity"], facts["size_mb"], facts["speed"], record["threads"])
        for name, facts in record["contenders"].items()
    ]
    cpu = record["cpu"]
    counts = [f"{count} thread{'s' if count > 1 else ''}" for count in record["threads"]]
    lines = [
        f"# int8 of {record['model']}, ours and what public tools make",
        "",
        f"Written by `make bench-accuracy`: one run on {cpu['model']} "
        f"({', '.join(cpu['flags']) or 'no flags known'}), {' and then '.join(counts)}. Cosine "
        f"similarity to PyTorch over {record['texts']} texts; *alone vs in a "
        "batch* is the lowest cosine between a text's answer alone and in a padded batch of eight; *speed-up* is over "
        "the fp32 ONNX file, timed in turns. Every contender starts from that file.",
        "",
        "| contender | cosine, lowest | cosine, mean | same neighbours | alone vs in a batch | MB "
        + "".join(f"| speed-up at {cases}, {count} " for count in counts)
        + "|",
        "|" + " --- |" * (6 + len(counts)),
        *rows,
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in record["versions"].items()) + ".",
        "",
    ]
    write_text(path, "\n".join(lines))


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, make the contenders, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the model's name in config.yaml; a sentence-transformer")
    parser.add_argument("--results", type=Path, required=True, help="the model's folder below results/")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="intra-op threads, one run each")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each contender in each case")
    parser.add_argument("--json", type=Path, required=True, help="file for everything measured, raw samples included")
    parser.add_argument("--table", type=Path, required=True, help="Markdown file for the table")
    args = parser.parse_args(argv)
    task = read_json(args.results / "onnx" / f"{BASELINE}.json")["task"]
    if task != "sentence-similarity":
        raise UserError(f"{args.model}: the task is {task}; the comparison is one of sentence embeddings")
    logging.disable(logging.WARNING)  # the peers' notes on their own presets
    effort = Effort(warmup=2, rounds=args.rounds, iterations=3, seconds_per_case=120, seed=0)
    with tempfile.TemporaryDirectory(prefix="compare-quantizers.") as scratch:
        folders = make_contenders(args.results, Path(scratch))
        parity = measure_accuracy(args.model, folders, args.results, max(args.threads))
        speed: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in folders}
        for threads in args.threads:
            for name, cases in measure_speed(args.model, folders, threads, effort).items():
                speed[name] |= cases
        sizes = {
            name: size_mb(model_files(Contender(args.model, name, "onnx", folder))) for name, folder in folders.items()
        }
    record = {
        "model": args.model,
        "texts": parity[BASELINE]["inputs"]["count"],
        "threads": args.threads,
        "cpu": cpu_description(),
        "contenders": {
            name: {"parity": parity[name], "size_mb": sizes[name], "speed": speed[name]} for name in folders
        },
        "versions": versions_of("onnxruntime", "sentence-transformers"),
    }
    write_json(args.json, record)
    write_table(record, args.table)


if __name__ == "__main__":
    run_script(main)
