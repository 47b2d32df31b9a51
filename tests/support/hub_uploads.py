"""The small Hub of ``hub_server.py``, which also takes uploads: Git LFS, commits, branches and pull requests."""

import base64
import hashlib
import json
from typing import Any
from urllib.parse import unquote, urlsplit

from hub_server import LFS_SUFFIXES, HubServer, Repository, Request, _Handler


class UploadHub(HubServer):
    """A Hub with one repository that the bearer of ``token`` may write to."""

    def __init__(self, repo: str, token: str) -> None:
        super().__init__()
        self.http.RequestHandlerClass = type("Handler", (_UploadHandler,), {"hub": self})
        self.token = token
        self.repositories[repo] = Repository({}, "0" * 40, ("main",), gated=False)
        self.large_files: dict[str, bytes] = {}
        self.branches = {"main"}
        self.commits: list[dict[str, Any]] = []

    def commit(self, repo: str, revision: str, lines: list[dict[str, Any]], as_pull_request: bool) -> str:
        """Take a commit's lines; return the commit's hash."""
        files = dict(self.repositories[repo].files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large_files[value["oid"]]
        digest = hashlib.sha1(json.dumps(lines).encode()).hexdigest()
        self.repositories[repo] = Repository(files, digest, ("main",), gated=False)
        self.commits.append({"revision": revision, "pull_request": as_pull_request, "header": lines[0]["value"]})
        return digest


class _UploadHandler(_Handler):
    hub: UploadHub

    def do_POST(self) -> None:  # noqa: N802
        self.handle_upload()

    def do_PUT(self) -> None:  # noqa: N802
        self.handle_upload()

    def handle_upload(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        authorization = self.headers.get("Authorization")
        self.hub.requests.append(Request(self.command, path, address.query, authorization, None))
        fault = self.hub.take_fault(self.command, path)
        if fault is not None:
            self.answer(fault.status or 503, fault.headers)
        elif path.startswith("/upload/"):
            self.hub.large_files[hashlib.sha256(body).hexdigest()] = body
            self.answer(200, {})
        elif path == "/api/validate-yaml":
            self.answer_json({"errors": [], "warnings": []})
        elif authorization != f"Bearer {self.hub.token}":
            self.answer(401, {"X-Error-Message": "Invalid credentials"})
        elif path.endswith("/info/lfs/objects/batch"):
            self.answer_json(self.batch(json.loads(body)["objects"]))
        else:
            self.answer_api(path.removeprefix("/api/models/"), address.query, body)

    def answer_api(self, path: str, query: str, body: bytes) -> None:
        owner, name, action, revision = path.split("/", 3)
        repo = f"{owner}/{name}"
        if repo not in self.hub.repositories:
            self.answer(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif action == "branch":
            self.hub.branches.add(revision)
            self.answer_json({})
        elif action == "preupload":
            self.answer_json({"files": [self.mode(file["path"]) for file in json.loads(body)["files"]]})
        elif action == "commit":
            as_pull_request = "create_pr=1" in query
            lines = [json.loads(line) for line in body.splitlines()]
            digest = self.hub.commit(repo, revision, lines, as_pull_request)
            url = f"{self.hub.url}/{repo}"
            pull_request = f"{url}/discussions/1" if as_pull_request else None
            self.answer_json(
                {"commitUrl": f"{url}/commit/{digest}", "commitOid": digest, "pullRequestUrl": pull_request}
            )
        else:
            self.answer(404, {})

    def mode(self, path: str) -> dict[str, Any]:
        large = path.endswith((*LFS_SUFFIXES, ".npz"))
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": None}

    def batch(self, objects: list[dict[str, Any]]) -> dict[str, Any]:
        answers = []
        for entry in objects:
            answer = {"oid": entry["oid"], "size": entry["size"]}
            if entry["oid"] not in self.hub.large_files:
                answer["actions"] = {"upload": {"href": f"{self.hub.url}/upload/{entry['oid']}"}}
            answers.append(answer)
        return {"transfer": "basic", "objects": answers}

    def answer_json(self, content: dict[str, Any]) -> None:
        self.answer(200, {"Content-Type": "application/json"}, json.dumps(content).encode())
