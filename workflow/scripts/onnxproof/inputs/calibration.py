"""Model inputs for recipes that look at activations, made without torch from an ONNX folder's own files.

They share no text, image or sound with the evaluation inputs, on which the gate judges what the recipe made.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.checkpoint.inference import read_start_token, read_transformer_config
from onnxproof.checkpoint.text_limits import most_tokens, text_settings
from onnxproof.checkpoint.tokenizer_files import find_mask_token, require_mask_token
from onnxproof.cli import UserError
from onnxproof.inputs.material import (
    CALIBRATION_IMAGES,
    CALIBRATION_SEED,
    CALIBRATION_SOUNDS,
    CAPTIONS,
    LINE_SHAPES,
    Entry,
    add_global_attention,
    compose_texts,
    mask_one_token,
    prompt_item,
    written_item,
)
from onnxproof.inputs.model_inputs import GRID, MASK, PIXEL_MASK, PIXELS, TOKENS, Item, ModelInputs
from onnxproof.inputs.preprocessing import (
    image_shape,
    patch_sizes,
    prompt_image_shape,
    read_preprocessor,
    sampling_rate,
    sound_shapes,
)
from onnxproof.inputs.prompts import PAST, prompt_limit
from onnxproof.inputs.synthetic import draw_images, synthesize_sounds
from onnxproof.inputs.texts import CALIBRATION_TEXTS, read_texts
from onnxproof.records.checkpoint import ModelConfig, PreprocessorConfig
from onnxproof.tasks.model_types import model_takes
from onnxproof.tasks.registry import ENCODER_DECODER_TASKS, GENERATING_TASKS

Array = NDArray[Any]

#: Ranges of activations hardly change beyond this length, and time grows with it.
MAX_TOKENS = 128
#: Where the ranges are fixed for all inputs, the little that changes counts: MiniLM's lowest cosine was 0.984 on texts
#: of 256 tokens with ranges of 128, and 0.998 with these.
MAX_TOKENS_OF_FIXED = 256


def calibration_inputs(
    folder: Path,
    task: str,
    inputs: list[str],
    texts: Path = CALIBRATION_TEXTS,
    more: Sequence[Entry] = (),
    max_tokens: int = MAX_TOKENS,
) -> ModelInputs:
    """Return calibration inputs for a task: texts, drawn images or synthesized sounds.

    Args:
        folder: an ONNX folder, with ``config.json`` and the tokenizer's or the preprocessor's files.
        task: the task it was exported for.
        inputs: names of the graph's inputs; a cache of keys and values is left to ``with_empty_cache``.
        texts: a file of texts for a text model, see ``read_texts``.
        more: what such a model is asked after these texts, one item each.
        max_tokens: longer texts are cut.

    Raises:
        UserError: the texts cannot be read, the folder has no tokenizer or no token for a masked word, or the graph
            wants an input that is not made here.
    """
    config = read_transformer_config(folder)
    takes = model_takes(config.get("model_type"))
    if takes == "text":
        made = _text_inputs(folder, task, config, texts, more, max_tokens)
    elif takes == "sound":
        made = _sound_inputs(folder, config)
    else:
        made = _image_inputs(folder, task, config, with_texts=takes == "image+texts")
    wanted = {name for name in inputs if not name.startswith(PAST)}
    unknown = wanted - made.items[0].keys() - made.shared.keys()
    if unknown:
        raise UserError(f"{folder}: the graph wants {', '.join(sorted(unknown))}, which no text tokenizer makes")
    return made


def _text_inputs(
    folder: Path, task: str, config: ModelConfig, texts: Path, more: Sequence[Entry], max_tokens: int
) -> ModelInputs:
    tokenizer = _open_tokenizer(folder)
    longest = min(max_tokens, most_tokens(config) or max_tokens)
    generates = task in GENERATING_TASKS
    tokenizer.enable_truncation(prompt_limit(longest) if generates else longest)
    mask_id = None
    if task == "fill-mask":
        mask = find_mask_token(folder)
        mask_id = require_mask_token(str(folder), mask, None if mask is None else tokenizer.token_to_id(mask))
    items: list[dict[str, Array]] = []
    for entry in [*compose_texts(task, config, read_texts(texts)), *more]:
        if isinstance(entry, list):
            choices = [_encoded(tokenizer.encode(*pair)) for pair in entry]
            joined = ModelInputs(choices)
            items.append(joined.feed(range(len(choices)), list(choices[0])))
            continue
        encoding = tokenizer.encode(*entry) if isinstance(entry, tuple) else tokenizer.encode(entry)
        item = _encoded(encoding)
        if mask_id is not None:
            item = mask_one_token(item, np.array(encoding.special_tokens_mask), mask_id)
        if generates:
            if not encoding.ids:  # an empty text is no prompt
                continue
            is_read_first = task in ENCODER_DECODER_TASKS
            item = written_item(item, read_start_token(folder), encoding.ids) if is_read_first else prompt_item(item)
        items.append(item)
    items = [add_global_attention(item, config) for item in items]
    side = "left" if task == "text-generation" else "right"
    return ModelInputs(items, padding_side=side, padding_values={TOKENS: config.get("pad_token_id") or 0})


def _open_tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError(f"{file}: no such file: quantization needs the model's tokenizer")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    return tokenizer


def _encoded(encoding: Any) -> dict[str, Array]:
    values = {
        TOKENS: encoding.ids,
        "attention_mask": encoding.attention_mask,
        "token_type_ids": encoding.type_ids,
        "position_ids": range(len(encoding.ids)),
    }
    return {name: np.array(ids, dtype=np.int64) for name, ids in values.items()}


def _image_inputs(folder: Path, task: str, config: ModelConfig, with_texts: bool) -> ModelInputs:
    """Draw images at the size that the processor makes, so that nothing has to be scaled, and normalize them."""
    settings = read_preprocessor(folder)
    if "max_patches" in settings:
        return _patch_inputs(settings)
    channels, height, width = image_shape(folder, config)
    shapes = LINE_SHAPES if task == "text-recognition" else ((height, width),)
    images = draw_images(CALIBRATION_IMAGES, CALIBRATION_SEED, shapes)
    items: list[Item] = []
    for image in images:
        pixels = _normalized(image[..., :channels], settings)
        items.append({"pixel_values": pixels, "pixel_mask": np.ones(image.shape[:2], dtype=np.int64)})
    shared: dict[str, Array] = {}
    if with_texts:
        tokenizer = _open_tokenizer(folder)
        longest = most_tokens(config.get("text_config", {})) or MAX_TOKENS
        tokenizer.enable_truncation(longest)
        padding = config.get("text_config", {}).get("pad_token_id") or 0
        tokenizer.enable_padding(pad_id=padding, length=longest if config.get("model_type") == "siglip" else None)
        encodings = [_encoded(encoding) for encoding in tokenizer.encode_batch(list(CAPTIONS))]
        shared = {name: np.stack([encoding[name] for encoding in encodings]) for name in encodings[0]}
    return ModelInputs(items, shared)


def _normalized(image: Array, settings: PreprocessorConfig) -> Array:
    """Return an image, uint8 (height, width, channels), as float32 (channels, height, width)."""
    pixels = image.astype(np.float32)
    if settings.get("do_rescale", True):
        pixels *= settings.get("rescale_factor") or 1 / 255
    if settings.get("do_normalize", bool(settings.get("image_mean"))):
        mean, deviation = (np.array(settings.get(key, 0.5)) for key in ("image_mean", "image_std"))
        pixels = ((pixels - mean) / deviation).astype(np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def prompt_images(folder: Path, config: ModelConfig) -> list[dict[str, Array]]:
    """Return drawn images as the vision encoder of a model that writes about images takes them, without a batch axis.

    SmolVLM's are one tile each; Qwen2-VL's are cut into patches, see ``cut_into_patches``.
    """
    settings = read_preprocessor(folder)
    shape = prompt_image_shape(settings, config)
    drawn = draw_images(CALIBRATION_IMAGES, CALIBRATION_SEED, (shape,))
    images = [_normalized(image, settings) for image in drawn]
    if "merge_size" in settings:
        sizes = (int(settings["temporal_patch_size"]), int(settings["patch_size"]), int(settings["merge_size"]))
        return [cut_into_patches(image, *sizes) for image in images]
    if "max_image_size" in settings:
        return [{PIXELS: image[None], PIXEL_MASK: np.ones((1, *shape), dtype=np.bool_)} for image in images]
    return [{PIXELS: image} for image in images]


def cut_into_patches(image: Array, repeats: int, side: int, merged: int) -> dict[str, Array]:
    """Return an image as Qwen2-VL takes it: float32 (patches, values), and how many of them each way, int64 (3,).

    A patch is ``side`` pixels a side, and there ``repeats`` times, as if it were of a film. Squares of ``merged``
    patches a side, which become one token, stand together.

    Source: P. Wang et al., "Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution",
    2024, section 2.1; the order is that of transformers' image processor.
    """
    channels, height, width = image.shape
    rows, columns = height // side, width // side
    squares = image.reshape(channels, rows // merged, merged, side, columns // merged, merged, side)
    squares = squares.transpose(1, 4, 2, 5, 0, 3, 6)
    patches = np.repeat(squares[..., None, :, :], repeats, axis=5).reshape(rows * columns, -1)
    return {PIXELS: np.ascontiguousarray(patches), GRID: np.array([1, rows, columns])}


def prompt_words(folder: Path, config: ModelConfig) -> list[tuple[Array, bool]]:
    """Return the tokens of some captions, int64 (tokens,), and whether the first only starts a text."""
    tokenizer = _open_tokenizer(folder)
    longest = most_tokens(text_settings(config)) or MAX_TOKENS
    tokenizer.enable_truncation(prompt_limit(min(MAX_TOKENS, longest)))
    encodings = [tokenizer.encode(caption) for caption in CAPTIONS]
    return [
        (np.array(encoding.ids, dtype=np.int64), bool(encoding.special_tokens_mask[:1] == [1]))
        for encoding in encodings
    ]


def _patch_inputs(settings: PreprocessorConfig) -> ModelInputs:
    """Draw images cut into patches as Pix2Struct takes them: row, column (from 1 on) and values, then rows of zeros.

    Source: K. Lee et al., "Pix2Struct: Screenshot Parsing as Pretraining for Visual Language Understanding", 2023.
    """
    most, height, width = patch_sizes(settings)
    side = int(most**0.5)
    items: list[Item] = []
    for image in draw_images(CALIBRATION_IMAGES, CALIBRATION_SEED, ((side * height, side * width),)):
        pixels = (image - image.mean()) / max(image.std(), 1 / image.size**0.5)
        patches = pixels.reshape(side, height, side, width, 3).swapaxes(1, 2).reshape(side * side, -1)
        rows, columns = np.divmod(np.arange(side * side), side)
        whole = np.zeros((most, 2 + patches.shape[1]), dtype=np.float32)
        whole[: side * side] = np.column_stack([rows + 1, columns + 1, patches])
        items.append({"flattened_patches": whole, MASK: (np.arange(most) < side * side).astype(np.int64)})
    return ModelInputs(items)


def _sound_inputs(folder: Path, config: ModelConfig) -> ModelInputs:
    """Synthesize sounds; models of spectrograms get drawn ones of the right shape and range instead.

    Ranges of activations are what calibration looks at, and no spectrogram library is at hand here. Drawn ones do not
    show where each channel lies.
    """
    settings = read_preprocessor(folder)
    (name, shape), *_ = sound_shapes(folder, config).items()
    is_alike = len(shape) == 1 or shape[0] == 1
    if is_alike:
        sounds = synthesize_sounds(CALIBRATION_SOUNDS, sampling_rate(folder), CALIBRATION_SEED)
        if settings.get("do_normalize", True):
            sounds = [((sound - sound.mean()) / (sound.std() + 1e-7)).astype(np.float32) for sound in sounds]
        sounds = [sound.reshape(*shape[:-1], -1) for sound in sounds]
    else:
        height, width = shape
        images = draw_images(CALIBRATION_SOUNDS, CALIBRATION_SEED, ((height, width),))
        sounds = [(image[..., 0] / 127.5 - 1).astype(np.float32) for image in images]
    items: list[Item] = [{name: sound, MASK: np.ones(len(sound), dtype=np.int64)} for sound in sounds]
    return ModelInputs(items, is_alike=is_alike)
