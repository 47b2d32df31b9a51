"""What many models cost in one run: planning them, and converting tiny ones under a memory limit. `make bench-scale`.

The models are tiny, so what is measured is what a model costs whatever its size: Snakemake's work, the start of a
Python for each job and its imports.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import psutil

import project_path  # noqa: F401 - the imports below are found through it
from onnxproof.files import write_text
from onnxproof.hardware import cpu_description
from process_memory import descendants_of, resident_bytes, shared_once_bytes
from project import CONFIG, Project, make_project
from tiny_models import save_classifier

SAMPLE_SECONDS = 0.25
MEGABYTE = 1_000_000


@dataclass
class Usage:
    """What a command took: seconds of wall and CPU time, and peaks of memory in MB."""

    wall_s: float
    cpu_s: float
    jobs_mb: float
    snakemake_mb: float


@dataclass
class Peaks:
    """The most memory seen, in bytes: resident in a process, and taken by all its descendants together."""

    own: int = 0
    descendants: int = 0

    def sample(self, process: psutil.Process) -> None:
        """Look once; processes that end meanwhile count as nothing."""
        self.own = max(self.own, resident_bytes([process]))
        self.descendants = max(self.descendants, shared_once_bytes(descendants_of(process)))


def snakemake(project: Project, *arguments: str) -> Usage:
    """Run Snakemake in a project and measure it.

    Raises:
        SystemExit: it failed; with the end of what it printed.
    """
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what one process compiles, the next ones read, as by default
    output = project.folder / "output.txt"
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with output.open("w") as stream:
        process = subprocess.Popen(
            ["snakemake", *arguments], cwd=project.folder, env=environment, stdout=stream, stderr=subprocess.STDOUT
        )
        peaks, watched = Peaks(), psutil.Process(process.pid)
        while process.poll() is None:
            peaks.sample(watched)
            time.sleep(SAMPLE_SECONDS)
    after, end = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    if process.returncode:
        sys.exit(f"error: snakemake failed in {project.folder}:\n{output.read_text()[-4000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Usage(end - start, cpu, peaks.descendants / MEGABYTE, peaks.own / MEGABYTE)


def configured(folder: Path, count: int, pytorch: bool) -> Project:
    """Return a project with so many models, all of the same tiny weights, with PyTorch's benchmark or without."""
    project = make_project(folder)
    save_classifier(folder / "models/stars")
    rows = [f"m{number:05},models/stars" for number in range(count)]
    (folder / "models.csv").write_text("\n".join(["name,path", *rows, ""]))
    settings = {key: value for key, value in CONFIG.items() if key != "models"}
    benchmark = CONFIG["benchmark"] | {"pytorch": pytorch}
    project.configure(settings | {"benchmark": benchmark, "models_from": ["models.csv"]})
    return project


def plan(count: int, repeats: int) -> Usage:
    """Return the medians of several plans of so many models from the start."""
    with tempfile.TemporaryDirectory() as folder:
        project = configured(Path(folder), count, pytorch=True)
        runs = [snakemake(project, "--dry-run", "--cores", "2", "--quiet", "rules") for _ in range(repeats)]
    return Usage(*(statistics.median(values) for values in zip(*(vars(run).values() for run in runs), strict=True)))


def seconds_by_rule(project: Project) -> dict[str, list[float]]:
    """Return the wall time, in seconds, of each job that Snakemake has recorded, by rule."""
    jobs = {}
    for path in (project.folder / ".snakemake/metadata").rglob("*"):
        if path.is_file():
            record = json.loads(path.read_text(encoding="utf-8"))
            jobs[record["log"][0]] = (record["rule"], record["endtime"] - record["starttime"])
    found = defaultdict(list)
    for rule, seconds in jobs.values():
        found[rule].append(seconds)
    return dict(sorted(found.items()))


def page(plans: dict[int, Usage], count: int, options: argparse.Namespace, run: Usage, jobs: dict) -> str:
    """Return the measurements as Markdown."""
    cpu = cpu_description()["model"]
    lines = [
        "# What many models cost",
        "",
        f"Written by `make bench-scale` on {cpu}, {os.cpu_count()} cores, which other programs may have shared. The "
        "models are tiny, so these are the costs of a model whatever its size. Memory is what all processes take "
        "together (what they share counts once), looked at four times a second.",
        "",
        f"Planning, medians of {options.repeats}:",
        "",
        "| models | `snakemake -n`, wall s | CPU s | peak memory, MB |",
        "| --- | --- | --- | --- |",
        *(f"| {n:,} | {each.wall_s:.1f} | {each.cpu_s:.1f} | {each.snakemake_mb:.0f} |" for n, each in plans.items()),
        "",
        f"One run of {count} models as fp32, optimized and int8, without PyTorch's benchmark, "
        f"{sum(map(len, jobs.values())):,} jobs, with `--cores {options.cores} --resources "
        f"mem_mb={options.mem_mb}`; every job succeeded:",
        "",
        "| | |",
        "| --- | --- |",
        f"| wall time | {run.wall_s:.0f} s, {run.wall_s / count:.1f} s a model |",
        f"| models an hour | {3600 * count / run.wall_s:.0f} |",
        f"| CPU time | {run.cpu_s:.0f} s, {run.cpu_s / count:.1f} s a model |",
        f"| peak memory of all jobs together | {run.jobs_mb:.0f} MB |",
        f"| peak memory of Snakemake | {run.snakemake_mb:.0f} MB |",
        "",
        "| rule | jobs | median wall, s | share of all jobs' time |",
        "| --- | --- | --- | --- |",
    ]
    total = sum(map(sum, jobs.values()))
    for rule, seconds in sorted(jobs.items(), key=lambda item: -sum(item[1])):
        share = sum(seconds) / total
        lines.append(f"| {rule} | {len(seconds)} | {statistics.median(seconds):.1f} | {share:.0%} |")
    return "\n".join([*lines, ""])


def main(argv: list[str] | None = None) -> int:
    """Measure what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=200, metavar="N", help="tiny models of the one run")
    parser.add_argument("--plans", type=int, nargs="+", default=[10, 100, 1000], metavar="N", help="models to plan")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="how often each plan is made")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), metavar="N")
    parser.add_argument("--mem-mb", type=int, default=4000, metavar="MB", help="what jobs may ask for together")
    parser.add_argument("--table", type=Path, required=True, metavar="FILE", help="where the page is written")
    options = parser.parse_args(argv)

    plans = {count: plan(count, options.repeats) for count in options.plans}
    with tempfile.TemporaryDirectory() as folder:
        project = configured(Path(folder), options.models, pytorch=False)
        limit = ("--resources", f"mem_mb={options.mem_mb}")
        run = snakemake(project, "--cores", str(options.cores), *limit, "--quiet", "all")
        jobs = seconds_by_rule(project)
    write_text(options.table, page(plans, options.models, options, run, jobs))
    if run.jobs_mb > options.mem_mb:
        print(f"error: the jobs took {run.jobs_mb:.0f} MB together, allowed were {options.mem_mb}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
