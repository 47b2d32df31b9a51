"""The first exporter: transformers' own, on torch.export."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnxproof.graph.files import MODEL_FILE
from onnxproof.inputs.model_inputs import DECODER_TOKENS, MASK, MASKED_POSITIONS, TOKENS, Array, ModelInputs
from onnxproof.original.exporters.encoder_decoders import export_encoder_decoder
from onnxproof.original.exporters.generation import export_decoder
from onnxproof.original.exporters.tracing import (
    DESCRIPTION,
    check_generalizes,
    let_go_of_weights,
    save_graph,
    trace,
)
from onnxproof.original.exporters.vision_language import export_vision_language
from onnxproof.original.image_prompts import IMAGE_INPUTS
from onnxproof.original.model import Original
from onnxproof.records.variant import ExportedModel
from onnxproof.tasks.model_types import model_takes
from onnxproof.tasks.registry import ENCODER_DECODER_TASKS, TASKS

#: Attention as plain operators: product, scale, mask, softmax, product. What fuses them finds them again.
ATTENTION = "eager"

#: Two texts are traced. Their lengths differ, because an example without padding has its mask taken out of the graph.
TRACED_TEXTS = ("What is in this sentence? Some words.", "A short one.")
#: Run through the finished graph: one text alone, which is longer, and three of other lengths together.
CHECKED_TEXTS = (
    "The quick brown fox jumps over the lazy dog, and then it goes home to sleep. " * 12,
    "Ein Satz.",
    "Yes",
    "It is raining again today, so we stay at home and read.",
)
FIRST_INPUTS = (TOKENS, MASK, "token_type_ids")
BATCH, LENGTH, CHOICES = "batch_size", "sequence_length", "num_choices"


def write_graphs(original: Original, folder: Path) -> ExportedModel | None:
    """Write the graphs of a model to ``folder``, and prove them on shapes that were not traced.

    The network may have no weights afterwards.

    Returns:
        What transformers' ``ExportedModel`` is to know of the graph, see ``exported_model.describe_traced``; None where
        the model writes text.

    Raises:
        UserError: the model cannot be traced, or its graph answers other shapes otherwise.
    """
    if original.task == "text-generation":
        export_decoder(original.network, folder)
        return None
    if original.task in ENCODER_DECODER_TASKS:
        export_encoder_decoder(original.network, original.task, encoder_sample(original), folder)
        return None
    if original.task == "image-text-to-text":
        inputs = original.make_inputs(())
        samples = [tensors(inputs.feed([index], IMAGE_INPUTS)) for index in range(len(inputs.items))]
        export_vision_language(original.network, samples, folder)
        return None
    traced, checked = example_inputs(original)
    names = sorted(original.fed(traced), key=_position)
    axes = {name: axes_of(name, original, traced, checked) for name in names}
    first = traced.feed(range(TASKS[original.task].fit_batch(2)), names)
    graph = trace(original.network, tensors(first), axes, TASKS[original.task].outputs)
    path = folder / MODEL_FILE
    save_graph(graph, path)
    description: ExportedModel = graph.meta[DESCRIPTION]
    feeds = _other_shapes(original, checked, names)
    answers = [original.answer(feed) for feed in feeds]
    let_go_of_weights(original.network, graph)
    check_generalizes(path, feeds, answers)
    return description


def tensors(feed: dict[str, Array]) -> dict[str, Any]:
    """Return a feed's arrays as tensors."""
    import torch

    return {name: torch.from_numpy(values) for name, values in feed.items()}


def encoder_sample(original: Original) -> dict[str, Any]:
    """Return what the encoder of an encoder-decoder reads of two inputs, as tensors by name."""
    inputs, _ = example_inputs(original)
    names = [name for name in original.fed(inputs) if name not in (DECODER_TOKENS, MASKED_POSITIONS)]
    return tensors(inputs.feed(range(len(inputs.items)), names))


def example_inputs(original: Original) -> tuple[ModelInputs, ModelInputs]:
    """Return the inputs that are traced and those that the finished graph is run on, in other shapes."""
    if model_takes(original.config.get("model_type")) == "text":
        return original.make_inputs(TRACED_TEXTS), original.make_inputs(CHECKED_TEXTS)
    made = original.make_inputs(())
    return ModelInputs(made.items[:2], made.shared), made


def axes_of(name: str, original: Original, traced: ModelInputs, checked: ModelInputs) -> list[str | None]:
    """Return the names of an input's axes, None for those whose size is the same for every input.

    Axes of texts always vary. Those of images and sounds do where the model's own preprocessing makes them.
    """
    is_text = TOKENS in traced.items[0] or name in traced.shared
    if name in traced.shared:
        return ["text_batch_size", LENGTH]
    batch = BATCH if TASKS[original.task].largest_batch is None else None
    shapes = {item[name].shape for item in (*traced.items, *checked.items)}
    rank = len(next(iter(shapes)))
    if is_text:
        return [batch, CHOICES, LENGTH] if rank == 2 else [batch, LENGTH]
    varies = [len({shape[axis] for shape in shapes}) > 1 for axis in range(rank)]
    return [batch, *(_size_name(name, axis, rank) if vary else None for axis, vary in enumerate(varies))]


def _size_name(name: str, axis: int, rank: int) -> str:
    if name in ("pixel_values", "pixel_mask"):
        return ("height", "width")[axis - rank] if axis >= rank - 2 else "num_channels"
    return LENGTH


def _position(name: str) -> int:
    """Return where an input stands: those of texts in the order that clients which feed by position expect."""
    return FIRST_INPUTS.index(name) if name in FIRST_INPUTS else len(FIRST_INPUTS)


def _other_shapes(original: Original, inputs: ModelInputs, names: Sequence[str]) -> list[dict[str, Array]]:
    """Return feeds of one item and of three, in shapes that were not traced."""
    groups: list[list[int]] = [[0]]
    if TASKS[original.task].largest_batch is None:
        groups += [list(range(1, min(4, len(inputs.items))))]
    return [inputs.feed(indices, names) for indices in groups]
