"""Compare our rounding of weights to 4 bits with that of onnxruntime's own quantizer, on a language model.

python tools/compare_blocks.py --results results/story-teller-tiny --texts examples/story-calibration.jsonl

All files start from the optimized graph of a finished run and store the table of embeddings in the same blocks, by our
pass; the products are rounded by us or by one of onnxruntime's ways. With ``--llama-cpp``, files that llama.cpp makes
of the same checkpoint stand beside them, in forms of its own. The answers are compared with PyTorch's recorded ones.
Perplexity of predictable texts hardly differs; the divergence of the next token's distribution tells more.
"""

import argparse
import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    HQQWeightOnlyQuantConfig,
    KQuantWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)

import project_path  # noqa: F401 - the imports below are found through it
from comparison.generator_peers import GGUF_KINDS, HERE, run_tool, save_gguf
from onnxproof.cli import run_script
from onnxproof.files import versions_of, write_text
from onnxproof.graph.external_data import load_model
from onnxproof.graph.files import MODEL_FILE
from onnxproof.graph.folder import model_bytes
from onnxproof.graph.inputs import inputs_of_graph
from onnxproof.inputs.model_inputs import TOKENS, Array
from onnxproof.inputs.reference import read_reference
from onnxproof.original.lean_imports import import_transformers
from onnxproof.parity.answers import measure_answers, measure_likelihoods, read_answers, run_items
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
            rows.append(table_row(f"{bits}, {block}", name, path.stat().st_size / whole, metrics))
    return rows


def table_row(form: str, name: str, size: float, metrics: dict[str, float | None]) -> str:
    """Return a row of the table, which is printed too."""
    row = f"| {form} | {name} | {size:.3f} | {metrics['perplexity_ratio']:.6f} | {metrics['next_token_kl']:.6f} |"
    print(row, flush=True)
    return row


class KnownLogits:
    """A session that knows the logits of each of its texts, float32 (tokens, vocabulary)."""

    def __init__(self, logits: dict[tuple[int, ...], Array]) -> None:
        """Take the logits by the tokens of the text."""
        self.logits = logits

    def get_inputs(self) -> list[SimpleNamespace]:
        """See ``Session``."""
        return [SimpleNamespace(name=TOKENS, type="tensor(int64)", shape=["batch", "tokens"])]

    def get_outputs(self) -> list[SimpleNamespace]:
        """See ``Session``."""
        return [SimpleNamespace(name="logits", type="tensor(float)", shape=["batch", "tokens", "vocabulary"])]

    def run(self, names: Any, feed: Mapping[str, Array], /) -> list[Array]:
        """See ``Session``; a batch is one text without padding."""
        (tokens,) = feed[TOKENS].tolist()
        return [self.logits[tuple(tokens)][None]]


def measure_llama(results: Path, python: Path, threads: int) -> list[str]:
    """Return the rows of what llama.cpp makes of the checkpoint, run by llama.cpp."""
    reference = read_reference(results / "reference", results / "reference.json")
    judged_as, labels = reference.manifest["judged_as"], reference.manifest["label_count"]
    texts = {f"{number}": item[TOKENS] for number, item in enumerate(reference.answered_inputs.items)}
    whole = model_bytes(results / "onnx" / "fp32")
    rows = []
    with tempfile.TemporaryDirectory(dir=results) as scratch:
        checkpoint, given, found = (Path(scratch) / name for name in ("source", "texts.npz", "logits.npz"))
        model = import_transformers().AutoModelForCausalLM.from_pretrained(results / "source", dtype="float32")
        model.save_pretrained(checkpoint)
        np.savez(given, **texts)
        for kind in ("F32", *GGUF_KINDS):
            made = Path(scratch) / kind
            made.mkdir()
            save_gguf(checkpoint, python, kind, made)
            run_tool("llama.cpp", python, "-P", HERE / "llama_logits.py", made, given, found, str(threads))
            with np.load(found) as logits:
                session = KnownLogits({tuple(tokens.tolist()): logits[name] for name, tokens in texts.items()})
            alone = run_items(session, reference.answered_inputs, TASK)
            expected, answers = (read_answers(judged_as, outputs, labels) for outputs in (reference.outputs, alone))
            metrics = measure_answers(judged_as, expected, answers) | measure_likelihoods(reference.outputs, alone)
            size = (made / "model.gguf").stat().st_size / whole
            rows.append(table_row("its own", f"llama.cpp, {kind}", size, metrics))
    return rows


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, measure, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="results of a run, with the optimized graph")
    parser.add_argument("--texts", type=Path, required=True, help="calibration texts of our rounding")
    parser.add_argument("--threads", type=int, default=1, help="intra-op threads [%(default)s]")
    parser.add_argument("--llama-cpp", type=Path, help="Python of an environment with llama-cpp-python and gguf")
    parser.add_argument("--table", type=Path, help="Markdown file to write")
    args = parser.parse_args(argv)
    for name in ("onnxruntime.quantization.matmul_nbits_quantizer", "neural_compressor"):
        logging.getLogger(name).setLevel(logging.WARNING)
    rows = [row for bits, block in FORMS for row in measure_form(args.results, args.texts, bits, block, args.threads)]
    if args.llama_cpp is not None:
        rows += measure_llama(args.results, args.llama_cpp, args.threads)
    versions = ", ".join(f"{name} {version}" for name, version in versions_of("onnxruntime", "torch").items())
    lines = [
        "# Rounding to 4 bits\n",
        f"`make bench-blocks` writes this page. It compares our rounding with onnxruntime's, on {args.results.name}, "
        "after the same table of embeddings. Files of llama.cpp have forms of their own and run there. Size is of "
        "`fp32`'s, perplexity of PyTorch's; the KL divergence of the next token is in nats.\n",
        "| bits of the table, weights in a block | rounding of the products | size | perplexity | KL divergence |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        f"\nVersions: {versions}.",
    ]
    if args.table is not None:
        write_text(args.table, "\n".join(lines) + "\n")


if __name__ == "__main__":
    run_script(main)
