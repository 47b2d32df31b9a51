"""What a user of the original gets from raw sounds, through its own public interface; see ``final_answers``."""

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.checkpoint.reading import PROCESSOR_CONFIGS, Checkpoint
from onnxproof.cli import UserError
from onnxproof.inputs.final_answers import SOUND_FEATURES, Use
from onnxproof.inputs.synthetic import synthesize_sounds
from onnxproof.original.generation_settings import RULES, UNAPPLIED
from onnxproof.original.interfaces import Interface, cleans_text, load_own_tokenizer, make_pipeline
from onnxproof.original.model import Original
from onnxproof.records.reference import FinalSettings

#: How many raw sounds are synthesized, and the seed. Each lasts for the next of these numbers of seconds.
RAW_SOUNDS, RAW_SEED, RAW_SECONDS = 28, 22, (1.0, 0.7, 1.9, 1.31)
#: Which of them are played together as one sound of two channels, which the pipeline for speech mixes by itself.
CHANNELS = (0, 4)
#: Kinds of answers whose pipeline mixes two channels by itself.
MIXED = ("transcripts", "written texts")
#: Settings of ``generation_config.json`` that the programs for speech apply, beside those for every text.
APPLIED_TO_SPEECH = frozenset({"suppress_tokens", "begin_suppress_tokens", "forced_decoder_ids"})
#: Those that only Whisper has and that no program applies, each with its neutral value.
UNAPPLIED_TO_SPEECH = {
    "return_timestamps": False,
    "no_speech_threshold": None,
    "logprob_threshold": None,
    "compression_ratio_threshold": None,
}
#: The programs cut a text after so many tokens where the model's settings do not say, as the pipeline does; or where
#: the model has no more positions.
MOST_WRITTEN = 256
#: How the name of a processor ends that has a language model choose the words, see ``_ask_transcript``.
WITH_LANGUAGE_MODEL = "WithLM"


