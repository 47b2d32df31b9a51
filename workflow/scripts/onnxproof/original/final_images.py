"""What a user of the original gets from raw images, through its own public interface; see ``final_answers``.

Where transformers 5 has no pipeline for a task, the original is asked as its documentation shows, with the model's own
processor, and the name of the interface says so.
"""

import io
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.inputs.material import QUESTIONS
from onnxproof.inputs.model_inputs import MASK, PIXELS, TOKENS
from onnxproof.inputs.synthetic import draw_images
from onnxproof.original.generation_settings import greedy_settings, told_greedily, told_settings
from onnxproof.original.image_prompts import takes_positions_in_parts
from onnxproof.original.interfaces import Interface, cleans_text, load_or_tell, load_own_tokenizer, make_pipeline
from onnxproof.original.model import Original, local_options
from onnxproof.parity.card_programs import open_image
from onnxproof.records.answers import Detection, Segment, Segments, Written
from onnxproof.records.reference import FinalSettings
from onnxproof.tasks.heads import SIGMOID, SOFTMAX

#: How many raw images there are, and the seed that draws them. Each takes the next of the sizes, (height, width) in
#: pixels, and the next of the pairs of a mode and a file format.
RAW_IMAGES, RAW_SEED = 30, 22
RAW_SHAPES = ((48, 64), (17, 97), (224, 224), (120, 31), (64, 64), (7, 9), (90, 160))
RAW_MODES = (("RGB", "PNG"), ("L", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("CMYK", "TIFF"), ("1", "PNG"), ("LA", "PNG"))
#: How many of them are asked about with a prompt: each answer is a text.
RAW_PROMPTS = 12
#: How sure a detector must be of an object that it names, as a probability. The first of these is taken at which it
#: finds anything in the first ``RAW_TRIED`` raw images.
THRESHOLDS, RAW_TRIED = (0.5, 0.1, 0.01), 4
#: What zero-shot models choose from.
CANDIDATES = ("a gradient", "a cat", "a red square")
#: What an image processor makes of an image for a model that writes about it: pixels, or patches with their mask.
SEEN = (PIXELS, "flattened_patches", MASK)


def raw_images() -> Iterator[NDArray[np.uint8]]:
    """Yield the bytes of image files, uint8 (bytes,), of odd sizes, in several modes and formats."""
    from PIL import Image

    for number, drawn in enumerate(draw_images(RAW_IMAGES, RAW_SEED, RAW_SHAPES)):
        mode, kind = RAW_MODES[number % len(RAW_MODES)]
        file = io.BytesIO()
        Image.fromarray(drawn).convert(mode).save(file, kind)
        yield np.frombuffer(file.getvalue(), dtype=np.uint8)


def raw_image_prompts() -> Iterator[dict[str, Any]]:
    """Yield images, as ``raw_images`` does, with prompts of several lengths and languages: ``{image, text}``."""
    for index, content in enumerate(itertools.islice(raw_images(), RAW_PROMPTS)):
        yield {"image": content, "text": QUESTIONS[index % len(QUESTIONS)]}


def surest_threshold(detect: Callable[[Any, float], Any]) -> float:
    """Return the first of ``THRESHOLDS`` at which a detector finds something in a raw image; the last one, if none.

    Args:
        detect: takes an image, one of PIL's, and a threshold, and returns a list.
    """
    images = [open_image(content) for content in itertools.islice(raw_images(), RAW_TRIED)]
    for threshold in THRESHOLDS[:-1]:
        if any(detect(image, threshold) for image in images):
            return threshold
    return THRESHOLDS[-1]


def load_whole_processor(original: Original, model: str, snapshot: Path) -> Any | None:
    """Return the processor that takes images and texts together; None, and a printed line, where there is none.

    Processors that take videos too need torchvision. A tokenizer must know the token that stands for an image.
    """

    def load() -> Any:
        from transformers import AutoProcessor

        take: Any = AutoProcessor.from_pretrained
        processor = take(snapshot, **local_options(snapshot))
        number = original.network.config.image_token_id
        if number not in processor.image_token_ids:
            raise ValueError(f"its {type(processor).__name__} has no token {number}, config.json's image_token_id")
        return processor

    return load_or_tell(model, "processor of images and texts", load)


def has_method(original: Original, model: str, *names: str) -> str | None:
    """Return the first of these methods that the image processor has; None, and a printed line, where it has none.

    The pipelines call them. General image processors lack them, and so have no final answers.
    """
    processor = original.processor[1] if isinstance(original.processor, tuple) else original.processor
    found = next((name for name in names if hasattr(processor, name)), None)
    if found is None:
        kind = type(processor).__name__
        print(f"{model}: its {kind} has no {' or '.join(names)}, so its card shows the graph alone", flush=True)
    return found


def _ask_about_image(original: Original, model: str, snapshot: Path) -> Interface:
    classify = make_pipeline("image-classification", original)
    labels = int(original.network.config.num_labels)

    def ask(content: Any) -> dict[str, float]:
        found = classify(open_image(content), top_k=labels)
        return {answer["label"]: float(answer["score"]) for answer in found}

    return Interface("pipeline('image-classification')", ask)


def _ask_for_features(original: Original, model: str, snapshot: Path) -> Interface:
    extract = make_pipeline("image-feature-extraction", original)

    def ask(content: Any) -> Any:
        return np.array(extract(open_image(content))[0], dtype=np.float32)

    return Interface("pipeline('image-feature-extraction')", ask)


def _ask_which_text_fits(original: Original, model: str, snapshot: Path) -> Interface:
    classify = make_pipeline("zero-shot-image-classification", original)
    activation = SIGMOID if "siglip" in str(original.config.get("model_type")) else SOFTMAX

    def ask(content: Any) -> dict[str, float]:
        found = classify(open_image(content), candidate_labels=list(CANDIDATES))
        return {answer["label"]: float(answer["score"]) for answer in found}

    settings: FinalSettings = {"activation": activation, "candidates": list(CANDIDATES)}
    return Interface("pipeline('zero-shot-image-classification')", ask, settings)


def _ask_for_objects(original: Original, model: str, snapshot: Path) -> Interface | None:
    if has_method(original, model, "post_process_object_detection") is None:
        return None
    detect = make_pipeline("object-detection", original)
    threshold = surest_threshold(lambda image, least: detect(image, threshold=least))

    def ask(content: Any) -> list[Detection]:
        return [_as_detection(found) for found in detect(open_image(content), threshold=threshold)]

    return Interface(f"pipeline('object-detection'), threshold {threshold}", ask, {"threshold": threshold})


def _ask_where_texts_fit(original: Original, model: str, snapshot: Path) -> Interface | None:
    """Ask for objects that texts name. The pipeline looks for each text by itself."""
    if has_method(original, model, "post_process_object_detection") is None:
        return None
    detect = make_pipeline("zero-shot-object-detection", original)
    options = {"candidate_labels": list(CANDIDATES)}
    threshold = surest_threshold(lambda image, least: detect(image, threshold=least, **options))

    def ask(content: Any) -> list[Detection]:
        return [_as_detection(found) for found in detect(open_image(content), threshold=threshold, **options)]

    settings: FinalSettings = {"threshold": threshold, "candidates": list(CANDIDATES)}
    return Interface(f"pipeline('zero-shot-object-detection'), threshold {threshold}", ask, settings)


def _as_detection(found: Mapping[str, Any]) -> Detection:
    sides = ("xmin", "ymin", "xmax", "ymax")
    return {"label": found["label"], "score": found["score"], "box": [found["box"][side] for side in sides]}


def _ask_for_pixels(original: Original, model: str, snapshot: Path) -> Interface | None:
    if has_method(original, model, "post_process_semantic_segmentation") is None:
        return None
    segment = make_pipeline("image-segmentation", original)
    numbers = {name: number for number, name in original.network.config.id2label.items()}

    def ask(content: Any) -> Any:
        found = segment(open_image(content), subtask="semantic")
        labels = np.zeros(np.shape(found[0]["mask"]), dtype=np.int16)
        for part in found:
            labels[np.asarray(part["mask"]) > 0] = numbers[part["label"]]
        return labels

    return Interface("pipeline('image-segmentation'), subtask 'semantic'", ask)


def _ask_for_segments(original: Original, model: str, snapshot: Path) -> Interface | None:
    """Ask for segments that do not overlap, of things and of what is around them where the processor tells both."""
    subtasks = ("panoptic", "instance")
    method = has_method(original, model, *(f"post_process_{subtask}_segmentation" for subtask in subtasks))
    if method is None:
        return None
    segment = make_pipeline("image-segmentation", original)
    threshold = surest_threshold(lambda image, least: segment(image, threshold=least))

    def ask(content: Any) -> Segments:
        image = open_image(content)
        found = segment(image, threshold=threshold)
        places = np.zeros(image.size[::-1], dtype=np.uint8)
        for number, part in enumerate(found, start=1):
            places[np.asarray(part["mask"]) > 0] = number
        segments: list[Segment] = [
            {"id": number, "label": part["label"], "score": float(part["score"])}
            for number, part in enumerate(found, start=1)
        ]
        return {"segments": segments, "places": places}

    name = f"pipeline('image-segmentation'), threshold {threshold}"
    return Interface(name, ask, {"threshold": threshold, "method": method})


def _ask_for_depths(original: Original, model: str, snapshot: Path) -> Interface | None:
    if has_method(original, model, "post_process_depth_estimation") is None:
        return None
    estimate = make_pipeline("depth-estimation", original)

    def ask(content: Any) -> Any:
        return np.asarray(estimate(open_image(content))["predicted_depth"], dtype=np.float32)

    return Interface("pipeline('depth-estimation')", ask)


def _ask_for_image(original: Original, model: str, snapshot: Path) -> Interface:
    """Ask for a restored image, uint8 (height, width, 3): with the edges by which the processor pads it, as they come.

    transformers 5 has no pipeline for this task.
    """
    import torch
    from transformers.image_utils import load_image

    def ask(content: Any) -> Any:
        features = original.processor(images=load_image(open_image(content)), return_tensors="pt")
        with torch.inference_mode():
            restored = original.network(**features).reconstruction[0]
        return (restored.float().clamp(0, 1).permute(1, 2, 0) * 255).round().numpy().astype(np.uint8)

    return Interface("AutoImageProcessor and AutoModelForImageToImage, as their documentation shows", ask)


def _ask_for_caption(original: Original, model: str, snapshot: Path) -> Interface | None:
    """Ask for the likeliest text about an image, with those settings of the model's own that a program applies.

    transformers 5 has no pipeline for models that take an image alone.
    """
    import torch
    from transformers.image_utils import load_image

    tokenizer = load_own_tokenizer(model, snapshot)
    if tokenizer is None:
        return None
    settings = greedy_settings(original.own_settings, original.new_tokens)

    def ask(content: Any) -> Written:
        features = original.processor(images=load_image(open_image(content)), return_tensors="pt")
        seen = {name: features[name] for name in SEEN if name in features}
        original.network.generation_config = settings
        with torch.inference_mode():
            tokens = original.network.generate(**seen)[0, 1:].tolist()
        return {"text": tokenizer.decode(tokens, skip_special_tokens=True), "tokens": tokens}

    told = told_settings(original.own_settings, original.start_token)
    told |= {"patches": PIXELS not in original.processor.model_input_names, "cleans": cleans_text(tokenizer)}
    written = told_greedily(original.new_tokens)
    name = f"AutoImageProcessor, {written} and AutoTokenizer.decode, as their documentation shows"
    return Interface(name, ask, told)


def _ask_about_image_and_prompt(original: Original, model: str, snapshot: Path) -> Interface | None:
    """Ask for the likeliest text after an image and a prompt, in a chat where the model has a template for one.

    Without a template, a user puts the mark that stands for the image into the prompt: here, before it.
    """
    import transformers
    from transformers.image_utils import load_image
    from transformers.pipelines.image_text_to_text import ReturnType
    from transformers.utils.chat_template_utils import Chat

    processor = load_whole_processor(original, model, snapshot)
    if processor is None:
        return None
    if takes_positions_in_parts(original.network):
        print(
            f"{model}: it counts positions in parts, as no program does, so its card shows the graphs alone", flush=True
        )
        return None
    # The pipeline copies it.
    original.network.generation_config = greedy_settings(original.own_settings, original.new_tokens, with_rules=False)
    make: Any = transformers.pipeline
    write = make("image-text-to-text", model=original.network, processor=processor, device="cpu")
    has_template = getattr(processor, "chat_template", None) is not None
    mark = None if has_template else getattr(processor, "boi_token", None) or processor.image_token

    def ask(value: Any) -> Written:
        image = load_image(open_image(value["image"]))
        asked: Any = {"images": image, "text": f"{mark}{value['text']}"}
        if has_template:
            content: Any = [{"type": "image", "image": image}, {"type": "text", "text": value["text"]}]
            messages: Any = [{"role": "user", "content": content}]
            asked = Chat(messages)
        features = write.preprocess(asked)
        start = features[TOKENS].shape[1]
        made = write.forward(features, generate_kwargs={"max_new_tokens": original.new_tokens})
        (answer,) = write.postprocess(made, return_type=ReturnType.NEW_TEXT)
        return {"text": answer["generated_text"], "tokens": made["generated_sequence"][0, start:].tolist()}

    told = told_settings(original.own_settings, None, with_rules=False) | {"mark": mark}
    return Interface(f"pipeline('image-text-to-text'), {told_greedily(original.new_tokens)}", ask, told)


#: How each use of a model of images is asked. An answer of None says that the folder lacks what the interface needs.
ASK_ABOUT_IMAGES: dict[str, Callable[[Original, str, Path], Interface | None]] = {
    "image-classification": _ask_about_image,
    "image-feature-extraction": _ask_for_features,
    "zero-shot-image-classification": _ask_which_text_fits,
    "object-detection": _ask_for_objects,
    "zero-shot-object-detection": _ask_where_texts_fit,
    "semantic-segmentation": _ask_for_pixels,
    "image-segmentation": _ask_for_segments,
    "depth-estimation": _ask_for_depths,
    "image-to-image": _ask_for_image,
    "image-to-text": _ask_for_caption,
    "image-text-to-text": _ask_about_image_and_prompt,
}
