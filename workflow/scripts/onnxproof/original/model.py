"""The original model in PyTorch, with its own preprocessing. Imports torch and transformers only when called."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onnxproof.checkpoint.inference import read_start_token, read_transformer_config, transformer_folder
from onnxproof.checkpoint.snapshot import remote_code_allowed
from onnxproof.checkpoint.text_limits import most_tokens
from onnxproof.checkpoint.tokenizer_files import require_mask_token
from onnxproof.cli import UserError
from onnxproof.inputs.material import (
    CAPTIONS,
    EVALUATION_IMAGES,
    EVALUATION_SEED,
    EVALUATION_SOUNDS,
    LINE_SHAPES,
    MAX_TOKENS,
    add_global_attention,
    compose_texts,
    mask_one_token,
    prompt_item,
    written_item,
)
from onnxproof.inputs.model_inputs import MASK, POSITIONS, TOKEN_KINDS, TOKENS, Array, ModelInputs
from onnxproof.inputs.prompts import NEW_TOKENS, prompt_limit
from onnxproof.inputs.synthetic import draw_images, synthesize_sounds
from onnxproof.original.corrections import correct_tokenizer
from onnxproof.original.image_prompts import IMAGE_INPUTS, KINDS_ARGUMENT, prompt_inputs
from onnxproof.original.lean_imports import import_sentence_transformers, import_transformers
from onnxproof.original.loading import check_weights, one_line
from onnxproof.original.patches import recorded_reports
from onnxproof.original.used_tokenizer import settle_padding
from onnxproof.parity.answers import outputs_of_item
from onnxproof.records.checkpoint import ModelConfig
from onnxproof.tasks.model_types import model_takes
from onnxproof.tasks.registry import ENCODER_DECODER_TASKS, GENERATING_TASKS, TASKS

#: Models that look types of tokens up among the words, and are fed them all the same, by transformers' own pipelines
#: and by the exported graph.
TYPES_AS_WORDS = frozenset({"flaubert", "gpt2", "xlm"})


@dataclass(frozen=True)
class Original:
    """A model as its authors published it.

    ``network`` is the torch module, called with tensors by name, which answers a mapping; ``accepted`` names what it is
    fed. ``processor`` makes model inputs: a tokenizer, an image processor, a feature extractor, or tokenizer and image
    processor. ``most_tokens`` is where the model cuts a text. ``generate``, of a model that generates text, returns the
    tokens it finds likeliest after one of the inputs. ``start_token`` is what an encoder-decoder's texts start with.
    ``embedder`` is the ``SentenceTransformer`` that the network is made of, of such a model. ``own_settings`` are the
    model's own settings of ``generate``, see ``GenerationConfig`` of transformers. ``new_tokens`` is how many tokens
    its public interface is asked for.
    """

    task: str
    config: ModelConfig
    network: Any
    accepted: frozenset[str]
    processor: Any
    most_tokens: int
    generate: Callable[[ModelInputs, int], list[int]] | None = None
    start_token: int | None = None
    embedder: Any = None
    own_settings: Mapping[str, Any] = field(default_factory=dict)
    new_tokens: int = NEW_TOKENS

    def make_inputs(self, texts: Sequence[str]) -> ModelInputs:
        """Return the evaluation inputs: from these texts for a text model, else drawn or synthesized.

        What a model writes about a sound or an image it is told to have written: the beginning of its own text.
        """
        takes = model_takes(self.config.get("model_type"))
        if takes == "text":
            longest = min(self.most_tokens, MAX_TOKENS)
            return _text_inputs(self.processor, self.task, self.config, texts, longest, self.start_token)
        if takes == "image+prompt":
            longest = prompt_limit(min(self.most_tokens, MAX_TOKENS))
            return prompt_inputs(self.network, self.config, self.processor, longest)
        inputs = self._make_others(takes)
        if self.generate is None or self.start_token is None:
            return inputs
        written = [self.generate(inputs, index) for index in range(len(inputs.items))]
        pairs = zip(inputs.items, written, strict=True)
        return replace(inputs, items=[written_item(item, self.start_token, text) for item, text in pairs])

    def _make_others(self, takes: str) -> ModelInputs:
        """Return images or sounds, as this model takes them."""
        if takes == "sound":
            rate = self.processor.sampling_rate
            sounds = synthesize_sounds(EVALUATION_SOUNDS, rate, EVALUATION_SEED)
            has_mask = self.task == "speech-to-text"
            return ModelInputs([_sound_features(self.processor, sound, has_mask) for sound in sounds])
        if self.task == "text-recognition":  # lines have one height, and any width
            lines = draw_images(EVALUATION_IMAGES, EVALUATION_SEED, LINE_SHAPES)
            return ModelInputs([_pixels(self.processor, line, do_resize=False) for line in lines])
        images = draw_images(EVALUATION_IMAGES, EVALUATION_SEED)
        if takes == "image":
            return ModelInputs([_pixels(self.processor, image) for image in images])
        tokenizer, image_processor = self.processor
        padding = "max_length" if self.config.get("model_type") == "siglip" else True  # as it was trained
        captions = tokenizer(list(CAPTIONS), padding=padding, truncation=True, return_tensors="np")
        shared = {name: captions[name].astype(np.int64) for name in tokenizer.model_input_names if name in captions}
        return ModelInputs([_pixels(image_processor, image) for image in images], shared)

    def run(self, inputs: ModelInputs, indices: Sequence[int]) -> list[dict[str, Array]]:
        """Run some items in one batch; return each item's outputs by name, without padding."""
        outputs = self.answer(inputs.feed(indices, self.fed(inputs)))
        return [outputs_of_item(self.task, outputs, inputs, row, index) for row, index in enumerate(indices)]

    def fed(self, inputs: ModelInputs) -> list[str]:
        """Return the names of those inputs that the network takes."""
        return [name for name in (*inputs.items[0], *inputs.shared) if name in self.accepted]

    def answer(self, feed: dict[str, Array]) -> dict[str, Array]:
        """Return the network's answers to a batch, those that the task compares, float32 by name."""
        import torch

        features = {name: torch.from_numpy(values) for name, values in feed.items()}
        with torch.inference_mode():
            answers = self.network(**features)
        return {
            name: answers[name].float().numpy() for name in TASKS[self.task].outputs if answers.get(name) is not None
        }


