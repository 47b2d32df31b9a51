"""Write the table of docs/browser.md: how far the answers of each file in a browser are from PyTorch's.

make browser
"""

import argparse
from pathlib import Path

import project_path  # noqa: F401
from onnxproof.formatting import format_figure
from onnxproof.records.browser import BrowserRecord, read_browser

MARK, END = "<!-- table -->", "<!-- end of table -->"
HEADER = (
    "| model | variant | device | inputs | largest difference | lowest cosine | the task's first metric |\n"
    "| --- | --- | --- | --- | --- | --- | --- |\n"
)


def as_rows(record: BrowserRecord) -> list[str]:
    """Return a row of the table for each variant and device."""
    rows = []
    for run in record["runs"]:
        cells = [record["model"], run["variant"], run["device"]]
        if "answers" in run:
            output = list(run["answers"]["outputs"].values())[-1]
            metric, value = next(iter(run["answers"]["task_metrics"].items()))
            found = [format_figure(output["max_abs_diff"]), format_figure(output["cosine_min"])]
            cells += [str(record["inputs"]["count"]), *found, f"{metric} {format_figure(value)}"]
        else:
            cells += [str(record["inputs"]["count"]), "", "", str(run["error"]).replace("|", "/")]
        rows.append(f"| {' | '.join(cells)} |\n")
    return rows


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", nargs="+", type=Path, help="parity/browser.json of each model")
    parser.add_argument("--output", type=Path, required=True, help="page whose table is written anew")
    args = parser.parse_args(argv)
    records = [read_browser(path) for path in args.records]
    used = "; ".join(f"{name} {version}" for name, version in records[0]["versions"].items())
    table = HEADER + "".join(row for record in records for row in as_rows(record))
    text = f"{MARK}\nMeasured with {used}. WebGPU: {records[0]['adapter']}.\n\n{table}{END}"
    before, _, rest = args.output.read_text(encoding="utf-8").partition(MARK)
    args.output.write_text(f"{before}{text}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
