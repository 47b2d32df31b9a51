"""The chain of one model in this process: the functions that the rules' scripts are made of, without Snakemake."""

from pathlib import Path
from typing import Any

import export
import measure_parity
import optimize
import quantize
import record_reference
from onnxproof.config import resolve_models
from onnxproof.files import read_json
from onnxproof.gate import Verdict, judge
from onnxproof.reference import read_reference

#: The gate's default limits, by variant.
THRESHOLDS = resolve_models({"models": {"m": {"source": {"path": "."}}}})["m"]["parity"]["thresholds"]


def run_chain(
    model: str,
    snapshot: Path,
    results: Path,
    texts: Path,
    task: str | None = None,
    variants: tuple[str, ...] = ("fp32", "optimized", "int8"),
) -> dict[str, Any]:
    """Convert a snapshot and measure each variant; return the variants' manifests and parity by variant."""
    onnx = results / "onnx"
    record_reference.record(model, snapshot, task, texts, 1, 4, results / "reference", results / "reference.json")
    export.export(model, snapshot, task, onnx / "fp32", onnx / "fp32.json")
    steps = {"optimized": (optimize.optimize, "fp32"), "int8": (quantize.quantize, "optimized")}
    for variant in variants[1:]:
        step, source = steps[variant]
        step(model, onnx / source, onnx / f"{source}.json", onnx / variant, onnx / f"{variant}.json")
    reference = read_reference(results / "reference", results / "reference.json")
    measured = {}
    for variant in variants:
        manifest = read_json(onnx / f"{variant}.json")
        parity = measure_parity.measure(onnx / variant, manifest, reference, batch_size=4, threads=1)
        measured[variant] = {"manifest": manifest, "parity": parity}
    return measured


def missed(parity: dict[str, Any], thresholds: dict[str, float | None] | None = None) -> list[Verdict]:
    """Return the limits that a variant misses, the gate's defaults where none are given."""
    return [verdict for verdict in judge(parity, thresholds or THRESHOLDS[parity["variant"]]) if not verdict.passed]
