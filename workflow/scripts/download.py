"""Bring a model into the results folder, pinned and verified: from the Hub, a folder or a package.

The Hub's client alone is no proof of a good download: it accepts a corrupt body of the right size, returns a
partial folder when it does not know what a whole one holds, and gives up the list of files at the first rate limit.
So that list comes from the Hub's API at one resolved commit, every file is compared with the checksum listed there,
and what can pass with time is tried again.

Settings of the Hub's client are respected: HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_HUB_OFFLINE.
"""

import argparse
import base64
import hashlib
import importlib.metadata
import os
import re
import shutil
import ssl
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from onnxproof.checkpoint.inference import check_architecture
from onnxproof.checkpoint.layout import needed_files, pickled_files
from onnxproof.checkpoint.problem import ProblemError
from onnxproof.checkpoint.reading import Checkpoint
from onnxproof.checkpoint.refusals import check_adapters
from onnxproof.checkpoint.snapshot import pickle_refusal, problems_of, snapshot_problem
from onnxproof.checkpoint.untrusted import MOST_JSON_BYTES, stays_inside
from onnxproof.cli import UserError, run_script
from onnxproof.engine.resources import WEIGHT_SUFFIXES
from onnxproof.files import Files, describe_files, sha256_of, staged_folder, versions_of, write_json
from onnxproof.records.source import Brought, Place, SourceRecord

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling
    from tenacity import RetryCallState

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
API_TIMEOUT_S = 30
#: A corrupt file may come from the cache or from the network: the second download tells.
DOWNLOADS_OF_A_CORRUPT_FILE = 2


class Allowed(NamedTuple):
    """What the user lets a source bring that is refused otherwise."""

    pickle: bool = False
    remote_code: bool = False


Result = TypeVar("Result")
#: Calls a function until it succeeds, fails for good, or the attempts are used up.
Retry = Callable[[Callable[[], Result]], Result]


