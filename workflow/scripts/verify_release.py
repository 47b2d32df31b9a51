"""Verify a release where it is deployed: its files, its tokenizer, and its answers on this machine's CPU.

This file is part of every release and needs only Python 3.10, onnxruntime, numpy and tokenizers. It

1. compares every file with the sha256 in ``manifest.json``, and ``manifest.json`` with ``SHA256SUMS``;
2. tokenizes the golden texts and compares the ids with those that PyTorch was given;
3. runs the golden inputs through each ONNX file, each alone and again in padded batches, and holds the answers
   to the ones recorded from PyTorch, under the limits of the gate that let the release pass;
4. runs the program for onnxruntime alone that the card shows, with each ONNX file, on raw inputs, and holds what it
   answers to what the original's public interface answered, under the same limits.

With ``--labelled``, it also measures the task's metric again on the labelled data that the model was judged by, and
says whether what was recorded holds. That needs the libraries of the metric. With ``--public-key``, the release must
be signed by the owner of that key. With ``--identity`` and ``--identity-provider``, it must be signed without a key, by
whom the provider confirms, and Sigstore's servers must be reached. Both need OpenSSF Model Signing.

It prints what it measured and exits with 1 where anything is missing, changed or beyond its limit. The modules in the
folder ``verifier`` beside it, which measure and judge, are those of the gate.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

OWN_FOLDER = Path(__file__).resolve().parent
NEEDED = "onnxruntime, numpy and tokenizers"

if (OWN_FOLDER / "verifier").is_dir():
    sys.path.insert(0, str(OWN_FOLDER / "verifier"))
    sys.dont_write_bytecode = True  # a release stays as it was made

try:
    from onnxproof.cli import UserError, first_line
    from onnxproof.cpu import cpu_name
    from onnxproof.files import read_json, sha256_of
    from onnxproof.graph.files import MODEL_FILE
    from onnxproof.graph.sessions import open_session
    from onnxproof.inputs.model_inputs import TOKENS, Reference
    from onnxproof.parity.final import find_program, measure_final, missing_packages, promises_batches
    from onnxproof.parity.fixed import measure_fixed
    from onnxproof.parity.gate import Verdict, judge, limits_of_few
    from onnxproof.parity.measure import measure_sessions, open_sessions
    from onnxproof.release.golden import GOLDEN_FILE, QUALITY_FILE, read_golden
    from onnxproof.release.signature import SIGNATURE, STATEMENT, Identity, statement_problem, verify_signature
    from onnxproof.vocabulary import METRICS
except ImportError as error:
    print(f"error: {error}; verify_release needs the folder 'verifier' of its release, {NEEDED}", file=sys.stderr)
    sys.exit(2)

if TYPE_CHECKING:
    from onnxproof.records.parity import Judged
    from onnxproof.records.reference import MeasuredReference, OwnInvariance
    from onnxproof.records.release import (
        FixedFile,
        GoldenReference,
        NamedFiles,
        ReleasedVariant,
        ReleaseManifest,
        VerificationCheck,
        VerificationRecord,
    )

MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
#: The limits in a release's manifest already count what a batch changes in PyTorch.
NOT_MEASURED: OwnInvariance = {"batch_size": 0, "inputs": 0, "max_abs_diff": None, "cosine_min": None}
STANDARD_OUTPUT = Path("-")
MOST_TOLD = 3  # failed checks in the last line; the table has all


@dataclass
class Check:
    """One thing that was looked at: what was seen here, what is allowed, and whether that is met."""

    subject: str
    what: str
    seen: str
    allowed: str
    verdict: Literal["pass", "FAIL", "skipped"]  #: "skipped": cannot be said from the golden inputs alone

    def as_record(self) -> VerificationCheck:
        """Return it as JSON holds it."""
        return {
            "subject": self.subject,
            "what": self.what,
            "seen": self.seen,
            "allowed": self.allowed,
            "verdict": self.verdict,
        }


# ------------------------------------------------------------------------------------------------- files


def read_sums(path: Path) -> dict[str, str]:
    """Return ``{file: hex sha256}`` of a file in the format of ``sha256sum``.

    Raises:
        UserError: a line is not of that format.
    """
    sums = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        digest, separator, name = line.partition("  ")
        if not separator or len(digest) != 64:
            raise UserError(f"{path}, line {number}: not a line of sha256sum: {line[:80]!r}")
        sums[name] = digest
    return sums


def read_manifest(folder: Path) -> ReleaseManifest:
    """Return the manifest of a release.

    Raises:
        UserError: it is missing, or not the manifest of a release.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"{path}: no such file: this folder is not a release, or not all of one")
    manifest: ReleaseManifest = read_json(path)
    missing = {"model", "task", "files", "variants"} - set(manifest if isinstance(manifest, dict) else ())
    if missing:
        raise UserError(f"{path}: has no {', '.join(sorted(missing))}")
    return manifest


