"""The workflow on a real Slurm cluster of one node: what it asks for, what it survives, and that it makes the same.

`make test-slurm` runs it with a tiny model and with the default configuration; it needs root, Debian's packages of
Slurm and the executor plugin.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import pandas as pd
import psutil
import pytest

from project import ROOT, Project, make_project, make_tiny_project
from reproduction import compare, digests
from slurm_cluster import FEATURES, SlurmCluster, why_not

MEMORY_MB = 6000
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
#: Of the default configuration; how long speed is measured changes no byte that is compared.
SHORT_BENCHMARK = {"rounds": 1, "iterations": 1, "warmup": 0, "load_repeats": 1, "seconds_per_case": 1}
PLUGIN_MISSING = importlib.util.find_spec("snakemake_executor_plugin_slurm") is None

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(PLUGIN_MISSING, reason="needs snakemake-executor-plugin-slurm: make setup-cluster"),
    pytest.mark.skipif(why_not() is not None, reason=f"no Slurm cluster can be started here: {why_not()}"),
]


class Run:
    """A run of the workflow through the profile, watched and disturbed while it goes on, as a context manager."""

    def __init__(self, project: Project, cluster: SlurmCluster):
        self.project = project
        self.cluster = cluster
        self.output = project.folder / "slurm-run.txt"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE")}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        options = ("--slurm-init-seconds-before-status-checks", "1", "--default-resources", "slurm_account=onnxproof")
        self.process = subprocess.Popen(
            ["snakemake", "--workflow-profile", "profiles/slurm", *options],
            cwd=project.folder,
            env=environment,
            stdout=self.output.open("w"),
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()

    def queued(self, rule: str, states: str = "R") -> list[str]:
        """Return the ids of a rule's jobs in the queue."""
        lines = self.cluster.run("squeue", "-h", "-t", states, "-o", "%i %k").stdout.splitlines()
        return [line.split()[0] for line in lines if f"rule_{rule}" in line]

    def until(self, what: str, is_so: Callable[[], object], seconds: float = 400) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            assert self.process.poll() is None, f"ended before {what}: {self.output.read_text()[-4000:]}"
            assert time.monotonic() < deadline, f"waited in vain until {what}: {self.output.read_text()[-4000:]}"
            time.sleep(0.3)


@pytest.fixture
def cluster():
    # Not pytest's own folder: munge refuses a socket below one that others could rename.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    with SlurmCluster(folder, MEMORY_MB) as cluster:
        yield cluster
    shutil.rmtree(folder)


def make_default_project(folder: Path, tiny_models: Path) -> Project:
    make_project(folder)
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copyfile(ROOT / "config.yaml", folder / "config.yaml")
    project = Project(folder)
    project.configure(project.config | {"benchmark": project.config["benchmark"] | SHORT_BENCHMARK})
    return project


def processes_of(script: str, project: Project) -> list[psutil.Process]:
    """Return the processes that run a script of the project."""
    found = psutil.process_iter(["cmdline", "cwd"])
    return [
        process
        for process in found
        if process.info["cwd"] == str(project.folder)
        and process.info["cmdline"]
        and "python" in process.info["cmdline"][0]
        and any(part.endswith(f"scripts/{script}.py") for part in process.info["cmdline"])
    ]


def kill_one(script: str, run: Run) -> str:
    """Kill a process that runs a script, as the kernel does where memory runs out; return its job's id."""
    run.until(f"{script}.py runs", lambda: processes_of(script, run.project))
    process = processes_of(script, run.project)[0]
    job = process.environ()["SLURM_JOB_ID"]
    process.kill()
    return job


def in_bytes(amount: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)([KMG]?)", amount).groups()
    return float(number) * UNITS[unit]


def rule_of(job: dict[str, str]) -> str:
    return re.search(r"rule_(\w+?)(_wildcards|$)", job["Comment"])[1]


