"""Encoder-decoders as the graphs that Optimum's exporter gave, traced by transformers' own exporter.

``encoder_model.onnx`` reads the input once. ``decoder_model.onnx`` starts a text and gives the cache,
``decoder_with_past_model.onnx`` goes on from it. The keys and values of the encoder's vectors are in the cache too,
and the second decoder does not give them again, as they stay the same.

Two kinds of decoders have another form, because clients expect it: GPT-2 and its like behind another encoder keep keys
and values of their own text alone, and read the encoder's vectors at every step; BERT's like keep none, so that there
is no second decoder.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxproof.cli import UserError
from onnxproof.graph.encoder_decoder import ENCODER_MASK, HIDDEN_STATES
from onnxproof.graph.files import DECODER_FILE, DECODER_WITH_PAST_FILE, ENCODER_FILE
from onnxproof.inputs.model_inputs import MASK, TOKENS
from onnxproof.inputs.prompts import PAST, PRESENT
from onnxproof.original.exporters.caches import (
    BATCH,
    CachedLayer,
    cache_argument,
    check_answers,
    describe_cache,
    fill_cache,
    identifier,
    read_cache,
    without_padding,
    write_graph,
)
from onnxproof.original.exporters.tracing import Axes, reason_of
from onnxproof.original.patches import lengths_in_integers
from onnxproof.tasks.exportable import EXPORTABLE

ENCODER_SEQUENCE, ENCODER_INPUT = "encoder_sequence_length", "encoder_input_length"
SEQUENCE, PAST_SEQUENCE = "decoder_sequence_length", "past_decoder_sequence_length"
TOTAL = f"{PAST_SEQUENCE} + {SEQUENCE}"
#: The two halves of a cache, as they are called in the names of tensors.
OWN, CROSS = "decoder.", "encoder."

Tensors = dict[str, Any]


@dataclass(frozen=True)
class CacheForm:
    """What a decoder keeps: layers for its own text, and for the encoder's vectors, which may be none."""

    own: Sequence[CachedLayer]
    cross: Sequence[CachedLayer]

    @property
    def own_part(self) -> str:
        """Return what names the layers for its own text: nothing, where there are no others."""
        return OWN if self.cross else ""

    def fill(self, tensors: Mapping[str, Any]) -> Any:
        """Return the cache that holds given tensors, by the names of a graph's inputs; empty where there are none."""
        from transformers.cache_utils import EncoderDecoderCache

        halves = ((self.own, self.own_part), (self.cross, CROSS))
        return EncoderDecoderCache(*(fill_cache(layers, tensors, part) for layers, part in halves))

    def read(self, cache: Any) -> Tensors:
        """Return the tensors of a cache by the names of a graph's outputs, layer by layer."""
        tensors: Tensors = {}
        for index, layer in enumerate(self.own):
            tensors |= read_cache([layer], cache.self_attention_cache, self.own_part)
            if self.cross:
                tensors |= read_cache([self.cross[index]], cache.cross_attention_cache, CROSS)
        return tensors

    def shapes(self) -> dict[str, list[str | int]]:
        """Return the axes of all outputs, by name."""
        shapes: dict[str, list[str | int]] = {}
        for layers, part, length in ((self.own, self.own_part, TOTAL), (self.cross, CROSS, ENCODER_SEQUENCE)):
            for layer in layers:
                shapes |= dict(zip(layer.names(PRESENT, part), layer.axes(length), strict=True))
        return shapes


@dataclass(frozen=True)
class Step:
    """A step of writing: how many inputs, how long they are, and how many tokens are in the cache and new.

    ``length`` is in sixths of the length of the sample, where inputs have different lengths.
    """

    batch: int
    length: int
    past: int
    new: int


#: No two sizes that vary are equal, and none is 0 or 1, which torch.export takes for constants.
TRACED_START, TRACED_NEXT = Step(2, 6, 0, 3), Step(2, 6, 5, 3)
CHECKED = (Step(1, 5, 0, 1), Step(3, 4, 0, 6), Step(1, 4, 9, 1), Step(3, 5, 1, 1), Step(4, 6, 7, 4))


