"""What onnxruntime-genai reads beside a graph: ``genai_config.json``.

With it, onnxruntime-genai loads a release's folder as it is: one graph that writes text, and the tokenizer.
"""

from pathlib import Path
from typing import Any

from onnxproof.files import read_json, write_json
from onnxproof.graph.metadata import SHARE_BUFFER, read_metadata
from onnxproof.inputs.prompts import PAST, PRESENT

FILE = "genai_config.json"
#: Which variant it names, the first that is there. What is bound by memory comes first: a token at a time is.
PREFERRED = (
    "q4-cpu",
    "w8",
    "q4",
    "int8",
    "uint8",
    "fp32",
    "optimized",
    "int8-invariant",
    "int8-static",
    "int8-symmetric",
    "w8a16",
)
INPUTS = ("input_ids", "attention_mask", "position_ids")
#: onnxruntime-genai takes the memory of a shared buffer at once, for as many tokens as a text may have. By default, the
#: buffer of one text is no larger than this.
BUFFER_BYTES = 1 << 29
PARTS_OF_CACHE, BYTES_OF_FLOAT = 2, 4
#: How it may choose a token, and how it does so where a model says nothing: the likeliest one.
SEARCH: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "early_stopping": True,
}


def write_genai_config(folder: Path, files: dict[str, str]) -> dict[str, str]:
    """Write ``genai_config.json`` for the graph of a release that writes text.

    Args:
        folder: the release. Nothing is written where no graph has a cache of keys and values under the names that
            transformers.js and Optimum use, or takes other inputs than tokens.
        files: the graph of each variant, relative to ``folder``.

    Returns:
        ``{file: what was written}``, empty where nothing was.
    """
    import onnx

    variant = next((name for name in PREFERRED if name in files), None)
    if variant is None:
        return {}
    model = onnx.load(folder / files[variant], load_external_data=False)
    graph = model.graph
    shapes = {value.name: _shape(value) for value in (*graph.input, *graph.output)}
    keys = [name for name in shapes if name.startswith(PAST) and name.endswith(".key")]
    others = [value.name for value in graph.input if not value.name.startswith(PAST)]
    if not keys or not set(others) <= set(INPUTS) or len(shapes[keys[0]]) != 4:
        return {}
    config = read_json(folder / "config.json")
    text = config.get("text_config") or config
    generation_file = folder / "generation_config.json"
    generation = read_json(generation_file) if generation_file.is_file() else {}
    context = _first(text, ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"))
    heads = _first(text, ("num_attention_heads", "n_head", "n_heads"))
    ends = generation.get("eos_token_id", text.get("eos_token_id"))
    if not isinstance(context, int) or not isinstance(heads, int) or ends is None:
        return {}
    first_end = ends[0] if isinstance(ends, list) else ends
    kv_heads, size = shapes[keys[0]][1], shapes[keys[0]][3]
    shares_buffer = read_metadata(model).get(SHARE_BUFFER) == "true"
    token_bytes = PARTS_OF_CACHE * len(keys) * kv_heads * size * BYTES_OF_FLOAT
    longest = min(context, BUFFER_BYTES // token_bytes) if shares_buffer else context
    written = {
        "model": {
            "type": "decoder",
            "bos_token_id": _token(generation, text, "bos_token_id", first_end),
            "eos_token_id": ends,
            "pad_token_id": _token(generation, text, "pad_token_id", first_end),
            "vocab_size": shapes["logits"][-1],
            "context_length": context,
            "decoder": {
                "filename": files[variant],
                "session_options": {"provider_options": []},
                "head_size": size,
                "hidden_size": _first(text, ("hidden_size", "n_embd", "d_model")),
                "num_attention_heads": heads,
                "num_hidden_layers": len(keys),
                "num_key_value_heads": kv_heads,
                "inputs": {name: name for name in INPUTS if name in others}
                | {f"past_{part}_names": f"{PAST}%d.{part}" for part in ("key", "value")},
                "outputs": {"logits": "logits"}
                | {f"present_{part}_names": f"{PRESENT}%d.{part}" for part in ("key", "value")},
            },
        },
        "search": {name: generation.get(name, standard) for name, standard in SEARCH.items()}
        | {"max_length": longest, "min_length": 0, SHARE_BUFFER: shares_buffer},
    }
    write_json(folder / FILE, written)
    return {FILE: f"for onnxruntime-genai, which then runs {files[variant]}"}


def _shape(value: Any) -> list[int]:
    """Return the length of each axis, 0 where it is free."""
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def _first(config: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)


def _token(generation: dict[str, Any], text: dict[str, Any], name: str, otherwise: int) -> int:
    """Return a special token's number, which onnxruntime-genai wants even where the model has no such token."""
    for settings in (generation, text):
        if isinstance(settings.get(name), int):
            return int(settings[name])
    return otherwise
