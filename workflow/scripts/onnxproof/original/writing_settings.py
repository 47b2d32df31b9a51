"""Settings of a model that writes texts: which of its own the programs of a card apply, and which they do not."""

from pathlib import Path
from typing import Any

from onnxproof.files import read_json
from onnxproof.generation import NEW_TOKENS
from onnxproof.tasks.inference import read_transformer_config

#: Settings of ``generation_config.json`` that the programs of a card apply. The original is asked with these alone.
APPLIED_SETTINGS = ("eos_token_id", "decoder_start_token_id", "forced_bos_token_id")

#: Settings that change a generated text and that the programs do not apply, each with its neutral value. The card names
#: those that a model sets otherwise.
UNAPPLIED_SETTINGS = {
    "num_beams": 1,
    "do_sample": False,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": 0,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_eos_token_id": None,
    "forced_decoder_ids": None,
}

#: How the original is asked, for readers.
GREEDILY = f"generate(do_sample=False, num_beams=1, max_new_tokens={NEW_TOKENS})"


def applied_settings(snapshot: Path) -> dict[str, Any]:
    """Return those settings of a snapshot's ``generation_config.json`` that the programs of a card apply.

    A folder without that file has them in its ``config.json``; of a model that is put together, in the decoder's part.
    """
    file = snapshot / "generation_config.json"
    saved = read_json(file) if file.is_file() else {}
    settings = {key: saved[key] for key in APPLIED_SETTINGS if saved.get(key) is not None}
    config = read_transformer_config(snapshot)
    parts = [config]
    if not file.is_file():
        parts += [config[name] for name in ("decoder", "text_config") if isinstance(config.get(name), dict)]
    for part in parts:
        for key in APPLIED_SETTINGS:
            if key not in settings and isinstance(part.get(key), (int, list)):
                settings[key] = part[key]
    return settings


def unapplied_settings(snapshot: Path) -> dict[str, Any]:
    """Return those settings of ``generation_config.json`` that change a greedy text and that no program applies."""
    file = snapshot / "generation_config.json"
    saved = read_json(file) if file.is_file() else {}
    return {key: saved[key] for key, neutral in UNAPPLIED_SETTINGS.items() if saved.get(key) not in (None, [], neutral)}


def greedy_settings(snapshot: Path) -> Any:
    """Return transformers' ``GenerationConfig`` with which the original is asked for its likeliest tokens."""
    from transformers import GenerationConfig

    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=NEW_TOKENS, do_sample=False, num_beams=1, pad_token_id=0, **applied_settings(snapshot)
    )


def told_settings(snapshot: Path, start: int | None) -> dict[str, Any]:
    """Return what a card must know of how a model writes: ``{ends, first, not_applied}``.

    Args:
        snapshot: the model's folder.
        start: the token that an encoder-decoder's texts start with; None for a decoder.
    """
    applied = applied_settings(snapshot)
    ends = applied.get("eos_token_id", [])
    first = [start, applied.get("forced_bos_token_id")]
    return {
        "ends": ends if isinstance(ends, list) else [ends],
        "first": [token for token in first if token is not None],
        "not_applied": unapplied_settings(snapshot),
    }