class EncoderDecoder:
    """A transformers encoder-decoder, and how its two halves are called."""

    def __init__(self, network: Any, sample: Mapping[str, Any]) -> None:
        """Take the network and the inputs of its encoder for two items; inputs that it does not take are left out."""
        self.network, self.encoder = network, network.get_encoder()
        taken = inspect.signature(self.encoder.forward).parameters
        self.sample = {name: tensor for name, tensor in sample.items() if name in taken}
        self.argument = cache_argument(network)
        self.takes_mask = MASK in inspect.signature(network.forward).parameters and MASK in self.sample
        # Where the encoder makes its input shorter, it may give a mask of that length, for the decoder.
        self.main_input = next(name for name in self.sample if name != MASK)
        self.shortens_mask = self.takes_mask and self.encoder(**self.sample).get(MASK) is not None

    def encode(self, inputs: Mapping[str, Any]) -> Tensors:
        """Return the encoder's vectors, float32 (batch, tokens, size), by the name of the graph's output."""
        return {"last_hidden_state": self.encoder(**inputs).last_hidden_state}

    def decode(self, hidden: Any, mask: Any, tokens: Any, cache: Any) -> Any:
        """Return the logits after tokens, float32 (batch, tokens, vocabulary); fills the cache, unless it is None."""
        from transformers.modeling_outputs import BaseModelOutput

        outputs: Any = BaseModelOutput(last_hidden_state=hidden)
        if self.shortens_mask:
            # Of this call a graph keeps what makes the mask.
            outputs = self.encoder(**{self.main_input: self.input_like(mask), MASK: mask})
            outputs.last_hidden_state = hidden
        options = {MASK: mask} if self.takes_mask else {}
        options |= {"use_cache": False} if cache is None else {self.argument: cache, "use_cache": True}
        return self.network(encoder_outputs=outputs, decoder_input_ids=tokens, **options).logits

    def input_like(self, mask: Any) -> Any:
        """Return an input of the encoder, all 0, for a mask of (batch, length)."""
        example = self.sample[self.main_input]
        return example.new_zeros(*mask.shape, *example.shape[2:])

    def find_form(self) -> CacheForm | None:
        """Return what the decoder keeps, None where that is nothing.

        Raises:
            UserError: it keeps something else than keys and values, or the network cannot be run.
        """
        composed = getattr(self.network.config, "decoder", None)  # the decoder's configuration, of two models in one
        kind = getattr(composed, "model_type", None)
        has_own_form = composed is None or hasattr(composed, "decoder_layers")
        if not has_own_form and kind not in EXPORTABLE["text-generation"]:
            return None
        cache = empty_pair()
        hidden = self.encode(self.sample)["last_hidden_state"]
        self.decode(hidden, self.sample.get(MASK), draw_tokens(self.network, 2, 3), cache)
        own = describe_cache(cache.self_attention_cache)
        return CacheForm(own, describe_cache(cache.cross_attention_cache) if has_own_form else ())


def empty_pair() -> Any:
    """Return an empty cache of a decoder, for its own text and for the encoder's vectors."""
    from transformers.cache_utils import DynamicCache, EncoderDecoderCache

    return EncoderDecoderCache(DynamicCache(), DynamicCache())


def draw_tokens(network: Any, batch: int, length: int) -> Any:
    """Return random tokens of a decoder, int64 (batch, length); the first ones are the same whatever the length is."""
    import torch

    config = network.config.get_text_config(decoder=True)
    rows = [torch.Generator().manual_seed(row) for row in range(batch)]
    tokens = torch.stack([torch.randint(config.vocab_size, (length,), generator=row) for row in rows])
    return without_padding(tokens, config)


