"""The language model of a comparison, the files that our recipes and public tools make of it, and the page about it."""

import logging
import shutil
from pathlib import Path
from typing import Any

from onnxproof.benchmark.writing import InPlaceWriter
from onnxproof.formatting import format_shape, format_threads
from onnxproof.graph.external_data import load_model, save_model
from onnxproof.graph.files import MODEL_FILE
from onnxproof.graph.generation import has_cache
from onnxproof.graph.support_files import copy_support_files
from onnxproof.quantization.recipe import apply_recipe

#: The width of a head, and the model's channels for each: Qwen3-0.6B has 16 heads for 1024 channels.
HEAD, CHANNELS_A_HEAD = 128, 64
#: The name of Qwen3-0.6B's own shape.
FULL = "qwen3-28x1024-151936"
TOKENIZER_OF = Path(__file__).parents[2] / "examples" / "story-teller-tiny"
#: How many weights share a scale in the files of public tools: what they take by themselves, and what ours begin with.
BLOCKS_OF_OTHERS = (32, 128)

#: Which contenders are ours.
OURS_IN_GENAI = "q4-cpu in onnxruntime-genai"
OURS = ("optimized", "w8", "q4", "q4-cpu", OURS_IN_GENAI)
#: What is not compared, and why.
SKIPPED = {
    "fp16, q4f16": "are for GPUs and browsers; on most CPUs onnxruntime casts to float32 and back",
    "vLLM, TensorRT-LLM": "are for GPUs",
}


def save_language_model(folder: Path, layers: int, hidden: int, vocabulary: int) -> None:
    """Save a decoder like Qwen3-0.6B with random weights in float32, of so many layers, channels and tokens.

    It borrows the tokenizer of ``TOKENIZER_OF``, whose vocabulary is a part of its own.
    """
    import torch
    import transformers

    classes: Any = transformers
    heads = hidden // CHANNELS_A_HEAD
    config = classes.Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        head_dim=HEAD,
        max_position_embeddings=40_960,
        tie_word_embeddings=True,
        eos_token_id=0,  # onnxruntime-genai runs no model without one
        dtype="float32",
    )
    torch.manual_seed(0)
    classes.Qwen3ForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(TOKENIZER_OF / name, folder / name)


def save_block_variant(optimized: Path, variant: str, folder: Path) -> None:
    """Write one of our variants by blocks: the recipe that the search tries first, weights rounded to nearest.

    There is nothing to search for: any recipe is as good for random weights. A trained model takes ``quantize.py``.
    """
    from onnxproof.quantization.search.candidates import BLOCKS, single_file_bytes

    ladder = BLOCKS[variant]
    rung = ladder.rungs[0]
    scratch = folder / "scratch"
    scratch.mkdir()
    model = load_model(optimized / MODEL_FILE, scratch)
    recipe = [
        *ladder.prepare(rung.table, ladder.in_place and has_cache(model)),
        {"pass": "block_weights"} | rung.weights | {"rounding": "nearest"} | ladder.level,
    ]
    save_model(apply_recipe(model, recipe), folder / MODEL_FILE, single_file_bytes(variant))
    for path in scratch.iterdir():
        path.unlink()
    scratch.rmdir()
    copy_support_files(optimized, folder)


def save_with_onnxruntime(accuracy_level: int, block_size: int, source: Path, folder: Path) -> None:
    """Write what onnxruntime's own quantizer makes of the fp32 graph: products with 4 bits, tables in float.

    It quantizes constants alone. A head that is tied to the table of embeddings becomes one first, by onnxruntime's
    basic optimizations; else it would stay in float.
    """
    import onnx
    import onnxruntime
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(source / "folded.onnx")
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "folded.onnx_data")
    onnxruntime.InferenceSession(str(source / MODEL_FILE), options, providers=["CPUExecutionProvider"])
    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.WARNING)
    model = onnx.load(source / "folded.onnx")
    quantizer = MatMulNBitsQuantizer(model, bits=4, block_size=block_size, accuracy_level=accuracy_level)
    quantizer.process()
    quantizer.model.save_model_to_file(str(folder / MODEL_FILE), use_external_data_format=True)