def check_files(
    folder: Path,
    manifest: ReleaseManifest,
    digest: str | None = None,
    hashed: Mapping[str, str] | None = None,
) -> list[Check]:
    """Compare every file with the manifest, the manifest with ``SHA256SUMS``, and that with ``digest``, if given.

    Args:
        folder: the release.
        manifest: that of the release.
        digest: the hex sha256 of ``SHA256SUMS``, as the user knows it.
        hashed: the hex sha256 of each file, where all were read already; None reads them.
    """
    checks = []
    wanted = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    sums_file = folder / SUMS
    if sums_file.is_file():
        sums = read_sums(sums_file)
        wanted[MANIFEST] = sums.get(MANIFEST, "absent")
        checks += [
            Check(name, "in both lists", f"{SUMS} and {MANIFEST} disagree", "", "FAIL")
            for name in sorted(wanted.keys() | sums.keys())
            if wanted.get(name) != sums.get(name)
        ]
        if digest is not None:
            found = sha256_of(sums_file)
            checks.append(Check(SUMS, "sha256", found, digest, "pass" if found == digest else "FAIL"))
    else:
        checks.append(Check(SUMS, "exists", "missing", "", "FAIL"))
    whole = 0
    for name, expected in sorted(wanted.items()):
        path = folder / name
        size = manifest["files"][name]["size"] if name in manifest["files"] else None
        if not path.is_file():
            checks.append(Check(name, "exists", "missing", "", "FAIL"))
        elif size is not None and path.stat().st_size != size:
            checks.append(Check(name, "bytes", f"{path.stat().st_size:,}", f"{size:,}", "FAIL"))
        elif (found := sha256_of(path) if hashed is None else hashed[name]) != expected:
            checks.append(Check(name, "sha256", f"{found[:12]}…", f"{expected[:12]}…", "FAIL"))
        else:
            whole += 1
    seen = f"{whole} of {len(wanted)} as released"
    return [Check("files", "sha256", seen, "all", "pass" if whole == len(wanted) else "FAIL"), *checks]


def check_attestation(folder: Path, signer: Path | Identity | None) -> list[Check]:
    """Check the statement of a release, if it has one, and its signature, if the signer is named.

    Raises:
        UserError: the key cannot be read, or Model Signing is not installed.
    """
    checks = []
    if (folder / STATEMENT).is_file():
        problem = statement_problem(folder)
        seen = problem or "about the files that are here"
        checks.append(Check(STATEMENT, "subjects", seen, "", "FAIL" if problem else "pass"))
    if signer is not None:
        if isinstance(signer, Path) and not signer.is_file():
            raise UserError(f"--public-key: {signer}: no such file")
        problem = verify_signature(folder, signer)
        who = f"the owner of {signer.name}" if isinstance(signer, Path) else f"{signer.name}, says {signer.provider}"
        checks.append(Check(SIGNATURE, "signature", problem or f"by {who}", "", "FAIL" if problem else "pass"))
    return checks


def state_of_signature(folder: Path, checks: list[Check]) -> Literal["absent", "not checked", "verified", "refused"]:
    """Return whether a release is signed, and what a check of the signature found."""
    if not (folder / SIGNATURE).is_file():
        return "absent"
    verdicts = [check.verdict for check in checks if check.subject == SIGNATURE]
    if not verdicts:
        return "not checked"
    return "verified" if verdicts == ["pass"] else "refused"


