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

import show_summary
from onnxproof.cli import UserError, run_script
from onnxproof.files import write_text
from onnxproof.records.run import ShownModels

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
    parser.add_argument(
        "--run",
        type=Path,
        required=True,
        metavar="JSON",
        help='file with {"settings": as summary.py takes them, "failed": [{"model", "rule", "variant", "log"}], '
        '"released": [models with a verified release]}; - is standard input',
    )
    parser.add_argument("--output-dir", type=Path, required=True, help="folder for failures.csv and a partial summary")
    parser.add_argument("--partial", action="store_true", help="write the summary of the complete models too")
    args = parser.parse_args(argv)
    run = show_summary.read_told(args.run)
    if args.partial:
        table, page = args.output_dir / "partial.csv", args.output_dir / "partial.html"
        if write_partial_summary(args.results, run["settings"], table, page):
            show_summary.show(table, page, run["released"])
    failures = [Failure(**job, reason=_reason(Path(job["log"]))) for job in run["failed"]]
    if failures:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(field.name for field in fields(Failure))
        writer.writerows(map(astuple, failures))
        write_text(args.output_dir / "failures.csv", text.getvalue())
        show(failures, len(run["settings"]), args.output_dir / "failures.csv")


if __name__ == "__main__":
    run_script(main)
