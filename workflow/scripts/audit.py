"""Audit ONNX files that others published: hold each to the model that it was made from, and say what is wrong.

The source is a folder, or a repository on the Hugging Face Hub. The original is the model that --original names, or
the repository's own weights, or else the one that its card names as base_model. It is asked once; each file is given
the same inputs, aligned by names and shapes, and judged by the limits that the pipeline's own variants must keep.

The status is 0 where every file is sound and nothing beside the files is wrong, 3 where something is wrong or could not
be judged, and 1 where no audit was possible. Nothing of a repository is run but its graphs, in onnxruntime.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import download
import record_reference
from benchmark import positive
from check import ATTEMPTS, LONGEST_WAIT_S
from onnxproof.audit.known import SOURCE_RECORD, Known, look_up, read_known
from onnxproof.audit.measuring import Task, audit_model
from onnxproof.audit.page import page_of, sentence_of
from onnxproof.audit.repository import (
    audited_files,
    base_model_of,
    finding,
    folder_of_settings,
    has_own_weights,
    onnx_models,
    promised_precision,
    read_card,
)
from onnxproof.audit.speed import time_files
from onnxproof.audit.tokenizing import look_beside
from onnxproof.benchmark.timing import Effort
from onnxproof.checkpoint.reading import Checkpoint
from onnxproof.cli import UserError, run_script
from onnxproof.config.resolve import resolve_models
from onnxproof.files import read_json, sha256_of, staged_folder, versions_of, write_json, write_text
from onnxproof.inputs.reference import read_reference
from onnxproof.inputs.texts import EVALUATION_TEXTS
from onnxproof.records.audit import AuditedFile, AuditRecord, Finding
from onnxproof.records.common import Limits
from onnxproof.records.source import Place, SourceRecord, read_source
from onnxproof.tasks.registry import TASKS

NamedBy = Literal["the user", "base_model of the card", "the repository's own weights"]
#: The status where something is wrong: no mistake of the user's, so not 1.
WRONG = 3
#: Where audits are written, and those of other repositories are looked for.
AUDITS = Path("results", "audits")
#: How often what is timed is repeated, as in the benchmark.
EFFORT = Effort(warmup=3, rounds=20, iterations=5, seconds_per_case=10, seed=0)
REFERENCE, REFERENCE_RECORD, SOURCE = "reference", "reference.json", "source"
#: How the original was asked: as long as this is the same, its answers need not be recorded again.
ASKED = "asked.json"


class Repository(NamedTuple):
    """The files that are audited: the name, the folder they are in, and where they came from."""

    name: str
    folder: Path
    place: Place


def may_be_repository(word: str) -> bool:
    """Tell whether a word that names no folder may be ``owner/name`` on the Hub, which says whether it is one."""
    return word.count("/") == 1 and not word.startswith((".", "/", "~"))


def bring_repository(source: str, revision: str | None, scratch: Path) -> Repository:
    """Return a local folder as it is, or a repository of the Hub fetched below ``scratch``, each file verified.

    Raises:
        UserError: there is no such folder or repository, or it has no ONNX file.
    """
    folder = Path(source)
    if folder.is_dir():
        if revision is not None:
            raise UserError(f"{source}: --revision is {revision!r}, and a folder has no revisions: leave it out")
        names = download.names_in(folder)
        place: Place = {"kind": "path", "path": source, "requested_revision": None, "revision": None}
        found = Repository(folder.resolve().name, folder, place)
    else:
        if not may_be_repository(source):
            raise UserError(f"{source}: there is no such folder, and it is no name of a Hub repository (owner/name)")
        found = fetch_repository(source, revision, scratch / "repository")
        names = download.names_in(found.folder)
    if not onnx_models(names):
        raise UserError(f"{source}: there is no ONNX file (*.onnx) in it")
    return found


def fetch_repository(repo: str, revision: str | None, folder: Path) -> Repository:
    """Fetch the ONNX files of a Hub repository with all that belongs to them, and the weights of an own original."""
    retry = download.build_retry(ATTEMPTS, LONGEST_WAIT_S)
    download.check_hub_request(repo, repo, revision, True, offline=False)
    commit, listed = download.list_repository(repo, repo, revision, retry)
    names = audited_files(listed)
    with staged_folder(folder) as stage:
        download.check_room(repo, repo, [listed[name] for name in names], stage)
        for name in names:
            download.fetch_file(repo, repo, commit, listed[name], stage / name, retry)
    return Repository(repo, folder, {"kind": "hub", "repo": repo, "requested_revision": revision, "revision": commit})


def find_original(repository: Repository, named: str | None) -> tuple[list[str], NamedBy]:
    """Return where the original is, as arguments of ``download.py``, and who says so.

    Raises:
        UserError: nobody says what the original is.
    """
    if named is not None:
        return arguments_of(named), "the user"
    if has_own_weights(download.names_in(repository.folder)):
        place = repository.place
        named_place = ["--path", str(repository.folder)]
        if place["kind"] == "hub":  # what was fetched is gone after the audit; the commit stays
            named_place = ["--hub", place["repo"], "--revision", str(place["revision"])]
        return named_place, "the repository's own weights"
    base = base_model_of(repository.name, read_card(repository.folder))
    if base is not None:
        return ["--hub", base, "--allow-floating-revision"], "base_model of the card"
    raise UserError(
        f"{repository.name}: nothing says which model its ONNX files were made from: it has no weights of its own, and "
        "its card names no base_model; name the original with --original"
    )


def arguments_of(named: str) -> list[str]:
    """Return where a named original is: a folder, or a repository of the Hub, ``owner/name`` or ``owner/name@commit``.

    Raises:
        UserError: it is neither.
    """
    if Path(named).is_dir():
        return ["--path", named]
    repo, _, revision = named.partition("@")
    if not may_be_repository(repo):
        raise UserError(f"--original is {named!r}: there is no such folder, and it is no name of a Hub repository")
    return ["--hub", repo, *(["--revision", revision] if revision else []), "--allow-floating-revision"]


def ask_original(name: str, place: list[str], folder: Path, args: argparse.Namespace) -> None:
    """Fetch the original and record its answers below ``folder``, unless the same were recorded there before."""
    download.main(
        ["--model", name, *place, "--output-dir", str(folder / SOURCE), "--manifest", str(folder / SOURCE_RECORD)]
    )
    asked = {
        "files": read_source(folder / SOURCE_RECORD)["files"],
        "task": args.task,
        "texts": sha256_of(args.texts),
        "batch_size": args.batch_size,
    }
    if (folder / ASKED).is_file() and read_json(folder / ASKED) == asked:
        print(f"{name}: the original's answers are there already", flush=True)
        return
    (folder / ASKED).unlink(missing_ok=True)
    record_reference.record(
        name,
        folder / SOURCE,
        args.task,
        args.texts,
        args.threads,
        args.batch_size,
        folder / REFERENCE,
        folder / REFERENCE_RECORD,
    )
    write_json(folder / ASKED, asked)


def default_thresholds() -> dict[str, Limits]:
    """Return the limits that every variant must keep where no configuration says otherwise."""
    thresholds: dict[str, Limits] = resolve_models({"models": {"audited": {"source": {"path": "."}}}})["audited"][
        "parity"
    ]["thresholds"]
    return thresholds


def audit(
    repository: Repository,
    results: Path,
    named_by: NamedBy,
    thresholds: Mapping[str, Limits],
    batch_size: int,
    threads: int,
    effort: Effort | None = None,
    known: Mapping[str, list[Known]] | None = None,
) -> AuditRecord:
    """Hold every ONNX model of a repository to an original whose answers were recorded.

    Args:
        repository: the files.
        results: a folder with ``source/``, ``source.json``, ``reference/`` and ``reference.json`` of the original, as
            a run has it below ``results/``.
        named_by: who says that this is the original.
        thresholds: the limits of each variant.
        batch_size: inputs in a padded batch.
        threads: intra-op threads.
        effort: how often to repeat what is timed; None times nothing.
        known: what files of other models are, by the sha256 of each.
    """
    start = time.perf_counter()
    reference = read_reference(results / REFERENCE, results / REFERENCE_RECORD)
    source: SourceRecord = read_source(results / SOURCE_RECORD)
    models = onnx_models(download.names_in(repository.folder))
    task = Task(
        repository.folder,
        Checkpoint(folder_of_settings(repository.folder, models)),
        Checkpoint(results / SOURCE),
        reference,
        thresholds,
        batch_size,
        threads,
    )
    findings = list(look_beside(task.folder, task.repository, task.original, reference))
    files = []
    for model in models:
        files.append(audit_model(task, model))
        print(f"{model.name}: {files[-1]['verdict']}, {files[-1]['seconds']:.1f} s", flush=True)
    findings += [*take_raw_inputs(files), *same_bytes(files)]
    keys = ("kind", "repo", "path", "package", "package_version", "package_path", "requested_revision", "revision")
    original: Place = {key: source[key] for key in keys if key in source}  # type: ignore[literal-required, assignment]
    look_up(files, original, known or {})
    timing = None
    if effort is not None:
        timing, told = time_files(task, models, files, effort)
        findings += told
    is_sound = all(file["verdict"] == "sound" for file in files)
    is_sound = is_sound and all(each["severity"] != "wrong" for each in findings)
    record: AuditRecord = {
        "name": repository.name,
        "repository": repository.place,
        "original": original,
        "original_named_by": named_by,
        "task": reference.manifest["task"],
        "inputs": reference.manifest["inputs"]["count"],
        "verdict": sentence_of(files, findings),
        "sound": is_sound,
        "findings": findings,
        "files": files,
        "seconds": round(time.perf_counter() - start, 1),
        "versions": versions_of("onnxruntime", "onnx", "numpy", "tokenizers"),
    }
    if timing is not None:
        record |= {"timing": timing}
    return record


def take_raw_inputs(files: list[AuditedFile]) -> list[Finding]:
    """Return what raw inputs show of the files beside the graphs, and take it from the graphs' own findings, in place.

    A graph that answers the original's token ids rightly, and raw inputs otherwise, is not to blame itself.
    """
    taken = []
    for file in files:
        wrong = [each for each in file["findings"] if each["kind"] == "raw-inputs"]
        if wrong:
            taken += wrong
            file["findings"] = [each for each in file["findings"] if each not in wrong]
            file["verdict"] = "sound"
    if not taken:
        return []
    message = f"{len(taken)} of the sound graphs: {taken[0]['message']}"
    return [finding("wrong", "raw-inputs", message)]


def same_bytes(files: list[AuditedFile]) -> list[Finding]:
    """Return which files are the same bytes though their names promise different precisions."""
    found: list[Finding] = []
    first: dict[tuple[str, ...], str] = {}
    for file in files:
        key = tuple(entry["sha256"] for entry in file["files"].values())
        other = first.setdefault(key, file["name"])
        promised = {promised_precision(name) for name in (other, file["name"])} - {None}
        if len(promised) > 1 and promised != {"int8", "uint8"}:
            found.append(finding("wrong", "same-bytes", f"{file['name']} is the same file as {other}."))
    return found


def other_audits(output: Path) -> list[Path]:
    """Return the records of the audits that were made here, but for that of a folder."""
    return [path for path in sorted(AUDITS.glob("*/audit.json")) if path.parent.resolve() != output.resolve()]


def bring_and_audit(args: argparse.Namespace) -> AuditRecord:
    """Fetch what the command line names, audit it, and write ``audit.json`` and ``audit.md``."""
    name = args.source.rstrip("/").rpartition("/")[2] or "repository"
    output = args.output or AUDITS / name
    known = read_known(other_audits(output) if args.known is None else args.known)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".repository.", dir=output) as scratch:
        repository = bring_repository(args.source, args.revision, Path(scratch))
        named_by: NamedBy = "the user"
        results = args.results
        if results is None:
            place, named_by = find_original(repository, args.original)
            results = output / "original"
            ask_original(name, place, results, args)
        effort = replace(EFFORT, seconds_per_case=args.seconds_per_case) if args.benchmark else None
        thresholds = args.thresholds or default_thresholds()
        record = audit(repository, results, named_by, thresholds, args.batch_size, args.threads, effort, known)
    write_json(output / "audit.json", record)
    write_text(output / "audit.md", page_of(record))
    return record


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, audit, write ``audit.json`` and ``audit.md``, and print the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="FOLDER_OR_REPO", help="a folder, or owner/name on the Hugging Face Hub")
    parser.add_argument("--original", metavar="MODEL", help="folder, owner/name or owner/name@commit of the original")
    parser.add_argument("--revision", metavar="COMMIT", help="commit, branch or tag of the repository (default: main)")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="results of a run of the original: results/NAME")
    parser.add_argument("--task", choices=sorted(TASKS), help="the original's task (default: inferred)")
    parser.add_argument("--texts", type=Path, default=EVALUATION_TEXTS, help="texts to ask, .jsonl or .txt")
    parser.add_argument("--batch-size", type=int, default=8, help="inputs in a padded batch [%(default)s]")
    parser.add_argument("--threads", type=int, default=1, help="intra-op threads [%(default)s]")
    parser.add_argument("--output", type=Path, help="folder for audit.json and audit.md [results/audits/NAME]")
    parser.add_argument("--thresholds", type=json.loads, metavar="JSON", help="limits by variant [config.yaml's]")
    parser.add_argument(
        "--benchmark", action="store_true", help="time each file, in turns with the original in PyTorch"
    )
    parser.add_argument(
        "--seconds-per-case",
        type=positive,
        default=EFFORT.seconds_per_case,
        metavar="S",
        help="of --benchmark: a slower shape is timed less often [%(default)s]",
    )
    parser.add_argument(
        "--known",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="audit.json, results/NAME/onnx/VARIANT.json, or what each sha256 is, of other models [results/audits/*]",
    )
    parser.add_argument("--json", action="store_true", help="print audit.json and nothing else on standard output")
    parser.add_argument("--exit-zero", action="store_true", help="end with status 0 where something is wrong, too")
    args = parser.parse_args(argv)
    if args.original and args.results:
        parser.error("--original and --results both name the original: give one of them")
    with contextlib.redirect_stdout(sys.stderr if args.json else sys.stdout):
        record = bring_and_audit(args)
    print(json.dumps(record, indent=2, ensure_ascii=False) if args.json else page_of(record))
    return 0 if record["sound"] or args.exit_zero else WRONG


if __name__ == "__main__":
    run_script(main)
