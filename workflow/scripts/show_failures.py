"""Say at the end of a run that failed which jobs failed, why, and where their logs are.

What the other models gave is not lost on the reader: unless the run got as far as the summary, a table and a page
over the models that are complete are written beside the logs.
"""

import argparse
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from onnxproof.cli import UserError, run_script
from onnxproof.files import read_json, write_text
from onnxproof.records.run import FailedJob, ShownModels

SHOWN = 30  # more failures than this are only counted on the screen; the table beside the logs has all
LONGEST_REASON = 300


@dataclass(frozen=True)
class Failure:
    """A job that was tried in vain."""

    model: str
    rule: str
    variant: str
    reason: str
    log: str


def read_failures(path: Path) -> list[Failure]:
    """Return the failed jobs that a file lists as JSON: ``model``, ``rule``, ``variant`` and ``log`` of each."""
    jobs: list[FailedJob] = json.loads(path.read_text(encoding="utf-8"))
    return [Failure(**job, reason=_reason(Path(job["log"]))) for job in jobs]


def _reason(log: Path) -> str:
    """Return a log's last error, else its last line."""
    if not log.exists():
        return "it left no log on this machine"
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    found = next(reversed(errors or lines), "it ended without a word; it may have been killed")
    return found if len(found) <= LONGEST_REASON else f"{found[:LONGEST_REASON]}…"


def write_partial_summary(results: Path, settings: ShownModels, table: Path, page: Path) -> int:
    """Write the table and the page over the models that are complete; return how many these are."""
    from onnxproof.report.results import load_models
    from summary import summarize

    complete = {}
    for model, entry in settings.items():
        try:
            load_models(results, {model: entry})
        except UserError:
            continue
        complete[model] = entry
    if complete:
        summarize(results, json.dumps(complete), table, page)
    return len(complete)


def show(failures: Sequence[Failure], models: int, table: Path) -> None:
    """Print the failures, those of one model together."""
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    failed = len({failure.model for failure in failures})
    console.print(f"{len(failures)} jobs of {failed} of {models} models failed:", style="bold red")
    for failure in failures[:SHOWN]:
        console.print(f"FAILED {failure.model} {failure.rule} {failure.variant}".rstrip() + f": {failure.reason}")
        console.print(f"  log: {failure.log}")
    if len(failures) > SHOWN:
        console.print(f"… and {len(failures) - SHOWN} more")
    console.print(f"All failures: {table}")
    console.print("The next run repeats these jobs and what follows from them, and nothing else.")


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, read the failures and tell them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="folder the pipeline wrote to")
    parser.add_argument("--settings", required=True, metavar="JSON", help="as summary.py takes it")
    parser.add_argument(
        "--failed", type=Path, required=True, metavar="JSON", help='file with [{"model", "rule", "variant", "log"}]'
    )
    parser.add_argument("--output-dir", type=Path, required=True, help="folder for failures.csv and a partial summary")
    parser.add_argument("--partial", action="store_true", help="write the summary of the complete models too")
    parser.add_argument("--released", type=Path, metavar="JSON", help="as show_summary.py takes it")
    args = parser.parse_args(argv)

    from onnxproof.report.results import read_settings

    settings = read_settings(args.settings)
    if args.partial:
        table, page = args.output_dir / "partial.csv", args.output_dir / "partial.html"
        if write_partial_summary(args.results, settings, table, page):
            from show_summary import show as show_table

            show_table(table, page, read_json(args.released) if args.released else [])
    failures = read_failures(args.failed)
    if failures:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(field.name for field in fields(Failure))
        writer.writerows(map(astuple, failures))
        write_text(args.output_dir / "failures.csv", text.getvalue())
        show(failures, len(settings), args.output_dir / "failures.csv")


if __name__ == "__main__":
    run_script(main)
