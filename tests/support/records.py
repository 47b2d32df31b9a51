"""Records as the pipeline writes them, for tests that need one: plausible, whole, and with what matters to a test.

Each function takes the keys that a test is about; all others have values that fit the record's type.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from onnxproof.files import FileEntry
from onnxproof.records.benchmark import BenchmarkRecord, Cpu, RecordedCase, TimedStep, Writing
from onnxproof.records.parity import OutputDifference, ParityRecord
from onnxproof.records.reference import Padding, ReferenceRecord
from onnxproof.records.release import (
    PreparedRelease,
    ReleasedVariant,
    ReleaseManifest,
    ReleaseRecord,
    VerificationRecord,
)
from onnxproof.records.source import SourceRecord
from onnxproof.records.variant import QuantizationSettings, VariantRecord
from onnxproof.vocabulary import Step

SHA256 = "0" * 64
VERSIONS = {"python": "3.11.9", "numpy": "2.4.6", "onnxruntime": "1.32.0"}
CPU: Cpu = {
    "model": "Intel(R) Xeon(R) Processor",
    "flags": ["avx2", "avx512f", "avx512_vnni"],
    "logical_cores": 2,
    "physical_cores": 1,
    "available_cores": 2,
}


def make_entry(size: int = 1000) -> FileEntry:
    return {"size": size, "sha256": SHA256}


def make_source(**changes: Any) -> SourceRecord:
    """``source.json`` of a local model."""
    source: SourceRecord = {
        "model": "tiny",
        "kind": "path",
        "path": "models/tiny",
        "requested_revision": None,
        "revision": None,
        "files": {"config.json": make_entry()},
        "total_bytes": 1000,
        "versions": {"python": "3.11.9"},
    }
    return source | changes


def make_padding(**changes: Any) -> Padding:
    padding: Padding = {"side": "right", "values": {"input_ids": 0, "attention_mask": 0}, "special_tokens": {}}
    return padding | changes


def make_reference(task: str = "text-classification", **changes: Any) -> ReferenceRecord:
    """``reference.json`` of a model of texts."""
    lengths = {"tokens": 12, "shortest": 2, "longest": 7, "max_tokens": 8, "max_tokens_of_model": 8}
    reference: ReferenceRecord = {
        "model": "tiny",
        "task": task,
        "judged_as": task,
        "reference": "pytorch",
        "inputs": {"count": 3, "sha256": SHA256, **lengths},
        "outputs": {"logits": {"shape": [3, 2], "dtype": "float32"}},
        "padding": make_padding(),
        "labels": {"0": "bad", "1": "good"},
        "label_count": 2,
        "batch_invariance": {"batch_size": 8, "inputs": 3, "max_abs_diff": 0.0, "cosine_min": 1.0},
        "usage": {"use": task, "interface": "pipeline", "inputs": 28, "takes": "texts", "activation": "softmax"},
        "threads": 1,
        "files": {"inputs.safetensors": make_entry(), "outputs.safetensors": make_entry()},
        "versions": {"python": "3.11.9", "torch": "2.13.0", "transformers": "5.24.0"},
    }
    return reference | changes


def make_variant(variant: str = "fp32", **changes: Any) -> VariantRecord:
    """``onnx/{variant}.json`` of a model with one graph."""
    record: VariantRecord = {
        "model": "tiny",
        "variant": variant,
        "task": "text-classification",
        "opset": {"ai.onnx": 18, "com.microsoft": 1},
        "ir_version": 10,
        "inputs": ["input_ids", "attention_mask"],
        "outputs": ["logits"],
        "operators": {"MatMul": 2, "Add": 1},
        "fused": {},
        "settings": {"exporter": "transformers", "dtype": "float32", "attention": "eager"},
        "files": {"model.onnx": make_entry()},
        "versions": VERSIONS,
    }
    return record | changes


def make_quantization(**changes: Any) -> QuantizationSettings:
    """The settings of a quantized graph."""
    recipe = [{"pass": "embedding_rows"}, {"pass": "dynamic_matmul", "weight_range": "pair_safe"}]
    rung = {"recipe": recipe, "metrics": {"cosine_min": 0.99}, "size_ratio": 0.25, "speedup": 2.0}
    settings: QuantizationSettings = {
        "recipe": recipe,
        "search": {
            "targets": {"cosine_min": 0.98},
            "reached": True,
            "rungs": [{**rung, "missed": [], "distance": 0.5}],
        },
        "portability": {
            "integer_products": 2,
            "instruction_sets": {"x86 with AVX2": "exact"},
            "worst_pair_sum": 32_000,
            "pair_sum_limit": 32_767,
            "may_saturate": [],
            "tried_here": {"instruction_set": "x86 with AVX2", "products": 2, "wrong": []},
        },
        "calibration": {"texts": 8, "sha256": SHA256, "bundled": True},
    }
    return settings | changes


def make_output(**changes: float | None) -> OutputDifference:
    output: OutputDifference = {
        "shape": [3, 2],
        "dtype": "float32",
        "max_abs_diff": 1e-6,
        "mean_abs_diff": 1e-7,
        "max_relative_diff": 1e-6,
        "cosine_min": 1.0,
        "cosine_mean": 1.0,
    }
    return output | changes


def make_parity(variant: str = "fp32", **changes: Any) -> ParityRecord:
    """``parity/{variant}.json`` of a model that agrees with PyTorch."""
    parity: ParityRecord = {
        "model": "tiny",
        "variant": variant,
        "task": "text-classification",
        "provider": "CPUExecutionProvider",
        "reference": "pytorch",
        "model_sha256": SHA256,
        "inputs": {"count": 3, "sha256": SHA256},
        "outputs": {"logits": make_output()},
        "task_metrics": {"top1_agreement": 1.0, "max_probability_diff": 1e-7, "mean_kl": 1e-12},
        "batch_invariance": {"batch_size": 8, "max_abs_diff": 1e-6, "cosine_min": 1.0},
        "reference_batch_invariance": {"batch_size": 8, "inputs": 3, "max_abs_diff": 0.0, "cosine_min": 1.0},
        "samples": [],
        "emulates_float16": False,
        "intra_op_threads": 1,
        "versions": VERSIONS,
    }
    return parity | changes


def make_case(
    batch: int, sequence: int | None, p50_ms: float, fp32_ms: float | None = None, threads: int = 2
) -> RecordedCase:
    """A timed case; ``fp32_ms`` is fp32's median time in the same run, None for fp32 itself."""
    case: RecordedCase = {
        "batch": batch,
        "sequence": sequence,
        "intra_op_threads": threads,
        "p50_ms": p50_ms,
        "p90_ms": p50_ms * 1.12,
        "p99_ms": p50_ms * 1.6,
        "items_per_s": batch * 1000 / p50_ms,
        "iterations": 2,
        "samples_ms": [[p50_ms], [p50_ms]],
    }
    if fp32_ms is None:
        return case
    speedup = fp32_ms / p50_ms
    return {**case, "speedup_vs_fp32": speedup, "speedup_iqr": [speedup * 0.95, speedup * 1.06]}


