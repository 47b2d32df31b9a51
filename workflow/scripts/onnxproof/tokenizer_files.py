"""The tokenizer files of a release: every client cuts and pads texts where PyTorch's reference did."""

import json
from pathlib import Path
from typing import Any

from onnxproof.cli import UserError
from onnxproof.files import read_json, write_text

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
CHAT_TEMPLATE = "chat_template.jinja"

#: Tokens with a part of their own, as both files name them.
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
#: Keys of a tokenizer's configuration that only transformers 5 writes, and that change nothing.
NEW_TOKENIZER_KEYS = ("backend", "is_local", "local_files_only")
#: Classes of transformers 5 that 4.57 does not have, and the ones that read the same files there and in 5.
TOKENIZER_CLASSES = {"TokenizersBackend": "PreTrainedTokenizerFast"}


#: What the tokenizer classes of transformers take for the mask where no file names one.
DEFAULT_MASKS = ("[MASK]", "<mask>", "<special1>", "<MASK_TOKEN>")


def find_mask_token(folder: Path) -> str | None:
    """Return the word for a masked token, as transformers 5 finds it; None where there is none.

    ``special_tokens_map.json`` counts more than ``tokenizer_config.json``, unless that lists ``added_tokens_decoder``.
    Where neither has the key, it is the default of a tokenizer's class, if ``tokenizer.json`` holds it as a special
    token.
    """
    config = _read_if_there(folder / TOKENIZER_CONFIG)
    named = config if "added_tokens_decoder" in config else config | _read_if_there(folder / SPECIAL_TOKENS)
    if "mask_token" in named:
        token = named["mask_token"]
        return token.get("content") if isinstance(token, dict) else token
    added = _read_if_there(folder / TOKENIZER_FILE).get("added_tokens") or []
    special = {entry["content"] for entry in added if entry.get("special")}
    return next((mask for mask in DEFAULT_MASKS if mask in special), None)


def require_mask_token(name: str, token: str | None, number: int | None) -> int:
    """Return the id of the token that masks a word, which the task fill-mask needs.

    Args:
        name: the model or its folder, for the message.
        token: the word for it; None where no file names one.
        number: its id; None where the vocabulary lacks it.

    Raises:
        UserError: there is no such token.
    """
    if token is None:
        raise UserError(
            f"{name}: {TOKENIZER_CONFIG}: 'mask_token' is missing, and the task fill-mask needs it: name there the "
            f"token that stands for a masked word"
        )
    if number is None:
        raise UserError(
            f"{name}: {TOKENIZER_CONFIG}: 'mask_token' is {token!r}, which is not in the model's vocabulary: name "
            f"there the token that stands for a masked word"
        )
    return number


def _read_if_there(path: Path) -> dict[str, Any]:
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def older_tokenizer_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return a ``tokenizer_config.json`` in words that transformers 4 and 5 both read.

    transformers 4 takes ``extra_special_tokens`` for a mapping, and stops at the list that 5 writes.
    """
    older = {key: value for key, value in config.items() if key not in NEW_TOKENIZER_KEYS}
    name = older.get("tokenizer_class")
    older |= {"tokenizer_class": TOKENIZER_CLASSES[name]} if name in TOKENIZER_CLASSES else {}
    extra = older.get("extra_special_tokens")
    if isinstance(extra, list):
        del older["extra_special_tokens"]
        if extra:
            older["additional_special_tokens"] = [*(older.get("additional_special_tokens") or []), *extra]
    return older


def settle_tokenizer(folder: Path, max_tokens: int, padding: dict[str, Any]) -> dict[str, str]:
    """Write the model's own length limit and padding to its length-free places, in place.

    A ``tokenizer.json`` may hold what its author last used (all-MiniLM-L6-v2 cuts at 128 tokens and pads everything to
    128), and ``model_max_length`` may ignore the limit that sentence-transformers keeps in a file of its own. Clients
    read one or the other; transformers and sentence-transformers override both.

    Args:
        folder: the release, with the tokenizer's files.
        max_tokens: where the model cuts a text.
        padding: ``{"side": "left" or "right", "values": {input: value}, "special_tokens": {role: token}}``, as recorded
            with the reference; the last are the tokens that the tokenizer itself knew, whichever file or class named
            them.

    Returns:
        ``{file: what was changed}``; files that were right already are not named.
    """
    changed = {}
    config_file = folder / TOKENIZER_CONFIG
    saved: dict[str, Any] = read_json(config_file) if config_file.is_file() else {}
    config = older_tokenizer_config(saved)
    words = ["in words that transformers 4 reads too"] if config != saved else []
    if config and config.get("model_max_length") != max_tokens:
        words.append(f"model_max_length from {config.get('model_max_length')} to {max_tokens}")
        config |= {"model_max_length": max_tokens}
    if config and "chat_template" not in config and (folder / CHAT_TEMPLATE).is_file():
        words.append(f"chat_template from {CHAT_TEMPLATE}, which transformers.js does not read")
        config |= {"chat_template": (folder / CHAT_TEMPLATE).read_text(encoding="utf-8")}
    used = padding.get("special_tokens", {})
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


def _padding(pad_token: Any, padding: dict[str, Any]) -> dict[str, Any] | None:
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
