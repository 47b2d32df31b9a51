"""Results in object storage: a run against a local S3 server makes what a run on disk makes. `make test-s3`."""

import importlib.util
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub_server import HubServer
from onnxproof.engine.resources import estimate_memory_mb
from project import Project, edited, make_project, make_tiny_project
from reproduction import compare, digests

#: The command of an S3 server that understands `-H HOST -p PORT`.
SERVER = shlex.split(os.environ.get("S3_SERVER", ""))
BUCKET, PREFIX = "bucket", "onnxproof"
PLUGIN_MISSING = importlib.util.find_spec("snakemake_storage_plugin_s3") is None

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(PLUGIN_MISSING, reason="needs snakemake-storage-plugin-s3: make setup-cluster"),
    pytest.mark.skipif(not SERVER, reason="needs the command of an S3 server in S3_SERVER: make test-s3"),
]


@pytest.fixture
def endpoint(tmp_path, monkeypatch) -> Iterator[str]:
    """The address of a running S3 server; access is set up in the environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (tmp_path / "s3-server.txt").open("w") as log:
        server = subprocess.Popen(
            [*SERVER, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_for(server, port)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def wait_for(server: subprocess.Popen, port: int, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert server.poll() is None, f"{SERVER} ended"
        assert time.monotonic() < deadline, f"{SERVER} does not answer"
        time.sleep(0.2)


def options(endpoint: str) -> list[str]:
    return [
        *("--default-storage-provider", "s3", "--default-storage-prefix", f"s3://{BUCKET}/{PREFIX}"),
        *("--storage-s3-endpoint-url", endpoint, "--storage-s3-access-key", "a", "--storage-s3-secret-key", "b"),
    ]


def open_client(endpoint: str) -> Any:
    import boto3

    return boto3.client("s3", endpoint_url=endpoint, aws_access_key_id="a", aws_secret_access_key="b")


def kept(endpoint: str) -> set[str]:
    """Return the names of all files in the bucket, below the prefix."""
    pages = open_client(endpoint).get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{PREFIX}/")
    return {entry["Key"].removeprefix(f"{PREFIX}/") for page in pages for entry in page["Contents"]}


def download(endpoint: str, folder: Path) -> Path:
    """Fetch what lies in the bucket; return the folder of the results."""
    client = open_client(endpoint)
    for name in kept(endpoint):
        path = folder / PREFIX / name
        path.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(BUCKET, f"{PREFIX}/{name}", str(path))
    return folder / PREFIX / "results"


def fails_the_gate(project: Project) -> Project:
    project.configure(project.config | {"parity": {"thresholds": {"optimized": {"max_probability_diff": 0.0}}}})
    return project


def asked(project: Project, *arguments: str) -> set[tuple[str, ...]]:
    """Return what each rule would ask for if all were done again."""
    jobs = project.planned_jobs("--forceall", *arguments)
    return {
        (rule, *(resources.get(name, "") for name in ("mem_mb", "disk_mb", "runtime"))) for rule, _, resources in jobs
    }


def test_a_run_with_its_results_in_s3(endpoint, tiny_models, tmp_path):
    here = make_tiny_project(tmp_path / "here", tiny_models)
    local = here.snakemake()
    assert local.returncode == 0, local.stdout

    there = make_tiny_project(tmp_path / "there", tiny_models)
    there.configure(edited(there.config, "models", "stars", "publish", value={"repo": "lab/tiny-onnx"}))
    run = there.snakemake(*options(endpoint))
    assert run.returncode == 0, run.stdout
    assert not (there.folder / "results").exists()
    place = f"s3://{BUCKET}/{PREFIX}/results"
    assert re.search(r"^ stars +fp32 .* pass", run.stdout, re.MULTILINE)
    assert f"\nRelease: {place}/stars/release\nReport:  {place}/report.html\n" in run.stdout
    assert compare(digests(download(endpoint, tmp_path / "bucket")), digests(here.folder / "results")) == []
    assert "Nothing to be done" in there.snakemake(*options(endpoint)).stdout
    assert asked(there, *options(endpoint)) == asked(here)

    published = there.snakemake("publish", *options(endpoint))
    assert published.returncode == 0, published.stdout
    assert {"results/stars/release.json", "results/stars/published.json"} <= kept(endpoint)

    alone = fails_the_gate(there).snakemake("--no-hooks", *options(endpoint))
    assert alone.returncode != 0
    # A job that fails ends alone, also if its old folder was removed.
    assert "Failed to get mtime" not in alone.stdout, alone.stdout
    for rule in ("gate_parity", "release"):
        assert f"Error in rule {rule}:" in alone.stdout, alone.stdout
    left = kept(endpoint)
    assert not {"results/stars/parity/optimized.ok", "results/stars/release.json"} & left
    assert not [key for key in left if key.startswith("results/stars/release/")]
    assert {"results/stars/parity/optimized.json", "results/stars/parity/fp32.ok"} <= left

    # The summary is as the run before left it.
    failed = there.snakemake("--forcerun", "summary", *options(endpoint))
    assert failed.returncode != 0
    assert re.search(r"^FAIL stars optimized: max_probability_diff", failed.stdout, re.MULTILINE)
    assert (
        "2 jobs of 1 of 1 models failed:\nFAILED stars gate_parity optimized: stars optimized is not equal enough"
        in failed.stdout
    )
    assert "FAILED stars release: stars optimized did not pass its gate: max_probability_diff" in failed.stdout
    assert "Release:" not in failed.stdout
    left = kept(endpoint)
    marks = ("parity/optimized.ok", "release.json", "verified.json", "published.json")
    assert not {f"results/stars/{mark}" for mark in marks} & left
    assert not [key for key in left if key.startswith("results/stars/release/")]
    assert "results/stars/parity/optimized.json" in left
    refused = there.snakemake("publish", *options(endpoint))
    assert refused.returncode != 0
    assert "FAILED stars gate_parity optimized: " in refused.stdout
    assert "publishing the release" not in refused.stdout


def test_a_plan_with_its_results_in_s3_asks_the_hub_for_sizes(endpoint, tiny_models, tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    project, commit = make_project(tmp_path / "project"), "1" * 40
    names = ("reviews", "search")
    sources = {name: {"source": {"hub": f"org/{name}", "revision": commit}} for name in names}
    project.configure(project.config | {"models": sources})
    with HubServer() as hub:
        for name, millions in zip(names, (110, 335), strict=True):
            hub.add(f"org/{name}", tiny_models / "stars", commit, parameters={"F16": millions * 1_000_000})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        jobs = project.planned_jobs(*options(endpoint))
        assert len(hub.requests) == 2
    memory = {wildcards["model"]: int(needs["mem_mb"]) for rule, wildcards, needs in jobs if rule == "export"}
    assert memory == {"reviews": estimate_memory_mb("export", 440), "search": estimate_memory_mb("export", 1340)}