def check_accounting(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Check that every job stayed within what it asked for; return the jobs, without their steps."""
    jobs = [row for row in rows if "." not in row["JobID"]]
    print(f"\n{'job':22}{'asked MB':>10}{'used MB':>10}{'s':>6}")
    for job in jobs:
        assert int(job["ReqCPUS"]) >= 1
        asked = in_bytes(job["ReqMem"])
        steps = [row for row in rows if row["JobID"].startswith(f"{job['JobID']}.") and row["MaxRSS"]]
        used = sum(in_bytes(step["MaxRSS"]) for step in steps)
        print(f"{rule_of(job):22}{asked / 2**20:10.0f}{used / 2**20:10.0f}{job['ElapsedRaw']:>6}")
        assert 0 < used <= asked, job
        hours, minutes, seconds = map(int, job["Timelimit"].split(":"))
        assert int(job["ElapsedRaw"]) <= hours * 3600 + minutes * 60 + seconds
    return jobs


def asked_kinds(jobs: list[dict[str, str]], rule: str) -> set[str]:
    """Return the kinds of nodes that a rule's jobs asked for; empty text where they took any."""
    return {job["Constraints"] for job in jobs if rule_of(job) == rule}


def check_kinds(project: Project, jobs: list[dict[str, str]], machines: list[str]) -> list[str]:
    """Check that each kind of machine was asked for and has its rows; return the files that a local run has not."""
    first, *others = machines
    assert asked_kinds(jobs, "benchmark") == {first}
    assert asked_kinds(jobs, "benchmark_on_machine") == set(others)
    assert asked_kinds(jobs, "export") == {""}
    table = pd.read_csv(project.folder / "results/summary.csv")
    measured = set(zip(table["variant"], table["machine"], strict=True))
    assert measured == {(variant, machine) for variant in project.config["variants"] for machine in machines}
    return [
        f"{model}/benchmark/{machine}/{variant}.json"
        for model in project.config["models"]
        for machine in others
        for variant in project.config["variants"]
    ]


@pytest.mark.parametrize(("make", "machines"), [(make_tiny_project, [*FEATURES]), (make_default_project, [])])
def test_the_workflow_on_a_cluster_survives_a_kill_and_a_drain_and_makes_the_same(
    make, machines, cluster, tiny_models, tmp_path_factory
):
    here = make(tmp_path_factory.mktemp("here"), tiny_models)
    local = here.snakemake(timeout=3000)
    assert local.returncode == 0, local.stdout

    there = make(tmp_path_factory.mktemp("there"), tiny_models)
    there.configure(there.config | {"benchmark": there.config["benchmark"] | {"machines": machines}})
    with Run(there, cluster) as run:
        killed = kill_one("export", run)
        run.until("parity is measured", lambda: run.queued("measure_parity", "R,PD"))
        cluster.drain()
        run.until("the drained node is empty", lambda: "drained" in cluster.run("sinfo", "-h", "-o", "%T").stdout)
        run.until("jobs wait for a node", lambda: cluster.run("squeue", "-h", "-t", "PD").stdout)
        cluster.resume()
        assert run.process.wait(3000) == 0, run.output.read_text()[-4000:]

    jobs = check_accounting(cluster.jobs())
    only_there = check_kinds(there, jobs, machines) if machines else []
    assert compare(digests(there.folder / "results"), digests(here.folder / "results")) == only_there
    assert {job["State"] for job in jobs if job["JobID"] != killed} == {"COMPLETED"}
    (failed,) = (job for job in jobs if job["JobID"] == killed)
    assert failed["State"] == "FAILED"
    (again,) = (job for job in jobs if job["Comment"] == failed["Comment"] and job is not failed)
    assert in_bytes(again["ReqMem"]) > in_bytes(failed["ReqMem"])
    rules = {rule_of(job) for job in jobs}
    assert rules >= {"download", "export", "optimize", "benchmark", "release", "verify_release"}
    assert "summary" not in rules
