"""Judge a variant: exit non-zero when a measured difference is larger than the configuration allows.

The rule ``release`` judges by the same measurements, so a release that an earlier verdict allowed is deleted.
"""

import argparse
import json
from pathlib import Path

from onnxproof.cli import UserError, run_script
from onnxproof.files import read_json, write_text
from onnxproof.parity.gate import judge
from onnxproof.quantization.search.rung import Rung
from onnxproof.records.parity import read_parity


def recipes_tried(manifest: Path) -> str:
    """Return what the search for a quantized variant's recipe tried, a line each; nothing for other variants.

    A model of several graphs has a search for each.
    """
    settings = read_json(manifest)["settings"]
    told = []
    for file, own in settings.get("graphs", {"": settings}).items():
        rungs = own.get("search", {}).get("rungs", [])
        if rungs:
            told.append(f"Recipes tried{f' for {file}' if file else ''}, on the calibration inputs:")
            told += [f"  {number}. {Rung(**rung).describe()}" for number, rung in enumerate(rungs, 1)]
    return "".join(f"\n{line}" for line in told)


def gate(
    parity_file: Path,
    thresholds: dict[str, float | None],
    passed_file: Path,
    manifest: Path | None = None,
) -> None:
    """Write ``passed_file`` when all thresholds hold.

    Raises:
        UserError: a threshold is missed; the message says which, what was measured and what is allowed, and, of a
            quantized variant with a ``manifest``, which recipes were tried.
    """
    parity = read_parity(parity_file)
    name = f"{parity['model']} {parity['variant']}"
    verdicts = judge(parity, thresholds)
    missed = [verdict for verdict in verdicts if not verdict.passed]
    if missed:
        raise UserError(
            f"{name} is not equal enough to PyTorch over {parity['inputs']['count']} inputs: "
            + "; ".join(map(str, missed))
            + f". The measurements are in {parity_file}; the limits in config.yaml under parity.thresholds"
            + (recipes_tried(manifest) if manifest else "")
        )
    lines = [f"{name}: {verdict}" for verdict in verdicts]
    print("\n".join(lines), flush=True)
    write_text(passed_file, "\n".join(lines) + "\n")


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parity", type=Path, required=True, help="measured parity of the variant")
    parser.add_argument(
        "--thresholds",
        type=json.loads,
        required=True,
        help='allowed differences, as JSON: {"cosine_min": 0.99}',
    )
    parser.add_argument("--output", type=Path, required=True, help="file to write when the gate is passed")
    parser.add_argument("--onnx-manifest", type=Path, help="the variant's manifest, to tell which recipes were tried")
    args = parser.parse_args(argv)
    gate(args.parity, args.thresholds, args.output, args.onnx_manifest)


if __name__ == "__main__":
    run_script(main)
