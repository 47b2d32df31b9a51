"""Compare our rounding of weights to 4 bits with that of onnxruntime's own quantizer, on a language model.

python tools/compare_blocks.py --results results/story-teller-tiny --texts examples/story-calibration.jsonl

All files start from the optimized graph of a finished run and store the table of embeddings in the same blocks, by our
pass; the products are rounded by us or by one of onnxruntime's ways. The answers are compared with PyTorch's recorded
ones. Perplexity of predictable texts hardly differs; the divergence of the next token's distribution tells more.
"""

import argparse
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    HQQWeightOnlyQuantConfig,
    KQuantWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)

import project_path  # noqa: F401 - the imports below are found through it
from onnxproof.cli import run_script
from onnxproof.files import versions_of, write_text
from onnxproof.graph.external_data import load_model
from onnxproof.graph.files import MODEL_FILE
from onnxproof.graph.folder import model_bytes
from onnxproof.graph.inputs import inputs_of_graph
from onnxproof.inputs.reference import read_reference
from onnxproof.parity.measure import measure_sessions, open_sessions
from onnxproof.quantization.recipe import apply_recipe
from onnxproof.quantization.search.judge import Judge

TASK = "text-generation"
#: Bits of the table of embeddings, and weights in a block of the table and of the products: the first recipe of `q4`,
#: and its first one with 8 bits for the table.
FORMS = ((4, 128), (8, 32))

Rounding = Callable[[onnx.ModelProto], onnx.ModelProto]


def round_with(config: Any, block: int) -> Rounding:
    """Return what rounds all products in one of onnxruntime's ways."""

    def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
        quantizer = MatMulNBitsQuantizer(model, bits=4, block_size=block, algo_config=config)
        quantizer.process()
        made: onnx.ModelProto = quantizer.model.model
        return made

    return rounded


def roundings(block: int, judge: Judge) -> dict[str, Rounding]:
    """Return the ways to round, by the names in the table."""
    ours = {"pass": "block_weights", "bits": 4, "block_size": block, "zero_points": True, "rounding": "compensated"}
    ways: dict[str, Rounding] = {
        "**ours**": lambda model: apply_recipe(model, [ours], judge.calibration),
        "onnxruntime, nearest": round_with(DefaultWeightOnlyQuantConfig(block_size=block, is_symmetric=True), block),
        "onnxruntime, nearest with zero points": round_with(DefaultWeightOnlyQuantConfig(block_size=block), block),
        "onnxruntime, HQQ": round_with(HQQWeightOnlyQuantConfig(block_size=block), block),
        "onnxruntime, k_quant": round_with(KQuantWeightOnlyQuantConfig(), block),
    }
    return ways


def measure_form(results: Path, texts: Path, bits: int, block: int, threads: int) -> list[str]:
    """Return the rows of the table for one form of the files."""
    reference = read_reference(results / "reference", results / "reference.json")
    whole = model_bytes(results / "onnx" / "fp32")
    rows = []
    with tempfile.TemporaryDirectory(dir=results) as scratch:
        model = load_model(results / "onnx/optimized" / MODEL_FILE, Path(scratch))
        _, inputs = inputs_of_graph(results / "onnx/optimized", MODEL_FILE, TASK, model.graph.input, texts, [])
        judge = Judge(model, inputs, TASK)
        with_table = apply_recipe(model, [{"pass": "embedding_blocks", "bits": bits, "block_size": block}])
        for name, rounded in roundings(block, judge).items():
            path = Path(scratch) / MODEL_FILE
            copy = onnx.ModelProto()
            copy.CopyFrom(with_table)
            onnx.save(rounded(copy), path)
            sessions = open_sessions({MODEL_FILE: path}, results / "onnx/optimized", threads)
            metrics = measure_sessions(name, sessions, reference, 8).task_metrics
            perplexity, divergence = metrics["perplexity_ratio"], metrics["next_token_kl"]
            size = path.stat().st_size / whole
            rows.append(f"| {bits}, {block} | {name} | {size:.3f} | {perplexity:.6f} | {divergence:.6f} |")
            print(rows[-1], flush=True)
    return rows


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, measure, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="results of a run, with the optimized graph")
    parser.add_argument("--texts", type=Path, required=True, help="calibration texts of our rounding")
    parser.add_argument("--threads", type=int, default=1, help="intra-op threads [%(default)s]")
    parser.add_argument("--table", type=Path, help="Markdown file to write")
    args = parser.parse_args(argv)
    for name in ("onnxruntime.quantization.matmul_nbits_quantizer", "neural_compressor"):
        logging.getLogger(name).setLevel(logging.WARNING)
    rows = [row for bits, block in FORMS for row in measure_form(args.results, args.texts, bits, block, args.threads)]
    versions = ", ".join(f"{name} {version}" for name, version in versions_of("onnxruntime", "torch").items())
    lines = [
        "# Rounding to 4 bits\n",
        f"`make bench-blocks` writes this page. It compares our rounding with onnxruntime's, on {args.results.name}, "
        "after the same table of embeddings. Size is of `fp32`'s, perplexity of PyTorch's; the KL divergence of the "
        "next token is in nats.\n",
        "| bits of the table, weights in a block | rounding of the products | size | perplexity | KL divergence |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        f"\nVersions: {versions}.",
    ]
    if args.table is not None:
        write_text(args.table, "\n".join(lines) + "\n")


if __name__ == "__main__":
    run_script(main)