def main(argv: list[str] | None = None) -> None:
    """Write the snapshot of one model and the manifest beside it."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if (args.package is None) != (args.package_path is None):
        parser.error("--package and --package-path go together")
    if args.hub is None and (args.revision is not None or args.allow_floating_revision):
        parser.error("--revision and --allow-floating-revision belong to --hub")
    if args.allow_remote_code and not COMMIT.fullmatch(args.revision or ""):
        raise UserError(
            f"{args.model}: allow_remote_code needs a Hub source with a revision of 40 lower-case hex digits: code "
            "that may change unseen is never run"
        )
    allowed = Allowed(pickle=args.allow_pickle, remote_code=args.allow_remote_code)

    with staged_folder(args.output_dir) as stage:
        if args.hub is not None:
            retry = build_retry(args.attempts, args.longest_wait)
            request = HubRequest(args.model, args.hub, args.revision, args.allow_floating_revision, allowed)
            source = take_from_hub(request, stage, retry, args.slow_after)
        elif args.path is not None:
            source = take_from_path(args.model, args.path, args.output_dir, stage)
        else:
            source = take_from_package(args.model, args.package, args.package_path, stage)
        if problem := snapshot_problem(stage, *allowed):
            raise UserError(f"{args.model}: {describe_source(source)}: {problem}")
        check_served(args.model, Checkpoint(stage))
        brought: Brought = {}
        if replaced := replaced_pickles(args.model, stage):
            brought["replaced_pickles"] = replaced
        files = describe_files(stage)
        # An older manifest must not outlive the folder it described.
        args.manifest.unlink(missing_ok=True)

    libraries = ["huggingface-hub"] if source["kind"] == "hub" else []
    libraries += ["torch", "safetensors"] if "replaced_pickles" in brought else []
    if allowed.remote_code:
        brought["allow_remote_code"] = True
    record: SourceRecord = {
        "model": args.model,
        **source,
        **brought,
        "files": files,
        "total_bytes": sum(entry["size"] for entry in files.values()),
        "versions": versions_of(*libraries),
    }
    write_json(args.manifest, record)


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the model's name in the config, used in messages")
    parser.add_argument("--output-dir", required=True, type=Path, help="folder to write; replaced if it exists")
    parser.add_argument("--manifest", required=True, type=Path, help="JSON file that describes the folder")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--hub", metavar="REPO", help="repository on the Hugging Face Hub, as owner/name")
    source.add_argument("--path", metavar="FOLDER", help="local folder, as transformers' save_pretrained writes")
    source.add_argument("--package", metavar="DIST", help="installed distribution that carries the model")
    parser.add_argument("--package-path", metavar="REL", help="the model's folder inside the distribution")
    parser.add_argument("--revision", metavar="COMMIT", help="40-hex commit of the Hub repository")
    parser.add_argument(
        "--allow-floating-revision",
        action="store_true",
        help="accept a branch, a tag or no revision at all; it is resolved once, and the commit recorded",
    )
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="accept weights that are a Python pickle; tensors alone are read from it, and kept as safetensors",
    )
    parser.add_argument(
        "--allow-remote-code",
        action="store_true",
        help="take the repository's own Python code too, which later steps run; needs a commit as --revision",
    )
    parser.add_argument("--attempts", type=int, default=5, help="tries of each call to the Hub (default: 5)")
    parser.add_argument(
        "--longest-wait",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="limit of each wait between tries, also of one the Hub asks for (default: 300, its rate window)",
    )
    parser.add_argument(
        "--slow-after",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long an answer may bring less than a kilobyte a second before it is tried again (default: 60)",
    )
    return parser


def replaced_pickles(model: str, stage: Path) -> Files:
    """Replace pickled weights by safetensors, importing torch only where there are some; return what they were."""
    if not pickled_files(names_in(stage)):
        return {}
    from onnxproof.original.pickled_weights import replace_pickles

    return replace_pickles(model, stage)


def describe_source(source: Place) -> str:
    """Name a source in a message."""
    if source["kind"] == "hub":
        return f"{source['repo']} at {source['revision']}"
    if source["kind"] == "path":
        return source["path"]
    return f"{source['package_path']} in the package {source['package']} {source['package_version']}"


# From the Hub


class HubRequest(NamedTuple):
    """Which repository is asked for, at which revision (None: the default branch), and what it may bring."""

    model: str
    repo: str
    revision: str | None
    allow_floating: bool
    allowed: Allowed


def take_from_hub(request: HubRequest, stage: Path, retry: Retry[Any], slow_after_s: float) -> Place:
    """Fill ``stage`` with a Hub repository's needed files, each one verified; return where they are from.

    Raises:
        UserError: the revision is no commit, the architecture is none that can be converted, or the Hub or the cache
            cannot give all files intact.
    """
    from huggingface_hub import constants

    model, repo, revision, allow_floating, allowed = request
    check_hub_request(model, repo, revision, allow_floating, offline=constants.HF_HUB_OFFLINE)
    if constants.HF_HUB_OFFLINE and revision is not None:
        take_from_cache(model, repo, revision, stage, allowed)
        commit = revision
    else:
        from onnxproof.hub.transfers import watch_answers

        watch_answers(slow_after_s)
        commit, listed = list_repository(model, repo, revision, retry)
        names = needed_files(listed, with_code=allowed.remote_code)
        refuse_adapters(model, f"{repo} at {commit}", Checkpoint(sizes=dict.fromkeys(listed, 0)))
        if not allowed.pickle and (pickled := pickled_files(names)):
            raise UserError(f"{model}: {repo} at {commit}: {pickle_refusal(pickled)}")
        check_room(model, repo, [listed[name] for name in names], stage)
        sizes = {name: size_and_checksum(model, repo, each)[0] for name, each in listed.items() if stays_inside(name)}
        weights = [name for name in names if name.endswith(WEIGHT_SUFFIXES)]
        small = sorted(set(names) - set(weights))
        check_small_files(model, f"{repo} at {commit}", {name: sizes[name] for name in small})
        for name in small:
            fetch_file(model, repo, commit, listed[name], stage / name, retry)
        checkpoint = Checkpoint(stage, sizes=sizes, lean=True)
        for problem in problems_of(checkpoint, *allowed):
            raise UserError(f"{model}: {repo} at {commit}: {problem}")
        check_served(model, checkpoint)
        for name in weights:
            fetch_file(model, repo, commit, listed[name], stage / name, retry)
    return {"kind": "hub", "repo": repo, "requested_revision": revision, "revision": commit}


def refuse_adapters(model: str, shown: str, checkpoint: Checkpoint) -> None:
    """Refuse a source with an adapter, whose files are not among those that are taken.

    Raises:
        UserError: names one of them; ``shown`` names the source.
    """
    try:
        check_adapters(checkpoint)
    except ProblemError as problem:
        raise UserError(f"{model}: {shown}: {problem}") from None


def check_small_files(model: str, shown: str, sizes: dict[str, int]) -> None:
    """Refuse configuration files of a size that none needs, before they are fetched and parsed.

    Raises:
        UserError: names the first of them; ``shown`` names the repository.
    """
    for name, size in sizes.items():
        if name.endswith(".json") and size > MOST_JSON_BYTES:
            raise UserError(f"{model}: {shown}: {name} has {size} bytes, more than any configuration needs")


def check_served(model: str, checkpoint: Checkpoint) -> None:
    """Refuse a model that no supported task can be served with.

    Raises:
        UserError: see ``check_architecture``. A model with code of its own is left to that code.
    """
    if not checkpoint.has_own_code:
        check_architecture(model, checkpoint.config, has_modules=checkpoint.kind == "SentenceTransformer")


def check_hub_request(model: str, repo: str, revision: str | None, allow_floating: bool, offline: bool) -> None:
    """Refuse what cannot work or would not be reproducible, before the first request.

    Raises:
        UserError: the repository's name is malformed; the revision is not a commit though it must be.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise UserError(f"{model}: '{repo}' is no name of a Hub repository: expected owner/name") from None
    if revision is not None and COMMIT.fullmatch(revision):
        return
    shown = "no revision" if revision is None else f"the revision {revision!r}"
    if not allow_floating:
        raise UserError(
            f"{model}: {repo} is asked for with {shown}; give a commit (40 lower-case hex digits), which "
            "never changes, or set allow_floating_revision to accept a branch or tag"
        )
    if offline:
        raise UserError(
            f"{model}: {repo} is asked for with {shown}, which only the Hub can resolve, but HF_HUB_OFFLINE "
            "is set; give a commit, or unset it"
        )


