"""Compare what the pipeline costs with the chain of public commands that does the nearest to it, on the same models.

Ours goes from a snapshot to a verified int8 release, the search for a recipe included; its speed benchmark, which the
public chain has no counterpart of, is cut to one call a case. The public chain is, for each model, `optimum-cli export
onnx`, `optimum-cli onnxruntime optimize`, `optimum-cli onnxruntime quantize` (of the plain export: of the optimized
graph it fails) and a script that compares the three files with PyTorch on the same texts. The models are one snapshot
under several names; then the same kind of model with more parameters, made on the spot. CPU time and peak memory are
those of all processes together.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

import project_path  # noqa: F401 - the imports below are found through it
from comparison.contenders import optimum_preset
from comparison.models import save_grown
from onnxproof.checkpoint.inference import choose_task
from onnxproof.cli import UserError, run_script
from onnxproof.files import read_json, write_json, write_text
from onnxproof.graph.files import MODEL_FILE
from onnxproof.hardware import cpu_description
from onnxproof.original.exporters.optimum import find_interpreter
from process_memory import descendants_of, shared_once_bytes

ROOT = Path(__file__).resolve().parents[1]
PROJECT_FILES = ("Snakefile", "workflow", "envs", "profiles")
PARITY_SCRIPT = Path(__file__).parent / "comparison" / "plain_parity.py"
SAMPLE_S = 0.5
#: Layers and hidden size of the larger models.
SHAPES = {"110M": (12, 768), "335M": (24, 1024)}
LARGER_MODELS = " The larger models are of the smallest one's kind, with random weights."
BYTES_PER_MILLION = 4_000_000  # parameters in float32
#: One short case, once: a release needs a benchmark, and what it costs is not the question here.
LEAST_BENCHMARK = {
    "batch_sizes": [1],
    "sequence_lengths": [16],
    "warmup": 0,
    "rounds": 1,
    "iterations": 1,
    "load_repeats": 1,
    "pytorch": False,
}


class Cost:
    """What the processes started within a ``with`` block cost: wall and CPU time in s, peak memory in MB of 1e6 bytes.

    Memory is the most that all descendants took together, sampled; pages that they share count once.
    """

    def __init__(self) -> None:
        """Start at nothing."""
        self.wall_s = self.cpu_s = self.peak_mb = 0.0
        self._ended = threading.Event()

    def __enter__(self) -> "Cost":
        """Start the clock and the sampling."""
        self._start = time.monotonic(), self._children_s()
        self._sampler = threading.Thread(target=self._sample)
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop both."""
        self._ended.set()
        self._sampler.join()
        self.wall_s = time.monotonic() - self._start[0]
        self.cpu_s = self._children_s() - self._start[1]

    @staticmethod
    def _children_s() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def _sample(self) -> None:
        own = psutil.Process()
        while not self._ended.wait(SAMPLE_S):
            self.peak_mb = max(self.peak_mb, shared_once_bytes(descendants_of(own)) / 1e6)


