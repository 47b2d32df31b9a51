"""Results in an S3 bucket, against a server on this machine: the same files arrive there, and a rerun finds them.

Needs the storage plugin (make setup-cluster) and `moto_server` in the PATH, from an environment of its own, such as
`uv tool install "moto[server]"`.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from project import make_project

BUCKET = "models"
SERVER = shutil.which("moto_server")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SERVER is None, reason='needs moto_server: uv tool install "moto[server]"'),
    pytest.mark.skipif(
        importlib.util.find_spec("snakemake_storage_plugin_s3") is None,
        reason="needs snakemake-storage-plugin-s3: make setup-cluster",
    ),
]


@pytest.fixture
def endpoint(monkeypatch):
    """The address of an empty S3 server with one bucket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for name in ("SNAKEMAKE_STORAGE_S3_ACCESS_KEY", "SNAKEMAKE_STORAGE_S3_SECRET_KEY"):
        monkeypatch.setenv(name, "test")
    process = subprocess.Popen(
        [SERVER, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        client = connect(address)
        for attempt in range(100):
            try:
                client.create_bucket(Bucket=BUCKET)
                break
            except OSError:
                time.sleep(0.1 * (attempt < 99))
        yield address
    finally:
        process.terminate()
        process.wait(10)


def connect(address: str):
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=address,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
        config=Config(retries={"max_attempts": 10}),
    )


def test_results_go_to_a_bucket_and_are_found_there(endpoint, tiny_models, tmp_path):
    project = make_project(tmp_path)
    shutil.copytree(tiny_models / "stars", tmp_path / "models/stars")
    model = {"source": {"path": "models/stars"}, "variants": ["fp32"], "benchmark": {"pytorch": False}}
    project.configure(project.config | {"models": {"stars": model}})
    options = ["--default-storage-provider", "s3", "--default-storage-prefix", f"s3://{BUCKET}/run"]
    options += ["--storage-s3-endpoint-url", endpoint, "--shared-fs-usage", "none"]
    # The plugin's own settings come from the environment, and the tests' Project drops Snakemake's: put them back.
    keys = {name: os.environ[name] for name in os.environ if name.startswith("SNAKEMAKE_STORAGE")}
    run = project.snakemake(*options, environment=keys)
    assert run.returncode == 0, run.stdout
    found = connect(endpoint).list_objects_v2(Bucket=BUCKET, Prefix="run/")["Contents"]
    names = {Path(entry["Key"]).relative_to("run").as_posix() for entry in found}
    assert {"results/summary.csv", "results/report.html", "results/stars/release.json"} <= names
    assert {"results/stars/release/onnx/model.onnx", "results/stars/release/manifest.json"} <= names
    assert not (tmp_path / "results/stars/release").exists()
    again = project.snakemake(*options, environment=keys)
    assert again.returncode == 0, again.stdout
    assert "Nothing to be done" in again.stdout
