"""Graphs of networks that write text, traced by transformers' own exporter, in the form that Optimum's exporter gave.

A decoder is one ``model.onnx``. It reads a prompt with an empty cache, and the tokens that follow with the cache that
it gave before. Batches of prompts are padded on the left; a mask over past and new tokens tells padding apart.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxproof.cli import UserError
from onnxproof.graph.files import MODEL_FILE
from onnxproof.inputs.model_inputs import MASK, POSITIONS, TOKENS
from onnxproof.inputs.prompts import PAST, PRESENT
from onnxproof.original.exporters.caches import (
    BATCH,
    PAST_SEQUENCE,
    SEQUENCE,
    TOTAL,
    CachedLayer,
    cache_argument,
    check_answers,
    describe_cache,
    fill_cache,
    identifier,
    pairs,
    read_cache,
    without_padding,
    write_graph,
)
from onnxproof.original.exporters.encoder_decoders import export_encoder_decoder
from onnxproof.original.exporters.tracing import Axes, reason_of

__all__ = ["export_decoder", "export_encoder_decoder"]


@dataclass(frozen=True)
class Step:
    """A step of writing texts: how many texts, how many tokens of each are in the cache, and how many are new.

    ``padding`` is how many of the first text's tokens are padding; each text after it has one less.
    """

    batch: int
    past: int
    new: int
    padding: int = 0


#: All sizes differ, and none is 0 or 1, which torch.export takes for constants.
TRACED = Step(batch=2, past=5, new=3, padding=2)
#: A prompt alone, a batch of prompts, one more token, one more in a batch, and several at once. Some are longer than
#: the sliding windows of tiny models.
CHECKED = (Step(1, 0, 6), Step(3, 0, 19, 4), Step(1, 23, 1), Step(3, 4, 1, 3), Step(4, 18, 7, 5))


@dataclass(frozen=True)
class Reading:
    """How a decoder is fed a text.

    ``make`` returns the inputs of a step's texts as a whole, tensors by name, and ``axes`` names their axes: one that
    is ``SEQUENCE`` holds the new tokens of a step alone, one that is ``TOTAL`` those in the cache too. ``file`` is the
    graph's name.
    """

    make: Callable[[Any, Step], dict[str, Any]]
    axes: Axes
    file: str

    def past(self, whole: dict[str, Any], count: int) -> dict[str, Any]:
        """Return the inputs of the first ``count`` tokens of texts."""
        return {name: tensor.narrow(self._axis(name), 0, count) for name, tensor in whole.items()}

    def new(self, whole: dict[str, Any], count: int) -> dict[str, Any]:
        """Return the inputs of all tokens but the first ``count``, which are in the cache."""
        return {
            name: tensor
            if TOTAL in self.axes[name]
            else tensor.narrow(self._axis(name), count, tensor.shape[self._axis(name)] - count)
            for name, tensor in whole.items()
        }

    def _axis(self, name: str) -> int:
        return next(axis for axis, size in enumerate(self.axes[name]) if size in (SEQUENCE, TOTAL))


def export_decoder(network: Any, folder: Path, reading: Reading | None = None) -> None:
    """Write a decoder with its cache as one graph, and prove it at sizes that were not traced.

    Inputs are, unless ``reading`` says otherwise, ``input_ids``, int64 (batch, new tokens), ``attention_mask``, int64
    (batch, past and new tokens), where the network reads them ``position_ids``, int64 (batch, new tokens), and the
    cache, see ``caches``. Outputs are ``logits``, float32 (batch, new tokens, vocabulary), and the cache with the new
    tokens.

    Args:
        network: a transformers model for causal language modeling, in evaluation mode, float32, with eager attention.
        folder: where to write.
        reading: how the network is fed a text, tokens where left out.

    Raises:
        UserError: the network has no cache of keys and values alone, cannot be traced, or its graph answers otherwise.
    """
    import torch

    reading = reading or READING_TOKENS
    with torch.inference_mode():
        layers = find_layers(network, reading)
        inputs = decoder_inputs(network, layers, TRACED, reading)
        vocabulary = int(whole_answer(network, layers, TRACED, reading)["logits"].shape[2])
    axes: dict[str, Sequence[str | None]] = {**reading.axes}
    outputs: dict[str, list[str | int]] = {"logits": [BATCH, SEQUENCE, vocabulary]}
    for layer in layers:
        axes |= {name: [BATCH, None, PAST_SEQUENCE, None] for name in layer.names(PAST)}
        outputs |= dict(zip(layer.names(PRESENT), layer.axes(TOTAL), strict=True))
    path = folder / reading.file
    write_graph(path, as_decoder(network, layers), inputs, axes, outputs)
    check_decoder(path, network, layers, reading=reading)


def check_decoder(
    path: Path,
    network: Any,
    layers: Sequence[CachedLayer],
    steps: Sequence[Step] = CHECKED,
    reading: Reading | None = None,
) -> None:
    """Compare a decoder's graph, which is fed a cache, with the network, which reads the same texts as a whole.

    Raises:
        UserError: see ``check_answers``.
    """
    import torch

    reading = reading or READING_TOKENS
    for step in steps:
        with torch.inference_mode():
            inputs = decoder_inputs(network, layers, step, reading)
            expected = whole_answer(network, layers, step, reading)
            for past, present in pairs(layers):
                # What is kept of padding depends on the length of the text, as padding sees all of it.
                expected[present][:, :, : step.past] = inputs[past]
        check_answers(path, inputs, expected)


def find_layers(network: Any, reading: Reading | None = None) -> list[CachedLayer]:
    """Return the layers of the cache that a decoder fills; see ``describe_cache``."""
    argument = cache_argument(network)
    try:
        answers = network(**(reading or READING_TOKENS).make(network, Step(2, 0, 3)), use_cache=True)
    except Exception as error:  # whatever the network's own code raises
        raise UserError(f"{type(network).__name__} cannot be run: {reason_of(error)}") from error
    return describe_cache(answers.get(argument))


def as_decoder(network: Any, layers: Sequence[CachedLayer]) -> Any:
    """Return a module that takes a decoder's cache as tensors, and gives logits and cache by name."""
    import torch

    argument, prefix = cache_argument(network), identifier(PAST)

    class Decoder(torch.nn.Module):
        """Calls the network with a cache that is made of tensors."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, **features: Any) -> dict[str, Any]:
            past = {name: features.pop(name) for name in list(features) if name.startswith(prefix)}
            cache = fill_cache(layers, past)
            answers = self.network(**features, **{argument: cache}, use_cache=True)
            return {"logits": answers.logits, **read_cache(layers, cache)}

    return Decoder().eval()


def text_inputs(network: Any, step: Step) -> dict[str, Any]:
    """Return random texts with their masks, and positions where the network takes them: all int64 (batch, tokens)."""
    import torch

    length = step.past + step.new
    draw = torch.Generator().manual_seed(length)
    config = network.config.get_text_config()
    tokens = without_padding(torch.randint(config.vocab_size, (step.batch, length), generator=draw), config)
    padding = torch.arange(step.padding, step.padding - step.batch, -1)
    mask = (torch.arange(length) >= padding[:, None]).long()
    inputs = {TOKENS: tokens, MASK: mask}
    if POSITIONS in inspect.signature(network.forward).parameters:
        inputs[POSITIONS] = (mask.cumsum(1) - 1).clamp(min=0)
    return inputs


READING_TOKENS = Reading(
    text_inputs, {TOKENS: [BATCH, SEQUENCE], MASK: [BATCH, TOTAL], POSITIONS: [BATCH, SEQUENCE]}, MODEL_FILE
)


def decoder_inputs(network: Any, layers: Sequence[CachedLayer], step: Step, reading: Reading) -> dict[str, Any]:
    """Return what a decoder's graph is fed in a step: the new tokens, and the cache that is made of the others."""
    import torch

    whole = reading.make(network, step)
    if step.past:
        present = run_network(network, layers, reading.past(whole, step.past))
        past = {before: present[after] for before, after in pairs(layers)}
    else:
        past = {
            name: torch.zeros(step.batch, heads, 0, size)
            for layer in layers
            for name, heads, size in zip(layer.names(PAST), layer.heads, layer.sizes, strict=True)
        }
    return {**reading.new(whole, step.past), **past}


def whole_answer(network: Any, layers: Sequence[CachedLayer], step: Step, reading: Reading) -> dict[str, Any]:
    """Return what the network answers at the new tokens when it reads a step's texts as a whole, and its cache."""
    answers = run_network(network, layers, reading.make(network, step))
    return {**answers, "logits": answers["logits"][:, step.past :]}


def run_network(network: Any, layers: Sequence[CachedLayer], inputs: dict[str, Any]) -> dict[str, Any]:
    """Return a network's logits and the cache that it fills, which keeps all tokens, by the names of outputs."""
    from transformers.cache_utils import DynamicCache

    cache = DynamicCache()
    answers = network(**inputs, **{cache_argument(network): cache}, use_cache=True)
    return {"logits": answers.logits, **read_cache(layers, cache)}
