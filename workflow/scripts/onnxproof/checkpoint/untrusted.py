"""Checks of files that anyone may have written, before a library spends memory on them or runs what they hold.

Each function returns one sentence that names what is wrong, or None. Standard library only: the config check
asks these questions before any job starts.
"""

import json
import math
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from onnxproof.records.checkpoint import ModelConfig, TokenizerConfig

#: The safetensors library refuses longer headers (``MAX_HEADER_SIZE`` in its ``tensor.rs``).
SAFETENSORS_MAX_HEADER_BYTES = 100_000_000
MOST_DIMENSIONS = 64
#: Bits an element, by the names of the format: https://huggingface.co/docs/safetensors
DTYPE_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6} | {
    "F6_E3M2": 6, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64,
    "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip

#: The largest known configuration files have a few megabytes.
MOST_JSON_BYTES = 50_000_000

#: Sizes in config.json by which memory is allocated, as the architectures spell them.
WIDTHS = ("embedding_size", "hidden_size", "d_model", "n_embd", "dim", "hidden_dim")
ROWS = (
    *("vocab_size", "num_labels", "type_vocab_size", "intermediate_size", "d_ff", "ffn_dim", "n_inner"),
    *("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers"),
)
OTHER_SIZES = ("max_position_embeddings", "n_positions", "num_attention_heads", "n_head", "n_heads")
#: No published model comes near: the longest vocabularies have a million entries, the longest contexts ten million.
LARGEST_SIZE = 1 << 24

#: Keys with which transformers would read a tokenizer's files from elsewhere; the exception is often a stale path
#: of the author's machine, and is not read.
TOKENIZER_PATHS = re.compile(r".*(_file|_spm)")
TOKENIZER_PATHS_NOT_READ = ("special_tokens_map_file",)

#: By what factors the elements of a module's matrices are counted, for the modules of sentence-transformers that have
#: weights; a factor's names are those of all versions.
MODULE_MATRICES: dict[str, tuple[tuple[tuple[str, ...], ...], ...]] = {
    "Dense": ((("in_features",), ("out_features",)),),
    "LayerNorm": ((("dimension",),),),
    "WeightedLayerPooling": ((("num_hidden_layers",),),),
    "CNN": ((("in_embedding_dimension", "in_word_embedding_dimension"), ("out_channels",), ("kernel_sizes",)),),
    "LSTM": (
        (("embedding_dimension", "word_embedding_dimension"), ("hidden_dim",)),
        (("hidden_dim",), ("num_layers",)),
    ),
}

#: Modules of sentence-transformers under their names of all versions; others are code of the repository.
OWN_MODULES = "sentence_transformers."


def safetensors_problem(path: Path) -> str | None:
    """Return what is wrong with a safetensors file, judged by its header alone; it continues ``NAME is …``.

    The format: eight bytes with the header's length (little-endian), the header in JSON, then the tensors. Their
    ``data_offsets`` count from the header's end, and must cover the rest of the file without overlaps or holes.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        prefix = stream.read(8)
        if len(prefix) < 8:
            return f"truncated: {size} bytes are too few for a safetensors file"
        (header_bytes,) = struct.unpack("<Q", prefix)
        if header_bytes > min(size - 8, SAFETENSORS_MAX_HEADER_BYTES):
            return f"truncated or no safetensors file: {size} bytes, with a header of {header_bytes}"
        header = stream.read(header_bytes)
    try:
        content = json.loads(header)
        tensors = {name: entry for name, entry in content.items() if name != "__metadata__"}
        spans = sorted((*_span(entry), name) for name, entry in tensors.items())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        spans = []
    if not spans:
        return "no safetensors file: its header describes no tensors"
    end = 0
    for begin, after, name in spans:
        if begin != end:
            return f"damaged: {shortened(name)} begins at byte {begin}, where {end} was expected"
        wanted = math.prod(tensors[name]["shape"]) * DTYPE_BITS[tensors[name]["dtype"]]
        if wanted != 8 * (after - begin):
            return f"damaged: {shortened(name)} has {after - begin} bytes, its shape and type need {wanted // 8}"
        end = after
    expected = 8 + header_bytes + end
    if size != expected:
        fault = "truncated" if size < expected else "damaged"
        return f"{fault}: it has {size} bytes, its header says {expected}"
    return None


def read_safetensors_header(path: Path) -> dict[str, dict[str, Any]]:
    """Return the tensors that a safetensors file describes, by name, for a file that ``safetensors_problem`` accepts.

    Another file has none.
    """
    with path.open("rb") as stream:
        prefix = stream.read(8)
        header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 0 < header_bytes <= min(path.stat().st_size - 8, SAFETENSORS_MAX_HEADER_BYTES):
            return {}
        header = stream.read(header_bytes)
    try:
        content = json.loads(header)
    except (ValueError, RecursionError):
        return {}
    entries = content.items() if isinstance(content, dict) else ()
    return {name: entry for name, entry in entries if isinstance(entry, dict) and "shape" in entry}


def _span(entry: dict[str, Any]) -> tuple[int, int]:
    """Return where a tensor begins and ends.

    Raises:
        ValueError, TypeError, KeyError: the entry is none of the format.
    """
    begin, end = entry["data_offsets"]
    if (
        len(entry["shape"]) > MOST_DIMENSIONS
        or entry["dtype"] not in DTYPE_BITS
        or not all(_is_count(number) for number in (begin, end, *entry["shape"]))
    ):
        raise ValueError("no such type, or a number that counts nothing")
    return begin, end


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def archive_problem(path: Path) -> str | None:
    """Return what is wrong with weights saved by torch.save; it continues ``NAME is …``.

    That is a zip archive of uncompressed members, whose directory is at the end; before PyTorch 1.6 it was a
    bare pickle, of which nothing can be told here.
    """
    with path.open("rb") as stream:
        if stream.read(2) != b"PK":
            return None
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, struct.error):
        return "truncated: the archive has no end"
    unpacked = sum(member.file_size for member in members)
    if any(member.compress_type != zipfile.ZIP_STORED for member in members) or unpacked > path.stat().st_size:
        return f"no file of torch.save: its members are compressed, and unpack to {unpacked} bytes"
    return None


def size_problem(config: Any, weight_bytes: int) -> str | None:
    """Return the first size of a config.json that cannot be one of a model with so many bytes of weights.

    A library would allocate what the configuration says before it looks at the weights. A vocabulary, a layer, a
    label each have at least one row of the model's width, and an element at least half a byte.
    """
    for level in _objects_in(config):
        widths = [level[key] for key in WIDTHS if _is_count(level.get(key))]
        width = max(1, widths[0] if widths else 1)  # embedding_size, where there is one, is the width of the vocabulary
        for key in (*WIDTHS, *ROWS, *OTHER_SIZES):
            size = level.get(key)
            if isinstance(size, bool) or not isinstance(size, int | float):
                continue
            if not 0 <= size <= LARGEST_SIZE:
                return f"'{key}' is {shortened(size)}, must be between 0 and {LARGEST_SIZE}"
            if key in ROWS and size * width > 2 * weight_bytes:
                return (
                    f"'{key}' is {size} at a width of {width}, which the weights with their {weight_bytes} bytes "
                    "cannot hold"
                )
    return None


def _objects_in(value: Any) -> Iterator[dict[str, Any]]:
    """Yield a JSON value's objects, from the outside in, without recursion."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def module_problem(kind: str, config: ModelConfig, weight_bytes: int) -> str | None:
    """Return why a module of sentence-transformers cannot have the sizes that its configuration says.

    Args:
        kind: the name of its class, without the module that defines it.
        config: its configuration.
        weight_bytes: how many bytes its weights have.
    """
    for factors in MODULE_MATRICES.get(kind, ()):
        sizes: list[Any] = [
            next((config[name] for name in names if config.get(name) is not None), None) for names in factors
        ]
        if None in sizes:
            continue  # the library's own value is a small one
        counts = [count for size in sizes for count in (size if isinstance(size, list) else [size])]
        totals = (sum(size) if isinstance(size, list) else size for size in sizes)
        if not all(map(_is_count, counts)) or math.prod(totals) > 2 * weight_bytes:
            shown = " x ".join(map(shortened, sizes))
            return f"{shown} features are no size of its weights with their {weight_bytes} bytes"
    return None


def tokenizer_path_problem(config: TokenizerConfig) -> str | None:
    """Return the first key of a tokenizer_config.json that would have a file outside the snapshot read."""
    for key, value in config.items():
        if not TOKENIZER_PATHS.fullmatch(key) or key in TOKENIZER_PATHS_NOT_READ or not isinstance(value, str):
            continue
        if not stays_inside(value):
            return f"'{key}' is {shortened(value)}, must name a file of the snapshot"
    return None


def stays_inside(path: str) -> bool:
    """Tell whether a relative path can only lead to something below the folder it starts from, on any system."""
    pure = PurePosixPath(path)
    return not (pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path or re.match("[A-Za-z]:", path))


def remote_code_of(config: ModelConfig | TokenizerConfig) -> list[str]:
    """Return the classes that a JSON file of transformers has the repository's own code define, sorted."""
    auto_map = config.get("auto_map")
    if not auto_map:
        return []
    classes = auto_map.values() if isinstance(auto_map, dict) else [auto_map]
    names = [name for value in classes for name in (value if isinstance(value, list) else [value])]
    return sorted(str(name) for name in names if name is not None)


def is_own_module(module_type: str) -> bool:
    """Tell whether a module's class comes with sentence-transformers, and not with the repository."""
    return module_type.startswith(OWN_MODULES)


def shortened(value: Any) -> str:
    """Return a value in one line of at most some 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}… ({len(text)} characters)"
