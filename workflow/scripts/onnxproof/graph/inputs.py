"""What each graph of a model is fed, and judged as, when it is optimized or quantized by itself.

The one graph of most models takes the calibration inputs as they are. The decoders of an encoder-decoder take what
the float encoder, and the float decoder before them, make of these. The decoder of a model that writes about images
takes what the float graphs before it make of images and prompts.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxproof.checkpoint.inference import read_start_token, read_transformer_config
from onnxproof.graph.encoder_decoder import ENCODER_MASK, HIDDEN_STATES, EncoderDecoder, open_variant, written
from onnxproof.graph.files import DECODER_FILE, EMBEDDING_FILE, ENCODER_FILE, MODEL_FILE, VISION_FILE
from onnxproof.graph.generation import with_empty_cache
from onnxproof.graph.vision_language import VisionLanguage, graph_name
from onnxproof.inputs.calibration import MAX_TOKENS, calibration_inputs, prompt_images, prompt_words
from onnxproof.inputs.image_places import image_marks, image_positions, image_prompt
from onnxproof.inputs.material import WRITTEN_TOKENS, Entry, image_prompt_item, written_item
from onnxproof.inputs.model_inputs import (
    DECODER_TOKENS,
    EMBEDDINGS,
    GRID,
    MASK,
    MASKED_POSITIONS,
    POSITIONS,
    TOKEN_KINDS,
    TOKENS,
    Array,
    Item,
    ModelInputs,
)
from onnxproof.inputs.preprocessing import read_preprocessor
from onnxproof.inputs.texts import CALIBRATION_TEXTS


def inputs_of_graph(
    folder: Path,
    file: str,
    task: str,
    graph_inputs: Sequence[Any],
    texts: Path = CALIBRATION_TEXTS,
    more: Sequence[Entry] = (),
    max_tokens: int = MAX_TOKENS,
) -> tuple[str, ModelInputs]:
    """Return what a graph is judged as, one of the tasks, and its calibration inputs.

    Args:
        folder: the ONNX folder, float, with the configuration and the tokenizer.
        file: which of its graphs.
        task: the task of the whole model.
        graph_inputs: the inputs of the graph.
        texts: a file of texts for a text model.
        more: what a text model of one graph is asked after these texts, one item each.
        max_tokens: longer texts are cut.

    Raises:
        UserError: see ``calibration_inputs``.
    """
    if file == MODEL_FILE:
        made = calibration_inputs(folder, task, [value.name for value in graph_inputs], texts, more, max_tokens)
        return task, with_empty_cache(made, graph_inputs)
    model = open_variant(folder, 1)
    if isinstance(model, VisionLanguage):
        return _inputs_of_part(model, folder, file, graph_inputs)
    assert isinstance(model, EncoderDecoder), "a folder of several graphs"
    names = [value.name for value in model.encoder.get_inputs()]
    inputs = calibration_inputs(folder, task, names, texts, max_tokens=max_tokens)
    if file == ENCODER_FILE:
        return "feature-extraction", without(inputs, {DECODER_TOKENS, MASKED_POSITIONS})
    if DECODER_TOKENS not in inputs.items[0]:
        inputs = _with_own_text(model, inputs, read_start_token(folder))
    items = [_decoder_item(model, inputs, index, file == DECODER_FILE) for index in range(len(inputs.items))]
    return "text-generation", ModelInputs(items, is_alike=inputs.is_alike)


def _inputs_of_part(
    model: VisionLanguage, folder: Path, file: str, graph_inputs: Sequence[Any]
) -> tuple[str, ModelInputs]:
    """Return what a graph of a model that writes about images is judged as, and its calibration inputs."""
    config = read_transformer_config(folder)
    images = prompt_images(folder, config)
    if file == VISION_FILE:
        names = {value.name for value in graph_inputs}
        items: list[Item] = [
            {graph_name(name) if graph_name(name) in names else name: values for name, values in image.items()}
            for image in images
        ]
        return "image-features", ModelInputs(items)
    words = prompt_words(folder, config)
    merged = int(read_preprocessor(folder).get("merge_size") or 1)
    items = []
    for index, image in enumerate(images):
        text, has_start = words[index % len(words)]
        feed = ModelInputs([image]).feed([0], list(image))
        features = model.look(feed)
        tokens, kinds = image_prompt(text, model.image_token, len(features), has_start, image_marks(config))
        item: dict[str, Array] = {TOKENS: tokens, MASK: np.ones_like(tokens), TOKEN_KINDS: kinds}
        item[POSITIONS] = image_positions(kinds, image[GRID], merged) if GRID in image else np.arange(len(tokens))
        if file != EMBEDDING_FILE:
            item[EMBEDDINGS] = model.embed({TOKENS: tokens[None]}, features)[0]
        items.append(image_prompt_item(item, kinds))
    if file == EMBEDDING_FILE:
        return "token-embeddings", without(ModelInputs(items), {MASKED_POSITIONS})
    return "text-generation", with_empty_cache(ModelInputs(items, padding_side="left"), graph_inputs)


def without(inputs: ModelInputs, names: set[str]) -> ModelInputs:
    """Return the inputs without those of these names."""
    items = [{name: values for name, values in item.items() if name not in names} for item in inputs.items]
    return replace(inputs, items=items)


def _with_own_text(model: EncoderDecoder, inputs: ModelInputs, start: int) -> ModelInputs:
    """Return the inputs with the beginning of what the model writes about each, from its start token on."""
    names, items = [value.name for value in model.encoder.get_inputs()], []
    for index, item in enumerate(inputs.items):
        feed = inputs.feed([index], names) | {DECODER_TOKENS: np.array([[start]])}
        items.append(written_item(item, start, model.generate(feed, WRITTEN_TOKENS - 1)))
    return replace(inputs, items=items)


def _decoder_item(model: EncoderDecoder, inputs: ModelInputs, index: int, is_first: bool) -> Item:
    """Return one item of the first decoder: all tokens; or of the one with a cache: the last, after all others."""
    item = inputs.items[index]
    state = model.encode(inputs.feed([index], [value.name for value in model.encoder.get_inputs()]))
    tokens = item[DECODER_TOKENS]
    made: dict[str, Array] = {name: state[name][0] for name in (HIDDEN_STATES, ENCODER_MASK) if name in state}
    made |= written(tokens)
    if is_first:
        return made | {MASKED_POSITIONS: item[MASKED_POSITIONS]}
    _, past = model.start(state, tokens[None, :-1])
    made |= {name: values[0] for name, values in past.items()}
    return made | {TOKENS: tokens[-1:], MASKED_POSITIONS: np.zeros(1, dtype=np.int64)}
