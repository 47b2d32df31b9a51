"""Final answers to raw inputs: what kinds there are, which program of a card gives them, and how they are stored.

``original.final_answers`` records the original's. They are stored with the reference and shipped among the golden files
of a release. ``parity.card_programs`` gets those of the program on the release's card, ``parity.final_answers``
compares the two. This module imports nothing but NumPy, because a release is verified with it where it is deployed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.tasks.heads import is_cross_encoder, takes_pairs

if TYPE_CHECKING:
    from onnxproof.records.reference import FinalRecord, FinalSettings

Array = NDArray[Any]

#: Kinds of raw inputs: texts, pairs of texts, questions with contexts, texts with a masked word, texts each with its
#: choices, images, images with prompts, sounds.
TEXTS, PAIRS, QUESTIONS, MASKED_TEXTS, CHOICES = "texts", "pairs", "questions", "masked texts", "choices"
IMAGES, IMAGE_PROMPTS, SOUNDS = "images", "images with prompts", "sounds"

FINAL_FILE, FINAL_VECTORS_FILE = "final.json", "final.safetensors"
#: How the names of arrays begin, by which JSON refers to them; the number of the input or the answer follows.
INPUT_ARRAY, ANSWER_ARRAY = "input", "answer"


@dataclass(frozen=True)
class Use:
    """What a model is used for, and which program on a release's card answers raw inputs for that use."""

    name: str  #: that of the folder of its programs, below ``resources/usage``
    function: str  #: the function in the program that takes a list of raw inputs and returns a list of answers
    takes: str  #: the kind of raw inputs, such as ``TEXTS``
    gives: str  #: the kind of answers, see ``parity.final_answers``
    heading: str = "onnxruntime and tokenizers alone"  #: the heading on the card above the program
    needs: tuple[str, ...] = ()  #: what the program imports beside onnxruntime, NumPy and tokenizers


IMAGE_HEADING = "onnxruntime, with transformers' image processor"
VISION_HEADING = "onnxruntime, with transformers' image processor and PyTorch"
SOUND_HEADING = "onnxruntime, with transformers' feature extractor"
SPEECH_HEADING = "onnxruntime, with transformers' feature extractor and tokenizer"
#: What feature extraction is called where a model takes sounds, because its programs are others than for texts.
SOUND_FEATURES = "sound-features"
PROCESSOR_HEADING = "onnxruntime, with transformers' processor"
OPEN_HEADING = "onnxruntime, with transformers' image processor, PyTorch and SciPy"

_USES = (
    Use("sentence-similarity", "embed", TEXTS, "vectors"),
    Use("feature-extraction", "extract", TEXTS, "token vectors"),
    Use("text-classification", "classify", TEXTS, "labels"),
    Use("reranking", "score", PAIRS, "scores"),
    Use("token-classification", "tag", TEXTS, "tags"),
    Use("question-answering", "ask", QUESTIONS, "spans"),
    Use("fill-mask", "fill", MASKED_TEXTS, "guesses"),
    Use("multiple-choice", "choose", CHOICES, "odds"),
    Use("text-generation", "generate", TEXTS, "tokens"),
    Use("text2text-generation", "generate", TEXTS, "tokens"),
    Use("image-classification", "classify", IMAGES, "labels", IMAGE_HEADING, ("transformers", "PIL")),
    Use("image-feature-extraction", "extract", IMAGES, "token vectors", IMAGE_HEADING, ("transformers", "PIL")),
    Use("zero-shot-image-classification", "classify", IMAGES, "labels", IMAGE_HEADING, ("transformers", "PIL")),
    Use("object-detection", "detect", IMAGES, "detections", VISION_HEADING, ("transformers", "PIL", "torch")),
    Use("semantic-segmentation", "segment", IMAGES, "pixels", VISION_HEADING, ("transformers", "PIL", "torch")),
    Use("depth-estimation", "estimate", IMAGES, "fields", VISION_HEADING, ("transformers", "PIL", "torch")),
    Use(
        "zero-shot-object-detection",
        "detect",
        IMAGES,
        "detections",
        OPEN_HEADING,
        ("transformers", "PIL", "torch", "scipy"),
    ),
    Use("image-segmentation", "segment", IMAGES, "segments", VISION_HEADING, ("transformers", "PIL", "torch")),
    Use("image-to-image", "restore", IMAGES, "images", IMAGE_HEADING, ("transformers", "PIL")),
    Use("image-to-text", "generate", IMAGES, "written", IMAGE_HEADING, ("transformers", "PIL")),
    Use(
        "image-text-to-text",
        "generate",
        IMAGE_PROMPTS,
        "written",
        PROCESSOR_HEADING,
        ("transformers", "PIL", "torch", "jinja2"),
    ),
    Use("audio-classification", "classify", SOUNDS, "labels", SOUND_HEADING, ("transformers",)),
    Use("audio-frame-classification", "classify", SOUNDS, "frames", SOUND_HEADING, ("transformers",)),
    Use("audio-xvector", "embed", SOUNDS, "vectors", SOUND_HEADING, ("transformers",)),
    Use(SOUND_FEATURES, "extract", SOUNDS, "token vectors", SOUND_HEADING, ("transformers",)),
    Use("automatic-speech-recognition", "transcribe", SOUNDS, "transcripts", SPEECH_HEADING, ("transformers",)),
    Use("speech-to-text", "transcribe", SOUNDS, "written texts", SPEECH_HEADING, ("transformers",)),
)
USES: dict[str, Use] = {use.name: use for use in _USES}