def make_step(
    step: Step, batch: int, context: int, p50_ms: float, fp32_ms: float | None = None, threads: int = 2
) -> TimedStep:
    """A timed step of writing; ``fp32_ms`` is fp32's median time in the same run, None for fp32 itself."""
    case = make_case(batch, context, p50_ms, fp32_ms, threads)
    tokens = context if step == "first_token" else batch
    timed: TimedStep = {
        "step": step,
        "context": context,
        "tokens_per_s": tokens * 1000 / p50_ms,
        "peak_rss_mb": 190.0,
    }
    return timed | {key: value for key, value in case.items() if key not in ("sequence", "items_per_s")}


def make_writing(cases: Sequence[TimedStep], baseline: Sequence[TimedStep] | None = None, **changes: Any) -> Writing:
    """How fast a model writes; ``baseline`` are fp32's steps in the same run, None for fp32 itself."""
    compared = None if baseline is None else {"variant": "fp32", "cases": list(baseline)}
    writing: Writing = {"new_tokens": 4, "cases": list(cases), "left_out": [], "baseline": compared}
    return writing | changes


def make_benchmark(
    variant: str = "fp32",
    cases: Sequence[RecordedCase] = (),
    baseline: Sequence[RecordedCase] | None = None,
    **changes: Any,
) -> BenchmarkRecord:
    """``benchmark/{variant}.json``; ``baseline`` are fp32's cases in the same run, None for fp32 itself."""
    counts = [case["intra_op_threads"] for case in cases]
    record: BenchmarkRecord = {
        "model": "tiny",
        "variant": variant,
        "provider": "pytorch-cpu" if variant == "pytorch" else "CPUExecutionProvider",
        "intra_op_threads": max(counts, default=2),
        "machine": None,
        "host": "node1",
        "cpu": CPU,
        "load_ms": 88.5,
        "load_samples_ms": [88.5],
        "rss_before_load_mb": 61.0,
        "peak_rss_mb": 180.0,
        "size_mb": 90.0,
        "settings": {
            "warmup": 3,
            "rounds": 20,
            "seconds_per_case": 10,
            "iterations": 5,
            "lead_in": 1,
            "inter_op_threads": 1,
            "execution_mode": "sequential",
            "spinning": True,
            "memory_arena": True,
            "seed": 0,
        },
        "cases": list(cases),
        "baseline": None if baseline is None else {"variant": "fp32", "cases": list(baseline)},
        "notes": [],
        "versions": VERSIONS,
    }
    return record | changes


