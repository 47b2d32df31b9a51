"""Print the summary table to the terminal, failed gates last, where the eye rests."""

import argparse
import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from onnxproof.cli import UserError, first_line, run_script
from onnxproof.files import read_json

PLAIN_WIDTH = 100
MOST_MODELS = 40  # with more models than this, only those that failed are shown one by one
MISSING = "-"
STANDARD_INPUT = Path("-")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a summary table, ``None`` where a cell is empty.

    Raises:
        UserError: there is no such table.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype={"model": str, "variant": str, "revision": str, "machine": str})
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `snakemake` writes it") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise UserError(f"{path}: not a summary table: {first_line(error)}") from None
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def read_told(path: Path) -> Any:
    """Return what a JSON file holds, or standard input where the path is ``-``.

    Raises:
        UserError: the file is missing, cannot be read or holds no JSON.
    """
    return json.load(sys.stdin) if path == STANDARD_INPUT else read_json(path)


def show(csv: Path, report: Path | str, released: Collection[str] = ()) -> None:
    """Print one line a model and variant, then where the releases and the report are.

    Args:
        csv: the table that summary.py wrote.
        report: the page to point to, a path or an address.
        released: the models whose releases were verified; no other release is named.
    """
    from rich.console import Console

    rows = read_rows(csv)
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, emoji=False, width=PLAIN_WIDTH, no_color=True)
    count = len({row["model"] for row in rows})
    failed = {row["model"] for row in rows if row["parity"] == "fail"}
    everything, rows = rows, _shown(rows, failed, count)
    if rows:
        console.print(_table(rows))
    if len(rows) < len(everything):
        shown = len({row["model"] for row in rows})
        which = "them" if shown == len(failed) else f"the first {shown} of them"
        console.print(
            f"{len(failed)} of {count} models missed a gate. The table shows only {which}."
            if failed
            else f"All {count} models passed every gate."
        )
    cases = ", ".join(dict.fromkeys(row["main_case"] for row in rows if row["main_case"]))
    console.print(f"Speed-up: against ONNX fp32 in interleaved runs, at {cases} (batch x tokens _ threads).")
    kinds = {row["machine"] for row in everything if row.get("machine")}
    hosts = {row["host"] for row in everything if row.get("host")}
    if len(kinds) > 1:
        console.print(f"Measured on {len(kinds)} kinds of machines: compare times only within one.")
    elif len(hosts) > 1:
        console.print(f"Measured on {len(hosts)} machines: compare times only within one, see the column host.")
    failures = [
        f"FAIL {row['model']} {row['variant']}: {row['failed_metrics']}" for row in rows if row["parity"] == "fail"
    ]
    for failure in dict.fromkeys(failures):  # a variant has a row for each kind of machine
        console.print(failure, style="bold red", soft_wrap=True)
    if count <= MOST_MODELS:
        for release in dict.fromkeys(row["release"] for row in rows if row["release"] and row["model"] in released):
            console.print(f"Release: {release}", soft_wrap=True)
    console.print(f"Report:  {report}", soft_wrap=True)


def _shown(rows: list[dict[str, Any]], failed: set[str], count: int) -> list[dict[str, Any]]:
    """Return the rows there is room for: all, or those of the first models that failed a gate."""
    if count <= MOST_MODELS:
        return rows
    models = list(dict.fromkeys(row["model"] for row in rows if row["model"] in failed))[:MOST_MODELS]
    return [row for row in rows if row["model"] in models]


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("model", overflow="fold", min_width=12)
    table.add_column("variant", overflow="fold")
    is_spread = any(row.get("machine") for row in rows)
    if is_spread:
        table.add_column("machine", overflow="fold")
    for name in ("size", "smaller", "speed-up"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("parity", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    previous = None
    for row in rows:
        same = row["model"] == previous
        if previous is not None and not same:
            table.add_section()
        previous = row["model"]
        verdict = "FAIL" if row["parity"] == "fail" else row["parity"]
        style = {"FAIL": "bold red", "pass": "green"}.get(verdict, "dim")
        machine = [row["machine"] or MISSING] if is_spread else []
        table.add_row("" if same else previous, row["variant"], *machine, *_cells(row), Text(verdict, style=style))
    return table


def _cells(row: dict[str, Any]) -> list[str]:
    from onnxproof.formatting import format_figure

    ratio, speedup, headline = row["size_ratio_vs_fp32"], row["main_speedup"], row["headline_metric"]
    return [
        _text(row["size_mb"], "{:.1f} MB"),
        _text(1 / ratio if ratio else None, "{:.2f}x"),
        "baseline" if row["variant"] == "fp32" else _text(speedup, "{:.2f}x"),
        f"{headline} {format_figure(row[headline])}" if headline else MISSING,
    ]


def _text(value: float | None, template: str) -> str:
    return MISSING if value is None else template.format(value)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--csv", type=Path, required=True, help="table written by summary.py")
    parser.add_argument("--report", help="page to point to, path or address (default: report.html beside the table)")
    parser.add_argument(
        "--released",
        type=Path,
        metavar="JSON",
        help="file that lists the models with a verified release; - is standard input",
    )
    args = parser.parse_args(argv)
    released = read_told(args.released) if args.released else []
    show(args.csv, args.report or args.csv.with_name("report.html"), released)


if __name__ == "__main__":
    run_script(main)