def list_repository(
    model: str, repo: str, revision: str | None, retry: Retry[Any]
) -> tuple[str, dict[str, "RepoSibling"]]:
    """Return the commit a revision stands for (None: the default branch) and the files it holds, by path.

    Raises:
        UserError: the Hub cannot be reached, or does not give the repository at that revision.
    """
    from huggingface_hub import HfApi

    ask = partial(HfApi().model_info, repo, revision=revision, files_metadata=True, timeout=API_TIMEOUT_S)
    info = call_hub(model, repo, revision, retry, ask)
    pinned = revision is not None and COMMIT.fullmatch(revision)
    if not COMMIT.fullmatch(info.sha or "") or (pinned and info.sha != revision):
        raise UserError(f"{model}: asked for {repo} at {revision}, the Hub answered with commit '{info.sha}'")
    print(f"{model}: {repo} at {revision or 'its default branch'} is commit {info.sha}")
    return info.sha, {sibling.rfilename: sibling for sibling in info.siblings or []}


def check_room(model: str, repo: str, files: list["RepoSibling"], stage: Path) -> None:
    """Refuse a download that cannot fit, before its first byte.

    Raises:
        UserError: the results' file system has less room than the files need.
    """
    needed = sum(size_and_checksum(model, repo, listed)[0] for listed in files)
    free = shutil.disk_usage(stage).free
    if needed > free:
        raise UserError(
            f"{model}: {repo} needs {needed / 1e9:.3g} GB of disk, and {free / 1e9:.3g} GB are free where results/ "
            "lies: make room, or run in a folder on a larger disk"
        )


def fetch_file(model: str, repo: str, commit: str, listed: "RepoSibling", target: Path, retry: Retry[Any]) -> None:
    """Fetch one file into the Hub client's cache, copy it to ``target`` and verify the copy.

    A corrupt file is removed from the cache, where nothing else would ever notice it, and fetched once more.

    Raises:
        UserError: the file cannot be fetched, or is corrupt twice.
    """
    from onnxproof.hub.transfers import fetch_into_cache, remove_from_cache

    name = listed.rfilename
    size, checksum = size_and_checksum(model, repo, listed)
    print(f"{model}: fetching {name} ({size} bytes)")
    fetch = partial(fetch_into_cache, repo, name, commit, size, checksum)
    for _ in range(DOWNLOADS_OF_A_CORRUPT_FILE):
        cached: Path = call_hub(model, repo, commit, retry, fetch)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(cached, target)
        problem = difference(target, size, checksum)
        if problem is None:
            return
        print(f"{model}: {name} is corrupt: {problem}; removing it from the cache")
        remove_from_cache(cached)
    raise UserError(
        f"{model}: {repo}: {name} is corrupt, {DOWNLOADS_OF_A_CORRUPT_FILE} times over: {problem}; try again "
        "later, or from another network, in case a proxy or mirror alters it"
    )


