"""What memory and time each rule takes for models of several sizes. `make bench-memory`.

The figures are for ``onnxproof.engine.resources``.

Encoders with random weights go from a Hub on this machine through the chain, one job at a time, with the bundled texts;
they are also taken from a folder, as safetensors and as pickles. A job's memory is what its processes have resident
together, its time the seconds of CPU that they took; both are looked at ten times a second. Of the jobs of several
variants, the largest counts. Each job imports PyTorch for itself, as on a cluster.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

import project_path  # noqa: F401 - the imports below are found through it
from hub_server import HubServer
from onnxproof.engine import fork_client
from onnxproof.engine.resources import BYTES_PER_MB, estimate_memory_mb, weights_mb
from process_memory import descendants_of, resident_bytes
from project import LOOSE, Project, make_project
from tiny_models import bert_config, write_tokenizer

SAMPLE_SECONDS = 0.1
#: Layers, hidden size and vocabulary of BERTs of 4, 18, 61, 266 and 438 MB.
SHAPES = {
    "b4": (2, 128, 5000),
    "b18": (4, 256, 5000),
    "b61": (4, 512, 5000),
    "b266": (6, 768, 30522),
    "b438": (12, 768, 30522),
}
COMMIT = "1" * 40
SHORT_BENCHMARK = {"rounds": 1, "iterations": 2, "warmup": 1, "load_repeats": 1, "seconds_per_case": 1}


def save_model(folder: Path, shape: tuple[int, int, int], pickled: bool) -> None:
    """Save a BERT encoder with random weights."""
    from transformers import BertModel

    layers, hidden, vocabulary = shape
    write_tokenizer(folder, longest=512)
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": 4 * hidden}
    config = bert_config(vocabulary, **sizes, num_attention_heads=hidden // 64, max_position_embeddings=512)
    BertModel(config).save_pretrained(folder, safe_serialization=not pickled)


@dataclass
class Needs:
    """What a job took: the most memory that was resident, in bytes, and seconds of CPU."""

    memory: int = 0
    seconds: float = 0.0

    def raise_to(self, memory: int, seconds: float) -> None:
        """Take over what is more than before."""
        self.memory, self.seconds = max(self.memory, memory), max(self.seconds, seconds)


def needs_of(process: psutil.Process) -> tuple[int, float]:
    """Return what a process and its descendants have resident, and the CPU time of all until now; 0 when it has ended.

    Descendants that have ended count as far as the process waited for them.
    """
    processes = [process, *descendants_of(process)]
    seconds = 0.0
    for each in processes:
        with suppress(psutil.Error):  # it has just ended
            times = each.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return resident_bytes(processes), seconds


def job_of(process: psutil.Process) -> tuple[str, str] | None:
    """Return the rule and the model of a process that runs a job's script."""
    try:
        words = process.cmdline()
        script = next((word for word in words if "/scripts/" in word and word.endswith(".py")), None)
        found = [name for name in SHAPES if any(name in word.split("/") for word in words)]
    except psutil.NoSuchProcess:
        return None
    if script is None or not words[0].endswith("python") or not found:
        return None
    rule = Path(script).stem
    return f"{rule}_pytorch" if rule == "benchmark" and "pytorch" in words else rule, found[0]


def measure(project: Project, *arguments: str) -> dict[tuple[str, str], Needs]:
    """Run the workflow one job at a time; return what each rule took of each model.

    Raises:
        SystemExit: a job failed.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, fork_client.VARIABLE: fork_client.OFF}
    needs: dict[tuple[str, str], Needs] = defaultdict(Needs)
    with (project.folder / "output.txt").open("w") as output:
        command = ["snakemake", "--cores", "2", "--jobs", "1", *arguments]
        run = subprocess.Popen(command, cwd=project.folder, env=environment, stdout=output, stderr=output)
        watched = psutil.Process(run.pid)
        while run.poll() is None:
            for process in descendants_of(watched):
                job = job_of(process)
                if job:
                    needs[job].raise_to(*needs_of(process))
            time.sleep(SAMPLE_SECONDS)
    if run.returncode:
        sys.exit(f"error: snakemake failed:\n{(project.folder / 'output.txt').read_text()[-4000:]}")
    return needs


def measure_chain(folder: Path, names: list[str]) -> tuple[dict[tuple[str, str], Needs], dict[str, float]]:
    """Measure all rules for models from a Hub; return what they took, and the MB of each model's weights."""
    project = make_project(folder)
    with HubServer() as hub:
        for name in names:
            save_model(folder / "models" / name, SHAPES[name], pickled=False)
            hub.add(f"org/{name}", folder / "models" / name, COMMIT)
        os.environ |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hub-cache"), "NO_PROXY": "127.0.0.1"}
        project.configure(
            {
                "models": {name: {"source": {"hub": f"org/{name}", "revision": COMMIT}} for name in names},
                "quantization": {"targets": {"int8": LOOSE}},
                "parity": {"thresholds": {"int8": LOOSE}},
                "benchmark": SHORT_BENCHMARK,
            }
        )
        needs = measure(project)
    return needs, {name: weights_mb(name, {"path": name}, folder / "results") for name in names}


def measure_download(folder: Path, names: list[str], pickled: bool) -> dict[tuple[str, str], Needs]:
    """Measure the download of models that lie in folders."""
    project = make_project(folder)
    for name in names:
        save_model(folder / "models" / name, SHAPES[name], pickled)
    models = {name: {"source": {"path": f"models/{name}"}, "allow_pickle": pickled} for name in names}
    project.configure({"models": models})
    return measure(project, "--until", "download")


def main(argv: list[str] | None = None) -> int:
    """Measure the models that the command line names; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(SHAPES), metavar="MODEL", help=f"of {', '.join(SHAPES)}")
    options = parser.parse_args(argv)
    if unknown := set(options.models) - set(SHAPES):
        parser.error(f"{', '.join(sorted(unknown))}: must be of {', '.join(SHAPES)}")
    with tempfile.TemporaryDirectory() as folder:
        needs, sizes = measure_chain(Path(folder), options.models)
    for kind, pickled in (("local", False), ("pickle", True)):
        with tempfile.TemporaryDirectory() as folder:
            found = measure_download(Path(folder), options.models, pickled)
        needs |= {(f"{rule}_{kind}", name): job for (rule, name), job in found.items()}
    print(f"{'rule':20}{'weights, MB':>12}{'peak, MB':>10}{'estimate':>10}{'CPU, s':>10}")
    for rule, size, job in sorted(
        ((rule, sizes[name], job) for (rule, name), job in needs.items()), key=lambda row: row[:2]
    ):
        print(
            f"{rule:20}{size:12.1f}{job.memory / BYTES_PER_MB:10.0f}{estimate_memory_mb(rule, size):10}"
            f"{job.seconds:10.1f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
