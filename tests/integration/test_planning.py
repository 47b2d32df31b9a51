"""Planning many models: the right number of jobs, and work that grows no faster than the number of models."""

import json
import os
import pstats
import re
import subprocess
import sys

import pytest
import yaml
from snakemake.shell import shell

from onnxproof.engine import patches
from onnxproof.engine.resources import DEFAULT_WEIGHTS_MB, estimate_memory_mb
from project import TINY_CONFIG, make_project, make_tiny_project

PROFILED_PLAN = """
import cProfile, sys
from snakemake.cli import main
profile = cProfile.Profile()
try:
    profile.runcall(main, ["--dry-run", "--cores", "2", "--quiet", "rules"])
except SystemExit as end:
    status = end.code
profile.dump_stats("plan.profile")
sys.exit(status)
"""
COUNT_TIMERS = """
import sys, threading
from snakemake.cli import main
most = 0
class Counted(threading.Timer):
    def start(self):
        global most
        super().start()
        most = max(most, sum(isinstance(thread, Counted) for thread in threading.enumerate()))
threading.Timer = Counted
try:
    main(["--cores", "2", "--quiet", "all", "--until", "download"])
except SystemExit as end:
    print("status", end.code, "timers", most)
"""
#: Jobs of one model with the variants fp32, optimized and int8, and PyTorch timed too.
JOBS_OF_A_MODEL = {
    "download": 1,
    "export": 1,
    "optimize": 1,
    "quantize": 1,
    "record_reference": 1,
    "measure_parity": 3,
    "gate_parity": 3,
    "benchmark": 3,
    "benchmark_pytorch": 1,
    "release": 1,
    "verify_release": 1,
}

#: Python calls that planning one model may take. It takes 25,000, and 177,000 without ``plan_with_less_work``.
CALLS_OF_A_MODEL = 28_000

#: A plan with our patches of Snakemake, or as if they were for another version; ends with what they replace.
PLAN_WITH_PATCHES_FOR = """
import sys
sys.path.insert(0, "workflow/scripts")
from onnxproof.engine import patches
patches.SNAKEMAKE = sys.argv[1]
from snakemake.cli import main
from snakemake.jobs import Job
try:
    main(["--dry-run", "--printshellcmds", "--quiet", "host", "--cores", "2"])
finally:
    print(Job.log_info.__module__)
"""


def write_models(project, count: int) -> None:
    rows = [f"m{number:05},org/m{number},{number:040x}" for number in range(count)]
    (project.folder / "models.csv").write_text("\n".join(["name,hub,revision", *rows, ""]))
    project.configure({"models_from": ["models.csv"]})