def load_original(model: str, snapshot: Path, task: str, attention: str | None = None) -> Original:
    """Load a snapshot for a task, on the CPU, in float32 and evaluation mode.

    Args:
        model: the model's name, for messages.
        snapshot: its folder.
        task: one of ``TASKS``.
        attention: how attention is computed, "eager" for plain operators; None for what transformers itself chooses,
            which is what the model's users run.

    Raises:
        UserError: weights of the task's head are missing from the snapshot, which transformers would invent; or its
            weights or preprocessing cannot be loaded; or a masked language model has no token for a masked word.
    """
    config = read_transformer_config(snapshot)
    if task == "sentence-similarity":
        return _load_sentence_transformer(model, snapshot, task, config, attention)
    import_transformers()
    network = load_network(model, snapshot, task, attention)
    processor = _load_processor(model, snapshot, model_takes(config.get("model_type")))
    if model_takes(config.get("model_type")) in ("text", "image+texts", "image+prompt"):
        tokenizer = processor[0] if isinstance(processor, tuple) else processor
        with one_line(model, "its tokenizer cannot be used"):
            correct_tokenizer(model, snapshot, tokenizer, int(config.get("type_vocab_size") or 0))
            if task == "text-classification":
                settle_padding(model, network, tokenizer)
    if task == "fill-mask":
        number = processor.mask_token_id
        is_known = number is not None and number < network.config.vocab_size  # else the tokenizer has just added it
        require_mask_token(model, processor.mask_token, number if is_known else None)
    limit = MAX_TOKENS
    if model_takes(config.get("model_type")) == "text":
        limit = min(most_tokens(network.config.to_dict()) or MAX_TOKENS, processor.model_max_length)
    elif task == "image-text-to-text":
        text = network.config.get_text_config().to_dict()
        limit = min(most_tokens(text) or MAX_TOKENS, processor[0].model_max_length)
    accepted = set(inspect.signature(network.forward).parameters)
    as_words = config.get("model_type") in TYPES_AS_WORDS and task not in GENERATING_TASKS
    has_types = (getattr(network.config, "type_vocab_size", 0) or 0) > 1 or as_words
    if task == "image-text-to-text":
        accepted.discard(POSITIONS)  # it works them out itself, and so proves those that a graph is fed
    elif not has_types:
        accepted.discard("token_type_ids")  # there is one type, or none: decoders would look them up among the words
    if task not in GENERATING_TASKS:
        network.config.use_cache = False  # nothing is written, so nothing is to be remembered
        return Original(task, config, network, frozenset(accepted), processor, limit)
    start = read_start_token(snapshot) if task in ENCODER_DECODER_TASKS else None
    generate = partial(_generate_greedily, network, start)
    own_settings = network.generation_config.to_dict()
    return Original(
        task, config, network, frozenset(accepted), processor, limit, generate, start, own_settings=own_settings
    )