def describe_signature(folder: Path, signer: Path | Identity | None) -> str:
    """Return whether a release is signed, for a person."""
    if not (folder / SIGNATURE).is_file():
        return "not signed"
    checked = "checked below" if signer else "not checked: name the signer with --public-key or --identity"
    return f"signed ({SIGNATURE}), {checked}"


# -------------------------------------------------------------------------------- tokenizer and answers


def check_tokenizer(folder: Path, golden: Reference[GoldenReference]) -> Check:
    """Compare the ids that the shipped tokenizer gives for the golden texts with those that PyTorch was given."""
    path, max_tokens = folder / "tokenizer.json", golden.manifest["max_tokens"]
    if not golden.texts or max_tokens is None:
        return Check("tokenizer", "token ids", "the inputs are not made by a tokenizer alone", "", "skipped")
    if not path.is_file():
        return Check("tokenizer", "token ids", "no tokenizer.json to check", "", "skipped")
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)
        found = [encoding.ids for encoding in tokenizer.encode_batch(golden.texts)]
    except Exception as error:  # tokenizers raises a bare Exception for a file that it cannot read
        return Check("tokenizer", "token ids", f"cannot be used: {error}", "", "FAIL")
    expected = [item[TOKENS].tolist() for item in golden.inputs.items]
    same = [left == right for left, right in zip(found, expected, strict=True)]
    seen = f"{sum(same)} of {len(same)} texts alike"
    if not all(same):
        seen += f"; the first other one: {str(golden.texts[same.index(False)])[:40]!r}"
    return Check("tokenizer", "token ids", seen, "all", "pass" if all(same) else "FAIL")


def files_of(folder: Path, facts: NamedFiles) -> dict[str, Path]:
    """Return the ONNX files of a variant of a release, from its entry in the manifest, by the names of its graphs."""
    named = facts.get("files") or {MODEL_FILE: facts["file"]}
    return {name: folder / path for name, path in named.items()}


def names_of(facts: ReleasedVariant) -> list[NamedFiles]:
    """Return the files of a variant, and their copies where a release has them under a second name."""
    return [facts, facts["copied_as"]] if "copied_as" in facts else [facts]


def are_alike(folder: Path, some: NamedFiles, others: NamedFiles) -> bool:
    """Return whether two names of a variant are the same bytes; they differ where weights are in a file beside them."""
    left, right = files_of(folder, some), files_of(folder, others)
    return all(sha256_of(path) == sha256_of(right[name]) for name, path in left.items())


def open_model(file: Path, threads: int = 0) -> Any:
    """Open an ONNX file of a release, and the other graphs that it needs beside it.

    Raises:
        UserError: it is not one of the files that the release's manifest lists as a variant.
    """
    folder = file.parents[1]
    for facts in read_manifest(folder)["variants"].values():
        for named in names_of(facts):
            if folder / named["file"] == file:
                return open_sessions(files_of(folder, named), folder, threads).separate
    raise UserError(f"{file}: no variant in {folder / MANIFEST} has this file")


def check_answers(
    folder: Path, manifest: ReleaseManifest, golden: Reference[MeasuredReference], threads: int
) -> list[Check]:
    """Run every variant of the release on the golden inputs and judge it; a variant goes by its main file's name.

    A copy of the same bytes is not run again.
    """
    checks = []
    for variant, facts in manifest["variants"].items():
        for named in names_of(facts):
            try:
                if named is not facts and are_alike(folder, facts, named):
                    checks.append(Check(named["file"], "bytes", f"those of {facts['file']}", "", "pass"))
                else:
                    checks += check_graphs(folder, manifest, variant, named, golden, threads)
            except Exception as error:  # whatever onnxruntime says about a damaged file is the finding
                reason = f"{type(error).__name__}: {first_line(error)[:160]}"
                checks.append(Check(named["file"], "runs", reason, "", "FAIL"))
        for one in facts.get("fixed", []):
            try:
                checks += check_fixed(folder, manifest, variant, one, golden, threads)
            except Exception as error:
                reason = f"{type(error).__name__}: {first_line(error)[:160]}"
                checks.append(Check(one["file"], "runs", reason, "", "FAIL"))
    return checks