def use_of(task: str, config: Mapping[str, Any]) -> Use | None:
    """Return what a model is used for; None where a release's card has no program that takes raw inputs.

    Args:
        task: one of ``TASKS``.
        config: the content of ``config.json``.
    """
    if is_cross_encoder(task, config):
        return USES["reranking"]
    use = USES.get(task)
    if use and task == "text-classification" and takes_pairs(config):
        return replace(use, takes=PAIRS)
    return use


@dataclass(frozen=True)
class FinalAnswers:
    """Raw inputs, and what the original's public interface answers to each of them alone.

    Attributes:
        use: a key of ``USES``.
        interface: the interface that was asked, for readers.
        inputs: texts, pairs of texts, ``[text, choices]``, ``{text, prompt}`` with the name of a prompt, images as the
            uint8 bytes of their files, ``{image, text}`` with such an image, or sounds as float32 (samples,) or
            (2, samples).
        answers: one for each input, of the kind ``USES[use].gives``: see the function ``_measure_…`` of that kind.
        settings: what the programs of a card need to know and cannot read from the release's other files, such as the
            activation function, the prompts or the mask token; and ``arguments``, with which the function is asked.
    """

    use: str
    interface: str
    inputs: list[Any]
    answers: list[Any]
    settings: "FinalSettings" = field(default_factory=dict)  # type: ignore[assignment]

    def chosen(self, indices: Sequence[int]) -> "FinalAnswers":
        """Return some of the inputs with their answers."""
        inputs, answers = ([values[index] for index in indices] for values in (self.inputs, self.answers))
        return FinalAnswers(self.use, self.interface, inputs, answers, self.settings)

    def as_json(self) -> "tuple[FinalRecord, dict[str, Array]]":
        """Return what JSON can hold, and the arrays, by the names with which the JSON refers to them."""
        arrays: dict[str, Array] = {}

        def named(values: Sequence[Any], kind: str) -> list[Any]:
            return [_with_names(value, f"{kind}.{index}", arrays) for index, value in enumerate(values)]

        facts: FinalRecord = {
            "use": self.use,
            "interface": self.interface,
            "settings": self.settings,
            "inputs": named(self.inputs, INPUT_ARRAY),
            "answers": named(self.answers, ANSWER_ARRAY),
        }
        return facts, arrays

    def sizes(self) -> list[int]:
        """Return, for each input, how many bytes it and its answer take as arrays; 0 where both are stored as JSON."""
        sizes = []
        for pair in zip(self.inputs, self.answers, strict=True):
            arrays: dict[str, Array] = {}
            for value, kind in zip(pair, (INPUT_ARRAY, ANSWER_ARRAY), strict=True):
                _with_names(value, kind, arrays)
            sizes.append(sum(array.nbytes for array in arrays.values()))
        return sizes


def _with_names(value: Any, name: str, arrays: dict[str, Array]) -> Any:
    """Return what JSON can hold of a value, an array or a mapping with arrays; they are added by names of their own."""
    if isinstance(value, np.ndarray):
        arrays[name] = np.ascontiguousarray(value)  # safetensors writes memory as it lies
        return {"array": name}
    if isinstance(value, dict):
        return {key: _with_names(part, f"{name}.{key}", arrays) for key, part in value.items()}
    return value


def _with_arrays(value: Any, arrays: Mapping[str, Array]) -> Any:
    """Return the value that ``_with_names`` was given."""
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("array"), str):
        return arrays[value["array"]]
    return {key: _with_arrays(part, arrays) for key, part in value.items()}


def from_json(facts: "FinalRecord", arrays: Mapping[str, Array]) -> FinalAnswers:
    """Return what ``FinalAnswers.as_json`` gave."""
    inputs, answers = ([_with_arrays(value, arrays) for value in part] for part in (facts["inputs"], facts["answers"]))
    return FinalAnswers(facts["use"], facts["interface"], inputs, answers, facts["settings"])