def export_encoder_decoder(network: Any, task: str, sample: Mapping[str, Any], folder: Path) -> None:
    """Write the graphs of an encoder-decoder, and prove them at sizes that were not traced.

    Args:
        network: a transformers model that reads an input and writes a text, in evaluation mode, float32, with eager
            attention.
        task: "text2text-generation", "speech-to-text" or "image-to-text".
        sample: inputs of the encoder for two items, made by the model's own preprocessing: ``input_ids`` and
            ``attention_mask``, int64 (2, tokens); ``input_features`` or ``input_values``, float32; ``pixel_values`` or
            ``flattened_patches``, float32.
        folder: where to write.

    Raises:
        UserError: the network cannot be run or traced, keeps something else than keys and values, or a graph answers
            otherwise than the network.
    """
    import torch

    with torch.inference_mode():
        try:
            model = EncoderDecoder(network, sample)
            form = model.find_form()
        except UserError:
            raise
        except Exception as error:  # whatever the network's own code raises
            raise UserError(f"{type(network).__name__} cannot be run: {reason_of(error)}") from error
        axes = encoder_axes(task, model)
    with lengths_in_integers(model.encoder):
        _write_encoder(model, axes, folder / ENCODER_FILE)
        _write_decoder(model, axes, form, TRACED_START, folder / DECODER_FILE)
        if form is not None:
            _write_decoder(model, axes, form, TRACED_NEXT, folder / DECODER_WITH_PAST_FILE)
    for step in CHECKED:
        if not step.past:
            check_encoder(model, axes, step, folder / ENCODER_FILE)
            check_decoder(model, axes, form, step, folder / DECODER_FILE)
        elif form is not None:
            check_decoder(model, axes, form, step, folder / DECODER_WITH_PAST_FILE)


def encoder_axes(task: str, model: EncoderDecoder) -> dict[str, list[str | None]]:
    """Return the names of the axes of the encoder's inputs, None for an axis of a fixed size.

    Texts and sounds have any length, where the encoder reads a shorter input with its mask. Images have one size, and
    so have sounds that the preprocessing pads to one length, as Whisper's.
    """
    lengths = {tensor.shape[1] for tensor in model.sample.values()}
    name = None
    if task != "image-to-text" and MASK in model.sample and len(lengths) == 1 and _reads_shorter(model):
        same = model.encode(model.sample)["last_hidden_state"].shape[1] in lengths
        name = ENCODER_SEQUENCE if same else ENCODER_INPUT
    return {key: [BATCH, name, *[None] * (tensor.ndim - 2)] for key, tensor in model.sample.items()}