def check_fixed(
    folder: Path,
    manifest: ReleaseManifest,
    variant: str,
    one: FixedFile,
    golden: Reference[MeasuredReference],
    threads: int,
) -> list[Check]:
    """Run the form of a variant with fixed shapes on the golden inputs that fit, padded, and judge it."""
    limits = {limit["metric"]: limit["allowed"] for limit in one["limits"]}
    fixed = open_session(folder / one["file"], threads)
    files = one["file"], manifest["variants"][variant]["file"]
    padded, free = (open_session(folder / file, threads, optimized=False) for file in files)
    found = measure_fixed(f"{manifest['model']} {variant}", fixed, (padded, free), golden)
    if found is None:
        return [Check(one["file"], "answers", "no golden input is as short as its shape", "", "skipped")]
    count, measured = found
    judged: Judged = {
        "model": manifest["model"],
        "variant": variant,
        "task": manifest["task"],
        "outputs": measured.outputs,
        "task_metrics": measured.task_metrics,
        "batch_invariance": measured.batch_invariance,
        "reference_batch_invariance": NOT_MEASURED,
    }
    verdicts = {verdict.metric: verdict for verdict in judge(judged, limits_of_few(limits, count))}
    return [check_of(one["file"], metric, verdicts.get(metric)) for metric in limits]


def check_graphs(
    folder: Path,
    manifest: ReleaseManifest,
    variant: str,
    named: NamedFiles,
    golden: Reference[MeasuredReference],
    threads: int,
) -> list[Check]:
    """Run the graphs of a variant, under one of its names, on the golden inputs and judge it."""
    facts = manifest["variants"][variant]
    limits = {limit["metric"]: limit["allowed"] for limit in facts["gate"]["limits"]}
    sessions = open_sessions(files_of(folder, named), folder, threads)
    batch_size = facts["parity"]["batch_invariance"]["batch_size"]
    measured = measure_sessions(f"{manifest['model']} {variant}", sessions, golden, batch_size)
    parity: Judged = {
        "model": manifest["model"],
        "variant": variant,
        "task": manifest["task"],
        "outputs": measured.outputs,
        "task_metrics": measured.task_metrics,
        "batch_invariance": measured.batch_invariance,
        "reference_batch_invariance": NOT_MEASURED,
    }
    verdicts = {verdict.metric: verdict for verdict in judge(parity, limits_of_few(limits, golden.answered))}
    return [check_of(named["file"], metric, verdicts.get(metric)) for metric in limits]


def check_final_answers(
    folder: Path, manifest: ReleaseManifest, golden: Reference[MeasuredReference], is_whole: bool, threads: int
) -> list[Check]:
    """Run the card's program for onnxruntime on raw inputs, with each variant's file, and judge its answers.

    The program runs only where every file is as it was released: an altered card is not to run here.
    """
    if not is_whole:
        return [Check("raw inputs", "final answers", "not asked: a file is not as released", "", "skipped")]
    final, variants = golden.final, manifest["variants"]
    if final is None:
        return [Check("raw inputs", "final answers", "the card has no program that takes raw inputs", "", "skipped")]
    program = find_program(folder, final, [facts["file"] for facts in variants.values()])
    if program is None:
        return [Check("raw inputs", "final answers", "the card's program is gone", "", "FAIL")]
    if missing := missing_packages(final):
        seen = f"the card's program needs {' and '.join(missing)}, not installed here"
        return [Check("raw inputs", "final answers", seen, "", "skipped")]
    checks = []
    for facts in variants.values():
        file, limits = facts["file"], facts["gate"]["thresholds"]
        try:
            with_batches = promises_batches(facts["gate"])
            measured = measure_final(program, folder, file, final, with_batches, threads)
        except Exception as error:  # whatever the program stops at is the finding
            reason = f"{type(error).__name__}: {first_line(error)[:160]}"
            checks.append(Check(file, "raw inputs: the card's program runs", reason, "", "FAIL"))
            continue
        few = limits_of_few(limits, len(final.inputs))
        for how, metrics in measured.items():
            for metric, value in metrics.items():
                if metric in few:
                    verdict = Verdict(metric, value, few[metric], METRICS[metric].bound == "at least")
                    checks.append(check_of(file, f"raw inputs {how}: {metric}", verdict))
    return checks


