"""Model inputs for recipes that look at activations, made without torch from an ONNX folder's own files.

They share no text, image or sound with the evaluation inputs, on which the gate judges what the recipe made.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.cli import UserError
from onnxproof.files import read_json
from onnxproof.inputs import TOKENS, Item, ModelInputs
from onnxproof.stimuli import draw_images, synthesize_sounds
from onnxproof.tasks.inference import choose_task, read_transformer_config
from onnxproof.tasks.material import (
    CALIBRATION_IMAGES,
    CALIBRATION_SEED,
    CALIBRATION_SOUNDS,
    CAPTIONS,
    compose_texts,
    mask_one_token,
)
from onnxproof.tasks.registry import model_takes
from onnxproof.text_limits import most_tokens
from onnxproof.texts import CALIBRATION_TEXTS, read_texts

Array = NDArray[Any]

#: Ranges of activations hardly change beyond this length, and time grows with it.
MAX_TOKENS = 128
#: What models of images take when their files do not say.
DEFAULT_IMAGE_SIDE = 224
DEFAULT_SAMPLING_RATE = 16_000


def calibration_feeds(folder: Path, inputs: list[str]) -> list[dict[str, Array]]:
    """Return the calibration inputs of the task that a folder's ``config.json`` names, each fed alone."""
    made = calibration_inputs(folder, choose_task(folder.name, folder, None), inputs)
    return [made.feed([index], inputs) for index in range(len(made.items))]


def calibration_inputs(folder: Path, task: str, inputs: list[str]) -> ModelInputs:
    """Return calibration inputs for a task: the bundled texts, drawn images or synthesized sounds.

    Args:
        folder: an ONNX folder, with ``config.json`` and the tokenizer's or the preprocessor's files.
        task: the task it was exported for.
        inputs: names of the graph's inputs.

    Raises:
        UserError: the folder has no tokenizer, or the graph wants an input that is not made here.
    """
    config = read_transformer_config(folder)
    takes = model_takes(config.get("model_type"))
    if takes == "text":
        made = _text_inputs(folder, task, config)
    elif takes == "sound":
        made = _sound_inputs(folder, config)
    else:
        made = _image_inputs(folder, config, with_texts=takes == "image+texts")
    unknown = set(inputs) - made.items[0].keys() - made.shared.keys()
    if unknown:
        raise UserError(f"{folder}: the graph wants {', '.join(sorted(unknown))}, which no text tokenizer makes")
    return made


def image_shape(folder: Path) -> tuple[int, int, int]:
    """Return channels, height and width of the pixels that an image processor makes, read from its settings.

    Where it keeps an image's proportions, this is the shape of a square image.
    """
    config = read_transformer_config(folder)
    settings = _preprocessor(folder)
    size = settings.get("crop_size") if settings.get("do_center_crop") else None
    size = size or settings.get("size") or config.get("image_size") or config.get("vision_config", {}).get("image_size")
    if isinstance(size, dict):
        side = size.get("shortest_edge") or size.get("longest_edge") or DEFAULT_IMAGE_SIDE
        height, width = size.get("height") or side, size.get("width") or side
    elif isinstance(size, list):
        height, width = size
    else:
        height = width = size or DEFAULT_IMAGE_SIDE
    return int(config.get("num_channels") or 3), int(height), int(width)


def sampling_rate(folder: Path) -> int:
    """Return the samples a second that a feature extractor expects."""
    return int(_preprocessor(folder).get("sampling_rate") or DEFAULT_SAMPLING_RATE)


def _preprocessor(folder: Path) -> dict[str, Any]:
    file = folder / "preprocessor_config.json"
    settings: dict[str, Any] = read_json(file) if file.is_file() else {}
    return settings


def _text_inputs(folder: Path, task: str, config: dict[str, Any]) -> ModelInputs:
    tokenizer = _open_tokenizer(folder)
    tokenizer.enable_truncation(min(MAX_TOKENS, most_tokens(config) or MAX_TOKENS))
    mask_id = tokenizer.token_to_id(_mask_token(folder)) if task == "fill-mask" else None
    items: list[Item] = []
    for entry in compose_texts(task, config, read_texts(CALIBRATION_TEXTS)):
        if isinstance(entry, list):
            choices = [_encoded(tokenizer.encode(*pair)) for pair in entry]
            joined = ModelInputs(choices)
            items.append(joined.feed(range(len(choices)), list(choices[0])))
            continue
        encoding = tokenizer.encode(*entry) if isinstance(entry, tuple) else tokenizer.encode(entry)
        item = _encoded(encoding)
        if mask_id is not None:
            item = mask_one_token(item, np.array(encoding.special_tokens_mask), mask_id)
        items.append(item)
    return ModelInputs(items, padding_values={TOKENS: config.get("pad_token_id") or 0})


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


def _mask_token(folder: Path) -> str:
    token = read_json(folder / "tokenizer_config.json").get("mask_token")
    return str(token["content"] if isinstance(token, dict) else token)


def _image_inputs(folder: Path, config: dict[str, Any], with_texts: bool) -> ModelInputs:
    """Draw images at the size that the processor makes, so that nothing has to be scaled, and normalize them."""
    settings = _preprocessor(folder)
    channels, height, width = image_shape(folder)
    images = draw_images(CALIBRATION_IMAGES, CALIBRATION_SEED, ((height, width),))
    items: list[Item] = []
    for image in images:
        pixels = image[..., :channels].astype(np.float32)
        if settings.get("do_rescale", True):
            pixels *= settings.get("rescale_factor") or 1 / 255
        if settings.get("do_normalize", bool(settings.get("image_mean"))):
            mean, deviation = (np.array(settings.get(key, 0.5)) for key in ("image_mean", "image_std"))
            pixels = ((pixels - mean) / deviation).astype(np.float32)
        pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        items.append({"pixel_values": pixels, "pixel_mask": np.ones((height, width), dtype=np.int64)})
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


def _sound_inputs(folder: Path, config: dict[str, Any]) -> ModelInputs:
    """Synthesize sounds; models of spectrograms get drawn ones of the right shape and range instead.

    Ranges of activations are what calibration looks at, and no spectrogram library is at hand here.
    """
    settings = _preprocessor(folder)
    if "num_mel_bins" not in config:
        sounds = synthesize_sounds(CALIBRATION_SOUNDS, sampling_rate(folder), CALIBRATION_SEED)
        if settings.get("do_normalize", True):
            sounds = [((sound - sound.mean()) / (sound.std() + 1e-7)).astype(np.float32) for sound in sounds]
        waves: list[Item] = [{"input_values": sound} for sound in sounds]
        return ModelInputs(waves)
    bands = int(config["num_mel_bins"])
    if config.get("model_type") == "whisper":
        name, shape = "input_features", (bands, 2 * int(config["max_source_positions"]))
    else:
        name, shape = "input_values", (int(config.get("max_length") or settings.get("max_length") or 1024), bands)
    images = draw_images(CALIBRATION_SOUNDS, CALIBRATION_SEED, (shape,))
    return ModelInputs([{name: (image[..., 0] / 127.5 - 1).astype(np.float32)} for image in images])
