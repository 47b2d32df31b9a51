"""Gather every model's figures into one table (CSV) and one self-contained page (HTML)."""

import argparse
from pathlib import Path

from onnxproof.cli import run_script


def summarize(results: Path, settings: str, csv: Path, html: Path, place: str | None = None) -> None:
    """Write ``results/summary.csv`` and ``results/report.html``.

    ``place`` is where a reader finds ``results``, which may be a copy of what lies in object storage.

    Raises:
        UserError: the settings are no such object, a recorded file is missing, or no threshold applies.
    """
    from onnxproof.files import write_text
    from onnxproof.report.page import render_report
    from onnxproof.report.results import load_models, read_settings, summary_table

    models = load_models(results, read_settings(settings), place)
    table = summary_table(models)
    page = render_report(models)
    write_text(csv, table.to_csv(index=False, lineterminator="\n"))
    write_text(html, page)
    failed = [f"{model.name} {variant.name}" for model in models for variant in model.failed]
    print(
        f"wrote {csv} and {html}: {len(models)} models, {len(table)} rows, failed gates: {', '.join(failed) or 'none'}"
    )


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True, help="folder the pipeline wrote to")
    parser.add_argument(
        "--settings",
        required=True,
        metavar="JSON",
        help='{"model": {"variants": ["fp32", …], "pytorch": true, "machines": ["icelake", …], '
        '"thresholds": {"int8": {"cosine_min": 0.97}}}}, '
        "or a file that holds it",
    )
    parser.add_argument("--output-csv", type=Path, required=True, help="table to write, one row a model and variant")
    parser.add_argument("--output-html", type=Path, required=True, help="page to write")
    parser.add_argument("--place", help="where a reader finds the folder's files (default: the folder itself)")
    args = parser.parse_args(argv)
    summarize(args.results, args.settings, args.output_csv, args.output_html, args.place)


if __name__ == "__main__":
    run_script(main)