def check_labelled(folder: Path, manifest: ReleaseManifest, labelled: Any, is_whole: bool, threads: int) -> list[Check]:
    """Measure the quality on labelled data again, see ``release/quality.py``; print whether what was recorded holds.

    Args:
        folder: the release.
        manifest: its manifest.
        labelled: the file, that of documents or None, and how many rows of it are used at most or None.
        is_whole: whether every file is as it was released.
        threads: intra-op threads.

    Raises:
        UserError: the model was not evaluated, or the data cannot be used.
    """
    name = "labelled data"
    if not is_whole:
        return [Check(name, "quality", "not asked: a file is not as released", "", "skipped")]
    if not (folder / QUALITY_FILE).is_file():
        raise UserError(
            f"{folder}: --labelled: this release was made without labelled data; there is nothing to compare"
        )
    final = read_golden(folder).final
    program = final and find_program(folder, final, [facts["file"] for facts in manifest["variants"].values()])
    # Not imported above: only the release of a model with labelled data has the module, and those that it imports.
    quality = importlib.import_module("onnxproof.release.quality")
    found = quality.measure_again(folder, manifest, program, quality.Labelled(*labelled), threads)
    if not found:
        return [Check(name, "quality", "the card has no program that takes raw inputs", "", "skipped")]
    for measured in found:
        print(measured)
    verdicts: dict[bool | None, Any] = {True: "pass", False: "FAIL", None: "skipped"}
    return [Check(each.file, each.metric, each.seen, each.allowed, verdicts[each.holds]) for each in found]


def check_of(file: str, metric: str, verdict: Verdict | None) -> Check:
    """Return the line for one metric of a file; without a verdict, the golden inputs do not tell."""
    if verdict is None:
        return Check(file, metric, "not to be had from the golden inputs", "", "skipped")
    seen = "not finite" if verdict.measured is None else f"{verdict.measured:.9g}"
    return Check(file, metric, seen, verdict.bound, "pass" if verdict.passed else "FAIL")


# ------------------------------------------------------------------------------------------------- report


def verify(
    folder: Path,
    threads: int = 0,
    digest: str | None = None,
    labelled: Any = None,
    signer: Path | Identity | None = None,
) -> list[Check]:
    """Return every check of a release; ``threads`` 0 lets onnxruntime choose. For ``labelled`` see ``check_labelled``.

    Raises:
        UserError: the folder holds no manifest that could be read; see also ``check_attestation``.
    """
    manifest = read_manifest(folder)
    checks = [*check_files(folder, manifest, digest), *check_attestation(folder, signer)]
    try:
        golden = read_golden(folder)
    except Exception as error:  # missing, cut short or altered: in every case there is nothing to replay
        return [*checks, Check(GOLDEN_FILE, "can be read", f"{type(error).__name__}: {error}"[:120], "", "FAIL")]
    is_whole = all(check.verdict == "pass" for check in checks)
    return [
        *checks,
        check_tokenizer(folder, golden),
        *check_answers(folder, manifest, golden, threads),
        *check_final_answers(folder, manifest, golden, is_whole, threads),
        *(check_labelled(folder, manifest, labelled, is_whole, threads) if labelled else []),
    ]


def describe_failure(check: Check) -> str:
    """Return a failed check in a few words: what was looked at, what was seen, and what is allowed."""
    return f"{check.subject} {check.what}: {check.seen}" + (f", allowed {check.allowed}" if check.allowed else "")


