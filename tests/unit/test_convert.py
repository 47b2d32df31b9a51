"""The configuration that `onnxproof convert` writes, and what it makes of a run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import convert
from hub_server import HubServer
from messages import check_message, raises
from onnxproof.cli import UserError
from project import ROOT

STAR = ROOT / "examples/star-rating-tiny"
COMMIT = "1" * 40


def configured(folder: Path, *options: str, model: str = str(STAR)) -> dict:
    """Write the configuration of one model; return the file's content."""
    args = convert.parse([model, *options])
    convert.configure(convert.find_source(model), "m", folder, args)
    return yaml.safe_load((folder / "config.yaml").read_text())


def test_a_model_needs_nothing_but_its_source(tmp_path):
    assert configured(tmp_path) == {"models": {"m": {"source": {"path": str(STAR)}}}}


def test_options_become_settings_of_the_model(tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_text('{"text": "good", "label": "5 stars"}\n')
    monkeypatch.chdir(tmp_path)
    options = ("--set", "parity.thresholds.int8.cosine_min=0.98", "--set", "evaluation.data=rows.jsonl")
    found = configured(tmp_path / "out", *options, "--task", "text-classification", "--variants", "fp32", "int8")
    assert found["models"]["m"] == {
        "source": {"path": str(STAR)},
        "parity": {"thresholds": {"int8": {"cosine_min": 0.98}}},
        "evaluation": {"data": str(tmp_path / "rows.jsonl")},
        "task": "text-classification",
        "variants": ["fp32", "int8"],
    }


@pytest.mark.parametrize(
    "options",
    [
        ("--set", "benchmark.round=3"),
        ("--set", "benchmark.rounds=many"),
        ("--set", "exporter=auto", "--set", "exporter.name=x"),
        ("--revision", "main"),
    ],
)
def test_a_wrong_setting_is_told_before_anything_is_written(tmp_path, options):
    with raises(UserError):
        configured(tmp_path, *options)
    assert not (tmp_path / "config.yaml").exists()


@pytest.mark.parametrize("options", [("--set", "x"), ("--set", ".=1"), ("--set", "a={"), ("--cores", "0"), ()])
def test_a_wrong_command_line_has_status_2(options, capsys):
    with pytest.raises(SystemExit) as end:
        convert.main([*([str(STAR)] if options else []), *options])
    assert end.value.code == 2
    check_message(capsys.readouterr().err.splitlines()[-1].partition("error: ")[2])


def test_the_same_command_writes_the_same_configuration(tmp_path):
    assert configured(tmp_path, "--set", "benchmark.rounds=3") == configured(tmp_path, "--set", "benchmark.rounds=3")
    assert "benchmark" not in configured(tmp_path)["models"]["m"]


def test_a_configuration_that_somebody_edited_is_not_replaced(tmp_path):
    configured(tmp_path)
    file = tmp_path / "config.yaml"
    for edited in (file.read_text() + "exporter: optimum\n", "models: {}\n", "\0"):
        file.write_text(edited)
        with raises(UserError):
            configured(tmp_path)
        assert file.read_text() == edited


def test_a_folder_keeps_to_its_model(tmp_path):
    folder = tmp_path / "out"
    configured(folder)
    shutil.copytree(STAR, tmp_path / "stars")
    with raises(UserError):
        configured(folder, model=str(tmp_path / "stars"))
    with raises(UserError):
        convert.configure(convert.find_source(str(STAR)), "other", folder, convert.parse([str(STAR)]))


def test_results_do_not_go_into_the_model_s_own_folder(tmp_path, monkeypatch):
    shutil.copytree(STAR, tmp_path / "stars")
    monkeypatch.chdir(tmp_path / "stars")
    before = sorted(Path().iterdir())
    for options in (["."], [".", "--output", "."]):
        with raises(UserError):
            convert.convert(convert.parse(options))
    assert sorted(Path().iterdir()) == before


def test_a_repository_is_pinned_once(tmp_path, monkeypatch):
    other = "2" * 40
    asked: list[str | None] = []

    def list_repository(model, repo, revision, retry):
        asked.append(revision)
        return COMMIT, {}

    monkeypatch.setattr("download.list_repository", list_repository)
    pinned = {"hub": "org/stars", "revision": COMMIT}
    assert configured(tmp_path, model="org/stars")["models"]["m"]["source"] == pinned
    assert configured(tmp_path, model="org/stars")["models"]["m"]["source"] == pinned
    assert asked == [None]
    assert configured(tmp_path, "--revision", other, model="org/stars")["models"]["m"]["source"]["revision"] == other
    assert configured(tmp_path, "--revision", "main", model="org/stars")["models"]["m"]["source"] == pinned
    assert asked == [None, "main"]


def test_what_the_hub_refuses_is_told_with_the_folder_that_may_have_been_meant(tmp_path):
    with HubServer() as hub:
        run = subprocess.run(
            [sys.executable, ROOT / "workflow/scripts/convert.py", "org/absent", "--json"],
            env=os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert run.returncode == 1
    result = json.loads(run.stdout)
    assert (result["status"], result["release"]) == ("failed", None)
    assert result["errors"][0]["reason"].endswith("a folder org/absent is not here either")
    assert run.stderr.splitlines()[-1] == f"error: {result['errors'][0]['reason']}"


def test_progress_counts_the_steps_and_times_them(capsys):
    with convert.Progress() as progress:
        for line in (
            "Job 4: stars: downloading the snapshot (log: results/logs/download/stars.log)",
            "Job 5: stars: exporting to ONNX (log: results/logs/export/stars.log)",
            "Finished jobid: 4 (Rule: download)",
            "1 of 19 steps (5%) done",
            "Error in rule export:",
            "    jobid: 5",
            "Finished jobid: 0 (Rule: all)",
            "19 of 19 steps (100%) done",
        ):
            progress.read(line)
    first, second = [line.split() for line in capsys.readouterr().err.splitlines() if line.endswith(" s")]
    assert first[:-2] == ["1", "of", "18", "downloading", "the", "snapshot"]
    assert second[:-2] == ["failed", "exporting", "to", "ONNX"]


def test_a_complaint_of_snakemake_is_one_line():
    printed = 'Building DAG of jobs...\nWorkflowError in file "/x/common.smk", line 7:\nstars: mend this\n\n'
    assert convert.complaint(printed) == "stars: mend this"
    assert convert.complaint("") == "Snakemake ended without a word"
    assert convert.complaint("Killed\n") == "Killed"


def test_a_refusal_is_told_by_the_gate_alone(tmp_path):
    table = convert.failures_file(tmp_path)
    table.parent.mkdir(parents=True)
    rows = ["model,rule,variant,reason,log", "m,gate_parity,int8,m int8 is not equal,results/logs/g.log"]
    table.write_text("\n".join([*rows, "m,release,,m int8 did not pass,results/logs/r.log\n"]))
    (error,) = convert.read_failures(tmp_path, "")
    assert error == {
        "step": "gate_parity",
        "variant": "int8",
        "reason": "m int8 is not equal",
        "log": str(tmp_path / "results/logs/g.log"),
    }


def test_a_second_command_in_the_same_folder_is_told(tmp_path):
    hold = (
        f"import sys, time; sys.path.insert(0, {str(ROOT / 'workflow/scripts')!r});"
        "from pathlib import Path; from onnxproof.engine.run_lock import lock_folder;"
        "lock_folder(Path('.snakemake/convert.lock')); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(UserError) as refused:
                convert.convert(convert.parse([str(STAR), "--output", str(tmp_path)]))
            assert f"another run is at work in {tmp_path} (process {holder.pid})" in str(refused.value)
            assert not (tmp_path / "config.yaml").exists()
        finally:
            holder.kill()
