"""The tokenizer files of a release: every client cuts and pads texts where PyTorch's reference did."""

import json
from pathlib import Path
from typing import Any

from onnxproof.checkpoint.tokenizer_files import (
    CHAT_TEMPLATE,
    NAMED_TOKENS,
    SPECIAL_TOKENS,
    TOKENIZER_CONFIG,
    TOKENIZER_FILE,
    older_tokenizer_config,
)
from onnxproof.files import read_json, write_text
from onnxproof.records.reference import Padding


def settle_tokenizer(folder: Path, max_tokens: int | None, padding: Padding) -> dict[str, str]:
    """Write the model's own length limit and padding to its length-free places, in place.

    A ``tokenizer.json`` may hold what its author last used (all-MiniLM-L6-v2 cuts at 128 tokens and pads everything to
    128), and ``model_max_length`` may ignore the limit that sentence-transformers keeps in a file of its own. Clients
    read one or the other; transformers and sentence-transformers override both.

    Args:
        folder: the release, with the tokenizer's files.
        max_tokens: where the model cuts a text; None for a model that reads none, whose tokenizer is only reworded.
        padding: as recorded with the reference. Its special tokens are those that the tokenizer itself knew, whichever
            file or class named them.

    Returns:
        ``{file: what was changed}``; files that were right already are not named.
    """
    changed = {}
    config_file = folder / TOKENIZER_CONFIG
    saved: dict[str, Any] = read_json(config_file) if config_file.is_file() else {}
    config = older_tokenizer_config(saved)
    words = ["in words that transformers 4 reads too"] if config != saved else []
    if max_tokens is None:
        if words:
            _write(config_file, config)
        return {TOKENIZER_CONFIG: "; ".join(words)} if words else {}
    if config and config.get("model_max_length") != max_tokens:
        words.append(f"model_max_length from {config.get('model_max_length')} to {max_tokens}")
        config |= {"model_max_length": max_tokens}
    if config and "chat_template" not in config and (folder / CHAT_TEMPLATE).is_file():
        words.append(f"chat_template from {CHAT_TEMPLATE}, which transformers.js does not read")
        config |= {"chat_template": (folder / CHAT_TEMPLATE).read_text(encoding="utf-8")}
    used = padding["special_tokens"]
    pad_token = config.get("pad_token") or used.get("pad_token")
    if config and pad_token is not None and config.get("pad_token") is None:
        words.append(f"pad_token {pad_token}, as the tokenizer's class has it")
        config |= {"pad_token": pad_token}
    if words:
        changed[TOKENIZER_CONFIG] = "; ".join(words)
        _write(config_file, config)
    if config and not (folder / SPECIAL_TOKENS).exists():  # fastembed and others read the tokens from there alone
        changed[SPECIAL_TOKENS] = f"the special tokens that {TOKENIZER_CONFIG} names, or the tokenizer's class"
        named = used | {name: config[name] for name in NAMED_TOKENS if config.get(name) is not None}
        _write(folder / SPECIAL_TOKENS, named)
    tokenizer_file = folder / TOKENIZER_FILE
    if tokenizer_file.is_file():
        tokenizer = read_json(tokenizer_file)
        wanted = {
            "truncation": _truncation(max_tokens, config.get("truncation_side", "right")),
            "padding": _padding(pad_token, padding),
        }
        if any(tokenizer.get(key) != value for key, value in wanted.items()):
            changed[TOKENIZER_FILE] = f"cuts at {max_tokens} tokens, pads to the longest text of a batch"
            _write(tokenizer_file, tokenizer | wanted)
    return changed


def _truncation(max_tokens: int, side: str) -> dict[str, Any]:
    return {"direction": side.capitalize(), "max_length": max_tokens, "strategy": "LongestFirst", "stride": 0}


def _padding(pad_token: Any, padding: Padding) -> dict[str, Any] | None:
    """Return the padding in the format of ``tokenizer.json``; none for a model without a padding token."""
    if pad_token is None:
        return None
    return {
        "strategy": "BatchLongest",
        "direction": padding["side"].capitalize(),
        "pad_to_multiple_of": None,
        "pad_id": padding["values"]["input_ids"],
        "pad_type_id": padding["values"].get("token_type_ids", 0),
        "pad_token": pad_token["content"] if isinstance(pad_token, dict) else pad_token,
    }


def _write(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
