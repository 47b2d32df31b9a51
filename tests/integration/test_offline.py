"""After the download nothing speaks to a network: no telemetry, no look-up, no update check."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from project import make_project
from reproduction import SURROUNDINGS, compare, digests

pytestmark = [pytest.mark.slow, pytest.mark.long]

can_unshare = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0
needs_namespace = pytest.mark.skipif(not can_unshare, reason="a network namespace of its own is not permitted")

#: In a new namespace no route leads anywhere, not even to this machine, and the kernel counts each attempt.
ATTEMPTS = "awk '/^Ip: [0-9]/ {print \"attempts:\", $13}' /proc/net/snmp"


def run_without_network(folder: Path, command: str, **settings: str) -> tuple[int, int, str]:
    """Run a shell command in a network namespace of its own; return status, attempts to send, and output."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    run = subprocess.run(
        ["unshare", "--net", "bash", "-c", f"{command}; status=$?; {ATTEMPTS}; exit $status"],
        cwd=folder,
        env=environment | settings,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    output, _, count = run.stdout.rpartition("attempts: ")
    return run.returncode, int(count), output


@needs_namespace
@pytest.mark.parametrize(
    "program",
    [
        "import socket; socket.create_connection(('192.0.2.1', 443))",
        "import urllib.request; urllib.request.urlopen('http://192.0.2.1/')",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 53))",
    ],
)
def test_an_attempt_is_counted(tmp_path, program):
    status, attempts, output = run_without_network(tmp_path, f'{sys.executable} -c "{program}"')
    assert status != 0, output
    assert attempts >= 1


@needs_namespace
def test_the_whole_chain_never_tries_to_connect_and_makes_the_same_bytes(finished, tiny_models, tmp_path):
    """Without a network, in another folder, on one core, with another hash seed, locale and time zone."""
    _, cores, settings = SURROUNDINGS[0]
    folder = tmp_path / "another place"
    folder.mkdir()
    project = make_project(folder)
    shutil.copytree(tiny_models, project.folder / "models")
    status, attempts, output = run_without_network(project.folder, f"snakemake --cores {cores}", **settings)
    assert status == 0, output
    assert attempts == 0, output
    assert compare(digests(project.folder / "results"), digests(finished.folder / "results")) == []