def as_table(checks: list[Check]) -> str:
    """Lay the checks out as text, one line each."""
    header = ("what", "check", "here", "allowed", "verdict")
    rows: list[tuple[str, ...]] = [header, *[(c.subject, c.what, c.seen, c.allowed, c.verdict) for c in checks]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main(argv: list[str] | None = None) -> int:
    """Verify, print the table and the verdict; return 0 where everything passed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="verify_release.py"
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", default=OWN_FOLDER, help="the release (default: the folder of this file)"
    )
    parser.add_argument("--threads", type=int, default=0, help="intra-op threads (default: as onnxruntime chooses)")
    parser.add_argument("--digest", metavar="SHA256", help="what SHA256SUMS must hash to, from whom you trust")
    parser.add_argument(
        "--public-key", type=Path, metavar="PEM", help="the signer's key: the release must be signed with it"
    )
    parser.add_argument(
        "--identity", metavar="NAME", help="who must have signed it without a key, such as an e-mail address"
    )
    parser.add_argument(
        "--identity-provider", metavar="URL", help="who vouches for --identity, such as https://accounts.google.com"
    )
    parser.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=STANDARD_OUTPUT,
        metavar="FILE",
        help="also write the result to this file; without a file, print it and nothing else",
    )
    parser.add_argument(
        "--labelled", type=Path, metavar="FILE", help="the labelled data that it was judged by: measure them again"
    )
    parser.add_argument("--documents", type=Path, metavar="FILE", help="the documents that its queries search")
    parser.add_argument("--max-inputs", type=int, metavar="N", help="only the first N rows of the labelled data")
    args = parser.parse_args(argv)
    if args.json and args.json.is_dir():
        parser.error(f"--json: {args.json} is a folder, not a file to write; name the release before --json")
    if (args.identity is None) != (args.identity_provider is None):
        parser.error("--identity and --identity-provider name a signer together: give both")
    if args.identity and args.public_key:
        parser.error("--public-key and --identity both name the signer: give one of them")
    signer = Identity(args.identity, args.identity_provider) if args.identity else args.public_key
    try:
        import numpy
        import onnxruntime
        import tokenizers
    except ImportError as error:
        print(f"error: {error}; verify_release needs {NEEDED}", file=sys.stderr)
        return 2
    try:
        labelled = (args.labelled, args.documents, args.max_inputs) if args.labelled else None
        # What the card's program prints is no part of the answer.
        with contextlib.redirect_stdout(sys.stderr if args.json == STANDARD_OUTPUT else sys.stdout):
            checks = verify(args.folder, args.threads, args.digest, labelled, signer)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    manifest = read_manifest(args.folder)
    failed = [check for check in checks if check.verdict == "FAIL"]
    versions = {
        "python": platform.python_version(),
        **{module.__name__: module.__version__ for module in (numpy, onnxruntime, tokenizers)},
    }
    result: VerificationRecord = {
        "model": manifest["model"],
        "passed": not failed,
        "signature": state_of_signature(args.folder, checks),
        "cpu": cpu_name(),
        "versions": versions,
        "checks": [check.as_record() for check in checks],
    }
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    if args.json == STANDARD_OUTPUT:
        print(text, end="")
        return 1 if failed else 0
    print(f"{manifest['model']} ({manifest['task']}) on {cpu_name()}")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    if (args.folder / SUMS).is_file():
        print(f"{SUMS} has the sha256 {sha256_of(args.folder / SUMS)}")
    print(f"This release is {describe_signature(args.folder, signer)}")
    print(f"\n{as_table(checks)}\n", flush=True)
    if args.json:
        args.json.write_text(text, encoding="utf-8")
    if failed:
        told = "; ".join(describe_failure(check) for check in failed[:MOST_TOLD])
        more = f"; and {len(failed) - MOST_TOLD} more" if len(failed) > MOST_TOLD else ""
        print(
            f"FAIL: {len(failed)} of {len(checks)} checks failed, do not use this release: {told}{more}",
            file=sys.stderr,
        )
        return 1
    skipped = sum(check.verdict == "skipped" for check in checks)
    print(f"PASS: {len(checks) - skipped} checks, {skipped} skipped; PyTorch's answers, on this machine")
    return 0


if __name__ == "__main__":
    sys.exit(main())
