"""The chain of one model in this process: the functions that the rules' scripts are made of, without Snakemake."""

from collections.abc import Iterator
from pathlib import Path

import export
import measure_parity
import optimize
import quantize
import record_reference
from onnxproof.config.resolve import resolve_models
from onnxproof.inputs.reference import read_reference
from onnxproof.inputs.texts import CALIBRATION_TEXTS
from onnxproof.parity.gate import Verdict, judge
from onnxproof.records.parity import ParityRecord
from onnxproof.records.variant import VariantRecord, read_variant
from onnxproof.vocabulary import MADE_OF

_DEFAULTS = resolve_models({"models": {"m": {"source": {"path": "."}}}})["m"]
#: The gate's default limits, by variant, and what a recipe must reach by default.
THRESHOLDS, TARGETS = _DEFAULTS["parity"]["thresholds"], _DEFAULTS["quantization"]["targets"]


def run_chain(
    model: str,
    snapshot: Path,
    results: Path,
    texts: Path,
    targets: dict[str, float | None],
    task: str | None = None,
) -> Iterator[tuple[VariantRecord, ParityRecord]]:
    """Convert a snapshot; yield each variant's manifest and parity as soon as they are there.

    ``targets`` is what the recipe of int8 is to reach on the calibration inputs.
    """
    onnx = results / "onnx"
    record_reference.record(model, snapshot, task, texts, 1, 4, results / "reference", results / "reference.json")
    export.export(model, snapshot, task, onnx / "fp32", onnx / "fp32.json")
    yield measure_variant(results, "fp32")
    optimize.optimize(model, onnx / "fp32", onnx / "fp32.json", onnx / "optimized", onnx / "optimized.json")
    yield measure_variant(results, "optimized")
    yield quantize_variant(model, results, "int8", targets)


def quantize_variant(
    model: str, results: Path, variant: str, targets: dict[str, float | None]
) -> tuple[VariantRecord, ParityRecord]:
    """Make a quantized variant of what ``run_chain`` has made; return its manifest and parity."""
    onnx = results / "onnx"
    source = MADE_OF.get(variant, "optimized")
    files = (onnx / variant, onnx / f"{variant}.json")
    quantize.quantize(model, variant, onnx / source, onnx / f"{source}.json", targets, CALIBRATION_TEXTS, *files)
    return measure_variant(results, variant)


def measure_variant(results: Path, variant: str) -> tuple[VariantRecord, ParityRecord]:
    """Return the manifest of a variant, and its parity."""
    folder = results / "onnx" / variant
    manifest = read_variant(folder.with_name(f"{variant}.json"))
    reference = read_reference(results / "reference", results / "reference.json")
    return manifest, measure_parity.measure(folder, manifest, reference, batch_size=4, threads=1)


def missed(parity: ParityRecord, thresholds: dict[str, float | None] | None = None) -> list[Verdict]:
    """Return the limits that a variant misses, the gate's defaults where none are given."""
    return [verdict for verdict in judge(parity, thresholds or THRESHOLDS[parity["variant"]]) if not verdict.passed]
