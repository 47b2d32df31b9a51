"""Publish a release to the Hugging Face Hub, as a pull request or on a branch; never to the default branch.

Only a release that is what was proven leaves this machine: its files are those of ``release.json``, every gate of its
variants passed, and it was verified. Without ``--for-real`` nothing is sent and the plan is printed.

The token is taken from HF_TOKEN in the environment, and from nowhere else; HF_ENDPOINT names another Hub. Files that
the Hub has already are not sent again, so an interrupted run goes on where it stopped.
"""

import argparse
import os
from pathlib import Path

from onnxproof.cli import UserError, run_script
from onnxproof.files import Files, describe_files, versions_of, write_json
from onnxproof.records.release import PublicationRecord, read_release, read_release_manifest, read_verification
from onnxproof.release.signature import BOM, SIGNATURE, STATEMENT, statement_problem

#: Branches that readers get when they name none.
DEFAULT_BRANCHES = ("main", "master")


def check_release(model: str, results: Path) -> Files:
    """Return the files of a release that may be published, with those of ``onnxproof attest`` where there are any.

    Raises:
        UserError: a gate did not pass, the release was not verified, a file is not what ``release.json`` says, or the
            statement is about other files.
    """
    release = read_release(results / "release.json")
    shipped = read_release_manifest(results / "release" / "manifest.json")["variants"]
    for variant in release["variants"]:
        passed = variant in shipped and shipped[variant]["gate"]["passed"] is True
        if not (passed and (results / "parity" / f"{variant}.ok").is_file()):
            raise UserError(f"{model}: the gate of {variant} did not pass; only proven releases are published")
    if read_verification(results / "verified.json")["passed"] is not True:
        raise UserError(f"{model}: {results / 'verified.json'} does not say that the release was verified")
    wanted = release["files"]
    found = describe_files(results / "release")
    attested = {name: found.pop(name) for name in (STATEMENT, BOM, SIGNATURE) if name in found}
    changed = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if changed:
        raise UserError(
            f"{model}: {results / 'release'} is not what {results / 'release.json'} says: {', '.join(changed)}; "
            f"delete it and run again"
        )
    if STATEMENT in attested and (problem := statement_problem(results / "release")):
        raise UserError(f"{model}: {results / 'release' / STATEMENT}: {problem}; run `onnxproof attest` again")
    return {**wanted, **attested}


def read_token() -> str:
    """Return the token from the environment.

    Raises:
        UserError: HF_TOKEN is not set.
    """
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        raise UserError("publishing needs a token with the right to write, in the environment variable HF_TOKEN")
    return token


def upload(model: str, repo: str, branch: str | None, folder: Path, files: Files, token: str) -> tuple[str, str]:
    """Send a release in one commit and check what the Hub then has; return the commit and its address.

    Args:
        model: its name in config.yaml.
        repo: the repository, which must exist.
        branch: the branch to commit to, made where it is absent; None opens a pull request.
        folder: the release.
        files: its files, as ``check_release`` returns them.
        token: a token with the right to write.

    Raises:
        UserError: the Hub cannot be reached, refuses, or has other files than were sent.
    """
    import httpx2
    from huggingface_hub import CommitOperationAdd, HfApi, constants

    constants.HF_HUB_DISABLE_XET = True  # plain HTTP does the same, and can be tested without Xet's servers
    constants.HF_HUB_DISABLE_TELEMETRY = True
    api = HfApi(token=token)
    additions = [CommitOperationAdd(name, folder / name) for name in files]
    commit = None
    try:
        if branch is not None:
            api.create_branch(repo, branch=branch, exist_ok=True)
        commit = api.create_commit(
            repo,
            additions,
            commit_message=f"ONNX release of {model}",
            commit_description="Verified against PyTorch; run verify_release.py to verify it again.",
            revision=branch,
            create_pr=branch is None,
        )
        info = api.model_info(repo, revision=commit.oid, files_metadata=True)
    except (OSError, httpx2.HTTPError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error.__cause__ or error).replace(token, "***").split())
        failure = f"{type(error).__name__}: {reason[:300]}"
        if commit is not None:
            raise UserError(
                f"{model}: the release is at {commit.pr_url or commit.commit_url}, but {api.endpoint} did not say what "
                f"is there: {failure}; look there first: another run makes another commit"
            ) from None
        raise UserError(
            f"{model}: {api.endpoint} did not take the release for {repo}: {failure}; "
            f"run again to go on: what it has already is not sent again"
        ) from None
    there = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    for name, entry in files.items():
        sibling = there.get(name)
        if sibling is None or sibling.size != entry["size"] or (sibling.lfs and sibling.lfs.sha256 != entry["sha256"]):
            raise UserError(f"{model}: after the commit {commit.oid}, {repo} does not hold {name} as it was sent")
    return commit.oid, commit.pr_url or commit.commit_url


def publish(model: str, results: Path, repo: str, branch: str | None, for_real: bool, output: Path) -> None:
    """Publish one release, or say what would be published, and record it.

    Raises:
        UserError: the release must not be published, or the Hub does not take it.
    """
    if branch in DEFAULT_BRANCHES:
        raise UserError(
            f"{model}: models.{model}.publish.branch is '{branch}': name another, or null for a pull request"
        )
    files = check_release(model, results)
    size_mb = sum(entry["size"] for entry in files.values()) / 1e6
    way = f"branch {branch}" if branch else "a pull request"
    commit, url = None, None
    if for_real:
        commit, url = upload(model, repo, branch, results / "release", files, read_token())
        print(f"{model}: {len(files)} files, {size_mb:.1f} MB, are in {repo} as {way}: {url}", flush=True)
    else:
        for name, entry in files.items():
            print(f"would send {name}, {entry['size']:,} bytes", flush=True)
        print(f"{model}: dry run: would send {len(files)} files, {size_mb:.1f} MB, to {repo} as {way}", flush=True)
    record: PublicationRecord = {
        "model": model,
        "repo": repo,
        "branch": branch,
        "dry_run": not for_real,
        "commit": commit,
        "url": url,
        "files": files,
        "versions": versions_of("huggingface-hub"),
    }
    write_json(output, record)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the model's name in config.yaml")
    parser.add_argument("--results", type=Path, required=True, help="the model's folder below results/")
    parser.add_argument("--repo", required=True, help="repository on the Hub, owner/name; it must exist")
    parser.add_argument("--branch", help="branch to commit to (default: open a pull request)")
    parser.add_argument("--for-real", action="store_true", help="send the files; without it nothing is sent")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to record it in")
    args = parser.parse_args(argv)
    publish(args.model, args.results, args.repo, args.branch, args.for_real, args.output)


if __name__ == "__main__":
    run_script(main)