def size_and_checksum(model: str, repo: str, listed: "RepoSibling") -> tuple[int, str]:
    """Return a listed file's size in bytes and its checksum: a sha256 (LFS) or a git blob id (all others).

    Raises:
        UserError: the listing lacks either, as an incomplete mirror's does.
    """
    checksum = (listed.lfs.sha256 if listed.lfs else listed.blob_id) or ""
    if listed.size is None or not (SHA256.fullmatch(checksum) or COMMIT.fullmatch(checksum)):
        raise UserError(
            f"{model}: {hub_host()} lists {listed.rfilename} of {repo} without size or checksum, so it "
            "cannot be verified; set HF_ENDPOINT to a complete Hub"
        )
    return listed.size, checksum


def difference(path: Path, size: int | None, checksum: str) -> str | None:
    """Return how a file differs from its listed size (where known) and sha256 or git blob id, or None."""
    actual_size = path.stat().st_size
    if size is not None and actual_size != size:
        return f"it has {actual_size} bytes, {size} were expected"
    kind, digest = ("sha256", sha256_of) if SHA256.fullmatch(checksum) else ("git blob id", git_blob_id)
    actual = digest(path)
    return None if actual == checksum else f"its {kind} is {actual}, {checksum} was expected"


def git_blob_id(path: Path) -> str:
    """Return git's id of a file's content: the sha1 of ``blob <size>``, a zero byte and the content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def take_from_cache(model: str, repo: str, commit: str, stage: Path, allowed: Allowed) -> None:
    """Fill ``stage`` from the Hub client's cache alone, for HF_HUB_OFFLINE.

    The cache has no list of the repository's files, so completeness is judged by ``snapshot_problem``. It
    names blobs by checksum, so each is verified, except where the file system has no links and so no blobs.

    Raises:
        UserError: the cache lacks the commit or a part of it, or holds a corrupt file.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    from onnxproof.hub.transfers import checksum_in_cache

    cache = Path(constants.HF_HUB_CACHE)
    snapshot = cache / repo_folder_name(repo_id=repo, repo_type="model") / "snapshots" / commit
    advice = "unset HF_HUB_OFFLINE once, with a connection, to fill it"
    if not snapshot.is_dir():
        raise UserError(f"{model}: HF_HUB_OFFLINE is set and the cache lacks {repo} at {commit}; {advice}")
    names = needed_files(names_in(snapshot), with_code=allowed.remote_code)
    lost = [f"{name} is a link to nothing" for name in names if not (snapshot / name).is_file()]
    if problem := snapshot_problem(snapshot, *allowed) or ", ".join(lost):
        raise UserError(
            f"{model}: HF_HUB_OFFLINE is set and the cache holds only a part of {repo} at {commit}: {problem}; {advice}"
        )
    for name in names:
        target = stage / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(snapshot / name, target)
        checksum = checksum_in_cache(snapshot / name) or ""
        if not (COMMIT.fullmatch(checksum) or SHA256.fullmatch(checksum)):
            continue
        if difference_found := difference(target, None, checksum):
            raise UserError(f"{model}: {repo}: {name} is corrupt in the cache: {difference_found}; {advice}")
    print(f"{model}: took {repo} at {commit} from the cache (HF_HUB_OFFLINE is set)")


# Talking with the Hub


def build_retry(attempts: int, longest_wait_s: float) -> Retry[Any]:
    """Return a caller that tries again, up to ``attempts`` times, what may pass with time."""
    from tenacity import Retrying, retry_if_exception, stop_after_attempt

    return Retrying(
        stop=stop_after_attempt(attempts),
        wait=partial(seconds_to_wait, longest_s=longest_wait_s),
        retry=retry_if_exception(is_transient),
        before_sleep=announce_wait,
        reraise=True,
    )


