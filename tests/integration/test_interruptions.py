"""Machines die, disks fill: whatever ends a job, results are whole or absent, and the next run completes them.

`make test-long` injects a few faults; `make test-faults` some two hundred and prints a table of them.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

import published
from project import LOOSE, ROOT, TEXTS, Project, make_project
from reproduction import digests

pytestmark = [pytest.mark.slow, pytest.mark.long]

#: How many jobs are killed; a twentieth as many whole runs are.
KILLS = int(os.environ.get("FAULTS", "6"))
#: The moments differ from run to run; a failure prints the seed that brings them back.
SEED = int(os.environ.get("FAULTS_SEED", str(time.time_ns() % 1_000_000)))
#: A first guess, in seconds; corrected to what a job takes as soon as one has ended before it was killed.
LONGEST_JOB_S = 12.0
LONGEST_RUN_S = 90.0

#: The models of the project.
MODELS = ("stars.v1", "sentences")

can_mount = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0
needs_mounts = pytest.mark.skipif(not can_mount, reason="mounting a small or read-only file system is not permitted")


@dataclass
class Job:
    """A job of the pipeline as Snakemake would start it, and how long it takes at most."""

    rule: str
    command: str
    longest_s: float = LONGEST_JOB_S


@dataclass
class Tally:
    """What was injected, by kind, and what it cost."""

    injected: Counter[str] = field(default_factory=Counter)
    recovered: Counter[str] = field(default_factory=Counter)
    files_lost: int = 0

    def __str__(self) -> str:
        rows = [f"{kind:40} {count:4} {self.recovered[kind]:4}" for kind, count in sorted(self.injected.items())]
        total = f"{'all':40} {self.injected.total():4} {self.recovered.total():4}"
        return "\n".join(
            [f"{'fault':40} injected recovered", *rows, total, f"files lost or changed: {self.files_lost}"]
        )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_models) -> Project:
    """A finished project with a job of every rule that needs neither the Hub, nor a browser, nor another machine."""
    project = make_project(tmp_path_factory.mktemp("every-rule"))
    shutil.copytree(tiny_models, project.folder / "models")
    published.write_support(project.folder / "models/stars", project.folder / "theirs")
    published.export(project.folder / "models/stars", project.folder / "theirs/model.onnx")
    rows = [{"text": text, "label": number % 5} for number, text in enumerate(TEXTS * 5)]
    (project.folder / "labelled.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    config = project.config
    config["models"]["stars.v1"] |= {
        "variants": ["fp32", "optimized", "int8", "int8-static", "q4-cpu"],
        "evaluation": {"data": "labelled.jsonl", "not_worse_by": 0.9, "search_share": 0.4},
        "release": {"fixed_shapes": {"int8-static": [[1, 8]]}},
        "audits": {"theirs": {"path": "theirs"}},
    }
    for limits in (config["quantization"]["targets"], config["parity"]["thresholds"]):
        limits |= dict.fromkeys(("int8-static", "q4-cpu"), LOOSE)
    project.configure(config)
    run = project.snakemake()
    assert run.returncode == 0, run.stdout
    return project


@pytest.fixture(scope="module")
def tally():
    tally = Tally()
    yield tally
    print(f"\n{tally}\nseed {SEED}")


@pytest.fixture(scope="module")
def expected(finished) -> dict[str, str]:
    """What an undisturbed run made, timings aside."""
    return digests(finished.folder / "results")


@pytest.fixture(scope="module")
def jobs(finished) -> list[Job]:
    """Every job of the project, with the very command that Snakemake runs."""
    plan = finished.snakemake("--dry-run", "--forceall", "--printshellcmds", "--quiet", "host").stdout
    pattern = (
        r"^Shell command: ((?:printf .* \| )?python (?:workflow/\S+/fork_client.py )?workflow/scripts/(\w+)\.py .*)$"
    )
    return [Job(rule, command) for command, rule in re.findall(pattern, plan, re.MULTILINE)]


def start(project: Project, *command: str, **options) -> subprocess.Popen:
    """Start a program in a process group of its own, with this environment's programs first."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} | options
    return subprocess.Popen(command, cwd=project.folder, env=environment, start_new_session=True, **pipes)


def run_job(project: Project, command: str, before: str = "") -> tuple[int, str]:
    """Run a job's command as Snakemake does; return its status and its log."""
    with start(project, "bash", "-c", f"{before}{command}") as process:
        output = process.communicate()[0]
    log = project.folder / re.search(r"> (\S+) 2>&1$", command)[1]
    return process.returncode, output + (log.read_text() if log.is_file() else "")


