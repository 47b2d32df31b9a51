"""What models are shown: whole texts, pairs, choices, masked texts; images, sounds and candidate captions.

The same material serves evaluation and calibration, made from different texts and different seeds.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxproof.inputs.model_inputs import DECODER_TOKENS, MASK, MASKED_POSITIONS, POSITIONS, TOKENS, Array, Item
from onnxproof.tasks.heads import takes_pairs

if TYPE_CHECKING:
    from onnxproof.records.checkpoint import ModelConfig

#: One text, a pair, or the pairs of a prompt with each of its choices.
Entry = str | tuple[str, str] | list[tuple[str, str]]

EVALUATION_SEED, CALIBRATION_SEED = 20, 21
EVALUATION_IMAGES, EVALUATION_SOUNDS = 24, 16
CALIBRATION_IMAGES, CALIBRATION_SOUNDS = 12, 8

#: Longer texts cost much and show nothing new; models with a shorter limit are cut there.
MAX_TOKENS = 512
#: An answer of a whole vocabulary, or four readings of a text, cost much: so many texts are enough.
MOST_TEXTS = {"fill-mask": 64, "multiple-choice": 64, "text-generation": 48, "text2text-generation": 48}
CHOICES = 4
#: Height and width of the images that are shown to a reader of single lines of writing, by turns.
LINE_SHAPES = ((48, 320), (48, 320), (48, 448), (48, 448))
#: The guesses of what comes next are compared in so many places of a prompt.
PROMPT_PLACES = 4
#: So many tokens, its start among them, an encoder-decoder is told to have written already.
WRITTEN_TOKENS = 12

QUESTIONS = (
    "What is this about?",
    "Who is mentioned?",
    "Wann passiert das?",
    "¿Qué ha pasado?",
    "What should be done?",
    "Où est-ce que cela se passe ?",
    "Why?",
)

CAPTIONS = (
    "a photo of a circle",
    "a drawing of a red square",
    "stripes on a wall",
    "a triangle in front of a blue sky",
    "a photo of a cat on a sofa",
    "ein grüner Ring",
    "noise",
    "an empty page",
)


def compose_texts(task: str, config: "ModelConfig", texts: Sequence[str]) -> list[Entry]:
    """Return what a text model is asked for its task, made from plain texts.

    Rerankers and natural-language inference judge the first half of a text beside its own second half or another's;
    multiple choice offers four second halves; a question goes before the text it is asked about.
    """
    most = MOST_TEXTS.get(task, len(texts))
    texts = [texts[index * len(texts) // most] for index in range(min(most, len(texts)))]
    if task == "question-answering":
        return [(QUESTIONS[index % len(QUESTIONS)], text) for index, text in enumerate(texts)]
    halves = [_halves(text) for text in texts]
    if task == "multiple-choice":
        return [
            [(first, halves[(index + step) % len(halves)][1]) for step in range(CHOICES)]
            for index, (first, _) in enumerate(halves)
        ]
    if task == "text-classification" and takes_pairs(config):
        return [(first, halves[(index + index % 2) % len(halves)][1]) for index, (first, _) in enumerate(halves)]
    return list(texts)


def add_global_attention(item: dict[str, Array], config: "ModelConfig") -> dict[str, Array]:
    """Return a Longformer's item with attention from everywhere to its first token; other models' as it is."""
    if config.get("model_type") != "longformer":
        return item
    attention = np.zeros_like(item["input_ids"])
    attention[..., 0] = 1
    return item | {"global_attention_mask": attention}


def mask_one_token(item: dict[str, Array], special: Array, mask_id: int) -> dict[str, Array]:
    """Return an item whose middle token, special ones (where ``special`` is 1) left aside, is the mask.

    Where all are special, as in an empty text, the first token is masked.
    """
    plain = np.flatnonzero(special == 0)
    position = int(plain[len(plain) // 2]) if len(plain) else 0
    ids = item["input_ids"].copy()
    ids[position] = mask_id
    return item | {"input_ids": ids, MASKED_POSITIONS: np.array([position], dtype=np.int64)}


def prompt_item(item: dict[str, Array]) -> dict[str, Array]:
    """Return the item of a prompt with its positions and the places, spread evenly, whose next tokens are compared."""
    length = len(item[TOKENS])
    return item | {POSITIONS: np.arange(length, dtype=np.int64), MASKED_POSITIONS: _spread_places(length)}


def likelihood_item(tokens: Array) -> dict[str, Array]:
    """Return the item of a text, int64 (tokens,), all of whose tokens but the first are guessed from those before."""
    length = len(tokens)
    return {
        TOKENS: tokens,
        MASK: np.ones(length, dtype=np.int64),
        POSITIONS: np.arange(length, dtype=np.int64),
        MASKED_POSITIONS: np.zeros(1, dtype=np.int64),
    }


def image_prompt_item(item: Item, kinds: Array) -> dict[str, Array]:
    """Return the item of a prompt with an image, with the places of its words whose next tokens are compared.

    ``kinds`` says which of the tokens are the image's, int64 (tokens,): no guess is made in the middle of an image.
    """
    rest = len(kinds) - int(np.flatnonzero(kinds)[-1])
    return {**item, MASKED_POSITIONS: len(kinds) - rest + _spread_places(rest)}


def written_item(item: Item, start: int, text: Sequence[int]) -> dict[str, Array]:
    """Return an encoder-decoder's item with what it has written already: a start, then the first tokens of a text."""
    written = np.array([start, *text[: WRITTEN_TOKENS - 1]], dtype=np.int64)
    return {**item, DECODER_TOKENS: written, MASKED_POSITIONS: _spread_places(len(written))}


def _spread_places(length: int) -> Array:
    places = np.linspace(length / PROMPT_PLACES, length, PROMPT_PLACES).round().astype(np.int64) - 1
    return np.asarray(np.unique(places.clip(min=0)))


def _halves(text: str) -> tuple[str, str]:
    """Split a text at the space nearest before its middle, or at the middle of a text without one."""
    middle = len(text) // 2
    cut = text.rfind(" ", 0, middle + 1)
    cut = cut if cut > 0 else middle
    return text[:cut], text[cut:]
