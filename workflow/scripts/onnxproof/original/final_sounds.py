"""What a user of the original gets from raw sounds, through its own public interface; see ``final_answers``."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.checkpoint.reading import PROCESSOR_CONFIGS, Checkpoint
from onnxproof.cli import first_line
from onnxproof.final_answers import Use
from onnxproof.original.interfaces import Interface, make_pipeline
from onnxproof.original.model import Original, local_options
from onnxproof.snapshot import VOCABULARIES
from onnxproof.stimuli import synthesize_sounds

#: How many raw sounds are synthesized, and the seed. Each lasts for the next of these numbers of seconds.
RAW_SOUNDS, RAW_SEED, RAW_SECONDS = 12, 22, (1.0, 0.7, 1.9, 1.31)
#: Which of them are played together as one sound of two channels, which the pipeline for speech mixes by itself.
CHANNELS = (0, 4)
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
    if use.gives == "transcripts":
        yield np.stack([sounds[channel] for channel in CHANNELS])


def load_speech_tokenizer(model: str, snapshot: Path) -> Any | None:
    """Return the tokenizer that turns what a model hears into text; None, and a printed line, where there is none.

    A vocabulary is looked for first: some tokenizers load without one, and then know no words.
    """
    from transformers import AutoTokenizer

    reason = "there is no vocabulary for its text"
    if any((snapshot / name).is_file() for group in VOCABULARIES for name in group):
        try:
            return AutoTokenizer.from_pretrained(snapshot, **local_options(snapshot))
        except Exception as error:  # whatever it lacks: a package, a file, a setting
            reason = f"its tokenizer cannot be loaded here ({first_line(error)})"
    print(f"{model}: {reason}, so its card shows the graph alone", flush=True)
    return None


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


def _ask_transcript(original: Original, model: str, snapshot: Path) -> Interface | None:
    """Ask for the text of the likeliest token of each frame.

    Where pyctcdecode is installed, the pipeline has a language model choose the words, for the processors that have
    one. No program of a card does: the class of such a processor is a setting, for the card to name it.
    """
    tokenizer = load_speech_tokenizer(model, snapshot)
    if tokenizer is None:
        return None
    transcribe = make_pipeline("automatic-speech-recognition", original, tokenizer=tokenizer)

    def ask(sound: Any) -> str:
        return str(transcribe(sound)["text"])

    if not can_answer(model, ask, original.processor.sampling_rate):
        return None
    processors = [Checkpoint(snapshot).optional(file).get("processor_class") for file in PROCESSOR_CONFIGS]
    named = [name for name in processors if str(name).endswith(WITH_LANGUAGE_MODEL)]
    settings = {"language_model": named[0]} if named else {}
    return Interface("pipeline('automatic-speech-recognition')", ask, settings)


#: How each use of a model of sounds is asked. An answer of None says that the folder lacks what the interface needs.
ASK_ABOUT_SOUNDS: dict[str, Callable[[Original, str, Path], Interface | None]] = {
    "audio-classification": _ask_about_sound,
    "automatic-speech-recognition": _ask_transcript,
}
