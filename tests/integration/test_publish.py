"""publish_release.py as its own process, against a Hub on this machine."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fitting import misfits_of
from hub_uploads import UploadHub
from onnxproof.files import describe_files, write_json
from records import make_manifest, make_release_record, make_released_variant, make_verification

ROOT = Path(__file__).parents[2]
REPO = "lab/tiny-onnx"
TOKEN = "hf_SecretThatNoLogMayHold"


@pytest.fixture
def results(tmp_path) -> Path:
    """What a finished run leaves of a model, as far as publishing reads it."""
    folder = tmp_path / "results" / "tiny"
    (folder / "release" / "onnx").mkdir(parents=True)
    (folder / "parity").mkdir()
    (folder / "parity" / "int8.ok").write_text("passed\n")
    (folder / "release" / "onnx" / "model_quantized.onnx").write_bytes(bytes(range(256)) * 40)
    (folder / "release" / "golden.npz").write_bytes(b"golden")
    (folder / "release" / "README.md").write_text("---\nlicense: mit\n---\n# tiny\n")
    write_json(
        folder / "release" / "manifest.json",
        make_manifest({"int8": make_released_variant("onnx/model_quantized.onnx")}),
    )
    files = describe_files(folder / "release")
    release = make_release_record(variants={"int8": "onnx/model_quantized.onnx"}, files=files)
    write_json(folder / "release.json", release)
    write_json(folder / "verified.json", make_verification())
    return folder


@pytest.fixture
def hub():
    with UploadHub(REPO, TOKEN) as server:
        yield server


def publish(results: Path, hub: UploadHub | None, *arguments: str, token: str | None = TOKEN, repo: str = REPO):
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING_FACE"))}
    settings = {"HF_HOME": str(results / "hf"), "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    settings |= {"HF_ENDPOINT": hub.url if hub else "http://127.0.0.1:9"} | ({"HF_TOKEN": token} if token else {})
    command = [sys.executable, ROOT / "workflow/scripts/publish_release.py", "--model", "tiny", "--results", results]
    command += ["--repo", repo, "--output", results / "published.json", *arguments]
    process = subprocess.run(
        command, env=kept | settings, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100
    )
    assert TOKEN not in process.stdout
    assert "Traceback" not in process.stdout, process.stdout
    for path in results.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
    return process


def test_a_dry_run_sends_nothing_and_needs_neither_hub_nor_token(results):
    run = publish(results, None, token=None)
    assert run.returncode == 0, run.stdout
    assert "would send onnx/model_quantized.onnx, 10,240 bytes" in run.stdout
    record = json.loads((results / "published.json").read_text())
    assert record["dry_run"]
    assert record["commit"] is None
    assert misfits_of(results / "published.json", results) == []


def test_a_release_becomes_a_pull_request(results, hub):
    run = publish(results, hub, "--for-real")
    assert run.returncode == 0, run.stdout
    (commit,) = hub.commits
    assert commit["pull_request"]
    assert commit["header"]["summary"] == "ONNX release of tiny"
    sent = hub.repositories[REPO].files
    assert dict(sent) == {
        name: (results / "release" / name).read_bytes() for name in describe_files(results / "release")
    }
    record = json.loads((results / "published.json").read_text())
    assert not record["dry_run"]
    assert record["commit"] == hub.repositories[REPO].commit
    assert record["url"].endswith("/discussions/1")
    assert misfits_of(results / "published.json", results) == []


def test_a_release_goes_to_a_branch(results, hub):
    run = publish(results, hub, "--for-real", "--branch", "onnx")
    assert run.returncode == 0, run.stdout
    assert "onnx" in hub.branches
    (commit,) = hub.commits
    assert (commit["revision"], commit["pull_request"]) == ("onnx", False)


def test_the_default_branch_is_refused(results, hub):
    run = publish(results, hub, "--for-real", "--branch", "main")
    assert run.returncode == 1
    assert "pull request" in run.stdout
    assert hub.requests == []


def test_an_interrupted_run_goes_on_where_it_stopped(results, hub):
    hub.fail("POST", "/commit/", status=403)
    run = publish(results, hub, "--for-real")
    assert run.returncode == 1
    assert "run again" in run.stdout
    assert not (results / "published.json").exists()
    assert len(hub.served("PUT")) == 2
    run = publish(results, hub, "--for-real")
    assert run.returncode == 0, run.stdout
    assert len(hub.served("PUT")) == 2
    assert len(hub.commits) == 1


def test_a_hub_that_lost_a_byte_is_noticed(results, hub, monkeypatch):
    take = hub.commit

    def lose(*arguments):
        digest = take(*arguments)
        hub.repositories[REPO].files["onnx/model_quantized.onnx"] = b"short"
        return digest

    monkeypatch.setattr(hub, "commit", lose)
    run = publish(results, hub, "--for-real")
    assert run.returncode == 1
    assert "does not hold onnx/model_quantized.onnx as it was sent" in run.stdout


def test_a_release_that_was_sent_but_not_checked_is_not_called_refused(results, hub):
    hub.fail("GET", "/api/models/", status=503)
    run = publish(results, hub, "--for-real")
    assert run.returncode == 1
    (line,) = [line for line in run.stdout.splitlines() if line.startswith("error: ")]
    assert f"the release is at {hub.url}/{REPO}/discussions/1, but" in line
    assert len(hub.commits) == 1
    assert not (results / "published.json").exists()


@pytest.mark.parametrize(
    ("token", "repo", "message"),
    [(None, REPO, "HF_TOKEN"), ("hf_wrong", REPO, "401"), (TOKEN, "lab/absent", "404")],
)
def test_what_the_hub_refuses_is_told_in_one_line(results, hub, token, repo, message):
    run = publish(results, hub, "--for-real", token=token, repo=repo)
    assert run.returncode == 1
    (line,) = [line for line in run.stdout.splitlines() if line.startswith("error: ")]
    assert message in line
    assert hub.commits == []


def spoil_gate(results):
    (results / "parity/int8.ok").unlink()


def spoil_manifest(results):
    path = results / "release/manifest.json"
    path.write_text(path.read_text().replace("true", "false"))


def spoil_weights(results):
    (results / "release/onnx/model_quantized.onnx").write_bytes(b"other weights")


def add_file(results):
    (results / "release/stray.txt").write_text("not released")


def spoil_verification(results):
    write_json(results / "verified.json", {"passed": False})


def lose_release(results):
    shutil.rmtree(results / "release")
    (results / "release.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_gate, "the gate of int8 did not pass"),
        (spoil_manifest, "the gate of int8 did not pass"),
        (spoil_weights, "onnx/model_quantized.onnx"),
        (add_file, "stray.txt"),
        (spoil_verification, "verified"),
        (lose_release, "no such file"),
    ],
)
def test_what_was_not_proven_is_refused_even_in_a_dry_run(results, spoil, message):
    spoil(results)
    run = publish(results, None)
    assert run.returncode == 1
    assert message in run.stdout
    assert not (results / "published.json").exists()