def make_released_variant(file: str = "onnx/model.onnx", **changes: Any) -> ReleasedVariant:
    """What a release's manifest says of a variant."""
    case = {key: value for key, value in make_case(1, 16, 2.0).items() if key != "samples_ms"}
    variant: ReleasedVariant = {
        "file": file,
        "sha256": SHA256,
        "settings": {"exporter": "transformers", "dtype": "float32"},
        "opset": {"ai.onnx": 18},
        "parity": {
            "inputs": {"count": 3, "sha256": SHA256},
            "task_metrics": {"top1_agreement": 1.0},
            "batch_invariance": {"batch_size": 8, "max_abs_diff": 0.0, "cosine_min": 1.0},
        },
        "gate": make_gate({"top1_agreement": 1.0}),
        "benchmark": {
            "cpu": CPU,
            "load_ms": 88.5,
            "peak_rss_mb": 180.0,
            "size_mb": 90.0,
            "cases": [{"shape": "1x16", **case}],
        },
        "versions": VERSIONS,
    }
    return variant | changes


def make_gate(thresholds: Mapping[str, float]) -> dict[str, Any]:
    """A gate that passed with exactly what it allows."""
    limits = [
        {"metric": metric, "measured": allowed, "allowed": allowed, "at_least": not metric.endswith("diff")}
        for metric, allowed in thresholds.items()
    ]
    return {"passed": True, "limits": limits, "thresholds": dict(thresholds)}


def make_prepared(variants: Mapping[str, ReleasedVariant] | None = None, **changes: Any) -> PreparedRelease:
    """What the card of a release is made from."""
    source, reference = make_source(), make_reference()
    prepared: PreparedRelease = {
        "model": "tiny",
        "task": "text-classification",
        "source": {key: value for key, value in source.items() if key not in ("model", "files", "versions")},
        "reference": {key: reference[key] for key in ("inputs", "outputs", "padding", "usage", "versions")},
        "headline": {"metric": "top1_agreement", "meaning": "the same answer", "cases": ["1x16"]},
        "variants": dict(variants or {"fp32": make_released_variant()}),
        "recommended": [],
        "inputs": {"source": source["files"], "reference": reference["files"], "onnx": {}},
        "versions": {"python": "3.11.9"},
        "reproduce": {"config": {"models": {}}, "commands": ["make setup"]},
        "changed_files": {},
        "golden": {"count": 3, "answered": 3},
    }
    return prepared | changes


def make_manifest(variants: Mapping[str, ReleasedVariant] | None = None, **changes: Any) -> ReleaseManifest:
    """``release/manifest.json``, before its files are listed."""
    return {**make_prepared(variants), "files": {}} | changes


def make_release_record(**changes: Any) -> ReleaseRecord:
    """``release.json``."""
    record: ReleaseRecord = {"model": "tiny", "folder": "release", "variants": {"fp32": "onnx/model.onnx"}, "files": {}}
    return record | changes


def make_verification(**changes: Any) -> VerificationRecord:
    """``verified.json`` of a release that passed."""
    check = {"subject": "files", "what": "sha256", "seen": "3 of 3 as released", "allowed": "all", "verdict": "pass"}
    record: VerificationRecord = {
        "model": "tiny",
        "passed": True,
        "signature": "absent",
        "cpu": CPU["model"],
        "versions": VERSIONS,
        "checks": [check],
    }
    return record | changes
