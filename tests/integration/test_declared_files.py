"""A rule needs the files that it declares, and no others: its job runs where nothing else is."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from project import Project, edited, make_tiny_project
from reproduction import compare, digests

#: A dry run that writes each job's files and the command that Snakemake would run.
TELLING_FILES = """
import json, sys
from snakemake.cli import main
from snakemake.executors.dryrun import Executor
jobs, run_job = [], Executor.run_job
def tell(self, job):
    files = {"input": list(job.input), "output": list(job.output), "log": list(job.log)}
    jobs.append({"rule": job.rule.name, "threads": job.threads, "command": job.shellcmd, **files})
    run_job(self, job)
Executor.run_job = tell
try:
    main(["--dry-run", "--quiet", "all", *sys.argv[1:]])
finally:
    with open("files.json", "w") as stream:
        json.dump(jobs, stream)
"""
#: The jobs of a model of which each rule makes several are represented by those of this variant.
VARIANT = "int8"


def planned_files(project: Project, *arguments: str) -> list[dict[str, Any]]:
    """Return the rule, command, threads, inputs, outputs and logs of each job that a dry run would start."""
    command = [sys.executable, "-c", TELLING_FILES, *arguments]
    run = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads((project.folder / "files.json").read_text())


def one_of_each_rule(jobs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return one job a rule, that of the chosen variant where there are several."""
    chosen: dict[str, dict[str, Any]] = {}
    for job in jobs:
        if job["command"] and (job["rule"] not in chosen or any(f"/{VARIANT}." in name for name in job["output"])):
            chosen[job["rule"]] = job
    return chosen


def run_alone(job: dict[str, Any], project: Project, folder: Path, expected: dict[str, str]) -> None:
    """Run a job in a folder with the workflow and copies of the job's inputs, and check what it left."""
    folder.mkdir()
    (folder / "workflow").symlink_to(project.folder / "workflow")
    for name in job["input"]:
        source, copy = project.folder / name, folder / name
        if copy.exists():
            continue  # of the workflow's own files, or in a folder that is declared too
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, copy) if source.is_dir() else shutil.copy2(source, copy)
    for name in (*job["output"], *job["log"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    given = digests(folder)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": str(job["threads"]),
    }
    run = subprocess.run(["bash", "-c", job["command"]], cwd=folder, env=environment, timeout=300, check=False)
    assert run.returncode == 0, "".join((folder / log).read_text() for log in job["log"])
    left = digests(folder)
    assert {name: left.get(name) for name in given} == given, "an input was changed or deleted"
    made = {name: left[name] for name in left.keys() - given.keys() - set(job["log"])}
    assert [name for name in made if not is_part(name, job["output"])] == []
    assert compare(made, {name: found for name, found in expected.items() if is_part(name, job["output"])}) == []


def is_part(name: str, outputs: list[str]) -> bool:
    """Tell whether a file is one of these outputs, or in a folder that is."""
    return any(name == output or name.startswith(f"{output}/") for output in outputs)


@pytest.mark.slow
def test_every_rule_makes_the_same_where_only_its_declared_inputs_are(copy_of_finished, tmp_path):
    project = copy_of_finished
    publish = {"repo": "lab/tiny-onnx", "dry_run": True}
    project.configure(edited(project.config, "models", "sentences", "publish", value=publish))
    run = project.snakemake("publish")
    assert run.returncode == 0, run.stdout
    jobs = one_of_each_rule(planned_files(project, "--forceall", "all", "publish"))
    assert len(jobs) == 13
    expected = {f"results/{name}": found for name, found in digests(project.folder / "results").items()}
    for rule, job in jobs.items():
        run_alone(job, project, tmp_path / rule, expected)


def test_a_release_without_fp32_declares_the_record_of_its_export(tiny_models, tmp_path):
    project = make_tiny_project(tmp_path / "project", tiny_models)
    project.configure(project.config | {"variants": ["optimized"]})
    (release,) = (job for job in planned_files(project, "all") if job["rule"] == "release")
    assert "results/stars/onnx/fp32.json" in release["input"]