def check_whole(results: Path, expected: dict[str, str]) -> None:
    """Check that every file under its final name is the whole one, and that none has become another."""
    found = {name: made for name, made in digests(results).items() if not is_partial(name)}
    assert {name: made for name, made in found.items() if expected.get(name) != made} == {}


def is_partial(name: str) -> bool:
    """Tell whether a path lies in a hidden folder or file, which is where unfinished work is."""
    return any(part.startswith(".") for part in Path(name).parts)


def check_complete(results: Path, expected: dict[str, str], tally: Tally) -> None:
    """Check that everything is there again and nothing else."""
    found = digests(results)
    lost = expected.keys() - found.keys()
    tally.files_lost += len(lost)
    assert found == expected


def copy_of(project: Project, folder: Path, with_results: bool = True) -> Project:
    left_out = () if with_results else ("results", ".snakemake")
    shutil.copytree(project.folder, folder, ignore=shutil.ignore_patterns(*left_out))
    return Project(folder)


def kill_group(process: subprocess.Popen, number: signal.Signals) -> None:
    os.killpg(process.pid, number)
    process.communicate()


def wait_for_fork_server(process: subprocess.Popen) -> psutil.Process:
    """Return the process that forks the jobs of a run, as soon as there is one."""
    while process.poll() is None:
        for child in psutil.Process(process.pid).children():
            with suppress(psutil.NoSuchProcess):
                if any(word.endswith("fork_server.py") for word in child.cmdline()):
                    return child
        time.sleep(0.1)
    raise AssertionError("the run has ended without a fork server")


def test_every_rule_is_among_the_jobs(jobs):
    rules = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    scripts = set(re.findall(r'code=script_digest\("(\w+)"\)', rules))
    no_part_of_a_run = {"check", "publish_release"}
    not_on_this_machine = {"fetch_evaluation", "measure_browser"}
    assert {job.rule for job in jobs} == scripts - no_part_of_a_run - not_on_this_machine


def test_a_killed_job_leaves_whole_files_or_none(finished, jobs, expected, tally, tmp_path):
    chance = random.Random(SEED)
    order = [jobs[0], *chance.sample(jobs[1:], len(jobs) - 1)]
    projects: dict[str, Project] = {}
    killed: Counter[str] = Counter()
    while killed.total() < KILLS:
        job = order[killed.total() % len(order)]
        if job.command not in projects:
            projects[job.command] = copy_of(finished, tmp_path / str(len(projects)))
        project = projects[job.command]
        began = time.monotonic()
        process = start(project, "bash", "-c", job.command)
        try:
            process.wait(chance.uniform(0, job.longest_s))
        except subprocess.TimeoutExpired:
            kill_group(process, signal.SIGKILL)
            killed[job.command] += 1
            tally.injected[f"SIGKILL in {job.rule}"] += 1
            check_whole(project.folder / "results", expected)
            tally.recovered[f"SIGKILL in {job.rule}"] += 1
        else:
            process.communicate()
            job.longest_s = time.monotonic() - began
    for job in order:
        if killed[job.command]:
            project = projects[job.command]
            status, log = run_job(project, job.command)
            assert status == 0, log
            check_complete(project.folder / "results", expected, tally)
            shutil.rmtree(project.folder)