def raw_sounds(use: Use, rate: int) -> Iterator[NDArray[np.float32]]:
    """Yield sounds of several lengths, float32 (samples,); also silence and, for speech, two channels, (2, samples).

    Args:
        use: what they are for.
        rate: samples a second that the model takes.
    """
    sounds = synthesize_sounds(RAW_SOUNDS, rate, RAW_SEED, RAW_SECONDS)
    yield from sounds
    yield np.zeros(rate // 2, dtype=np.float32)
    if use.gives in MIXED:
        yield np.stack([sounds[channel] for channel in CHANNELS])


def can_answer(model: str, ask: Callable[[Any], str], rate: int) -> bool:
    """Tell whether a pipeline for speech answers at all; say why in a printed line where it does not.

    For some models transformers' own pipeline stops, though the network itself answers: OmniASR's takes no mask, and a
    Whisper's text needs methods of a Whisper's tokenizer.
    """
    (sound,) = synthesize_sounds(1, rate, RAW_SEED)
    try:
        ask(sound)
    except Exception as error:  # whatever stops the pipeline: the card has the graph's program then
        *_, reason = str(error).strip().splitlines() or [""]
        print(
            f"{model}: the pipeline of transformers has no answer ({type(error).__name__}: {reason}), so its card "
            "shows the graph alone",
            flush=True,
        )
        return False
    return True


def _ask_about_sound(original: Original, model: str, snapshot: Path) -> Interface:
    classify = make_pipeline("audio-classification", original)
    labels = int(original.network.config.num_labels)

    def ask(sound: Any) -> dict[str, float]:
        return {answer["label"]: float(answer["score"]) for answer in classify(sound, top_k=labels)}

    return Interface("pipeline('audio-classification')", ask)


def _ask_frames(original: Original, model: str, snapshot: Path) -> Interface:
    """Ask as the documentation does: each label of a frame is a decision of its own, because speakers may overlap."""

    def ask(sound: Any) -> Any:
        return _answer(original, sound, "logits").sigmoid().numpy()

    return Interface("AutoModelForAudioFrameClassification and the sigmoid of its logits", ask)


def _ask_speaker(original: Original, model: str, snapshot: Path) -> Interface:
    import torch

    def ask(sound: Any) -> Any:
        return torch.nn.functional.normalize(_answer(original, sound, "embeddings"), dim=-1).numpy()

    return Interface("AutoModelForAudioXVector and its normalized embeddings", ask)


def _ask_for_features(original: Original, model: str, snapshot: Path) -> Interface:
    def ask(sound: Any) -> Any:
        return _answer(original, sound, "last_hidden_state").numpy()

    # Servers of embeddings read texts.
    return Interface("AutoModel and its last_hidden_state", ask, {"pooled_by_servers": False})


def _answer(original: Original, sound: Any, output: str) -> Any:
    """Return an output of the network for one sound, a float32 tensor without a batch axis.

    No pipeline of transformers takes a sound alone for these uses, so the extractor and the network are called as the
    documentation of their classes does.

    Raises:
        ValueError: the output holds a NaN.
    """
    import torch

    features = original.processor(sound, sampling_rate=original.processor.sampling_rate, return_tensors="pt")
    fed = {name: values for name, values in features.items() if name in original.accepted}
    with torch.inference_mode():
        answer = original.network(**fed)[output][0].float()
    if answer.isnan().any():  # of a sound so short that statistics over its frames have none left
        raise ValueError("the original answers with values that are no numbers")
    return answer


def _ask_transcript(original: Original, model: str, snapshot: Path) -> Interface | None:
    """Ask for the text of the likeliest token of each frame.

    Where pyctcdecode is installed, the pipeline has a language model choose the words, for the processors that have
    one. No program of a card does: the class of such a processor is a setting, for the card to name it.
    """
    tokenizer = load_own_tokenizer(model, snapshot)
    if tokenizer is None:
        return None
    transcribe = make_pipeline("automatic-speech-recognition", original, tokenizer=tokenizer)

    def ask(sound: Any) -> str:
        return str(transcribe(sound)["text"])

    if not can_answer(model, ask, original.processor.sampling_rate):
        return None
    processors = [Checkpoint(snapshot).optional(file).get("processor_class") for file in PROCESSOR_CONFIGS]
    named = [name for name in processors if str(name).endswith(WITH_LANGUAGE_MODEL)]
    settings: FinalSettings = {"language_model": str(named[0])} if named else {}
    return Interface("pipeline('automatic-speech-recognition')", ask, settings)


def _ask_speech(original: Original, model: str, snapshot: Path) -> Interface | None:
    """Ask for the likeliest text, greedily, with those settings of the model's own that a card's program applies."""
    tokenizer = load_own_tokenizer(model, snapshot)
    if tokenizer is None:
        return None
    is_whisper = original.config.get("model_type") == "whisper"
    own = copy.deepcopy(original.network.generation_config)
    if is_whisper:
        check_language_and_task(model, own)
    first, languages = starts_of(own, original.network.config, is_whisper)
    not_applied: dict[str, Any] = {}
    neutrals: dict[str, Any] = {}
    for key, neutral in (RULES | UNAPPLIED | UNAPPLIED_TO_SPEECH).items():
        value = getattr(own, key, None)
        if key not in APPLIED_TO_SPEECH and value not in (None, [], neutral):
            not_applied[key] = value
            neutrals[key] = neutral
            setattr(own, key, neutral)
    original.network.generation_config = own
    transcribe = make_pipeline("automatic-speech-recognition", original, tokenizer=tokenizer)
    ends = own.eos_token_id if own.eos_token_id is not None else []
    room = positions_of(original.network.config.to_dict()) - len(first)
    count = min(original.new_tokens, room)
    settings: FinalSettings = {
        "first": first,
        "unwritten": len(first) if is_whisper else 1,  # of these, other models' texts have all but the start
        "languages": languages,
        "ends": ends if isinstance(ends, list) else [ends],
        "suppressed": list(own.suppress_tokens or ()),
        "suppressed_first": list(own.begin_suppress_tokens or ()),
        "longest": original.processor.n_samples if is_whisper else None,
        "cleans": cleans_text(tokenizer),
        "most_written": min(own.max_new_tokens or own.max_length or MOST_WRITTEN, room),
        "arguments": {"count": count},
        "not_applied": not_applied,
        "neutrals": neutrals,
    }
    counted = 0 if is_whisper else len(first) - 1  # of the given tokens, those that generate() counts as new
    options = {"do_sample": False, "num_beams": 1, "max_new_tokens": count + counted}

    def ask(sound: Any) -> str:
        return str(transcribe(sound, generate_kwargs=dict(options))["text"])

    if not can_answer(model, ask, original.processor.sampling_rate):
        return None
    told = ", ".join(f"{name}={value}" for name, value in options.items())
    return Interface(f"pipeline('automatic-speech-recognition'), {told}", ask, settings)


def positions_of(config: Mapping[str, Any]) -> int:
    """Return how many tokens a decoder of speech has positions for, its start among them."""
    keys = ("max_target_positions", "max_position_embeddings")
    return next((int(config[key]) for key in keys if config.get(key)), MOST_WRITTEN)


def starts_of(generation: Any, config: Any, is_whisper: bool) -> tuple[list[int | None], list[int]]:
    """Return the tokens that a text about speech begins with, and those of the languages it may be in.

    None among the first ones stands for the language that the model hears. A Whisper begins with a start, a language, a
    task, and a token that says "no timestamps", each where its settings have one.

    Args:
        generation: the model's ``GenerationConfig``.
        config: its configuration, where older models have the tokens that are forced.
        is_whisper: whether it generates as Whisper does.

    Source: A. Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022, figure 1; which
    settings come first is what ``generate`` of transformers 5.24 does.
    """
    start = generation.decoder_start_token_id
    if start is None:
        start = generation.bos_token_id
    if not is_whisper:
        second = generation.forced_bos_token_id
        return [start, *([] if second is None else [second])], []
    task, language = getattr(generation, "task", None), getattr(generation, "language", None)
    known = getattr(generation, "lang_to_id", None) or {}
    tasks = getattr(generation, "task_to_id", None) or {}
    forced: list[int | None] = []
    if task is None and language is None:
        pairs = getattr(generation, "forced_decoder_ids", None) or getattr(config, "forced_decoder_ids", None) or []
        forced = [token for _, token in sorted(pairs)]
    languages: list[int] = []
    if language is not None:
        forced[:1] = [known[language_token(language)]]
    elif known and (not forced or forced[0] is None):
        forced[:1], languages = [None], sorted(known.values())
    else:
        forced = [token for token in forced if token is not None]
    if task is not None:
        forced.append(tasks[task])
    elif language is not None and tasks and not set(tasks.values()) & set(forced):
        forced.append(tasks["transcribe"])
    silent = getattr(generation, "no_timestamps_token_id", None)
    if silent is not None and [start, *forced][-1] != silent:
        forced.append(silent)
    return [start, *forced], languages


def check_language_and_task(model: str, generation: Any) -> None:
    """Refuse a language or a task that a Whisper's own ``generation_config.json`` has no token for.

    Raises:
        UserError: as above.
    """
    for key, table, token in (("language", "lang_to_id", language_token), ("task", "task_to_id", str)):
        value, known = getattr(generation, key, None), getattr(generation, table, None) or {}
        if value is not None and not (isinstance(value, str) and token(value) in known):
            raise UserError(
                f"{model}: generation_config.json: '{key}' is {value!r}, for which '{table}' has no token; it must be "
                f"one of: {', '.join(sorted(known)) or 'none'}"
            )


def language_token(language: str) -> str:
    """Return Whisper's token for a language, of which its settings have the name, the code or the token itself."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    language = language.lower()
    return language if language.startswith("<|") else f"<|{TO_LANGUAGE_CODE.get(language, language)}|>"


#: How each use of a model of sounds is asked. An answer of None says that the folder lacks what the interface needs.
ASK_ABOUT_SOUNDS: dict[str, Callable[[Original, str, Path], Interface | None]] = {
    "audio-classification": _ask_about_sound,
    "audio-frame-classification": _ask_frames,
    "audio-xvector": _ask_speaker,
    SOUND_FEATURES: _ask_for_features,
    "automatic-speech-recognition": _ask_transcript,
    "speech-to-text": _ask_speech,
}
