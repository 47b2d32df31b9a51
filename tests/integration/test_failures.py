"""Failing well: one clear message, the evidence kept, the other models untouched."""

import json
import os
import re
import shutil

import pytest
import yaml

from project import edited, make_project


def test_a_missed_gate_fails_the_run_and_keeps_the_evidence(copy_of_finished):
    project = copy_of_finished
    project.config["models"]["sentences"]["parity"] = {"thresholds": {"int8": {"cosine_mean": 0.9999999}}}
    project.configure(project.config)
    results = project.folder / "results" / "sentences"
    (results / "published.json").write_text("{}")
    run = project.snakemake()
    assert run.returncode != 0
    measured = json.loads((results / "parity/int8.json").read_text())["task_metrics"]["cosine_mean"]
    assert (
        f"error: sentences int8 is not equal enough to PyTorch over 8 inputs: cosine_mean: measured {measured:.6g}"
        in (run.stdout)
    )
    assert "allowed >= 1" in run.stdout
    rungs = json.loads((results / "onnx/int8.json").read_text())["settings"]["search"]["rungs"]
    assert "Recipes tried, on the calibration inputs:" in run.stdout
    assert f"  {len(rungs)}. split_bias_gelu" in run.stdout
    assert "Traceback" not in run.stdout
    assert not (results / "parity/int8.ok").exists()
    assert not (results / "release").exists()
    assert not (results / "release.json").exists()
    assert not (results / "verified.json").exists()
    assert not (results / "published.json").exists()
    assert "FAILED sentences release: sentences int8 did not pass its gate: cosine_mean: measured" in run.stdout
    assert project.planned("results/sentences/release.json") == {"release": 1}  # still to be earned
    assert project.planned()["gate_parity"] == 1
    assert re.findall("^Release: .*", run.stdout, re.MULTILINE) == ["Release: results/stars.v1/release"]
    assert (project.folder / "results/stars.v1/release.json").exists()
    assert "sentences,int8" in (project.folder / "results/summary.csv").read_text().replace('"', "")


def test_a_release_that_fails_its_verification_is_not_called_released(copy_of_finished):
    project = copy_of_finished
    project.configure(edited(project.config, "models", "sentences", "publish", value={"repo": "lab/tiny-onnx"}))
    results = project.folder / "results/sentences"
    card = results / "release/README.md"
    times = card.stat()
    card.write_bytes(card.read_bytes()[:-1] + b" ")
    os.utime(card, ns=(times.st_atime_ns, times.st_mtime_ns))
    (results / "verified.json").unlink()
    assert project.planned() == {"all": 1, "verify_release": 1}
    run = project.snakemake()
    assert run.returncode != 0
    (told,) = re.findall("^FAILED sentences verify_release: (.*)", run.stdout, re.MULTILINE)
    assert re.match(
        r"FAIL: 2 of \d+ checks failed, do not use this release: files sha256: .*; README.md sha256: ", told
    )
    assert re.findall("^Release: .*", run.stdout, re.MULTILINE) == ["Release: results/stars.v1/release"]
    assert not (results / "verified.json").exists()
    assert project.planned("publish")["verify_release"] == 1


def test_a_release_is_published_only_where_its_gates_passed(copy_of_finished):
    project = copy_of_finished
    project.configure(edited(project.config, "models", "sentences", "publish", value={"repo": "lab/tiny-onnx"}))
    assert project.planned("publish") == {"publish": 1, "publish_release": 1}
    (project.folder / "results/sentences/parity/int8.ok").unlink()
    assert project.planned("publish") == {"gate_parity": 1, "publish": 1, "publish_release": 1}


@pytest.mark.slow
def test_rules_alone_withdraw_a_release(copy_of_finished):
    """As where this workflow is a module: its hooks do not run."""
    project = copy_of_finished
    limit = {"thresholds": {"optimized": {"max_abs_diff": 0.0}}}  # of a variant that is not shipped
    project.configure(edited(project.config, "models", "sentences", "parity", value=limit))
    run = project.snakemake("--no-hooks", "--keep-going")
    assert run.returncode != 0
    results = project.folder / "results"
    left = {path.name for path in (results / "sentences").iterdir()}
    assert not {"release", "release.json"} & left
    assert not (results / "sentences/parity/optimized.ok").exists()
    assert (results / "sentences/parity/int8.ok").exists()
    assert (results / "sentences/parity/optimized.json").exists()
    assert (results / "stars.v1/release.json").exists()
    run = project.snakemake("--no-hooks", "results/sentences/release.json")
    assert run.returncode != 0
    assert "error: sentences optimized did not pass its gate: max_abs_diff: measured" in run.stdout


@pytest.mark.slow
def test_a_gate_that_fails_where_its_release_is_up_to_date_withdraws_it(copy_of_finished):
    project = copy_of_finished
    script = project.folder / "workflow/scripts/gate_parity.py"
    text = script.read_text()
    assert "    if missed:\n" in text
    script.write_text(text.replace("    if missed:\n", "    if not missed:\n"))
    run = project.snakemake()
    assert run.returncode != 0
    assert {path.name for path in (project.folder / "results/stars.v1").iterdir()} & {
        "release",
        "verified.json",
    } == set()
    assert re.findall("^Release: .*", run.stdout, re.MULTILINE) == []


