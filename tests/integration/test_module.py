"""The workflow as a module of another one: the example of docs/module.md, outside of the checkout."""

import json
import re
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from conftest import made_once

from project import CONFIG, ROOT, Project, edited, make_project

MODELS = {"stars": {"source": {"path": "inputs/stars"}, "benchmark": {"pytorch": False}}}
SETTINGS = {key: CONFIG[key] for key in ("parity", "benchmark")} | {"models": MODELS, "variants": ["fp32", "optimized"]}
#: All jobs of the example's one model.
JOBS = {
    "onnxproof_download": 1,
    "onnxproof_export": 1,
    "onnxproof_optimize": 1,
    "onnxproof_record_reference": 1,
    "onnxproof_measure_parity": 2,
    "onnxproof_gate_parity": 2,
    "onnxproof_benchmark": 2,
    "onnxproof_release": 1,
    "onnxproof_verify_release": 1,
    "onnxproof_summary": 1,
    "deploy": 1,
    "all": 1,
}
#: What makes a release anew, and what follows from it.
RELEASED = {"onnxproof_release": 1, "onnxproof_verify_release": 1, "deploy": 1, "all": 1}


def make_caller(folder: Path, tiny_models: Path) -> Project:
    """Write the workflow of docs/module.md, its configuration and its model, and a clone beside it."""
    (folder / "onnxproof").mkdir(parents=True)
    make_project(folder / "onnxproof")
    caller = folder / "caller"
    shutil.copytree(tiny_models / "stars", caller / "inputs/stars")
    (caller / "texts.txt").write_text((folder / "onnxproof/texts.txt").read_text())
    guide = (ROOT / "docs/module.md").read_text()
    snakefile, hooks = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    (configuration,) = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    assert yaml.safe_load(configuration)["onnxproof"]["models"]["stars"]["source"] == MODELS["stars"]["source"]
    (caller / "Snakefile").write_text(snakefile)
    (caller / "with_hooks.smk").write_text(snakefile + hooks)
    (caller / "config.yaml").write_text(yaml.safe_dump({"onnxproof": SETTINGS, "title": "not onnxproof's"}))
    return Project(caller)


@pytest.fixture
def caller(tiny_models, tmp_path) -> Project:
    """A workflow that has not run yet."""
    return make_caller(tmp_path, tiny_models)


@pytest.fixture(scope="module")
def called(tmp_path_factory, tiny_models) -> Project:
    """A workflow that was run to the end. Tests leave it as they found it."""

    def make(folder: Path) -> None:
        run = make_caller(folder, tiny_models).snakemake()
        assert run.returncode == 0, run.stdout

    return Project(made_once(tmp_path_factory, "module", make) / "caller")


@pytest.fixture
def copy_of_called(called, tmp_path) -> Project:
    shutil.copytree(called.folder.parent, tmp_path / "copy")
    return Project(tmp_path / "copy/caller")


def configure(project: Project, *keys: str, value: object) -> None:
    project.configure(edited(project.config, "onnxproof", *keys, value=value))


def test_its_jobs_have_the_callers_names_and_places_and_the_same_resources(caller):
    assert caller.planned() == JOBS
    planned = caller.snakemake("--dry-run").stdout
    assert "models/results/stars/release" in planned
    assert re.findall(r"(?<!models/)results/", planned) == []
    alone = Project(caller.folder.parent / "onnxproof")
    shutil.copytree(caller.folder / "inputs", alone.folder / "inputs")
    alone.configure(caller.config["onnxproof"])
    there, here = ({rule: needs for rule, _, needs in project.planned_jobs()} for project in (caller, alone))
    for rule in ("export", "release", "benchmark", "download"):
        assert there[f"onnxproof_{rule}"] == here[rule]


def test_a_mistake_in_the_callers_settings_is_one_line(caller):
    configure(caller, "modles", value={})
    run = caller.snakemake("--dry-run")
    assert run.returncode != 0
    assert "modles" in run.stdout
    assert "Traceback" not in run.stdout


