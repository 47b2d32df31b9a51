"""Networks that take and give their cache of keys and values as plain tensors, so that it can be traced.

The names are those of Optimum's exporter, which clients read: ``past_key_values.{layer}.key`` goes in and
``present.{layer}.key`` comes out, both float32 (batch, heads, tokens, size); ``.value`` likewise.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxproof.cli import UserError
from onnxproof.inputs.prompts import PAST, PRESENT
from onnxproof.original.exporters.tracing import Axes, check_generalizes, save_graph, trace

BATCH, SEQUENCE, PAST_SEQUENCE = "batch_size", "sequence_length", "past_sequence_length"
TOTAL = f"{PAST_SEQUENCE} + {SEQUENCE}"
KINDS = ("key", "value")


@dataclass(frozen=True)
class CachedLayer:
    """One layer of a cache: its number, and its heads and their size for keys and for values."""

    index: int
    heads: tuple[int, int]
    sizes: tuple[int, int]

    def names(self, prefix: str, part: str = "") -> list[str]:
        """Return the names of its keys and of its values; ``part`` is "decoder." or "encoder." where there are both."""
        return [f"{prefix}{self.index}.{part}{kind}" for kind in KINDS]

    def axes(self, tokens: str) -> list[list[str | int]]:
        """Return the names and sizes of the axes of its keys and of its values."""
        return [[BATCH, heads, tokens, size] for heads, size in zip(self.heads, self.sizes, strict=True)]


def identifier(name: str) -> str:
    """Return a tensor's name as the name of an argument in Python, which torch.export needs."""
    return name.replace(".", "_")


def without_padding(tokens: Any, config: Any) -> Any:
    """Return random tokens with another one for the padding token, int64 of the same shape.

    Some networks, such as M2M-100, do not count it as a position, and cannot know of those that are in the cache.
    """
    padding = getattr(config, "pad_token_id", None)
    return tokens if padding is None else tokens.masked_fill(tokens == padding, padding - 1 if padding else 1)


def cache_argument(network: Any) -> str:
    """Return the name of the argument by which a network takes its cache.

    Raises:
        UserError: it takes none.
    """
    parameters = inspect.signature(network.forward).parameters
    for name in ("cache", "past_key_values"):  # the second until transformers 5, and in code of a model's own
        if name in parameters:
            return name
    raise UserError(f"{type(network).__name__} takes no cache of keys and values")


def describe_cache(cache: Any) -> list[CachedLayer]:
    """Return the layers of a cache that a network has filled, in order.

    Raises:
        UserError: it is no ``DynamicCache`` of keys and values alone, such as the states of a recurrent layer.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    if not isinstance(cache, DynamicCache):
        raise UserError(f"its cache is a {type(cache).__name__}, not one of keys and values a layer")
    layers = []
    for index, held in enumerate(cache.layers):
        layer: Any = held
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise UserError(
                f"its cache holds more than keys and values: layer {index} is a {type(layer).__name__}; "
                "there is no form for it that clients read"
            )
        if layer.is_initialized:  # layers that share the keys of another have none
            keys, values = layer.keys.shape, layer.values.shape
            layers.append(CachedLayer(index, (keys[1], values[1]), (keys[3], values[3])))
    if not layers:
        raise UserError("it fills no cache of keys and values")
    return layers


def fill_cache(layers: Sequence[CachedLayer], tensors: Mapping[str, Any], part: str = "") -> Any:
    """Return a ``DynamicCache`` that holds given tensors, by the names of a graph's inputs as identifiers.

    Layers without tensors are left to be filled.

    All layers keep all their tokens, those with a sliding window too: the network's mask hides what is outside of it,
    and a cache that is cut has no length that a graph could tell.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    cache = DynamicCache()
    for layer in layers:
        if identifier(layer.names(PAST, part)[0]) not in tensors:
            continue
        while len(cache.layers) <= layer.index:
            cache.layers.append(DynamicLayer())  # type: ignore[no-untyped-call]
        keys, values = (tensors[identifier(name)] for name in layer.names(PAST, part))
        held: Any = cache.layers[layer.index]
        held.lazy_initialization(keys, values)
        held.keys, held.values = keys, values
    return cache


def pairs(layers: Sequence[CachedLayer], part: str = "") -> list[tuple[str, str]]:
    """Return the names of a cache's tensors, each as an input and as an output."""
    return [pair for layer in layers for pair in zip(layer.names(PAST, part), layer.names(PRESENT, part), strict=True)]


def check_answers(path: Path, inputs: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Run a graph on inputs, and compare its answers with those that are expected: tensors by name.

    Raises:
        UserError: see ``check_generalizes``.
    """
    answers = {name: tensor.numpy() for name, tensor in expected.items()}
    feed = {name: tensor.numpy() for name, tensor in inputs.items()}
    check_generalizes(path, [feed], [answers])


def read_cache(layers: Sequence[CachedLayer], cache: Any, part: str = "") -> dict[str, Any]:
    """Return the tensors of a cache, by the names of a graph's outputs."""
    tensors: dict[str, Any] = {}
    for layer in layers:
        held = cache.layers[layer.index]
        tensors |= dict(zip(layer.names(PRESENT, part), (held.keys, held.values), strict=True))
    return tensors


def write_graph(
    path: Path,
    network: Any,
    inputs: Mapping[str, Any],
    axes: Axes,
    outputs: Mapping[str, Sequence[str | int]],
    renamed: Mapping[str, str] | None = None,
) -> None:
    """Trace a network that takes and gives plain tensors, and write its graph.

    Args:
        path: the file to write.
        network: called with the inputs by their names as identifiers; answers a mapping.
        inputs: the example that is traced, by the graph's names.
        axes: of each input, see ``trace``.
        outputs: the graph's outputs in order, each with the names or sizes of its axes.
        renamed: inputs that the network calls otherwise than the graph: the graph's name → the network's.

    Raises:
        UserError: the network cannot be traced, or a graph's inputs would not be those that were given.
    """
    import onnx_ir

    arguments = {name: identifier(name) for name in inputs} | dict(renamed or {})
    model = trace(
        network,
        {arguments[name]: tensor for name, tensor in inputs.items()},
        {arguments[name]: axes[name] for name in inputs},
        list(outputs),
    )
    names = {argument: name for name, argument in arguments.items()}
    for value in list(model.graph.inputs):
        value.name = names[value.name]
        if not value.uses() and not value.is_graph_output():
            model.graph.inputs.remove(value)  # such as positions that the network does not look at
    for value, (name, sizes) in zip(model.graph.outputs, outputs.items(), strict=True):
        value.name, value.shape = name, onnx_ir.Shape(sizes)
    for value in list(model.graph.initializers.values()):
        value.name = value.name.removeprefix("network.")
    save_graph(model, path)
