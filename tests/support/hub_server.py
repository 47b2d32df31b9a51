"""A small Hugging Face Hub on 127.0.0.1: local folders as repositories, and faults on demand.

It speaks what ``HfApi.model_info(files_metadata=True)`` and ``hf_hub_download`` need, over plain HTTP: no
answer carries the headers that would send the client to Xet storage.
"""

import hashlib
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".bin", ".onnx", ".msgpack", ".h5", ".gguf")


@dataclass
class Repository:
    """One repository with a single commit, to which every branch and tag points."""

    files: dict[str, bytes]
    commit: str
    refs: tuple[str, ...]
    gated: bool
    #: How many parameters of which type the Hub found in the safetensors files; none, where there are none.
    parameters: dict[str, int] | None = None


@dataclass
class Fault:
    """What the next ``count`` matching requests get instead of the answer."""

    method: str
    part_of_path: str
    count: int
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    #: "truncate" closes the connection in mid-body; "corrupt" keeps the size and changes bytes; "overlong" sends
    #: more than was listed; "drip" sends two bytes at a time, ``pause_s`` apart; "stall" waits that long in mid-body;
    #: "whole" sends everything though a part was asked for; "shifted" sends another part than the one asked for.
    body: str | None = None
    pause_s: float = 0.0


@dataclass
class Request:
    """A request as received."""

    method: str
    path: str
    query: str
    authorization: str | None
    byte_range: str | None


class HubServer:
    """The server; use it as a context manager. ``url`` is the value for HF_ENDPOINT."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        #: Bytes of body sent, by path.
        self.sent: Counter[str] = Counter()
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.storage = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        #: Where large files are: on another host on the real Hub, here at another port.
        self.storage_url = f"http://127.0.0.1:{self.storage.server_address[1]}"

    def __enter__(self) -> "HubServer":
        self.threads = [
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            for server in (self.http, self.storage)
        ]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        for server, thread in zip((self.http, self.storage), self.threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()

    def add(
        self,
        repo: str,
        folder: Path,
        commit: str,
        refs: tuple[str, ...] = ("main",),
        gated: bool = False,
        parameters: dict[str, int] | None = None,
    ) -> None:
        """Serve ``folder`` as ``repo``; the first of ``refs`` is the default branch."""
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        self.repositories[repo] = Repository(files, commit, refs, gated, parameters)

    def fail(self, method: str, part_of_path: str, count: int = 1, **fault: Any) -> None:
        """Arrange a fault for the next ``count`` requests of this method whose path holds this part."""
        self.faults.append(Fault(method, part_of_path, count, **fault))

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.count and fault.method == method and fault.part_of_path in path:
                    fault.count -= 1
                    return fault
        return None

    def served(self, method: str, part_of_path: str = "") -> list[Request]:
        """Return the requests received so far of this method whose path holds this part."""
        return [seen for seen in self.requests if seen.method == method and part_of_path in seen.path]


def _git_blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _lfs_pointer(content: bytes) -> bytes:
    digest = hashlib.sha256(content).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n".encode()


def _sibling(name: str, content: bytes, with_metadata: bool) -> dict[str, Any]:
    if not with_metadata:
        return {"rfilename": name}
    if not name.endswith(LFS_SUFFIXES):
        return {"rfilename": name, "size": len(content), "blobId": _git_blob_id(content)}
    pointer = _lfs_pointer(content)
    lfs = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": len(pointer)}
    return {"rfilename": name, "size": len(content), "blobId": _git_blob_id(pointer), "lfs": lfs}


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.handle_request()

    def do_HEAD(self) -> None:
        self.handle_request()

    def log_message(self, *args: object) -> None:
        """Keep the tests' output clean."""

    def handle_request(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        headers = self.headers
        self.hub.requests.append(
            Request(self.command, path, address.query, headers.get("Authorization"), headers.get("Range"))
        )
        fault = self.hub.take_fault(self.command, path)
        if fault is not None and fault.status is not None:
            self.answer(fault.status, fault.headers)
        elif path.startswith("/api/models/"):
            self.answer_listing(path.removeprefix("/api/models/"), address.query)
        elif path.startswith("/lfs/"):
            self.answer_lfs(path.removeprefix("/lfs/"), fault)
        elif "/resolve/" in path:
            self.answer_file(path, fault)
        else:
            self.answer(404, {})

    def answer_listing(self, path: str, query: str) -> None:
        repo, _, revision = path.partition("/revision/")
        repository = self.find(repo, revision)
        if repository is None:
            return
        siblings = [_sibling(name, content, "blobs=true" in query) for name, content in repository.files.items()]
        info: dict[str, Any] = {"id": repo, "sha": repository.commit, "siblings": siblings}
        if repository.parameters:
            info["safetensors"] = {
                "parameters": repository.parameters,
                "total": sum(repository.parameters.values()),
            }
        self.answer(200, {"Content-Type": "application/json"}, json.dumps(info).encode())

    def answer_file(self, path: str, fault: Fault | None) -> None:
        repo, _, rest = path.removeprefix("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        repository = self.find(repo, revision)
        if repository is None:
            return
        commit = {"X-Repo-Commit": repository.commit}
        if repository.gated and self.headers.get("Authorization") is None:
            self.answer(401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
        elif name not in repository.files:
            self.answer(404, commit | {"X-Error-Code": "EntryNotFound"})
        elif name.endswith(LFS_SUFFIXES):
            content = repository.files[name]
            digest = hashlib.sha256(content).hexdigest()
            linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
            self.answer(302, commit | linked | {"Location": f"{self.hub.storage_url}/lfs/{digest}"})
        else:
            content = repository.files[name]
            self.answer_body(content, commit | {"ETag": f'"{_git_blob_id(content)}"'}, fault)

    def answer_lfs(self, digest: str, fault: Fault | None) -> None:
        for repository in self.hub.repositories.values():
            for content in repository.files.values():
                if hashlib.sha256(content).hexdigest() == digest:
                    self.answer_body(content, {"ETag": f'"{digest}"'}, fault)
                    return
        self.answer(404, {})

    def find(self, repo: str, revision: str) -> Repository | None:
        """Return the repository, or answer as the Hub does when it or the revision does not exist."""
        repository = self.hub.repositories.get(repo)
        if repository is None:
            self.answer(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif revision not in ("", repository.commit, *repository.refs):
            self.answer(404, {"X-Error-Code": "RevisionNotFound"})
            return None
        return repository

    def answer_body(self, content: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        status, start = 200, 0
        kind = fault.body if fault is not None else None
        if (byte_range := self.headers.get("Range")) and kind != "whole":
            start = int(byte_range.removeprefix("bytes=").split("-")[0]) - (kind == "shifted")
            status = 206
            headers = headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        body = content[start:]
        if kind == "corrupt":
            body = body[:-1] + bytes([body[-1] ^ 0xFF])
        if kind == "overlong":
            body += bytes(1000)
        self.answer(status, headers, body, fault)

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"", fault: Fault | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        kind = fault.body if fault is not None else None
        if kind in ("truncate", "stall"):
            body = body[: len(body) // 2]
            self.close_connection = True
        step = 2 if kind == "drip" else max(1, len(body))
        try:
            for start in range(0, len(body), step):
                self.wfile.write(body[start : start + step])
                self.hub.sent[urlsplit(self.path).path] += len(body[start : start + step])
                if fault is not None and fault.pause_s:
                    time.sleep(fault.pause_s)
        except ConnectionError:
            self.close_connection = True  # the client gave up
