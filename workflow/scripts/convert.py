"""Turn one model into a verified ONNX release with one command.

It writes config.yaml into a folder of its own and runs the workflow there. The same command goes on where an earlier
run stopped. Progress goes to standard error and the result to standard output.

The status is 0 where the release is verified, 1 where the run failed or the model cannot be converted, 2 where the
command line is wrong, 3 where a variant missed a limit of its gate, and 130 where the run was interrupted.
"""

import argparse
import contextlib
import csv
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from check import ATTEMPTS, LONGEST_WAIT_S
from onnxproof.cli import UserError, run_script
from onnxproof.config.checks import COMMIT_PATTERN, check_config
from onnxproof.config.named import ALLOWED, NO_FOLDER, NamedSource, find_source, name_of
from onnxproof.engine.run_lock import LOCK_FILE, lock_folder
from onnxproof.files import write_text
from onnxproof.places import PROJECT
from onnxproof.records.conversion import Conversion, ConversionError, ConvertedVariant, RecommendedVariant
from onnxproof.records.release import read_release_manifest, read_verification
from onnxproof.tasks.registry import TASKS
from onnxproof.vocabulary import VARIANTS

REFUSED = 3
CONFIG, OUTPUT = "config.yaml", "convert.log"
#: What a configuration of ours begins with; the digest shows whether somebody has edited it.
HEADER = "# Written by `onnxproof convert`, which replaces it. Settings below: sha256 {}\n"
WRITTEN = re.compile(re.escape(HEADER).replace(r"\{\}", "([0-9a-f]{64})"))
#: Settings that name a file, which a command names from where it is run.
FILE_SETTINGS = (
    ("evaluation", "data"),
    ("evaluation", "documents"),
    ("parity", "evaluation_texts"),
    ("quantization", "calibration_texts"),
)
#: What a run of Snakemake prints of its jobs.
STARTED = re.compile(r"Job (\d+): (?:[^:]+: )?(.*) \(log: .*\)$")
FINISHED = re.compile(r"Finished jobid: (\d+) ")
FAILED = re.compile(r"\s+jobid: (\d+)$")
COUNTED = re.compile(r"(\d+) of (\d+) steps \(")
PLANNED = re.compile(r"^job +count\n[- ]+\n(.*?)^total", re.MULTILINE | re.DOTALL)
WRONG = re.compile(r"^\w*(?:Error|Exception)\b.*:\s*(?:in file .*:)?$")
GATES = ("gate_parity", "gate_evaluation")


# The configuration


def parse_setting(text: str) -> tuple[tuple[str, ...], Any]:
    """Return the keys and the value of ``KEY=VALUE``, such as ``parity.thresholds.int8.cosine_min=0.98``.

    Raises:
        argparse.ArgumentTypeError: it has another form.
    """
    key, separator, value = text.partition("=")
    if not separator or not all(key.split(".")):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE, such as benchmark.rounds=5")
    try:
        return tuple(key.split(".")), yaml.safe_load(value)
    except yaml.YAMLError:
        raise argparse.ArgumentTypeError(f"the value of {key} is no YAML: {value!r}") from None