def test_a_killed_or_interrupted_run_is_completed_by_the_next(finished, expected, tally, tmp_path):
    """One is killed with its jobs, one without them, and one is interrupted as by Ctrl-C."""
    chance = random.Random(SEED)
    project = copy_of(finished, tmp_path / "project", with_results=False)
    ends: list[tuple[str, Callable[[subprocess.Popen], None]]] = [
        ("SIGKILL of a run and its jobs", lambda process: kill_group(process, signal.SIGKILL)),
        ("SIGKILL of a run, its jobs left over", lambda process: process.kill()),
        ("SIGINT of a run and its jobs", lambda process: kill_group(process, signal.SIGINT)),
    ]
    for number in range(max(len(ends), KILLS // 20)):
        kind, end = ends[number % len(ends)]
        process = start(project, "snakemake", "--cores", "2", stdout=subprocess.DEVNULL)
        try:
            process.wait(chance.uniform(3, LONGEST_RUN_S / 3))
        except subprocess.TimeoutExpired:
            end(process)
            tally.injected[kind] += 1
            process.wait()
            check_whole(project.folder / "results", expected) if (project.folder / "results").exists() else None
            tally.recovered[kind] += 1
    run = project.snakemake()
    assert run.returncode == 0, run.stdout
    check_complete(project.folder / "results", expected, tally)
    again = project.snakemake()
    assert "Nothing to be done" in again.stdout


def test_a_run_that_loses_its_fork_server_is_completed_by_the_next(finished, expected, tally, tmp_path):
    """It is killed while it imports PyTorch, or while jobs that it has forked are at work."""
    chance = random.Random(SEED)
    targets = [f"results/{model}/{file}" for model in MODELS for file in ("onnx/fp32.json", "reference.json")]
    for number in range(max(1, KILLS // 40)):
        project = copy_of(finished, tmp_path / str(number), with_results=False)
        process = start(project, "snakemake", "--cores", "2", *targets, stdout=subprocess.DEVNULL)
        server = wait_for_fork_server(process)
        time.sleep(chance.uniform(0, LONGEST_JOB_S))
        with suppress(psutil.NoSuchProcess):
            server.kill()
            tally.injected["SIGKILL of a run's fork server"] += 1
        process.wait()
        check_whole(project.folder / "results", expected)
        run = project.snakemake(*targets)
        assert run.returncode == 0, run.stdout
        check_whole(project.folder / "results", expected)
        assert all((project.folder / target).is_file() for target in targets)
        tally.recovered["SIGKILL of a run's fork server"] = tally.injected["SIGKILL of a run's fork server"]


def test_a_second_run_in_the_same_folder_is_told(finished, tally, tmp_path):
    project = copy_of(finished, tmp_path / "project", with_results=False)
    first = start(project, "snakemake", "--cores", "1", stdout=subprocess.DEVNULL)
    lock = project.folder / ".snakemake" / "onnxproof.lock"
    while not lock.is_file() or not lock.read_text():
        assert first.poll() is None
        time.sleep(0.1)
    tally.injected["second run in the same folder"] += 1
    second = project.snakemake()
    kill_group(first, signal.SIGKILL)
    assert second.returncode != 0
    assert f"another run is at work in {project.folder} (process {first.pid})" in second.stdout
    assert "Traceback" not in second.stdout
    tally.recovered["second run in the same folder"] += 1


@pytest.fixture
def chosen(jobs) -> list[Job]:
    """One job of each rule that writes a folder; a few of them in the short mode."""
    first = {job.rule: job for job in jobs if job.rule in ("export", "download", "optimize", "quantize", "release")}
    return list(first.values())[: 2 if KILLS < 100 else None]


@needs_mounts
def test_a_full_disk_is_told_and_recovered_from(finished, chosen, expected, tally, tmp_path):
    for job in chosen:
        project = copy_of(finished, tmp_path / job.rule)
        disk = tmp_path / "disk"
        disk.mkdir(exist_ok=True)
        steps = [
            f"mount -t tmpfs -o size=200m tmpfs {disk} && cp -a {project.folder}/. {disk} && cd {disk}",
            "free=$(df --output=avail -B1 . | tail -1) && head -c $((free - 40960)) /dev/zero > ballast",
            f"! ({job.command}) && cat results/logs/{job.rule}/* && rm ballast",
            f"({job.command}) && rm -r {project.folder}/results && cp -a results {project.folder}",
        ]
        tally.injected["full disk"] += 1
        with start(project, "unshare", "--mount", "bash", "-c", " && ".join(steps)) as process:
            output = process.communicate()[0]
        assert process.returncode == 0, output
        assert re.search("^error: .*No space left on device.*: make room on this disk", output, re.MULTILINE), output
        assert "Traceback" not in output
        check_complete(project.folder / "results", expected, tally)
        tally.recovered["full disk"] += 1


@needs_mounts
def test_results_that_cannot_be_written_are_told(finished, chosen, expected, tally, tmp_path):
    project = copy_of(finished, tmp_path / "project")
    results = project.folder / "results"
    for job in chosen:
        steps = [f"mount --bind {results} {results}", f"mount -o remount,bind,ro {results}"]
        command = re.sub(r"> \S+ 2>&1$", "2>&1", job.command)
        tally.injected["read-only results"] += 1
        with start(project, "unshare", "--mount", "bash", "-c", " && ".join([*steps, command])) as process:
            output = process.communicate()[0]
        assert process.returncode != 0
        assert re.search("^error: .*Read-only file system.*: this file system is read-only", output, re.MULTILINE)
        assert "Traceback" not in output
        check_complete(results, expected, tally)
        tally.recovered["read-only results"] += 1


@pytest.mark.parametrize("limit_kib", [300_000, 1_500_000])
def test_a_lack_of_memory_leaves_whole_files_or_none(finished, chosen, expected, tally, tmp_path, limit_kib):
    for job in chosen:
        project = copy_of(finished, tmp_path / job.rule)
        status, _ = run_job(project, job.command, before=f"ulimit -v {limit_kib}; ")
        if status == 0:
            continue  # this job needs less
        tally.injected["memory limit"] += 1
        check_whole(project.folder / "results", expected)
        status, log = run_job(project, job.command)
        assert status == 0, log
        check_complete(project.folder / "results", expected, tally)
        tally.recovered["memory limit"] += 1