def _generate_greedily(network: Any, start: int | None, inputs: ModelInputs, index: int) -> list[int]:
    """Return NEW_TOKENS tokens, the likeliest ones; none ends the text, and no setting of the model's own applies.

    Nor does a way of its own to generate, as Whisper's, which cuts long sounds into pieces.
    """
    import torch
    from transformers import GenerationConfig, GenerationMixin

    own = network.generation_config
    network.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        num_beams=1,
        eos_token_id=None,
        pad_token_id=0,
        decoder_start_token_id=start,
    )
    read: tuple[str, ...] = (TOKENS, MASK, "input_features", "input_values", "pixel_values", "flattened_patches")
    if set(IMAGE_INPUTS) & inputs.items[index].keys() and TOKENS in inputs.items[index]:
        read += (*IMAGE_INPUTS, KINDS_ARGUMENT, TOKEN_KINDS)
    names = [name for name in dict.fromkeys(read) if name in inputs.items[index]]
    features = {name: torch.from_numpy(values) for name, values in inputs.feed([index], names).items()}
    with torch.inference_mode():
        tokens = GenerationMixin.generate(network, **features)
    network.generation_config = own
    return [int(token) for token in tokens[0, -NEW_TOKENS:]]


def load_network(model: str, snapshot: Path, task: str, attention: str | None = None) -> Any:
    """Load the transformers model of a task, refusing weights that are invented or left out; see ``load_original``."""
    import torch
    import transformers

    with one_line(model, "its weights cannot be loaded as config.json describes them"):
        network, report = getattr(transformers, TASKS[task].auto_class).from_pretrained(
            snapshot,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by their names
            **local_options(snapshot),
            **_chosen(attention),
        )
    check_weights(model, network, report, task, bare="feature-extraction" in TASKS[task].optimum)
    return network.eval()


def local_options(snapshot: Path) -> dict[str, bool]:
    """Return the options that keep a loader off the network, and off the snapshot's own code unless that is allowed."""
    return {"local_files_only": True, "trust_remote_code": remote_code_allowed(snapshot)}


def _chosen(attention: str | None) -> dict[str, str]:
    return {"attn_implementation": attention} if attention else {}


def _load_sentence_transformer(
    name: str, snapshot: Path, task: str, config: ModelConfig, attention: str | None
) -> Original:
    import torch

    loader = import_sentence_transformers().SentenceTransformer
    options = _chosen(attention) | {"dtype": torch.float32}
    with (
        one_line(name, "sentence-transformers cannot load it"),
        recorded_reports() as reports,
    ):
        model = loader(str(snapshot), device="cpu", model_kwargs=options, **local_options(snapshot)).eval().float()
    for network, report in reports:
        check_weights(name, network, report, task, bare=True)
    with one_line(name, "its tokenizer cannot be used"):
        types = int(config.get("type_vocab_size") or 0)
        correct_tokenizer(name, transformer_folder(snapshot), model.tokenizer, types)

    class Embedder(torch.nn.Module):
        """All modules of the sentence-transformer, called with tensors by name."""

        def __init__(self) -> None:
            super().__init__()
            self.modules_in_turn = torch.nn.ModuleList(model)

        def forward(self, **features: Any) -> dict[str, Any]:
            outputs: dict[str, Any] = dict(features)
            for module in self.modules_in_turn:
                outputs = module(outputs)
            if model.truncate_dim is not None:  # encode() does this behind the modules
                outputs["sentence_embedding"] = outputs["sentence_embedding"][..., : model.truncate_dim]
            names = {"last_hidden_state": "token_embeddings", "sentence_embedding": "sentence_embedding"}
            return {name: outputs[key] for name, key in names.items() if key in outputs}

    accepted = frozenset(model.tokenizer.model_input_names)
    limit = model.max_seq_length or MAX_TOKENS
    return Original(task, config, Embedder().eval(), accepted, model.tokenizer, limit, embedder=model)