def describe_model(source: NamedSource, args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the model in config.yaml: its source and what the command line sets."""
    settings: dict[str, Any] = {"source": dict(source)}
    for keys, value in args.settings:
        inner: Any = settings
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                raise UserError(f"--set {'.'.join(keys)}: {key} was set to {inner!r}, which has no keys")
        inner[keys[-1]] = value
    if args.task:
        settings["task"] = args.task
    if args.variants:
        settings["variants"] = args.variants
    for section, key in FILE_SETTINGS:
        named = settings.get(section)
        if isinstance(named, dict) and isinstance(named.get(key), str):
            named[key] = str(Path(named[key]).expanduser().resolve())
    return settings


def pin(model: str, source: NamedSource, revision: str | None, before: Mapping[str, Any] | None) -> NamedSource:
    """Return a source whose revision is a commit: as asked for, as in an earlier run, or the newest one.

    Raises:
        UserError: a local model has no revisions; the Hub cannot be asked.
    """
    if "hub" not in source:
        if revision:
            raise UserError(f"{model}: --revision is {revision!r}, but only a model on the Hub has revisions")
        return source
    if revision and COMMIT_PATTERN.fullmatch(revision):
        return {**source, "revision": revision}
    if not revision and before and before.get("hub") == source["hub"]:
        return cast(NamedSource, dict(before))
    from huggingface_hub import constants

    from download import build_retry, check_hub_request, list_repository

    repo = source["hub"]
    try:
        check_hub_request(model, repo, revision, allow_floating=True, offline=constants.HF_HUB_OFFLINE)
        with contextlib.redirect_stdout(sys.stderr):
            commit, _ = list_repository(model, repo, revision, build_retry(ATTEMPTS, LONGEST_WAIT_S))
    except UserError as error:
        raise UserError(f"{error}{NO_FOLDER.format(repo)}") from None
    return {**source, "revision": commit}


def read_earlier(folder: Path, name: str) -> dict[str, Any] | None:
    """Return the settings of the model that an earlier run wrote; None where there was none.

    Raises:
        UserError: the configuration there is not of this command, or is that of another model.
    """
    file = folder / CONFIG
    if not file.exists():
        return None
    text = file.read_text(encoding="utf-8", errors="replace")
    header = WRITTEN.match(text)
    if not header or header[1] != digest_of(text[header.end() :]):
        raise UserError(
            f"{file}: not as `onnxproof convert` wrote it, and it would be replaced; name another folder with "
            f"--output, or run it as it is: cd {folder} && snakemake --snakefile {PROJECT / 'Snakefile'} --cores all"
        )
    models: dict[str, Any] = yaml.safe_load(text)["models"]
    if name not in models:
        raise UserError(f"{folder}: holds the conversion of {', '.join(models)}; name another folder with --output")
    return cast(dict[str, Any], models[name])


def digest_of(text: str) -> str:
    """Return the sha256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def is_other(source: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Tell whether a source is another model, not only another revision."""
    return any(source.get(key) != before.get(key) for key in ("hub", "package", "path"))


def configure(source: NamedSource, name: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Write the configuration of one model; return the model's settings in it.

    Raises:
        UserError: a setting or a revision cannot be used, or the folder has another use.
    """
    earlier = read_earlier(folder, name)
    if earlier and is_other(source, earlier["source"]):
        seen = ", ".join(f"{key} {value}" for key, value in earlier["source"].items())
        raise UserError(f"{folder}: holds the conversion of another {name} ({seen}); name another with --output")
    settings = describe_model(pin(name, source, args.revision, earlier and earlier["source"]), args)
    config = {"models": {name: settings}}
    check_config(config, folder)
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    write_text(folder / CONFIG, HEADER.format(digest_of(text)) + text)
    return settings


# The run


class Progress:
    """Tells on standard error which steps a run of Snakemake has done and which it is at, from what it prints."""

    def __init__(self) -> None:
        """Start without a step."""
        from rich.console import Console

        console = Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)
        self._console = console
        self._status = console.status("planning")
        self._running: dict[str, tuple[str, float]] = {}
        self._ended: tuple[str, float] | None = None

    def __enter__(self) -> "Progress":
        """Show what is running, if this is a terminal."""
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Show it no more."""
        self._status.stop()

    def read(self, line: str) -> None:
        """Take one line of Snakemake's."""
        if started := STARTED.match(line):
            self._running[started[1]] = (started[2], time.monotonic())
        elif finished := FINISHED.match(line):
            self._ended = self._running.pop(finished[1], None)
        elif (counted := COUNTED.match(line)) and self._ended:
            total = int(counted[2]) - 1  # the last one only waits for the others
            self._tell(f"{counted[1]:>3} of {total}", *self._ended)
            self._ended = None
        elif (failed := FAILED.match(line)) and failed[1] in self._running:
            self._tell("  failed", *self._running.pop(failed[1]))
        else:
            return
        self._status.update(", ".join(step for step, _ in self._running.values()) or "planning")

    def _tell(self, how: str, step: str, since: float) -> None:
        took = f"{time.monotonic() - since:.1f} s"
        self._console.print(f"{how:<9} {step:<45} {took:>9}")


def run_workflow(folder: Path, cores: str, *options: str) -> tuple[int, str]:
    """Run the workflow in a folder; return its status and what it printed."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(PROJECT / "Snakefile"), "--directory", str(folder)]
    command += ["--workflow-profile", str(PROJECT / "profiles" / "default"), "--cores", cores, *options]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # the rules start `python`
    process = subprocess.Popen(
        command,
        env=os.environ | {"PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # an interruption reaches it once: from here
    )
    assert process.stdout is not None
    lines: list[str] = []
    with ended_with(process), Progress() as progress:
        for line in process.stdout:
            lines.append(line)
            progress.read(line)
    return process.wait(), "".join(lines)


@contextlib.contextmanager
def ended_with(process: subprocess.Popen[str]) -> Any:
    """End a process and its jobs where this one is interrupted or told to end."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        process.communicate()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def read_failures(folder: Path, printed: str) -> list[ConversionError]:
    """Return why a run failed: each job that was tried in vain; where none was, what Snakemake said, which is kept."""
    failures = failures_file(folder)
    if not failures.is_file():
        write_text(folder / OUTPUT, printed)
        return [{"step": None, "variant": None, "reason": complaint(printed), "log": str(folder / OUTPUT)}]
    with failures.open(encoding="utf-8") as stream:
        errors: list[ConversionError] = [
            {
                "step": row["rule"],
                "variant": row["variant"] or None,
                "reason": row["reason"],
                "log": str(folder / row["log"]),
            }
            for row in csv.DictReader(stream)
        ]
    # The release is judged by the gates' measurements, and says the same once more.
    gates = [error for error in errors if error["step"] in GATES]
    return [error for error in errors if error["step"] != "release"] if gates else errors


def failures_file(folder: Path) -> Path:
    """Return where a run lists the jobs that failed."""
    return folder / "results" / "logs" / "summary" / "failures.csv"


def complaint(printed: str) -> str:
    """Return what Snakemake complained of before it started a job: the line below an error's name, or the last one."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    heads = [number for number, line in enumerate(lines[:-1]) if WRONG.match(line)]
    return lines[heads[-1] + 1] if heads else (lines or ["Snakemake ended without a word"])[-1]


# The result


def read_variants(folder: Path, name: str, files: Mapping[str, str]) -> dict[str, ConvertedVariant]:
    """Return what the table of results says of each variant; ``files`` are those of the release, by variant."""
    from show_summary import read_rows

    rows = [row for row in read_rows(folder / "results/summary.csv") if row["model"] == name]
    return {
        row["variant"]: {
            "file": files.get(row["variant"]),
            "parity": row["parity"],
            "metric": row["headline_metric"],
            "value": row[row["headline_metric"]] if row["headline_metric"] else None,
            "size_mb": row["size_mb"],
            "speedup": row["main_speedup"],
            "case": row["main_case"],
        }
        for row in rows
        if row["variant"] in VARIANTS
    }


def no_result(
    status: Literal["released", "failed", "planned"], name: str, source: Mapping[str, Any], folder: Path | None
) -> Conversion:
    """Return how a conversion stands that has measured nothing yet."""
    return {
        "status": status,
        "model": name,
        "source": dict(source),
        "folder": None if folder is None else str(folder),
        "release": None,
        "report": None,
        "recommended": [],
        "variants": {},
        "errors": [],
        "seconds": 0.0,
    }


def not_started(model: str, reason: str) -> Conversion:
    """Return the result of a command that was refused before the workflow was started."""
    result = no_result("failed", model, {}, None)
    result["errors"] = [{"step": None, "variant": None, "reason": reason, "log": None}]
    return result


def result_of(name: str, settings: Mapping[str, Any], folder: Path, status: int, printed: str) -> Conversion:
    """Return how a run ended, with what it measured."""
    results = folder / "results"
    result = no_result("released", name, settings["source"], folder)
    result["errors"] = read_failures(folder, printed) if status else []
    files: dict[str, str] = {}
    if status == 0 and read_verification(results / name / "verified.json")["passed"]:
        release = results / name / "release"
        manifest = read_release_manifest(release / "manifest.json")
        files = {variant: facts["file"] for variant, facts in manifest["variants"].items()}
        result["release"] = str(release)
        result["recommended"] = [
            cast(RecommendedVariant, {key: each[key] for key in ("purpose", "variant", "file", "speedup")})
            for each in manifest["recommended"]
            if not each["in_float"]
        ]
    failed = {error["step"] for error in result["errors"]}
    if failed:
        result["status"] = "refused" if failed <= set(GATES) else "failed"
    # A gate's failure takes nothing from what was measured; any other leaves the table of an earlier run, or none.
    if result["status"] != "failed":
        result["variants"] = read_variants(folder, name, files)
        result["report"] = str(results / "report.html")
    return result


def tell(result: Conversion) -> None:
    """Print a result for a person: what was measured, what to run, and what went wrong."""
    import show_summary

    if result["report"]:
        results = Path(result["report"]).parent
        show_summary.show(results / "summary.csv", result["report"])
    if result["release"]:
        print(f"Release: {result['release']}")
    for best in result["recommended"]:
        print(f"Best {best['purpose']}: {best['variant']}, {best['speedup']:.2f}x of fp32: {best['file']}")
    for error in result["errors"]:
        reason = error["reason"]
        told = reason if reason.startswith(result["model"]) else f"{result['model']}: {reason}"
        step = f"step: {error['step']}; " if error["step"] else ""
        print(f"error: {told} ({step}log: {error['log']})", file=sys.stderr)


def planned_steps(printed: str) -> dict[str, int]:
    """Return how many jobs of each rule a dry run would start."""
    table = PLANNED.search(printed)
    rows = (line.split() for line in table[1].splitlines()) if table else ()
    return {rule: int(count) for rule, count in rows if rule != "all"}


def convert(args: argparse.Namespace) -> tuple[int, Conversion]:
    """Convert the model that the command line names; return the status of the process and the result.

    Raises:
        UserError: the model or a setting cannot be used.
    """
    began = time.monotonic()
    source = find_source(args.model)
    name = name_of(args.model, source)
    folder = (args.output or Path(f"onnxproof-{name}")).expanduser().resolve()
    if "package" not in source and "path" in source and folder.is_relative_to(source["path"]):
        raise UserError(f"{folder}: lies in the model's own folder, {source['path']}; name another with --output")
    lock_folder(folder / LOCK_FILE.with_name("convert.lock"))  # jobs at work read the configuration
    settings = configure(source, name, folder, args)
    failures_file(folder).unlink(missing_ok=True)
    status, printed = run_workflow(folder, args.cores, *(["--dry-run"] if args.dry_run else []))
    if args.dry_run and status == 0:
        result = no_result("planned", name, settings["source"], folder)
        result["steps"] = planned_steps(printed)
    else:
        result = result_of(name, settings, folder, status, printed)
    result["seconds"] = round(time.monotonic() - began, 1)
    return {"released": 0, "planned": 0, "refused": REFUSED, "failed": 1}[result["status"]], result


def parse(argv: Iterable[str] | None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help=ALLOWED)
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where to work (default: onnxproof-NAME)")
    parser.add_argument(
        "--revision",
        help="commit, branch or tag on the Hub; it is pinned to its commit (default: that of an earlier run, or main)",
    )
    parser.add_argument("--task", choices=sorted(TASKS), metavar="TASK", help="the task (default: inferred)")
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        metavar="VARIANT",
        help=f"which ONNX forms to make, of: {', '.join(VARIANTS)} (default: fp32 optimized int8)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=parse_setting,
        dest="settings",
        metavar="KEY=VALUE",
        help="any setting of a model in config.yaml: parity.thresholds.int8.cosine_min=0.98, evaluation.data=FILE",
    )
    parser.add_argument("--cores", default="all", help="how many cores to use (default: all)")
    parser.add_argument("--dry-run", action="store_true", help="write config.yaml and tell the steps; run none")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")
    args = parser.parse_args(None if argv is None else list(argv))
    if args.cores != "all" and not re.fullmatch(r"[1-9]\d*", args.cores):
        parser.error(f"--cores is {args.cores!r}, must be a whole number, at least 1, or all")
    return args


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, convert the model and print the result; return the status of the process."""
    args = parse(argv)
    try:
        status, result = convert(args)
    except UserError as error:
        if not args.json:
            raise
        status, result = 1, not_started(args.model, str(error))
        print(f"error: {error}", file=sys.stderr)
    if args.json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    elif args.dry_run and status == 0:
        for rule, count in result.get("steps", {}).items():
            print(f"{count:>3}  {rule}")
        print(f"{sum(result.get('steps', {}).values()):>3}  steps, in {result['folder']}; nothing was run")
    else:
        tell(result)
    return status


if __name__ == "__main__":
    run_script(main)
