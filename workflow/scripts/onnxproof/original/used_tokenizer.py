"""The tokenizer that PyTorch was fed by, in files: what a release ships must cut texts in the same way.

A class of transformers 5 follows ``tokenizer_config.json`` where a ``tokenizer.json`` says otherwise, and
sentence-transformers changes the tokenizer once more. All other clients read ``tokenizer.json`` alone.
"""

import inspect
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnxproof.checkpoint.tokenizer_files import NAMED_TOKENS, TOKENIZER_FILE
from onnxproof.checkpoint.untrusted import shortened
from onnxproof.cli import UserError
from onnxproof.files import read_json, write_json

#: The name under which an exporter leaves the tokenizer for ``export.py``.
USED_FILE = "used_tokenizer.json"
#: The parts of ``tokenizer.json`` that decide how a text is cut. Truncation and padding are settled in the release.
PARTS = ("normalizer", "pre_tokenizer", "model", "post_processor", "decoder", "added_tokens")


def tokenizer_of(processor: Any) -> Any | None:
    """Return the tokenizer of a processor, or of a pair of tokenizer and image processor; None where there is none."""
    from transformers import PreTrainedTokenizerBase

    candidate = processor[0] if isinstance(processor, tuple) else processor
    return candidate if isinstance(candidate, PreTrainedTokenizerBase) else None


def save_used_tokenizer(tokenizer: Any, place: Path, folder: Path) -> None:
    """Write to ``folder`` how a tokenizer cuts texts, where the files in ``place`` say otherwise, or not at all.

    Args:
        tokenizer: as the reference used it.
        place: the folder with the snapshot's own ``tokenizer.json``, where it has one.
        folder: gets ``USED_FILE``; or all of the tokenizer's files, where there is no ``tokenizer.json``.
    """
    if not (place / TOKENIZER_FILE).is_file():
        tokenizer.save_pretrained(folder)
        return
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return
    from tokenizers import Tokenizer

    saved, used = read_json(place / TOKENIZER_FILE), json.loads(backend.to_str())
    try:
        read = json.loads(Tokenizer.from_str(json.dumps(saved)).to_str())
    except Exception:  # of the library, which has no type for it: transformers reads parts of a file, clients all
        write_json(folder / USED_FILE, used)
        return
    changed = {part: used.get(part) for part in PARTS if used.get(part) != read.get(part)}
    if changed:
        write_json(folder / USED_FILE, saved | changed)


def check_portable(model: str, tokenizer: Any, file: Path, texts: Sequence[str]) -> None:
    """Refuse a tokenizer that only transformers runs, unless ``tokenizer.json`` cuts texts as it does.

    Args:
        model: the model's name, for messages.
        tokenizer: as the reference used it.
        file: the snapshot's ``tokenizer.json``, which need not exist.
        texts: what both are tried on.

    Raises:
        UserError: there is no such file, or it cuts one of the texts otherwise.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        return
    kind = type(tokenizer).__name__
    if not file.is_file():
        raise UserError(
            f"{model}: there is no {TOKENIZER_FILE}, and transformers runs {kind} in Python alone, so that no other "
            f"program could cut texts as the model needs them: take a model with a {TOKENIZER_FILE}"
        )
    from tokenizers import Tokenizer

    other = Tokenizer.from_file(str(file))
    other.no_truncation()
    other.no_padding()
    for text in texts:
        if other.encode(text).ids != tokenizer(text)["input_ids"]:
            raise UserError(
                f"{model}: {TOKENIZER_FILE} cuts {shortened(text)} otherwise than {kind}, which transformers runs in "
                f"Python alone: take a model whose {TOKENIZER_FILE} belongs to it"
            )


def place_used_tokenizer(exported: Path, place: Path) -> None:
    """Put the tokenizer that an exporter left in place of a snapshot's own."""
    if (exported / USED_FILE).is_file():
        shutil.copyfile(exported / USED_FILE, place / TOKENIZER_FILE)


def special_tokens(tokenizer: Any) -> dict[str, str]:
    """Return the tokens that a tokenizer has a role for, by the role's name in ``special_tokens_map.json``."""
    found = {name: getattr(tokenizer, name, None) for name in NAMED_TOKENS}
    return {name: str(token) for name, token in found.items() if token is not None}


def settle_padding(model: str, network: Any, tokenizer: Any) -> None:
    """Give a decoder with a classifier's head a padding token, in place, where ``config.json`` names none.

    Such a head reads the last token that is no padding, and refuses a batch without knowing it. Any token that no text
    gets leaves the answer to a text alone as it is: the tokenizer's own, or the one that ends texts.

    Raises:
        UserError: neither can be told from the tokens of a text.
    """
    config = network.config.get_text_config()
    if getattr(config, "pad_token_id", None) is not None or "pad_token_id" not in inspect.getsource(
        type(network).forward
    ):
        return
    around = set(tokenizer("a")["input_ids"])
    for name in ("pad_token", "eos_token"):
        token = getattr(tokenizer, name, None)
        number = None if token is None else tokenizer.convert_tokens_to_ids(token)
        if number is not None and number not in around and number < config.vocab_size:
            tokenizer.pad_token = token
            config.pad_token_id = network.config.pad_token_id = number
            return
    raise UserError(
        f"{model}: config.json: 'pad_token_id' is not given, and the tokenizer has no token that could be padding: its "
        "head could answer one text at a time alone; save the model with a padding token"
    )
