"""Quantize the optimized graph to int8 dynamically: weights now, activations when the model runs."""

import argparse
from pathlib import Path
from typing import Any

from onnxproof.calibration import calibration_feeds
from onnxproof.cli import run_script
from onnxproof.files import read_json, sha256_of, staged_folder, versions_of, write_json
from onnxproof.onnx_folder import MODEL_FILE, copy_support_files, describe_variant
from onnxproof.quantization.portability import check_portability
from onnxproof.quantization.recipe import apply_recipe
from onnxproof.texts import CALIBRATION_TEXTS

#: A few outlier channels stay in float, the others move into the weights as far as that lowers the error; slow fused
#: normalizations are taken apart; embedding tables get one scale per row, constant weights one per output channel.
INT8_RECIPE: list[dict[str, Any]] = [
    {"pass": "outlier_channels", "ratio": 3.0, "most": 8},
    {"pass": "smooth", "strength": None, "weight_range": "pair_safe"},
    {"pass": "split_skip_layer_norm"},
    {"pass": "embedding_rows"},
    {"pass": "dynamic_matmul", "weight_range": "pair_safe", "exclude": []},
]


def quantize(model: str, source: Path, source_manifest: Path, folder: Path, manifest: Path) -> None:
    """Quantize one optimized model and describe the result."""
    import onnx

    task = read_json(source_manifest)["task"]
    optimized = onnx.load(source / MODEL_FILE)
    feeds = calibration_feeds(source, [value.name for value in optimized.graph.input])
    graph = apply_recipe(optimized, INT8_RECIPE, feeds)
    with staged_folder(folder) as stage:
        onnx.save(graph, stage / MODEL_FILE)
        copy_support_files(source, stage)
        description = describe_variant(
            model,
            "int8",
            task,
            stage,
            {
                "recipe": INT8_RECIPE,
                "portability": check_portability(graph),
                "calibration": {"texts": len(feeds), "sha256": sha256_of(CALIBRATION_TEXTS)},
            },
            versions_of("onnx", "onnxruntime", "numpy", "tokenizers"),
        )
    write_json(manifest, description)
    before, after = ((path / MODEL_FILE).stat().st_size / 1e6 for path in (source, folder))
    print(f"{model}: {before:.1f} MB to {after:.1f} MB", flush=True)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and quantize."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the model's name in config.yaml")
    parser.add_argument("--source", type=Path, required=True, help="folder with the optimized ONNX model")
    parser.add_argument("--source-manifest", type=Path, required=True, help="its manifest")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write the quantized model to")
    parser.add_argument("--manifest", type=Path, required=True, help="JSON file to describe it in")
    args = parser.parse_args(argv)
    quantize(args.model, args.source, args.source_manifest, args.output_dir, args.manifest)


if __name__ == "__main__":
    run_script(main)
