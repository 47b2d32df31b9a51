"""Jobs that are forked from a process with PyTorch make the same bytes as alone, and their cost is recorded."""

import csv
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from onnxproof.engine.fork_client import OFF, VARIABLE
from onnxproof.engine.fork_server import THREAD_VARIABLES
from onnxproof.places import SCRIPTS
from project import TEXTS, Project, make_project
from reproduction import digests

MODELS = ("stars.v1", "sentences")
TARGETS = (
    *(f"results/{model}/{file}" for model in MODELS for file in ("onnx/fp32.json", "reference.json")),
    "results/stars.v1/evaluation/answers/pytorch.json",
    "results/stars.v1/evaluation/fp32.json",  # a score
)
#: How many times the texts of a project: Snakemake looks at a job twice a second.
TEXTS_MADE = 400
#: What needs no PyTorch.
OTHERS = tuple(f"results/{model}/onnx/optimized.json" for model in MODELS)


def make(folder: Path, tiny_models: Path) -> Project:
    """Make a project with labelled data for its classifier, and so many texts that Snakemake sees references made."""
    folder.mkdir()
    project = make_project(folder)
    shutil.copytree(tiny_models, folder / "models")
    (folder / "texts.txt").write_text("".join(f"{text} {number}\n" for number in range(TEXTS_MADE) for text in TEXTS))
    rows = [{"text": "not very good", "label": 0}, {"text": "i love it", "label": 4}]
    (folder / "labelled.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    project.config["models"]["stars.v1"]["evaluation"] = {"data": "labelled.jsonl"}
    project.configure(project.config)
    return project


def run(project: Project, *arguments: str, **settings: str) -> set[str]:
    """Run Snakemake; return the names that its processes had, looked at ten times a second."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"} | settings
    names: set[str] = set()
    with (project.folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            ["snakemake", *arguments], cwd=project.folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        watched, ended = psutil.Process(process.pid), threading.Event()

        def watch() -> None:
            while not ended.wait(0.1):
                for each in watched.children(recursive=True):
                    try:
                        names.add(each.name())
                    except psutil.NoSuchProcess:
                        continue

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            assert process.wait(600) == 0, (project.folder / "output.txt").read_text()
        finally:
            ended.set()
            watcher.join()
    return names


def forked(names: set[str]) -> int:
    return sum(name.startswith("job of ") for name in names)


@pytest.mark.slow
def test_forked_jobs_write_the_same_bytes_and_logs(tiny_models, tmp_path):
    alone, together = (make(tmp_path / name, tiny_models) for name in ("alone", "together"))
    assert forked(run(alone, "--cores", "2", *TARGETS, *OTHERS, **{VARIABLE: OFF})) == 0
    assert forked(run(together, "--cores", "2", *TARGETS, *OTHERS)) == len(TARGETS)
    left = [digests(project.folder / "results") for project in (together, alone)]
    assert left[0] == left[1]
    logs = [sorted((project.folder / "results/logs").rglob("*.log")) for project in (together, alone)]
    assert [log.read_text() for log in logs[0]] == [log.read_text() for log in logs[1]]
    for model in MODELS:
        for step in ("export", "record_reference"):
            with (together.folder / f"results/{model}/cost/{step}.tsv").open() as file:
                (cost,) = csv.DictReader(file, delimiter="\t")
            assert float(cost["max_rss"]) > 200  # PyTorch alone; a client has 15
            assert float(cost["cpu_time"]) > 0.05  # a client has 0.03
    told = (together.folder / "output.txt").read_text()
    assert told.count("exporting to ONNX") == told.count("recording PyTorch's answers") == len(MODELS)
    first_without_pytorch = told.index("optimizing the graph")
    assert max(told.rindex("exporting to ONNX"), told.rindex("recording PyTorch's answers")) < first_without_pytorch


@pytest.mark.slow
def test_a_single_job_runs_alone(tiny_models, tmp_path):
    assert forked(run(make(tmp_path / "project", tiny_models), "--cores", "2", "results/stars.v1/reference.json")) == 0


#: Prints how many threads there are once all is imported, which of some packages, and whether transformers has made its
#: table of renamed weights.
PRELOAD = """
import sys
from pathlib import Path
import onnxproof.original.preloaded
print(len(list(Path("/proc/self/task").iterdir())))
print(*(name for name in sys.argv[1:] if name in sys.modules))
from transformers import conversion_mapping
print(len(conversion_mapping._checkpoint_conversion_mapping_cache or ()) > 0)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the threads")
def test_what_is_imported_once_starts_no_thread():
    wanted = ("sentence_transformers", "torch.export._trace", "transformers.models.qwen2_vl.modeling_qwen2_vl")
    unwanted = ("onnxruntime", "pandas", "sklearn")
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, "1") | {"PYTHONPATH": str(SCRIPTS)}
    command = [sys.executable, "-c", PRELOAD, *wanted, *unwanted]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == ["1", " ".join(wanted), "True"]