def test_a_gate_that_is_asked_for_alone_withdraws_the_release_too(copy_of_finished):
    project = copy_of_finished
    limit = {"thresholds": {"int8": {"cosine_mean": 0.9999999}}}
    project.configure(edited(project.config, "models", "sentences", "parity", value=limit))
    run = project.snakemake("results/sentences/parity/int8.ok")
    assert run.returncode != 0
    left = {path.name for path in (project.folder / "results/sentences").iterdir()}
    assert not {"release", "release.json", "verified.json"} & left
    assert (project.folder / "results/stars.v1/release.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": {}}, "models"),
        ({"modles": {}}, "models"),
        ({"variants": ["fp32", "int9"]}, "int8"),
        ({"models": {"a/b": {"source": {"path": "models/stars"}}}}, "a/b"),
        ({"models": {"m": {"source": {"path": "models/absent"}}}}, "models/absent"),
        ({"models": {"m": {"source": {"hub": "org/name", "revision": "main"}}}}, "allow_floating_revision"),
        ({"models": {"m": {"source": {"hub": "org/name", "path": "models/stars"}}}}, "path"),
    ],
)
def test_a_mistake_in_the_configuration_is_told_before_any_job(copy_of_finished, change, message):
    project = copy_of_finished
    project.configure(project.config | change)
    run = project.snakemake()
    assert run.returncode != 0
    assert message in run.stdout
    assert "Traceback" not in run.stdout
    assert "Select jobs to execute" not in run.stdout


def test_broken_yaml_is_told_with_its_line(copy_of_finished):
    project = copy_of_finished
    (project.folder / "config.yaml").write_text("models:\n  a: {source: {path: models/stars}\n")
    run = project.snakemake()
    assert run.returncode != 0
    assert "line 3" in run.stdout
    assert "Traceback" not in run.stdout


def test_a_model_listed_twice_is_told(copy_of_finished):
    project = copy_of_finished
    text = yaml.safe_dump({"models": {"a": {"source": {"path": "models/stars"}}}})
    (project.folder / "config.yaml").write_text(text + "  a:\n    source: {path: models/sentences}\n")
    run = project.snakemake()
    assert run.returncode != 0
    assert "twice" in run.stdout or "duplicate" in run.stdout


def test_no_text_of_a_configuration_is_run_by_a_shell(tiny_models, tmp_path):
    project = make_project(tmp_path)
    name = "a b$(touch ran)`touch ran`';touch ran;'\"&touch ran&\"*|>ran"
    shutil.copytree(tiny_models / "stars", tmp_path / "models" / name)
    (tmp_path / "texts.txt").rename(tmp_path / f"{name}.txt")
    project.configure(
        {"models": {"m": {"source": {"path": f"models/{name}"}, "parity": {"evaluation_texts": f"{name}.txt"}}}}
    )
    run = project.snakemake("results/m/reference.json")
    assert run.returncode == 0, run.stdout
    assert json.loads((tmp_path / "results/m/source.json").read_text())["path"] == f"models/{name}"
    assert json.loads((tmp_path / "results/m/reference.json").read_text())["inputs"]["count"] == 8
    assert not [path for path in tmp_path.rglob("*") if path.name == "ran"]


@pytest.mark.slow
def test_one_failed_model_stops_no_other_and_is_all_that_runs_again(tiny_models, tmp_path):
    project = make_project(tmp_path)
    shutil.copytree(tiny_models / "stars", tmp_path / "models/stars")
    shutil.copytree(tiny_models / "stars", tmp_path / "models/broken")
    settings = tmp_path / "models/broken/config.json"
    whole = settings.read_text()
    settings.write_text(json.dumps(json.loads(whole) | {"intermediate_size": 24}))  # not what the weights have
    (tmp_path / "models.csv").write_text(
        "name,path,variants,benchmark.pytorch\nbroken,models/broken,fp32,false\nwhole,models/stars,fp32,false\n"
    )
    config = {key: value for key, value in project.config.items() if key != "models"}
    project.configure(config | {"models_from": ["models.csv"]})
    run = project.snakemake()
    assert run.returncode != 0
    assert "jobs of 1 of 2 models failed:\nFAILED broken " in run.stdout
    told = run.stdout.partition("FAILED broken ")[2]
    log = tmp_path / told.partition("  log: ")[2].splitlines()[0]
    assert log.is_file()
    assert (tmp_path / "results/whole/release.json").exists()
    assert "whole,fp32" in (tmp_path / "results/logs/summary/partial.csv").read_text()

    settings.write_text(whole)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results/whole").rglob("*")}
    run = project.snakemake()
    assert run.returncode == 0, run.stdout
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "results/whole").rglob("*")}
    assert not (tmp_path / "results/logs/summary/partial.csv").exists()