def run(command: list[Any], folder: Path, cores: int) -> None:
    """Run a command in a folder with this interpreter's environment and so many threads.

    Raises:
        UserError: it fails; the message holds the end of what it said.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": str(cores), **offline}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what one process compiles, the next ones read, as by default
    words = [str(word) for word in command]
    result = subprocess.run(
        words,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-15:])
        raise UserError(f"{' '.join(words)}: ended with status {result.returncode}:\n{tail}")


def run_ours(snapshot: Path, count: int, cores: int, scratch: Path) -> None:
    """Run the workflow from ``count`` copies of a snapshot to their verified releases."""
    import yaml

    for name in PROJECT_FILES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, scratch / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, scratch / name)
    models = {f"model-{number}": {"source": {"path": f"models/{number}"}} for number in range(count)}
    for number in range(count):
        shutil.copytree(snapshot, scratch / "models" / str(number))
    (scratch / "config.yaml").write_text(yaml.safe_dump({"models": models, "benchmark": LEAST_BENCHMARK}))
    targets = [f"results/{model}/verified.json" for model in models]
    run(["snakemake", "--cores", cores, "--", *targets], scratch, cores)


def run_public(snapshot: Path, count: int, cores: int, scratch: Path) -> None:
    """Run the public commands on a snapshot ``count`` times, one command after another."""
    task = choose_task("model", snapshot, None)
    embeds = task == "sentence-similarity"
    library = ["--library-name", "sentence_transformers" if embeds else "transformers"]
    task_words = ["--task", "feature-extraction" if embeds else task, *library]
    optimum = find_interpreter("the comparison").with_name("optimum-cli")
    for number in range(count):
        exported, optimized, quantized = (scratch / f"{number}-{name}" for name in ("fp32", "optimized", "int8"))
        for words in (
            ["export", "onnx", "--model", snapshot, *task_words, exported],
            ["onnxruntime", "optimize", "--onnx_model", exported, "-O2", "-o", optimized],
            ["onnxruntime", "quantize", "--onnx_model", exported, f"--{optimum_preset()}", "-o", quantized],
        ):
            run([optimum, *words], scratch, cores)
        files = [exported / MODEL_FILE, optimized / "model_optimized.onnx", quantized / "model_quantized.onnx"]
        run([sys.executable, PARITY_SCRIPT, snapshot, task, cores, *files], scratch, cores)


CHAINS: dict[str, Callable[[Path, int, int, Path], None]] = {"ours": run_ours, "public": run_public}


def measure(chain: str, snapshot: Path, count: int, cores: int) -> dict[str, Any]:
    """Return what one chain costs for ``count`` models."""
    with tempfile.TemporaryDirectory(prefix="compare-pipelines.") as scratch, Cost() as cost:
        CHAINS[chain](snapshot, count, cores, Path(scratch))
    weights = sum(path.stat().st_size for path in snapshot.glob("*.safetensors"))
    return {
        "chain": chain,
        "models": count,
        "parameters_m": round(weights / BYTES_PER_MILLION),
        "wall_s": cost.wall_s,
        "cpu_s": cost.cpu_s,
        "peak_mb": cost.peak_mb,
        "cpu": cpu_description()["model"],
        "cores": cores,
    }


def case_of(row: dict[str, Any]) -> tuple[int, int]:
    """Return what two chains are compared in: millions of parameters, and how many models."""
    return row["parameters_m"], row["models"]


def render_table(rows: list[dict[str, Any]]) -> str:
    """Return the page of Markdown: each size and count of models, both chains and their ratio."""
    lines = [
        "# What the pipeline costs",
        "",
        f"Written by `make bench-pipeline` on {rows[0]['cpu']}, {rows[0]['cores']} cores: from a snapshot to a "
        "verified int8 release, the search for a recipe included, beside the chain of public commands (export, "
        "optimize, quantize, compare with PyTorch), on the same models. CPU time and peak memory are those of all "
        "processes together; what processes share counts once."
        + (LARGER_MODELS if len({row["parameters_m"] for row in rows}) > 1 else ""),
        "",
        "| parameters, millions | models | chain | wall, s | CPU, s | peak memory, MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    kinds = ("wall_s", "cpu_s", "peak_mb")
    for case in sorted({case_of(row) for row in rows}):
        by_chain = {row["chain"]: row for row in rows if case_of(row) == case}
        start = f"| {case[0]} | {case[1]} |"
        for chain, row in by_chain.items():
            lines.append(f"{start} {chain} | {' | '.join(f'{row[kind]:.0f}' for kind in kinds)} |")
        if len(by_chain) == len(CHAINS):
            ratios = (by_chain["ours"][kind] / by_chain["public"][kind] for kind in kinds)
            lines.append(f"{start} ours / public | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")
    return "\n".join([*lines, ""])


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, run the chains, write what they cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshot", type=Path, required=True, help="folder with the model to convert")
    parser.add_argument("--models", nargs="*", type=int, default=[1, 4, 16], help="how many of it to convert at once")
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=list(SHAPES), help="larger models, one each")
    parser.add_argument("--chains", nargs="+", choices=CHAINS, default=list(CHAINS), help="which to run")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="cores of each chain")
    parser.add_argument("--json", type=Path, required=True, help="file for the figures; earlier ones in it are kept")
    parser.add_argument("--table", type=Path, help="Markdown file to write")
    args = parser.parse_args(argv)
    rows: list[dict[str, Any]] = read_json(args.json) if args.json.is_file() else []

    def compare(snapshot: Path, count: int) -> None:
        for chain in args.chains:
            row = measure(chain, snapshot, count, args.cores)
            rows[:] = [old for old in rows if (old["chain"], case_of(old)) != (chain, case_of(row))] + [row]
            write_json(args.json, rows)
            print(f"{chain}, {count} models: {row['wall_s']:.0f} s, {row['cpu_s']:.0f} s of CPU", flush=True)

    for count in args.models:
        compare(args.snapshot.resolve(), count)
    for shape in args.shapes:
        with tempfile.TemporaryDirectory(prefix="compare-pipelines.") as scratch:
            larger = Path(scratch) / shape
            save_grown(args.snapshot, larger, *SHAPES[shape])
            compare(larger, 1)
    if args.table:
        write_text(args.table, render_table(rows))


if __name__ == "__main__":
    run_script(main)
