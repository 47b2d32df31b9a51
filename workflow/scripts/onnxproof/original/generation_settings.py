"""Which of a model's own settings of ``generate`` the programs of a card apply, and which they only name.

The settings are those of ``GenerationConfig`` of transformers, which reads them from ``generation_config.json``, or
from the ``config.json`` of an older folder.
"""

from collections.abc import Mapping
from typing import Any

from onnxproof.inputs.prompts import NEW_TOKENS
from onnxproof.records.reference import FinalSettings

#: Tokens that begin and end a text.
TOKENS_OF_TEXTS = ("eos_token_id", "decoder_start_token_id", "forced_bos_token_id")
#: Rules of which token may follow, each with the value that has no effect. The card's programs apply them to the
#: logits, as the logits processors of transformers do.
RULES: dict[str, Any] = {
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "min_length": 0,
    "min_new_tokens": 0,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_eos_token_id": None,
}
#: Settings that change a text and that the programs do not apply, each with the value that has no effect. The card
#: names those that a model sets otherwise.
UNAPPLIED: dict[str, Any] = {
    "num_beams": 1,
    "do_sample": False,
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
    "sequence_bias": None,
    "guidance_scale": 1.0,
    "renormalize_logits": False,
    "forced_decoder_ids": None,
    "penalty_alpha": None,
    "dola_layers": None,
    "constraints": None,
    "force_words_ids": None,
    "stop_strings": None,
}


def applied_settings(own: Mapping[str, Any], with_rules: bool = True) -> dict[str, Any]:
    """Return those of a model's settings that the programs of a card apply.

    Args:
        own: ``GenerationConfig.to_dict()`` of the model as it was loaded.
        with_rules: whether the program has rules of which token may follow.
    """
    tokens = {key: own[key] for key in TOKENS_OF_TEXTS if own.get(key) is not None}
    return tokens | (rules_of(own) if with_rules else {})


def rules_of(own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rules of which token may follow, as the programs take them: ``forced_eos_token_id`` is one token."""
    rules = {key: own[key] for key, neutral in RULES.items() if own.get(key) not in (None, [], neutral)}
    if isinstance(rules.get("forced_eos_token_id"), list):
        rules["forced_eos_token_id"] = min(rules["forced_eos_token_id"])  # the likeliest of those that are forced alike
    if "bad_words_ids" in rules:  # transformers lets a model end its text even if that token is a bad word
        ends = own.get("eos_token_id")
        rules["bad_words_ids"] = [
            word for word in rules["bad_words_ids"] if word not in [[end] for end in _as_list(ends)]
        ]
    return rules


def unapplied_settings(own: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a model's settings that change a text and that no program of a card applies."""
    return {key: own[key] for key, neutral in UNAPPLIED.items() if own.get(key) not in (None, [], neutral)}


def told_greedily(new_tokens: int) -> str:
    """Return how the original is asked for so many tokens, for readers."""
    return f"generate(do_sample=False, num_beams=1, max_new_tokens={new_tokens})"


def greedy_settings(own: Mapping[str, Any], new_tokens: int = NEW_TOKENS, with_rules: bool = True) -> Any:
    """Return transformers' ``GenerationConfig`` with which an original of these settings is asked.

    It asks for the likeliest tokens, of those that the original's own rules let follow. The arguments are those of
    ``applied_settings``.
    """
    from transformers import GenerationConfig

    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=new_tokens, do_sample=False, num_beams=1, pad_token_id=0, **applied_settings(own, with_rules)
    )


def told_settings(own: Mapping[str, Any], start: int | None, with_rules: bool = True) -> FinalSettings:
    """Return what a card must know of how a model writes: ``ends``, ``first``, ``rules`` and ``not_applied``.

    Args:
        own: as for ``applied_settings``.
        start: the token that an encoder-decoder's texts start with; None for a decoder.
        with_rules: as for ``applied_settings``.
    """
    first = [start, own.get("forced_bos_token_id")]
    return {
        "ends": ends_of(own),
        "first": [token for token in first if token is not None],
        "rules": rules_of(own) if with_rules else {},
        "not_applied": unapplied_settings(own) | ({} if with_rules else rules_of(own)),
    }


def ends_of(own: Mapping[str, Any]) -> list[int]:
    """Return the tokens that end a text."""
    return _as_list(own.get("eos_token_id"))


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
