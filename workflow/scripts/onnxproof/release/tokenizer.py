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
from onnxproof.records.reference import Padding, Usage


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
    file = folder / TOKENIZER_CONFIG
    saved: dict[str, Any] = read_json(file) if file.is_file() else {}
    config = older_tokenizer_config(saved)
    words = ["in words that transformers 4 reads too"] if config != saved else []
    used = padding["special_tokens"]
    if config and max_tokens is not None:
        for reason, change in _changes_of_config(folder, config, max_tokens, used):
            words.append(reason)
            config |= change
    changed = {}
    if words:
        changed[TOKENIZER_CONFIG] = "; ".join(words)
        _write(file, config)
    if max_tokens is None:
        return changed
    if config and not (folder / SPECIAL_TOKENS).exists():  # fastembed and others read the tokens from there alone
        changed[SPECIAL_TOKENS] = f"the special tokens that {TOKENIZER_CONFIG} names, or the tokenizer's class"
        named = used | {name: config[name] for name in NAMED_TOKENS if config.get(name) is not None}
        _write(folder / SPECIAL_TOKENS, named)
    if (folder / TOKENIZER_FILE).is_file():
        tokenizer = read_json(folder / TOKENIZER_FILE)
        pad_token = config.get("pad_token") or used.get("pad_token")
        wanted = {
            "truncation": _truncation(max_tokens, config.get("truncation_side", "right")),
            "padding": _padding(pad_token, padding),
        }
        if any(tokenizer.get(key) != value for key, value in wanted.items()):
            changed[TOKENIZER_FILE] = f"cuts at {max_tokens} tokens, pads to the longest text of a batch"
            _write(folder / TOKENIZER_FILE, tokenizer | wanted)
    return changed


def tell_limits(folder: Path, usage: Usage, max_tokens: int | None) -> None:
    """Tell a card's programs, in ``usage``, whether the settled tokenizer pads and where it cuts a text.

    Nothing is told where the model reads no texts, ``max_tokens`` is None.
    """
    if max_tokens:
        file = folder / TOKENIZER_FILE
        usage["pads"] = file.is_file() and read_json(file).get("padding") is not None
        usage["max_tokens"] = max_tokens


def _changes_of_config(
    folder: Path, config: dict[str, Any], max_tokens: int, used: dict[str, Any]
) -> list[tuple[str, dict[str, Any]]]:
    """Return what has to change in a ``tokenizer_config.json`` of texts: each reason, and the keys that it sets."""
    changes: list[tuple[str, dict[str, Any]]] = []
    limit = config.get("model_max_length")
    if limit != max_tokens:
        changes.append((f"model_max_length from {limit} to {max_tokens}", {"model_max_length": max_tokens}))
    template = folder / CHAT_TEMPLATE
    if "chat_template" not in config and template.is_file():
        text = template.read_text(encoding="utf-8")
        reason = f"chat_template from {CHAT_TEMPLATE}, which transformers.js does not read"
        changes.append((reason, {"chat_template": text}))
    pad_token = used.get("pad_token")
    if config.get("pad_token") is None and pad_token is not None:
        changes.append((f"pad_token {pad_token}, as the tokenizer's class has it", {"pad_token": pad_token}))
    return changes


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
