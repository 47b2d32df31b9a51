"""Prompts with an image, as a model takes them: its own image processor and tokenizer, and its own vision encoder.

Processors of models that take videos too need torchvision. So a prompt is put together here: the network's own method
says how many vectors it makes of an image, and so many image tokens stand in the prompt.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxproof.cli import UserError, first_line
from onnxproof.inputs.image_places import image_marks, image_positions, image_prompt
from onnxproof.inputs.material import EVALUATION_IMAGES, EVALUATION_SEED, QUESTIONS, image_prompt_item
from onnxproof.inputs.model_inputs import (
    GRID,
    MASK,
    PIXEL_MASK,
    PIXELS,
    POSITIONS,
    TOKEN_KINDS,
    TOKENS,
    Array,
    Item,
    ModelInputs,
)
from onnxproof.inputs.synthetic import draw_images

#: The name by which the networks that count positions in parts take the kinds of tokens.
KINDS_ARGUMENT = "mm_token_type_ids"
#: What a vision encoder takes of an image.
IMAGE_INPUTS = (PIXELS, PIXEL_MASK, GRID)
#: Of the images, every so many-th is cut into tiles where the image processor does that; the others are one tile.
TILED = 12


def prompt_inputs(network: Any, config: Mapping[str, Any], processors: tuple[Any, Any], longest: int) -> ModelInputs:
    """Return the evaluation inputs: drawn images, each with a question.

    Args:
        network: a transformers model for image-text-to-text.
        config: its ``config.json``.
        processors: its tokenizer and its image processor.
        longest: how many tokens of a question are read.

    Raises:
        UserError: the network does not read what the image processor makes, or that is no image in one size.
    """
    tokenizer, image_processor = processors
    items: list[Item] = []
    for index, image in enumerate(draw_images(EVALUATION_IMAGES, EVALUATION_SEED)):
        # The last of so many: what PyTorch writes about is kept in a release, where many tiles take much.
        seen = see(image_processor, image, tiled=index % TILED == TILED - 1)
        count = count_image_tokens(network, seen)
        words = tokenizer(QUESTIONS[index % len(QUESTIONS)], truncation=True, max_length=longest)[TOKENS]
        has_start = bool(words) and words[0] in tokenizer.all_special_ids
        image_token = network.config.image_token_id
        tokens, kinds = image_prompt(np.array(words), image_token, count, has_start, image_marks(config))
        made = {name: values[0] if name != PIXELS or GRID not in seen else values for name, values in seen.items()}
        items.append(image_prompt_item(made | text_part(network, tokens, kinds, made), kinds))
    shapes = {item[PIXELS].shape[-2:] for item in items}
    if GRID not in items[0] and len(shapes) > 1:
        sizes = " and ".join(f"{height} x {width}" for height, width in sorted(shapes)[:2])
        raise UserError(f"its image processor makes images of different sizes ({sizes} pixels), which are not served")
    padding = {TOKENS: tokenizer.pad_token_id or 0}
    return ModelInputs(items, padding_side="left", padding_values=padding)


def see(image_processor: Any, image: Array, tiled: bool) -> dict[str, Array]:
    """Return what an image processor makes of one image, with a batch axis: float32 pixels, bool masks, int64 grids."""
    left_out = ("do_pan_and_scan",) if tiled else ("do_pan_and_scan", "do_image_splitting")
    options = {name: False for name in left_out if hasattr(image_processor, name)}
    features = image_processor(images=image, return_tensors="np", **options)
    kinds = {PIXELS: np.float32, PIXEL_MASK: np.bool_, GRID: np.int64}
    return {name: np.asarray(features[name]).astype(kinds[name]) for name in IMAGE_INPUTS if name in features}


def count_image_tokens(network: Any, seen: Mapping[str, Array]) -> int:
    """Return how many vectors a network makes of an image, see ``see``.

    Raises:
        UserError: it does not read the image, or reads it as several.
    """
    import torch

    if GRID not in seen and len(seen[PIXELS]) != 1:
        raise UserError(f"its image processor makes {len(seen[PIXELS])} images of one, which is not served")
    try:
        with torch.inference_mode():
            return len(image_features(network, {name: torch.from_numpy(values) for name, values in seen.items()}))
    except Exception as error:  # whatever the network's own code raises
        raise UserError(
            f"{type(network).__name__} cannot read its image processor's images: {first_line(error)}"
        ) from error


def text_part(network: Any, tokens: Array, kinds: Array, image: Mapping[str, Array]) -> dict[str, Array]:
    """Return the inputs of a prompt's text: tokens, mask, positions, and what else tells the image's tokens."""
    item = {TOKENS: tokens, MASK: np.ones_like(tokens), POSITIONS: np.arange(len(tokens))}
    if takes_positions_in_parts(network):
        merged = network.config.vision_config.spatial_merge_size
        item |= {POSITIONS: image_positions(kinds, image[GRID], merged), KINDS_ARGUMENT: kinds}
    return item | ({TOKEN_KINDS: kinds} if takes_token_kinds(network) else {})


def image_features(network: Any, inputs: Mapping[str, Any]) -> Any:
    """Return what a network makes of images by its own method, float32 (image tokens, size)."""
    import torch

    features = network.get_image_features(**inputs).pooler_output
    joined = features if isinstance(features, torch.Tensor) else torch.cat(list(features))
    return joined.reshape(-1, joined.shape[-1])


def takes_positions_in_parts(network: Any) -> bool:
    """Tell whether a network counts positions in time, height and width: int64 (3, batch, tokens)."""
    rope = getattr(network.config.get_text_config(), "rope_parameters", None) or {}
    return "mrope_section" in rope


def takes_token_kinds(network: Any) -> bool:
    """Tell whether all tokens of an image see each other, as in Gemma 3: which they are is an input then."""
    return TOKEN_KINDS in inspect.signature(network.forward).parameters