def render_page(records: list[dict[str, Any]]) -> str:
    """Return a page of Markdown with a table for each shape."""
    parts = [
        "# Language models\n",
        "`make bench-generators` writes this page. It compares how fast variants of a language model write, on a CPU. "
        "[speed.md](speed.md#models-that-write-texts) says what a step is. The weights are random: speed depends on "
        "the shape alone, and answers are not compared.\n",
        "Each contender takes turns with `fp32`; the first figure is the speed-up over `fp32` in the same run, with "
        "its quartiles. A row that was measured on another day than that of `fp32` took turns with `fp32` on its own "
        "day. Ours are in bold. `w8`, `q4` and `q4-cpu` have the recipe that the search tries first: blocks of 128 "
        "weights, and of 32 in the table of embeddings of `w8`. Files of public tools have blocks of 32, which is what "
        "the tools take by themselves, and of 128. `q4-cpu` and files of onnxruntime-genai write new tokens into their "
        "caches, see [quantization.md](quantization.md#the-cache-of-q4-cpu); all other graphs give a new cache for "
        "each token. llama.cpp has forms of its own, and a cache in float16. A peak of memory is that of a case and of "
        "those before it: loading is part of the first, and the logits of all tokens of a prompt that are read at once "
        f"are part of its. `q4-cpu` reads a prompt in parts of {InPlaceWriter.PART} tokens.\n",
    ]
    for record in records:
        parts += [_render_shape(record)]
    return "\n".join(parts)


def _render_shape(record: dict[str, Any]) -> str:
    timed = {name: facts for name, facts in record["contenders"].items() if "generation" in facts}
    first = next(iter(timed.values()))["generation"]["cases"]
    titles = [f"{case['step'].replace('_', ' ')}, {_shape(case)}" for case in first]
    shapes = list(dict.fromkeys(map(_shape, first)))
    cpu = record["cpu"]
    lines = [
        f"## {record['shape']}\n",
        f"Layers x channels - tokens of the vocabulary; {format_threads(record['threads'])} of {cpu['model']}."
        f"{'' if record['shape'] == FULL else f' A trial: Qwen3-0.6B is {FULL}.'}\n",
        f"| contender | {' | '.join(titles)} | MB | {' | '.join(f'peak RSS, {shape}, MB' for shape in shapes)} "
        "| measured |",
        f"| --- |{' --- |' * (len(titles) + 2 + len(shapes))}",
    ]
    for name, facts in timed.items():
        cases = {(case["step"], case["batch"], case["context"]): case for case in facts["generation"]["cases"]}
        cells = [_cell(cases.get((case["step"], case["batch"], case["context"]))) for case in first]
        peaks = {_shape(case): f"{case['peak_rss_mb']:.0f}" for case in cases.values()}
        memory = " | ".join(peaks.get(shape, "–") for shape in shapes)
        shown = f"**{name}**" if name in OURS else name
        lines.append(f"| {shown} | {' | '.join(cells)} | {facts['size_mb']:.0f} | {memory} | {facts['measured']} |")
    left_out = {name: facts["skipped"] for name, facts in record["contenders"].items() if "skipped" in facts}
    lines += ["", "Not compared:", ""]
    lines += [f"- {name}: {reason}." for name, reason in {**record["skipped"], **left_out}.items()]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return "\n".join([*lines, "", f"Versions: {versions}.", ""])


def _shape(case: dict[str, Any]) -> str:
    """Return how many texts a case has, and of how many tokens."""
    return format_shape(case["batch"], case["context"])


def _cell(case: dict[str, Any] | None) -> str:
    """Return a case's speed-up with its quartiles, its median time and its tokens a second."""
    if case is None:
        return "–"
    low, high = case.get("speedup_iqr", (1.0, 1.0))
    speedup = f"{case.get('speedup_vs_fp32', 1.0):.2f} ({low:.2f}–{high:.2f})"
    return f"{speedup}, {case['p50_ms']:.1f} ms, {case['tokens_per_s']:.0f}/s"