def calls_to_plan(project, count: int) -> int:
    """Return the Python calls that a dry run makes, which unlike seconds do not depend on the machine's mood."""
    write_models(project, count)
    run = subprocess.run(
        [sys.executable, "-c", PROFILED_PLAN], cwd=project.folder, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr
    return pstats.Stats(str(project.folder / "plan.profile")).total_calls


@pytest.mark.slow
def test_every_model_has_its_jobs(tmp_path):
    project = make_project(tmp_path)
    write_models(project, 30)
    expected = {rule: 30 * count for rule, count in JOBS_OF_A_MODEL.items()} | {"summary": 1, "all": 1}
    assert project.planned() == expected


@pytest.mark.slow
def test_answers_of_each_further_execution_provider_are_measured(tmp_path):
    project = make_project(tmp_path)
    write_models(project, 2)
    providers = ["CPUExecutionProvider", "OpenVINOExecutionProvider", "CUDAExecutionProvider"]
    project.configure({"models_from": ["models.csv"], "benchmark": {"providers": providers}})
    planned = project.planned()
    assert planned["measure_parity_on_provider"] == 2 * 3 * 2
    assert planned["measure_parity"] == planned["gate_parity"] == 2 * 3


@pytest.mark.slow
def test_planning_grows_linearly_with_the_number_of_models(tmp_path):
    project = make_project(tmp_path)
    first, few, some, many = (calls_to_plan(project, count) for count in (10, 10, 30, 70))
    assert few < first / 2  # what our code does is found once, and remembered
    print(f"\n{(many - some) / 40:,.0f} calls a model")
    assert (many - some) / 40 < CALLS_OF_A_MODEL
    assert many - some < 2.4 * (some - few)  # twice as many models more; quadratic work would make it four times


@pytest.mark.slow
def test_a_plan_with_less_work_is_the_same_plan(tmp_path, tiny_models):
    project = make_tiny_project(tmp_path, tiny_models)
    environment = os.environ | {"PYTHONHASHSEED": "0"}  # the order of the reasons
    plans = []
    for version, replaced in ((patches.SNAKEMAKE, patches.__name__), ("another", "snakemake.jobs")):
        command = [sys.executable, "-c", PLAN_WITH_PATCHES_FOR, version]
        run = subprocess.run(command, cwd=project.folder, env=environment, capture_output=True, text=True, timeout=600)
        *plan, module = run.stdout.splitlines()
        assert module == replaced, run.stderr
        # But for times of day, and for the order of jobs, from which their numbers follow.
        plans.append(sorted(re.sub(r"^Job \d+:", "", line) for line in plan if not line.startswith("[")))
    assert plans[0] == plans[1]
    assert sum(line.startswith("Shell command: ") for line in plans[0]) > len(JOBS_OF_A_MODEL)


@pytest.mark.slow
def test_the_summary_of_very_many_models_fits_its_command_line(tmp_path):
    """What grows with the number of models must not be on it: 128 KiB is the most that one argument may hold."""
    project = make_project(tmp_path)
    write_models(project, 100)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == project.config
    plan = project.snakemake("--dry-run", "--printshellcmds", "--quiet", "host")
    assert plan.returncode == 0, plan.stdout
    ((settings, command),) = re.findall(
        r"^Shell command: printf %s '(.*)' \| (python \S*summary.py .*)$", plan.stdout, re.MULTILINE
    )
    assert len(json.loads(settings)) == 100
    assert len(command) < 2000


def test_a_shell_command_holds_the_settings_of_any_number_of_models(tmp_path):
    """Snakemake writes a long command into a file, and a shell's own printf starts no process."""
    settings = json.dumps({f"model {number}": "it's" for number in range(100_000)})
    shell("printf %s {settings:q} | cat > {file:q}", settings=settings, file=tmp_path / "settings.json")
    assert (tmp_path / "settings.json").read_text() == settings


def test_a_download_asks_for_the_memory_of_what_it_does(tmp_path, tiny_models):
    project = make_tiny_project(tmp_path / "project", tiny_models)
    hub = {"hub": "org/name", "revision": "1" * 40}
    models = {
        "download": {"source": hub},
        "download_local": {"source": {"path": "models/stars"}},
        "download_pickle": {"source": hub, "allow_pickle": True},
    }
    project.configure(project.config | {"models": models})
    jobs = project.planned_jobs("--until", "download")
    asked = {wildcards["model"]: int(needs["mem_mb"]) for _, wildcards, needs in jobs}
    assert asked == {kind: estimate_memory_mb(kind, DEFAULT_WEIGHTS_MB) for kind in models}


def test_one_timer_at_a_time_wakes_the_scheduler(tmp_path, tiny_models):
    project = make_tiny_project(tmp_path / "project", tiny_models)
    models = {f"m{number}": {"source": {"path": "models/stars"}} for number in range(8)}
    project.configure(project.config | {"models": models})
    run = subprocess.run(
        [sys.executable, "-c", COUNT_TIMERS], cwd=project.folder, capture_output=True, text=True, timeout=600
    )
    # The one that wakes it may still be ending while the next one starts.
    assert re.search(r"^status 0 timers [12]$", run.stdout, re.MULTILINE), run.stdout + run.stderr
    assert len(list((project.folder / "results").glob("*/source.json"))) == len(models)


def test_a_browser_is_asked_only_where_the_configuration_asks_for_it(tmp_path, tiny_models):
    project = make_tiny_project(tmp_path, tiny_models)
    assert "measure_browser" not in project.planned()
    project.configure(TINY_CONFIG | {"parity": {"browser": True}})
    planned = project.planned()
    assert (planned["measure_browser"], planned["release"]) == (1, 1)
