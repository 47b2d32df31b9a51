"""Fetch files from the Hub: resume after a cut, watch the rate and the length, and keep them in the client's cache.

``hf_hub_download`` of huggingface-hub 2.4 is not used, for four reasons. It deletes what has arrived when it fails, so
the next call starts from the first byte. It reads in chunks of ten megabytes, and loses an incomplete chunk at every
cut. It retries by its own rules, and waits as long as the server asks. It does not give up a server that sends a byte
now and then, or one that never stops.

Files are fetched over plain HTTP and stored in the client's own cache layout. Other programs find them there, and files
that other programs fetched are found here.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from os.path import relpath
from pathlib import Path
from urllib.parse import urljoin

import httpx2
from huggingface_hub import constants, get_session, hf_hub_url, set_client_factory, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but loaded on first use
    WeakFileLock,
    build_hf_headers,
    hf_raise_for_status,
)

#: Slower than this is no download: a gigabyte would take eleven days.
LEAST_BYTES_PER_SECOND = 1_000
#: Listings are read into memory; the longest known ones have a few megabytes.
MOST_LISTING_BYTES = 50_000_000
#: The key, among a request's extensions, of how many bytes the answer may have that it asks for.
MOST_BYTES = "most_bytes"


class SlowTransferError(httpx2.ReadTimeout):
    """An answer came too slowly: worth another try, which resumes it."""


class OverlongAnswerError(OSError):
    """An answer has more bytes than were announced: trying again would not help."""


def watch_answers(window_s: float) -> None:
    """Make the Hub's client watch every answer: its rate over ``window_s`` seconds, and its length.

    It also keeps the client from asking the Hub which program it runs in, to tell it with every request.
    """
    constants.HF_HUB_DISABLE_TELEMETRY = True

    def watch(response: httpx2.Response) -> None:
        most = response.request.extensions.get(MOST_BYTES) if response.is_success else None
        response.stream = _WatchedStream(response, MOST_LISTING_BYTES if most is None else most, window_s)

    def open_client() -> httpx2.Client:
        # Compressed, a short answer could unpack to one that fills the memory.
        plain = {"Accept-Encoding": "identity"}
        return httpx2.Client(event_hooks={"response": [watch]}, follow_redirects=True, headers=plain)

    set_client_factory(open_client)


class _WatchedStream(httpx2.SyncByteStream):
    """The body of an answer, as it arrives.

    Raises:
        SlowTransferError: the rate stayed below the least one for a whole window.
        OverlongAnswerError: more than ``most`` bytes came.
        httpx2.DecodingError: the body is compressed, which was not asked for.
    """

    def __init__(self, response: httpx2.Response, most: int, window_s: float) -> None:
        assert isinstance(response.stream, httpx2.SyncByteStream)
        self.headers = response.headers
        self.stream = response.stream
        self.most = most
        self.window_s = window_s

    def __iter__(self) -> Iterator[bytes]:
        if self.headers.get("Content-Encoding", "identity") != "identity":
            raise httpx2.DecodingError("the answer is compressed, which was not asked for")
        total = in_window = 0
        window_began = time.monotonic()
        for part in self.stream:
            total += len(part)
            if total > self.most:
                raise OverlongAnswerError(f"more than the expected {self.most} bytes")
            yield part
            in_window += len(part)
            elapsed = time.monotonic() - window_began
            if elapsed >= self.window_s:
                if in_window < LEAST_BYTES_PER_SECOND * elapsed:
                    raise SlowTransferError(f"{in_window} bytes in {elapsed:.0f} s")
                in_window, window_began = 0, time.monotonic()

    def close(self) -> None:
        self.stream.close()


def fetch_into_cache(repo: str, name: str, commit: str, size: int, checksum: str) -> Path:
    """Return a file's place in the cache of the Hub's client, after fetching what the cache lacks of it.

    What arrived before a failure stays in the cache as ``<checksum>.incomplete``, and the next call asks for the rest.

    Args:
        repo: the repository, as owner/name.
        name: the file's path in the repository.
        commit: the commit, as 40 hex digits.
        size: how many bytes the file has.
        checksum: its sha256 (LFS) or git blob id, after which the cache names its content; it is not compared here.

    Raises:
        httpx2.HTTPError: the Hub cannot be reached, refuses, or breaks off; ``HfHubHTTPError`` if it answered.
        OSError: it sends more bytes than the file has, or the cache cannot be written.
    """
    cached = try_to_load_from_cache(repo, name, revision=commit)
    if isinstance(cached, str):
        return Path(cached)
    cache = Path(constants.HF_HUB_CACHE)
    folder = cache / repo_folder_name(repo_id=repo, repo_type="model")
    lock = cache / ".locks" / folder.name / f"{checksum}.lock"
    blob = folder / "blobs" / checksum
    place = folder / "snapshots" / commit / name
    for path in (lock, blob, place):
        path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if not blob.exists():
            partial = blob.with_name(f"{checksum}.incomplete")
            _fetch(hf_hub_url(repo, name, revision=commit), partial, size)
            partial.replace(blob)
        _show(blob, place)
    return place


def _fetch(url: str, partial: Path, size: int) -> None:
    """Append to ``partial`` what it lacks of the ``size`` bytes at ``url``.

    Raises:
        httpx2.HTTPError, OSError: as ``fetch_into_cache``.
    """
    arrived = partial.stat().st_size if partial.exists() else 0
    if arrived == size > 0:
        return
    session, headers = get_session(), build_hf_headers()
    head = session.head(url, headers=headers, follow_redirects=False, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    hf_raise_for_status(head)
    address = urljoin(url, head.headers.get("Location", url))
    if httpx2.URL(address).origin != httpx2.URL(url).origin:
        headers.pop("authorization", None)  # a storage host, whose address is signed instead
    if arrived:
        headers["Range"] = f"bytes={arrived}-"
    with session.stream(
        "GET",
        address,
        headers=headers,
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        extensions={MOST_BYTES: size - arrived},
    ) as answer:
        if arrived and not _is_the_rest(answer, arrived):
            partial.unlink()
            raise httpx2.RemoteProtocolError("the rest of the file was asked for, and something else came")
        hf_raise_for_status(answer)
        with partial.open("ab") as stream:
            for part in answer.iter_raw():
                stream.write(part)
                stream.flush()  # what has arrived survives a kill
    if partial.stat().st_size < size:
        raise httpx2.RemoteProtocolError("the answer is shorter than the file")


def _is_the_rest(answer: httpx2.Response, arrived: int) -> bool:
    """Tell whether a resumed answer goes on where the last one ended; refusals and failures are told elsewhere."""
    if answer.status_code not in (httpx2.codes.OK, httpx2.codes.PARTIAL_CONTENT, httpx2.codes.RANGE_NOT_SATISFIABLE):
        return True
    return answer.headers.get("Content-Range", "").startswith(f"bytes {arrived}-")


def _show(blob: Path, place: Path) -> None:
    """Let a snapshot's file point at its content; where the file system has no links, move the content there."""
    if place.exists():
        return
    place.unlink(missing_ok=True)  # a link to nothing
    try:
        place.symlink_to(relpath(blob, place.parent))
    except OSError:
        shutil.move(blob, place)


def remove_from_cache(place: Path) -> None:
    """Remove a file from the cache: what a snapshot shows, and its content, which several links may lead to."""
    while place.is_symlink():
        target = place.parent / place.readlink()
        place.unlink()
        place = target
    with suppress(FileNotFoundError):
        place.unlink()


def checksum_in_cache(place: Path) -> str | None:
    """Return the checksum by which the cache names the content of a snapshot's file; None where it has no links.

    The first link alone leads to that name: the client may keep the content itself in a store that all repositories
    share, named after a hash of another kind.
    """
    return place.readlink().name if place.is_symlink() else None
