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

#: The gate's default limits, by variant.
THRESHOLDS = resolve_models({"models": {"m": {"source": {"path": "."}}}})["m"]["parity"]["thresholds"]


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
    reference = read_reference(results / "reference", results / "reference.json")

    def measured(variant: str) -> tuple[VariantRecord, ParityRecord]:
        manifest = read_variant(onnx / f"{variant}.json")
        return manifest, measure_parity.measure(onnx / variant, manifest, reference, batch_size=4, threads=1)

    export.export(model, snapshot, task, onnx / "fp32", onnx / "fp32.json")
    yield measured("fp32")
    source = (onnx / "optimized", onnx / "optimized.json")
    optimize.optimize(model, onnx / "fp32", onnx / "fp32.json", *source)
    yield measured("optimized")
    quantize.quantize(model, "int8", *source, targets, CALIBRATION_TEXTS, onnx / "int8", onnx / "int8.json")
    yield measured("int8")


def missed(parity: ParityRecord, thresholds: dict[str, float | None] | None = None) -> list[Verdict]:
    """Return the limits that a variant misses, the gate's defaults where none are given."""
    return [verdict for verdict in judge(parity, thresholds or THRESHOLDS[parity["variant"]]) if not verdict.passed]
