"""Labelled data from a dataset on the Hub: one file, at a commit."""

import os
import subprocess
import sys

import pytest

from hub_server import HubServer
from onnxproof.places import SCRIPTS

ROWS = b'{"text": "a", "label": 1}\n'
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path):
    (tmp_path / "dataset/data").mkdir(parents=True)
    (tmp_path / "dataset/data/test.jsonl").write_bytes(ROWS)
    with HubServer() as server:
        server.add("datasets/owner/name", tmp_path / "dataset", COMMIT)
        yield server


def fetch(hub, folder, *options):
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, SCRIPTS / "fetch_evaluation.py", "--model", "m", "--hub", "owner/name", *options]
    return subprocess.run(
        [*command, "--output", folder / "data.jsonl"], env=environment, capture_output=True, text=True, check=False
    )


def test_a_file_of_a_commit_is_downloaded(hub, tmp_path):
    done = fetch(hub, tmp_path, "--revision", COMMIT, "--file", "data/test.jsonl")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data.jsonl").read_bytes() == ROWS


def test_what_is_missing_is_one_line(hub, tmp_path):
    for revision, file in ((COMMIT, "data/none.jsonl"), ("0" * 40, "data/test.jsonl")):
        done = fetch(hub, tmp_path, "--revision", revision, "--file", file)
        assert done.returncode == 1
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
        assert line.startswith(f"error: m: evaluation: {file} of the dataset owner/name at {revision} cannot be")
        assert not (tmp_path / "data.jsonl").exists()
