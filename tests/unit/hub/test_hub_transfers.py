"""How a file gets from a Hub on this machine into the cache of the Hub's client."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi, constants, hf_hub_download, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._http import default_client_factory

from hub_server import HubServer
from messages import raises
from onnxproof.hub import transfers as hub_transfers
from onnxproof.hub.transfers import (
    OverlongAnswerError,
    checksum_in_cache,
    fetch_into_cache,
    remove_from_cache,
    watch_answers,
)

REPO = "lab/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "model.safetensors"
CONTENT = bytes(range(256)) * 1000
CHECKSUM = sha256(CONTENT).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / NAME).write_bytes(CONTENT)
    with HubServer() as server:
        server.add(REPO, tmp_path / "model", COMMIT)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
        watch_answers(60)
        yield server
        set_client_factory(default_client_factory)


def fetch() -> Path:
    return fetch_into_cache(REPO, NAME, COMMIT, len(CONTENT), CHECKSUM)


def bodies(hub: HubServer) -> list[str | None]:
    return [seen.byte_range for seen in hub.served("GET", "/lfs/")]


def test_the_client_finds_what_was_fetched_here(hub):
    place = fetch()
    assert place.read_bytes() == CONTENT
    assert hf_hub_download(REPO, NAME, revision=COMMIT) == str(place)
    assert fetch() == place
    assert len(hub.requests) == 2


def test_what_the_client_fetched_is_found_here(hub):
    place = hf_hub_download(REPO, NAME, revision=COMMIT)
    hub.requests.clear()
    assert str(fetch()) == place
    assert hub.requests == []


def test_a_file_without_bytes_is_a_file(hub, tmp_path):
    (tmp_path / "model" / NAME).write_bytes(b"")
    hub.add(REPO, tmp_path / "model", COMMIT)
    assert fetch_into_cache(REPO, NAME, COMMIT, 0, sha256(b"").hexdigest()).read_bytes() == b""


def cut_once(hub: HubServer) -> None:
    """Leave the first half of the file in the cache."""
    hub.fail("GET", "/lfs/", body="truncate")
    with pytest.raises(httpx2.RemoteProtocolError):
        fetch()


@pytest.mark.parametrize("fault", [{"body": "whole"}, {"body": "shifted"}, {"status": 416}])
def test_a_server_that_cannot_resume_is_asked_for_the_whole_file(hub, fault):
    cut_once(hub)
    hub.fail("GET", "/lfs/", **fault)
    with pytest.raises(httpx2.RemoteProtocolError, match="something else came"):
        fetch()
    assert fetch().read_bytes() == CONTENT
    assert bodies(hub) == [None, f"bytes={len(CONTENT) // 2}-", None]


def test_a_failure_between_two_parts_loses_neither(hub):
    cut_once(hub)
    hub.fail("GET", "/lfs/", status=503)
    with pytest.raises(HfHubHTTPError):
        fetch()
    assert fetch().read_bytes() == CONTENT
    assert bodies(hub) == [None, *[f"bytes={len(CONTENT) // 2}-"] * 2]


def test_a_file_that_was_cut_before_its_last_step_needs_no_byte(hub):
    place = fetch()
    blob = place.resolve()
    place.unlink()
    blob.rename(blob.with_name(f"{CHECKSUM}.incomplete"))
    hub.requests.clear()
    assert fetch().read_bytes() == CONTENT
    assert hub.requests == []


def test_a_file_system_without_links_holds_the_file_itself(hub, monkeypatch):
    def refuse(*_arguments: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    place = fetch()
    assert not place.is_symlink()
    assert place.read_bytes() == CONTENT
    assert checksum_in_cache(place) is None
    assert fetch() == place
    assert len(bodies(hub)) == 1
    remove_from_cache(place)
    assert not place.exists()


def test_a_store_that_repositories_share_is_seen_through(hub, tmp_path):
    """The client may keep a blob as a link to content that is named after Xet's hash."""
    place = fetch()
    blob, shared = place.resolve(), tmp_path / "cache/blobs/ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(shared)
    assert checksum_in_cache(place) == CHECKSUM
    remove_from_cache(place)
    assert not any(path.is_symlink() or path.exists() for path in (place, blob, shared))
    assert fetch().read_bytes() == CONTENT


@pytest.mark.parametrize(("host", "told"), [("storage", None), ("hub", "Bearer hf_Secret")])
def test_the_token_goes_to_the_endpoint_alone(hub, monkeypatch, host, told):
    """A mirror may keep large files on its own host."""
    monkeypatch.setenv("HF_TOKEN", "hf_Secret")
    if host == "hub":
        hub.storage_url = hub.url
    assert fetch().read_bytes() == CONTENT
    assert [seen.authorization for seen in hub.requests] == ["Bearer hf_Secret", told]


def test_a_listing_without_end_does_not_fill_the_memory(hub, monkeypatch):
    monkeypatch.setattr(hub_transfers, "MOST_LISTING_BYTES", 100)
    with raises(OverlongAnswerError):
        HfApi(endpoint=hub.url).model_info(REPO, files_metadata=True)


def test_a_compressed_answer_is_not_unpacked(hub):
    hub.fail("GET", "/api/", status=200, headers={"Content-Encoding": "gzip"})
    with pytest.raises(httpx2.DecodingError, match="compressed"):
        HfApi(endpoint=hub.url).model_info(REPO, files_metadata=True)


def test_the_hub_is_not_asked_which_program_runs(hub):
    HfApi(endpoint=hub.url).model_info(REPO)
    assert [seen.path for seen in hub.requests] == [f"/api/models/{REPO}"]
