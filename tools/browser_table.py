"""Write the table of docs/browser.md: how far the answers of each file in transformers.js are from PyTorch's.

    make browser

It runs the workflow on five kinds of models with all variants, and every file in Node and in Chromium, on WebAssembly
and on WebGPU. Without a GPU, that takes more than an hour.
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

import project_path
from onnxproof.formatting import format_figure
from onnxproof.parity.browser import DEVICES
from onnxproof.records.browser import BrowserRecord, BrowserRun, read_browser
from onnxproof.release.announcement import DEVICE_NAMES, DTYPE_FILES, DTYPES

MARK, END = "<!-- table -->", "<!-- end of table -->"
VARIANTS = ["fp32", "fp16", "int8", "uint8", "int8-invariant", "w8", "q4", "q4f16"]
#: The trained models of this repository: an embedder, a classifier and a generator.
TRAINED = ("config.yaml", "examples/story-teller.yaml")
#: The generator is asked for so many texts only: where there is no GPU, WebGPU takes minutes for each variant as it is.
GENERATOR, STORIES, FEW_STORIES = "story-teller-tiny", "examples/story-heldout.jsonl", 4
#: Cases of tests/support/architectures.py, with random weights → what they are called in the table.
TINY_MODELS = {
    "vit image-classification": "tiny-vit",
    "wav2vec2 automatic-speech-recognition": "tiny-wav2vec2",
    "whisper speech-to-text": "tiny-whisper",
}
#: What an error says → the same in a word or two.
REASONS = {"requires f16": "no `shader-f16`"}
LONGEST_REASON = 90


def as_rows(record: BrowserRecord) -> list[str]:
    """Return a row of the table for each variant: what was measured on each device, or what stops it there."""
    runs = {(run["variant"], run["device"]): run for run in record["runs"]}
    rows = []
    for variant in dict.fromkeys(run["variant"] for run in record["runs"]):
        cells = [record["model"], variant, dtype_of(variant), *(as_cell(runs[variant, device]) for device in DEVICES)]
        rows.append(f"| {' | '.join(cells)} |\n")
    return rows


def dtype_of(variant: str) -> str:
    """Return what a program calls a variant; nothing where transformers.js has no name for it."""
    dtype = DTYPES.get(variant, "")
    return "`q8`, `int8`" if dtype == "q8" else f"`{dtype}`" if dtype in DTYPE_FILES else ""


def as_cell(run: BrowserRun) -> str:
    """Return the largest difference of the last output, its lowest cosine, and the share of the same tokens, if any."""
    if "answers" not in run:
        told = str(run["error"])
        short = next((reason for part, reason in REASONS.items() if part in told), told[-LONGEST_REASON:])
        return short.replace("|", "/")
    output = list(run["answers"]["outputs"].values())[-1]
    figures = [format_figure(output["max_abs_diff"]), format_figure(output["cosine_min"])]
    tokens = run["answers"]["task_metrics"].get("greedy_token_match")
    return "; ".join(figures if tokens is None else [*figures, format_figure(tokens)])


def as_table(records: list[BrowserRecord]) -> str:
    """Return the whole table, with the versions that it was measured with."""
    used = "; ".join(f"{name} {version}" for name, version in records[0]["versions"].items())
    names = [f"{DEVICE_NAMES[device]} (`{device}`)" for device in DEVICES]
    header = f"| model | variant | `dtype` | {' | '.join(names)} |\n|{' --- |' * (3 + len(names))}\n"
    rows = "".join(row for record in records for row in as_rows(record))
    return f"Measured with {used}. WebGPU: {records[0]['adapter']}.\n\n{header}{rows}"


def settings_of_models(folder: Path) -> dict[str, Any]:
    """Save the tiny models in a project's folder and return the configuration of all models."""
    from architectures import all_cases
    from project import LOOSE

    shutil.copytree(project_path.ROOT / "examples", folder / "examples")
    models: dict[str, Any] = {}
    for file in TRAINED:
        models |= yaml.safe_load((project_path.ROOT / file).read_text(encoding="utf-8"))["models"]
    for case in all_cases():
        if name := TINY_MODELS.get(case.name):
            case.save(folder / "models" / name)
            models[name] = {"source": {"path": f"models/{name}"}}
            models[name]["parity"] = {"thresholds": dict.fromkeys(VARIANTS[2:], LOOSE)}
    stories = (folder / STORIES).read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "stories.jsonl").write_text("".join(stories[:FEW_STORIES]), encoding="utf-8")
    models[GENERATOR]["parity"] = {"evaluation_texts": "stories.jsonl"}
    return {name: settings | {"variants": VARIANTS} for name, settings in models.items()}


def measure_models(folder: Path) -> list[Path]:
    """Run the workflow in a folder; return the ``parity/browser.json`` of each model.

    Raises:
        RuntimeError: the run failed; the end of its output is in the message.
    """
    from project import make_project

    folder.mkdir(parents=True)
    project = make_project(folder)
    models = settings_of_models(folder)
    project.configure({"models": models})
    records = [f"results/{model}/parity/browser.json" for model in models]
    run = project.snakemake(*records, timeout=4 * 3600)
    if run.returncode:
        raise RuntimeError(run.stdout[-4000:])
    return [folder / record for record in records]


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "records", nargs="*", type=Path, help="parity/browser.json of each model (default: measured on the spot)"
    )
    parser.add_argument("--output", type=Path, required=True, help="page whose table is written anew")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        paths = args.records or measure_models(Path(scratch) / "project")
        table = as_table([read_browser(path) for path in paths])
    before, _, rest = args.output.read_text(encoding="utf-8").partition(MARK)
    args.output.write_text(f"{before}{MARK}\n{table}{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