def call_hub(model: str, repo: str, revision: str | None, retry: Retry[Result], ask: Callable[[], Result]) -> Result:
    """Call the Hub with retries; whatever fails for good becomes one ``UserError`` that says what to do."""
    import httpx2

    try:
        return retry(ask)
    # The client's errors derive from OSError or ValueError, and it lets those of httpx2 through.
    except (OSError, ValueError, httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise UserError(f"{model}: {explain_failure(error, repo, revision)}") from None


def status_of(error: BaseException | None) -> int | None:
    """Return the HTTP status that caused an error, or None when there was no answer."""
    return getattr(getattr(error, "response", None), "status_code", None)


def is_transient(error: BaseException) -> bool:
    """Tell whether trying again may help: rate limits, the server's own faults, broken connections."""
    status = status_of(error)
    if status is not None:
        return status in (408, 429) or status >= 500
    return is_broken_connection(error) and not is_untrusted(error)


def is_broken_connection(error: BaseException) -> bool:
    """Tell whether an error is one of the network, or of a proxy on the way."""
    import httpx2

    broken = (httpx2.NetworkError, httpx2.TimeoutException, httpx2.RemoteProtocolError, httpx2.ProxyError)
    return isinstance(error, broken)


def is_untrusted(error: BaseException | None) -> bool:
    """Tell whether an error comes of a certificate that cannot be trusted, which httpx2 hides under its own errors."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None


def seconds_to_wait(state: "RetryCallState", longest_s: float) -> float:
    """Return the wait before the next try: as the server asks, else 1, 2, 4, … s; never above the limit."""
    error = state.outcome.exception() if state.outcome else None
    asked = requested_wait(getattr(error, "response", None))
    return min(longest_s, 2.0 ** (state.attempt_number - 1) if asked is None else asked)


def requested_wait(response: Any) -> float | None:
    """Return the seconds a response asks to wait, or None.

    ``Retry-After`` holds seconds or a date (RFC 9110, 10.2.3); the Hub's ``RateLimit`` ends in ``t=seconds``.
    """
    headers = getattr(response, "headers", {})
    retry_after = headers.get("Retry-After")
    if retry_after is None:
        reset = re.search(r"\bt=(\d+)", headers.get("RateLimit", ""))
        return float(reset[1]) if reset else None
    if re.fullmatch(r"[0-9]+", retry_after):
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def announce_wait(state: "RetryCallState") -> None:
    """Log a failed try; the error's kind is enough, its text may hold signed addresses."""
    error = state.outcome.exception() if state.outcome else None
    reason = f"status {status_of(error)}" if status_of(error) else type(error).__name__
    print(f"{hub_host()}: {reason}, try {state.attempt_number}; waiting {state.upcoming_sleep:g} s")


def explain_failure(error: BaseException, repo: str, revision: str | None) -> str:
    """Return one sentence: what the Hub refused, and what to do about it."""
    from huggingface_hub import errors

    from onnxproof.hub.transfers import OverlongAnswerError, SlowTransferError

    host, status = hub_host(), status_of(error)
    if isinstance(error, errors.GatedRepoError):
        return f"{repo} is gated: accept its licence on {host}/{repo}, then set HF_TOKEN to that account's token"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{host} has no model repository {repo}: check the name; if it is private, set HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {revision}: take a commit from the repository's history on {host}"
    if isinstance(error, errors.EntryNotFoundError) and status == 404:
        return f"{host} lists a file of {repo} at {revision} that it does not have; try again later"
    if status in (401, 403):
        return f"{host} refuses access to {repo} (status {status}): check HF_TOKEN and the rights it gives"
    if status == 429:
        return f"{host} limits the rate of requests: try again later; HF_TOKEN raises the limit"
    if status is not None and status >= 500:
        return f"{host} failed to serve {repo} (status {status}): try again later"
    if isinstance(error, OverlongAnswerError):
        return f"{host} sends more than {repo} holds ({error}): try again later, or from another network"
    if isinstance(error, SlowTransferError):
        return (
            f"{host} sends {repo} too slowly ({error}): try again later; what has arrived is kept and the next "
            "run resumes it"
        )
    if is_untrusted(error):
        return f"no trusted connection to {host}: check the certificates (SSL_CERT_FILE, SSL_CERT_DIR) and the proxy"
    if is_broken_connection(error):
        return (
            f"cannot get {repo} from {host}, the connection failed ({type(error).__name__}): check the "
            "network, the proxy and HF_ENDPOINT; HF_HUB_OFFLINE=1 uses what the cache holds"
        )
    return f"cannot get {repo} at {revision} from {host}: {type(error).__name__}: {without_token(str(error))}"


def hub_host() -> str:
    """Return the Hub's host, without the name and password an endpoint's address may hold."""
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    return address.netloc.rpartition("@")[2] or constants.ENDPOINT


def without_token(text: str) -> str:
    """Return the first line of a text, with the user's token blotted out."""
    from huggingface_hub import get_token

    line = text.strip().partition("\n")[0]
    token = get_token()
    return line.replace(token, "***") if token else line


# From a folder


def take_from_path(model: str, path: str, output_dir: Path, stage: Path) -> Place:
    """Fill ``stage`` with a local folder's needed files; return where they are from.

    Raises:
        UserError: the folder is missing, lies in the output folder, or its links leave it.
    """
    folder = Path(path)
    if folder.resolve().is_relative_to(output_dir.resolve()):
        raise UserError(f"{model}: the source {path} lies in the output folder, which is about to be replaced")
    copy_needed_files(model, path, folder, stage)
    return {"kind": "path", "path": path, "requested_revision": None, "revision": None}


def copy_needed_files(model: str, shown: str, folder: Path, stage: Path) -> None:
    """Copy the needed files as real files; ``shown`` names the folder in messages.

    Raises:
        UserError: there is no such folder, or a link leaves it or points at nothing.
    """
    if not folder.is_dir():
        raise UserError(f"{model}: {shown}: {snapshot_problem(folder)}")
    refuse_adapters(model, shown, Checkpoint(folder))
    root = folder.resolve()
    for name in needed_files(names_in(folder)):
        real = (folder / name).resolve()
        if not real.is_relative_to(root):
            raise UserError(
                f"{model}: {shown}: {name} is a link that leaves the folder; replace it with the file itself "
                "('cp -rL' copies a folder with its links resolved)"
            )
        if not real.is_file():
            raise UserError(f"{model}: {shown}: {name} is no regular file, or a link to nothing")
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(real, stage / name)


def names_in(folder: Path) -> list[str]:
    """Return the relative paths of all files below ``folder``, links to files among them.

    Links to folders are not followed: they may lead out of the folder, or back into it.
    """
    return [Path(parent, name).relative_to(folder).as_posix() for parent, _, files in os.walk(folder) for name in files]


# From a package


def take_from_package(model: str, package: str, package_path: str, stage: Path) -> Place:
    """Fill ``stage`` with the needed files of a folder inside an installed distribution.

    Each file is compared with the sha256 in the distribution's RECORD: an edited installation is not the
    version its name says.

    Raises:
        UserError: the distribution is not installed, has no such folder, or was altered since.
    """
    inside = PurePosixPath(package_path)
    if inside.is_absolute() or ".." in inside.parts or "\\" in package_path or not inside.parts:
        raise UserError(f"{model}: '{package_path}' must be a relative path inside the package {package}")
    try:
        distribution = importlib.metadata.distribution(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise UserError(f"{model}: the package '{package}' is not installed; install it, pinned") from None
    shown = f"{inside} in the package {package} {distribution.version}"
    record = {entry: entry.hash for entry in distribution.files or [] if entry.is_relative_to(inside)}
    if not record:
        raise UserError(f"{model}: there is no {shown}: its RECORD lists no such folder")
    copy_needed_files(model, shown, Path(str(distribution.locate_file(inside))), stage)
    for entry, recorded in record.items():
        copy = stage / entry.relative_to(inside)
        if copy.is_file() and recorded is not None and recorded.mode == "sha256":
            # RECORD writes digests in URL-safe base64 without padding.
            expected = base64.urlsafe_b64decode(recorded.value + "=" * (-len(recorded.value) % 4)).hex()
            if sha256_of(copy) != expected:
                raise UserError(f"{model}: {shown}: {copy.name} was altered after installation; reinstall the package")
    return {
        "kind": "package",
        "package": package,
        "package_version": distribution.version,
        "package_path": package_path,
        "requested_revision": None,
        "revision": None,
    }


if __name__ == "__main__":
    run_script(main)