def _reads_shorter(model: EncoderDecoder) -> bool:
    """Return whether the encoder reads the sample cut along its second axis, which may be one of frequency bands."""
    try:
        model.encode({name: tensor[:, : max(2, tensor.shape[1] * 2 // 3)] for name, tensor in model.sample.items()})
    except (RuntimeError, ValueError):
        return False
    return True


def encoder_inputs(model: EncoderDecoder, axes: Axes, step: Step) -> Tensors:
    """Return inputs of the encoder of another number and length, made of the sample's, with padding at the end."""
    import torch

    inputs = {}
    for name, tensor in model.sample.items():
        rows = torch.arange(step.batch) % tensor.shape[0]
        values = tensor[rows]
        if axes[name][1] is not None:
            length = max(2, tensor.shape[1] * step.length // 6)
            values = values[:, :length].clone()
            if name == MASK:
                values[:] = 1
                for row in range(min(step.batch, 3) - 1):
                    values[row, length - max(1, length * (2 - row) // 8) :] = 0
        inputs[name] = values
    return inputs


def _write_encoder(model: EncoderDecoder, axes: Axes, path: Path) -> None:
    import torch

    class Encoder(torch.nn.Module):
        """Gives the encoder's vectors alone."""

        def __init__(self) -> None:
            super().__init__()
            self.network = model.encoder

        def forward(self, **features: Any) -> Tensors:
            return model.encode(features)

    inputs = encoder_inputs(model, axes, TRACED_START)
    with torch.inference_mode():
        hidden = model.encode(inputs)["last_hidden_state"]
    varies = any(names[1] for names in axes.values())
    sizes = [BATCH, ENCODER_SEQUENCE if varies else int(hidden.shape[1]), int(hidden.shape[2])]
    write_graph(path, Encoder().eval(), inputs, axes, {"last_hidden_state": sizes})


def check_encoder(model: EncoderDecoder, axes: Axes, step: Step, path: Path) -> None:
    """Compare an encoder's graph with the network on other inputs; see ``check_answers``."""
    import torch

    with torch.inference_mode():
        inputs = encoder_inputs(model, axes, step)
        expected = model.encode(inputs)
    check_answers(path, inputs, expected)


def _write_decoder(model: EncoderDecoder, axes: Axes, form: CacheForm | None, step: Step, path: Path) -> None:
    import torch

    with torch.inference_mode():
        inputs, answers = decoder_case(model, axes, form, step)
        size = model.encode(encoder_inputs(model, axes, step))["last_hidden_state"].shape[2]

    class Decoder(torch.nn.Module):
        """Takes the cache and the encoder's vectors as tensors, and gives logits and cache by name."""

        def __init__(self) -> None:
            super().__init__()
            self.network = model.network

        def forward(self, **features: Any) -> Tensors:
            cache = None if form is None else form.fill(features)
            hidden = features.get(HIDDEN_STATES)
            if hidden is None and form is not None:
                # What the decoder reads of it is in the cache; its length is still asked for.
                keys = features[identifier(form.cross[0].names(PAST, CROSS)[0])]
                hidden = keys.new_zeros(keys.shape[0], keys.shape[2], size)
            logits = model.decode(hidden, features.get(ENCODER_MASK), features[TOKENS], cache)
            return {"logits": logits} if form is None else {"logits": logits, **form.read(cache)}

    sizes: dict[str, list[str | int]] = {}
    shapes = {} if form is None else form.shapes()
    for name, tensor in answers.items():
        sizes[name] = [BATCH, SEQUENCE, int(tensor.shape[2])] if name == "logits" else shapes[name]
    mask_length = ENCODER_INPUT if model.shortens_mask else ENCODER_SEQUENCE
    named: dict[str, list[str | None]] = {
        TOKENS: [BATCH, SEQUENCE],
        HIDDEN_STATES: [BATCH, ENCODER_SEQUENCE, None],
        ENCODER_MASK: [BATCH, mask_length],
    }
    for name in inputs:
        if name.startswith(PAST):
            named[name] = [BATCH, None, ENCODER_SEQUENCE if f".{CROSS}" in name else PAST_SEQUENCE, None]
    write_graph(path, Decoder().eval(), inputs, named, sizes)


def check_decoder(model: EncoderDecoder, axes: Axes, form: CacheForm | None, step: Step, path: Path) -> None:
    """Compare a decoder's graph with the network, which reads the whole text; see ``check_answers``."""
    import torch

    with torch.inference_mode():
        inputs, expected = decoder_case(model, axes, form, step)
    check_answers(path, inputs, expected)


def decoder_case(model: EncoderDecoder, axes: Axes, form: CacheForm | None, step: Step) -> tuple[Tensors, Tensors]:
    """Return what a decoder's graph is fed in a step, and what the network answers when it reads the whole text."""
    encoded = encoder_inputs(model, axes, step)
    hidden, mask = model.encode(encoded)["last_hidden_state"], encoded.get(MASK)
    tokens = draw_tokens(model.network, step.batch, step.past + step.new)
    cache = None if form is None else empty_pair()
    logits = model.decode(hidden, mask, tokens, cache)[:, step.past :]
    inputs = {ENCODER_MASK: mask} if model.takes_mask else {}
    inputs |= {TOKENS: tokens[:, step.past :], HIDDEN_STATES: hidden}
    if form is None:
        return inputs, {"logits": logits}
    answers = form.read(cache)
    if step.past:
        before = empty_pair()
        model.decode(hidden, mask, tokens[:, : step.past], before)
        inputs |= {PAST + name.removeprefix(PRESENT): tensor for name, tensor in form.read(before).items()}
        if form.cross:
            del inputs[HIDDEN_STATES]
            answers = {name: tensor for name, tensor in answers.items() if f".{CROSS}" not in name}
    return inputs, {"logits": logits, **answers}
