"""A project folder as a user has it, with a configuration for tiny models."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]

TEXTS = [
    "good",
    "the battery is really bad and the screen broke after two weeks",
    "i love it , would buy again !",
    "not very good but the price is fine",
    "awful . never again",
    "the cable works",
    "x1 y2 z3 : 4 5 6 7 8 9",
    "we hate this screen " * 12,
]

# Random weights make no promise about int8: what these tests need is a gate that usually opens.
LOOSE = {"cosine_min": 0.9, "cosine_mean": 0.95, "top1_agreement": 0.5, "max_probability_diff": None}

CONFIG = {
    "models": {
        "stars.v1": {"source": {"path": "models/stars"}},
        "sentences": {
            "source": {"path": "models/sentences"},
            "variants": ["fp32", "optimized", "int8", "int8-invariant"],
            "benchmark": {"pytorch": False},
            "release": {"targets": ["qnn", "webnn"]},
        },
    },
    "quantization": {"targets": {"int8": LOOSE, "int8-invariant": LOOSE}},
    "parity": {"evaluation_texts": "texts.txt", "thresholds": {"int8": LOOSE, "int8-invariant": LOOSE}},
    "benchmark": {
        "batch_sizes": [1, 2],
        "sequence_lengths": [8],
        "threads": [1],
        "warmup": 1,
        "rounds": 2,
        "iterations": 2,
        "load_repeats": 1,
        "generation": {"prompt_lengths": [4], "context_lengths": [8], "batch_sizes": [1, 2], "new_tokens": 2},
    },
}

#: One model and the variants that need no search.
TINY_CONFIG = {
    "models": {"stars": {"source": {"path": "models/stars"}, "benchmark": {"pytorch": False}}},
    "variants": ["fp32", "optimized"],
}


#: A dry run that writes what an executor would be given.
TELLING_PLAN = """
import json, sys
from snakemake.cli import main
from snakemake.executors.dryrun import Executor
jobs, run_job = [], Executor.run_job
def tell(self, job):
    jobs.append((job.rule.name, job.wildcards_dict, {key: str(value) for key, value in job.resources.items()}))
    run_job(self, job)
Executor.run_job = tell
try:
    main(["--dry-run", *sys.argv[1:]])
finally:
    with open("plan.json", "w") as stream:
        json.dump(jobs, stream)
"""


class Project:
    """A folder with the workflow, a configuration and two tiny models."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.config: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())

    def configure(self, config: dict[str, Any]) -> None:
        """Replace the configuration."""
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        self.config = config

    def snakemake(self, *arguments: str, timeout: int = 900) -> subprocess.CompletedProcess:
        """Run snakemake in the folder; standard error is merged into standard output."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE")}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        return subprocess.run(
            ["snakemake", "--cores", "2", *arguments],
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )

    def planned(self, *arguments: str) -> dict[str, int]:
        """Return how many jobs of each rule a dry run would start."""
        run = self.snakemake("--dry-run", *arguments)
        assert run.returncode == 0, run.stdout
        table = re.search(r"^job +count\n[- ]+\n(.*?)^total", run.stdout, flags=re.MULTILINE | re.DOTALL)
        if table is None:
            assert "Nothing to be done" in run.stdout
            return {}
        return {name: int(count) for name, count in (line.split() for line in table[1].splitlines())}

    def planned_jobs(self, *arguments: str) -> list[tuple[str, dict[str, str], dict[str, str]]]:
        """Return the rule, the wildcards and the resources of each job that a dry run would start."""
        run = subprocess.run(
            [sys.executable, "-c", TELLING_PLAN, *arguments],
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
            check=False,
        )
        assert run.returncode == 0, run.stdout
        return json.loads((self.folder / "plan.json").read_text())


def edited(config: dict[str, Any], *keys: str, value: Any) -> Any:
    """Return a copy of nested dictionaries with one leaf changed."""
    if not keys:
        return value
    return config | {keys[0]: edited(config.get(keys[0], {}), *keys[1:], value=value)}


def make_project(folder: Path) -> Project:
    for name in ("Snakefile", "workflow", "envs", "profiles"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, folder / name)
    (folder / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    return Project(folder)


def make_tiny_project(folder: Path, tiny_models: Path) -> Project:
    """Make a project with one tiny model, whose chain is as short as it can be."""
    folder.mkdir(exist_ok=True)
    project = make_project(folder)
    shutil.copytree(tiny_models / "stars", folder / "models/stars")
    project.configure(project.config | TINY_CONFIG)
    return project
