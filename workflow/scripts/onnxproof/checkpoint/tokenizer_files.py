"""The files of a tokenizer: their names, the tokens that they name, and their spelling in transformers 4 and 5."""

from pathlib import Path
from typing import Any

from onnxproof.cli import UserError
from onnxproof.files import read_json
from onnxproof.records.checkpoint import TokenizerConfig

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


def older_tokenizer_config(config: TokenizerConfig) -> TokenizerConfig:
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
