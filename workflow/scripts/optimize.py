"""Optimize the exported graph: fuse attention, layer normalization and GELU where the architecture allows.

Transformer fusion comes from onnxruntime's own optimizer. Where it knows nothing to fuse, the graph gets
onnxruntime's basic optimizations, which are the same on every CPU. What was done is recorded.
"""

import argparse
import logging
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxproof.cli import run_script
from onnxproof.files import read_json, staged_folder, versions_of, write_json
from onnxproof.onnx_folder import MODEL_FILE, copy_support_files, count_operators, describe_variant

if TYPE_CHECKING:
    import onnx

#: ``model_type`` of config.json → the graph shape that onnxruntime's fusions were written for.
FUSION_TYPES = dict.fromkeys(("bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"), "bert")

FUSED_OPERATORS = (
    "Attention",
    "MultiHeadAttention",
    "SkipLayerNormalization",
    "BiasGelu",
    "Gelu",
    "FastGelu",
)


def optimize_basic(source: Path, target: Path) -> None:
    """Apply onnxruntime's basic graph optimizations (constant folding, redundant nodes) offline."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def fuse_transformer(source: Path, config: dict[str, Any]) -> "onnx.ModelProto":
    """Fuse a BERT-shaped encoder with onnxruntime's transformer optimizer.

    Embedding fusion is left off: it would hide the embedding tables from the quantizer. FastGelu too: it is an
    approximation.
    """
    # onnxruntime imports torch here whenever it is installed, and uses it for nothing that we ask of it.
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    logging.getLogger("onnxruntime.transformers").setLevel(logging.WARNING)
    fusion_type = FUSION_TYPES[config["model_type"]]
    options = FusionOptions(fusion_type)
    options.enable_embed_layer_norm = False
    fused = optimize_model(
        str(source),
        fusion_type,
        num_heads=config.get("num_attention_heads") or config.get("n_heads") or 0,
        hidden_size=config.get("hidden_size") or config.get("dim") or 0,
        optimization_options=options,
        opt_level=0,  # the basic optimizations have run already
    )
    return fused.model


def optimize_graph(source: Path, config: dict[str, Any], scratch: Path) -> tuple["onnx.ModelProto", dict[str, Any]]:
    """Return the optimized graph and what was done: ``{method, fused operator counts, reason}``."""
    import onnx

    from onnxproof.rewrites import normalize_with_one_node, remove_unused_domains

    model = onnx.load(source)
    rewritten = normalize_with_one_node(model)
    onnx.save(model, scratch / "rewritten.onnx")
    optimize_basic(scratch / "rewritten.onnx", scratch / "basic.onnx")
    settings: dict[str, Any] = {"rewrites": {"LpNormalization": rewritten}}
    model_type = config.get("model_type")
    if model_type in FUSION_TYPES:
        model = fuse_transformer(scratch / "basic.onnx", config)
        fused = {name: count for name, count in count_operators(model).items() if name in FUSED_OPERATORS}
        if fused:
            remove_unused_domains(model)
            return model, settings | {"method": "onnxruntime transformer fusion", "fused": fused}
        reason = "the fusions found none of their patterns in this graph"
    else:
        reason = f"no fusions are known for the model type {model_type}"
    model = onnx.load(scratch / "basic.onnx")
    remove_unused_domains(model)
    return model, settings | {"method": "onnxruntime basic optimization", "fused": {}, "reason": reason}


def optimize(model: str, source: Path, source_manifest: Path, folder: Path, manifest: Path) -> None:
    """Optimize one exported model and describe the result."""
    import onnx

    task = read_json(source_manifest)["task"]
    with staged_folder(folder) as stage:
        with tempfile.TemporaryDirectory(dir=stage, prefix=".optimize.") as scratch:
            graph, settings = optimize_graph(source / MODEL_FILE, read_json(source / "config.json"), Path(scratch))
        onnx.save(graph, stage / MODEL_FILE)
        copy_support_files(source, stage)
        description = describe_variant(model, "optimized", task, stage, settings, versions_of("onnx", "onnxruntime"))
    write_json(manifest, description)
    fused = ", ".join(f"{count} {name}" for name, count in settings["fused"].items())
    print(f"{model}: {settings['method']}: {fused or settings['reason']}", flush=True)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and optimize."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the model's name in config.yaml")
    parser.add_argument("--source", type=Path, required=True, help="folder with the exported ONNX model")
    parser.add_argument("--source-manifest", type=Path, required=True, help="its manifest")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write the optimized model to")
    parser.add_argument("--manifest", type=Path, required=True, help="JSON file to describe it in")
    args = parser.parse_args(argv)
    optimize(args.model, args.source, args.source_manifest, args.output_dir, args.manifest)


if __name__ == "__main__":
    run_script(main)