def _load_processor(model: str, snapshot: Path, takes: str) -> Any:
    from transformers import AutoFeatureExtractor, AutoTokenizer

    def load(loader: Any, **options: Any) -> Any:
        with one_line(model, f"its preprocessing cannot be loaded with {loader.__name__}"):
            return loader.from_pretrained(snapshot, **local_options(snapshot), **options)

    if takes == "text":
        return load(AutoTokenizer)
    if takes == "sound":
        return load(AutoFeatureExtractor)
    image_processor = _load_image_processor(snapshot, load)
    return image_processor if takes == "image" else (load(AutoTokenizer), image_processor)


def _load_image_processor(snapshot: Path, load: Callable[[Any], Any]) -> Any:
    """Return a snapshot's image processor; a general one with its settings, where its own needs torchvision.

    Then images come out at the size and in the range that the snapshot says. The exported graph is compared on the
    same pixels as the original, so that the filter which scales them does not matter.
    """
    from transformers import AutoImageProcessor, ViTImageProcessorPil
    from transformers.utils.import_utils import is_torchvision_available

    try:
        return load(AutoImageProcessor)
    except UserError as error:
        if is_torchvision_available() or "torchvision" not in str(error):
            raise
        return load(ViTImageProcessorPil)


def _pixels(image_processor: Any, image: Array, **options: Any) -> dict[str, Array]:
    """Return one image's pixel values, float32 (channels, height, width), and its pixel mask where there is one.

    Pix2Struct's has patches instead, float32 (patches, values), and a mask of them. ``options`` override the image
    processor's settings.
    """
    features = image_processor(images=image, return_tensors="np", **options)
    masks = ("pixel_mask", MASK)
    return {
        name: values[0].astype(np.int64 if name in masks else np.float32)
        for name, values in features.items()
        if name in ("pixel_values", "flattened_patches", *masks)
    }


def _sound_features(extractor: Any, sound: Array, has_mask: bool) -> dict[str, Array]:
    """Return what a feature extractor makes of a sound, float32: (samples,), (bands, frames) or (frames, bands).

    ``has_mask`` adds which samples or frames are no padding, int64: all of them, where the extractor does not say. A
    mask of frames is always added: extractors of spectrograms mark a last frame that is not whole.
    """
    features = extractor(sound, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    name = extractor.model_input_names[0]
    item = {name: np.asarray(features[name])[0].astype(np.float32)}
    if has_mask or (name == "input_features" and MASK in features):
        mask = features.get(MASK)
        item[MASK] = np.asarray(np.ones((1, len(item[name]))) if mask is None else mask)[0].astype(np.int64)
    return item


def _text_inputs(
    tokenizer: Any, task: str, config: ModelConfig, texts: Sequence[str], longest: int, start: int | None
) -> ModelInputs:
    options = {"truncation": True, "max_length": longest, "return_tensors": "np", "return_special_tokens_mask": True}

    def encode(*columns: list[str]) -> tuple[dict[str, Array], Array]:
        features = tokenizer(*columns, padding=len(columns[0]) > 1, **options)
        arrays = {name: features[name].astype(np.int64) for name in tokenizer.model_input_names if name in features}
        return arrays, features["special_tokens_mask"]

    generates = task in GENERATING_TASKS
    if generates:
        options["max_length"] = prompt_limit(longest)
    items: list[dict[str, Array]] = []
    for entry in compose_texts(task, config, texts):
        if isinstance(entry, list):
            items.append(encode([first for first, _ in entry], [second for _, second in entry])[0])
            continue
        arrays, special = encode(*[[text] for text in (entry if isinstance(entry, tuple) else (entry,))])
        item = {name: values[0] for name, values in arrays.items()}
        if task == "fill-mask":
            item = mask_one_token(item, special[0], tokenizer.mask_token_id)
        if generates:
            if not len(item[TOKENS]):  # an empty text is no prompt
                continue
            item = prompt_item(item) if start is None else written_item(item, start, item[TOKENS].tolist())
        items.append(item)
    items = [add_global_attention(item, config) for item in items]
    padding = {TOKENS: tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
    side = tokenizer.padding_side
    if generates:  # new tokens come on the right of a prompt; an encoder-decoder's have no mask
        side = "left" if start is None else "right"
    return ModelInputs(items, padding_side=side, padding_values=padding)
