"""What a model's image processor or feature extractor makes, read from its settings: shapes, without running it."""

from pathlib import Path

from onnxproof.files import read_json
from onnxproof.inputs.model_inputs import GRID, MASK, PIXEL_MASK, PIXELS
from onnxproof.records.checkpoint import ModelConfig, PreprocessorConfig

#: What is assumed where a model's files do not say: the commonest values.
IMAGE_SIDE = 224
SAMPLING_RATE = 16_000
SPECTROGRAM_FRAMES = 1024
SPECTROGRAM_RATE = 100  # frames a second
PATCH_SIDE = 16
#: How long the sounds are that are timed.
SOUND_SECONDS = 2


def read_preprocessor(folder: Path) -> PreprocessorConfig:
    """Return the settings of a folder's image processor or feature extractor; empty where there are none.

    They are the content of ``preprocessor_config.json``, or a part of ``processor_config.json``, where transformers 5
    keeps those of a model that has a tokenizer besides.
    """
    file, joined = folder / "preprocessor_config.json", folder / "processor_config.json"
    settings: PreprocessorConfig = read_json(joined) if joined.is_file() else {}
    part = next((settings[name] for name in ("image_processor", "feature_extractor") if settings.get(name)), None)
    if part is None and file.is_file():
        part = read_json(file)
    return dict(part or {})


def image_shape(folder: Path, config: ModelConfig) -> tuple[int, int, int]:
    """Return channels, height and width of the pixels of an image; of a square one, where proportions are kept."""
    settings = read_preprocessor(folder)
    size = settings.get("crop_size") if settings.get("do_center_crop") else None
    size = size or settings.get("size") or config.get("image_size") or config.get("vision_config", {}).get("image_size")
    if isinstance(size, dict):
        side = size.get("shortest_edge") or size.get("longest_edge") or IMAGE_SIDE
        height, width = size.get("height") or side, size.get("width") or side
    elif isinstance(size, list):
        height, width = size
    else:
        height = width = size or IMAGE_SIDE
    return int(config.get("num_channels") or 3), int(height), int(width)


def prompt_image_shape(settings: PreprocessorConfig, config: ModelConfig) -> tuple[int, int]:
    """Return height and width of the pixels that the vision encoder of a model that writes about images takes.

    Those of one tile, where images are cut into tiles; a size that needs no scaling, where any size is taken.
    """
    if "merge_size" in settings:
        step = int(settings["patch_size"]) * int(settings["merge_size"])
        size = settings.get("size") or {}
        names = (("shortest_edge", "min_pixels"), ("longest_edge", "max_pixels"))  # numbers of pixels under either name
        least, most = (int(size.get(key) or settings.get(other) or IMAGE_SIDE**2) for key, other in names)
        side = min(max(IMAGE_SIDE, least**0.5), most**0.5)
        return (max(1, int(side / step)) * step,) * 2
    size = settings["max_image_size"] if "max_image_size" in settings else settings.get("crop_size")
    size = size or settings.get("size") or config["vision_config"].get("image_size") or IMAGE_SIDE
    if not isinstance(size, dict):
        return int(size), int(size)
    side = size.get("longest_edge") or size.get("shortest_edge") or IMAGE_SIDE
    return int(size.get("height") or side), int(size.get("width") or side)


def prompt_image_shapes(settings: PreprocessorConfig, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes, without a batch axis, of what an image is to a model that writes about images.

    An image in tiles is one of them. Of an image in patches, there is a row for each.
    """
    height, width = prompt_image_shape(settings, config)
    if "merge_size" in settings:
        side = int(settings["patch_size"])
        values = 3 * int(settings["temporal_patch_size"]) * side**2
        return {PIXELS: (height // side * (width // side), values), GRID: (3,)}
    if "max_image_size" in settings:
        return {PIXELS: (1, 3, height, width), PIXEL_MASK: (1, height, width)}
    return {PIXELS: (3, height, width)}


def patch_sizes(settings: PreprocessorConfig) -> tuple[int, int, int]:
    """Return how many patches an image is cut into at most, and a patch's height and width in pixels."""
    size = settings.get("patch_size") or {}
    return int(settings["max_patches"]), int(size.get("height") or PATCH_SIDE), int(size.get("width") or PATCH_SIDE)


def sampling_rate(folder: Path) -> int:
    """Return the samples a second that a feature extractor expects."""
    return int(read_preprocessor(folder).get("sampling_rate") or SAMPLING_RATE)


def sound_shapes(folder: Path, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the model inputs of a sound: samples (of two seconds), or a spectrogram's frames and bands; their mask."""
    if config.get("model_type") == "speech_to_text":
        frames = SOUND_SECONDS * SPECTROGRAM_RATE
        return {"input_features": (frames, int(config["input_feat_per_channel"])), MASK: (frames,)}
    bands = (config.get("encoder_config") or {}).get("num_mel_bins") or config.get("feature_projection_input_dim")
    if bands:
        settings = read_preprocessor(folder)
        rate = sampling_rate(folder) / (settings.get("hop_length") or sampling_rate(folder) / SPECTROGRAM_RATE)
        frames = int(SOUND_SECONDS * rate / (settings.get("stride") or 1))
        return {"input_features": (frames, int(bands)), MASK: (frames,)}
    if "num_mel_bins" not in config:
        samples = SOUND_SECONDS * sampling_rate(folder)
        channels = (1,) if config.get("model_type") == "omniasr_ctc" else ()  # which it keeps as an axis of its own
        return {"input_values": (*channels, samples), MASK: (samples,)}
    bands = int(config["num_mel_bins"])
    if config.get("model_type") == "whisper":
        return {"input_features": (bands, 2 * int(config["max_source_positions"]))}
    frames = config.get("max_length") or read_preprocessor(folder).get("max_length") or SPECTROGRAM_FRAMES
    return {"input_values": (int(frames), bands)}


def item_shapes(folder: Path, config: ModelConfig, takes: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes, without a batch axis, of what one image or sound is to a model; none for a text."""
    if takes == "text":
        return {}
    if takes == "sound":
        return sound_shapes(folder, config)
    settings = read_preprocessor(folder)
    if takes == "image+prompt":
        return prompt_image_shapes(settings, config)
    if "max_patches" in settings:
        most, height, width = patch_sizes(settings)
        return {"flattened_patches": (most, 2 + 3 * height * width), MASK: (most,)}
    channels, height, width = image_shape(folder, config)
    return {"pixel_values": (channels, height, width), "pixel_mask": (height, width)}