def test_a_snakefile_without_its_scripts_is_refused_in_one_line(tmp_path):
    handler = partial(SimpleHTTPRequestHandler, directory=str(ROOT))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/Snakefile"
        (tmp_path / "config.yaml").write_text("{}")
        (tmp_path / "Snakefile").write_text(
            f"module onnxproof:\n    snakefile: '{address}'\n    config: {{'models': {{}}}}\n"
            "use rule * from onnxproof as onnxproof_*\n"
        )
        run = Project(tmp_path).snakemake("--dry-run")
        server.shutdown()
    assert run.returncode != 0
    assert "snakefile is an address, must be a path on this machine" in run.stdout
    assert "Traceback" not in run.stdout


def test_kinds_of_machines_are_refused_before_any_job_where_jobs_stay_here(caller):
    configure(caller, "benchmark", "machines", value=["icelake"])
    assert caller.planned() == JOBS
    run = caller.snakemake()
    assert run.returncode != 0
    assert "benchmark.machines is ['icelake'], but the jobs of this run stay on this machine" in run.stdout
    assert not (caller.folder / "models").exists()


@pytest.mark.slow
def test_the_example_makes_a_verified_release_and_touches_nothing_else(called):
    results = called.folder / "models/results"
    assert json.loads((results / "stars/verified.json").read_text())["passed"]
    assert (called.folder / "deployed/stars.txt").read_text().startswith("model.onnx\n")
    assert "stars,fp32" in (results / "summary.csv").read_text()
    assert "models/results" in (results / "summary.csv").read_text()
    assert {path.name for path in called.folder.iterdir()} == {
        *(".snakemake", "Snakefile", "with_hooks.smk", "config.yaml", "deployed", "inputs", "models", "texts.txt")
    }
    assert not [path for path in (called.folder / ".snakemake").rglob("*") if "onnxproof" in path.name]
    assert not (called.folder.parent / "onnxproof/results").exists()


@pytest.mark.slow
def test_the_caller_reruns_what_a_change_concerns_and_nothing_else(copy_of_called):
    project = copy_of_called
    assert project.planned() == {}
    before = project.config
    gates = {"onnxproof_gate_parity": 1, "onnxproof_summary": 1}
    configure(project, "parity", "thresholds", "optimized", value={"max_probability_diff": 0.5})
    assert project.planned() == gates | RELEASED
    project.configure(before)
    configure(project, "benchmark", "rounds", value=3)
    timed = {"onnxproof_benchmark": 2, "onnxproof_summary": 1}
    assert project.planned() == timed | RELEASED
    project.configure(before)
    with (project.folder.parent / "onnxproof/workflow/scripts/verify_release.py").open("a") as script:
        script.write("# edited\n")
    assert project.planned() == RELEASED


@pytest.mark.slow
def test_a_failed_gate_withdraws_the_release(copy_of_called):
    project = copy_of_called
    configure(project, "parity", "thresholds", "optimized", value={"max_probability_diff": 0.0})
    run = project.snakemake("--keep-going")
    assert run.returncode != 0
    results = project.folder / "models/results/stars"
    assert (results / "parity/optimized.json").exists()
    assert not (results / "release").exists()
    assert not (results / "release.json").exists()
    run = project.snakemake("--keep-going", "--snakefile", "with_hooks.smk")
    assert run.returncode != 0
    assert not (results / "verified.json").exists()
    assert "FAILED stars onnxproof_release: stars optimized did not pass its gate: max_probability_diff" in run.stdout


@pytest.mark.slow
def test_results_may_lie_anywhere(copy_of_called):
    project = copy_of_called
    snakefile = project.folder / "Snakefile"
    text = snakefile.read_text().replace('prefix:\n        "models"', 'replace_prefix:\n        {"results/": "made/"}')
    snakefile.write_text(text.replace("models/results/", "made/"))
    (project.folder / "models/results").rename(project.folder / "made")
    run = project.snakemake("--touch")
    assert run.returncode == 0, run.stdout
    run = project.snakemake("--forcerun", "onnxproof_release")
    assert run.returncode == 0, run.stdout
    assert json.loads((project.folder / "made/stars/verified.json").read_text())["passed"]
    assert not (project.folder / "results").exists()
