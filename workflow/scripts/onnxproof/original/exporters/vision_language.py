"""Models that write about images, as the three graphs of ``onnxproof.graph.vision_language``.

transformers' own vision encoders decide by values which images they read (SmolVLM), or walk over a list of image sizes
(Qwen2-VL). Neither can be traced, so that their steps are put together here from the network's own modules.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxproof.cli import UserError
from onnxproof.graph.files import EMBEDDING_FILE, MERGED_FILE, VISION_FILE
from onnxproof.graph.vision_language import IMAGE_FEATURES, item_name
from onnxproof.inputs.model_inputs import (
    EMBEDDINGS,
    GRAPH_GRID,
    GRID,
    MASK,
    PIXEL_MASK,
    PIXELS,
    POSITIONS,
    TOKEN_KINDS,
    TOKENS,
)
from onnxproof.original.exporters.caches import (
    BATCH,
    SEQUENCE,
    TOTAL,
    check_answers,
    write_graph,
)
from onnxproof.original.exporters.generation import Reading, Step, export_decoder, text_inputs
from onnxproof.original.exporters.tracing import reason_of
from onnxproof.original.image_prompts import image_features, takes_positions_in_parts, takes_token_kinds
from onnxproof.original.patches import attention_by_masks

Tensors = dict[str, Any]
IMAGES, PATCHES = "num_images", "num_patches"


def export_vision_language(network: Any, samples: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write the three graphs of a model that writes about images, and prove them at sizes that were not traced.

    Args:
        network: a transformers model for image-text-to-text, in evaluation mode, float32, with eager attention.
        samples: what the vision encoder reads of one prompt each, tensors by the names of the network's arguments.
        folder: where to write.

    Raises:
        UserError: the network cannot be run or traced, keeps something else than keys and values, or a graph answers
            otherwise than the network.
    """
    _write_vision(network, samples, folder / VISION_FILE)
    _write_embedding(network, folder / EMBEDDING_FILE)
    export_decoder(network, folder, reading_of(network))


# ------------------------------------------------------------------------------------------------ the vision encoder


def tiles_features(network: Any, inputs: Mapping[str, Any]) -> Any:
    """Return what SmolVLM or Idefics3 makes of images, float32 (image tokens, size).

    ``pixel_values`` are float32 (batch, images, channels, height, width), ``pixel_attention_mask`` bool without
    channels. Images that are all 0 are padding; the network leaves them out first, the graph last.
    """
    import torch

    core, pixels = network.model, inputs[PIXELS].flatten(0, 1)
    mask, side = inputs[PIXEL_MASK].flatten(0, 1), core.config.vision_config.patch_size
    rows, columns = mask.shape[1] // side, mask.shape[2] // side
    patches = mask[:, : rows * side, : columns * side].reshape(-1, rows, side, columns, side).any(-1).any(2)
    seen = core.vision_model(pixel_values=pixels, patch_attention_mask=patches).last_hidden_state
    features = core.connector(seen)
    real = (pixels != 0).flatten(1).any(1)
    return features[torch.nonzero(real)[:, 0]].flatten(0, 1)


def patches_features(network: Any, inputs: Mapping[str, Any]) -> Any:
    """Return what Qwen2-VL or Qwen2.5-VL makes of images, float32 (image tokens, size).

    ``pixel_values`` are float32 (patches of all images, values), ``image_grid_thw`` int64 (images, 3): how many
    patches an image has along time, of which there is one, height and width. The network attends to each image by
    itself, and Qwen2.5-VL in most layers to each window of an image; here masks hide the others, so that the patches
    need not be put in the order of the windows.
    """
    import torch

    visual, pixels, grid = network.model.visual, inputs[PIXELS], inputs[GRID]
    side, count = visual.spatial_merge_size, pixels.shape[0]
    sizes = grid[:, 1] * grid[:, 2]
    ends = sizes.cumsum(0)
    places = torch.arange(count)
    image = (places[:, None] >= ends[None]).sum(1)
    place, width = places - (ends - sizes)[image], grid[image, 2]
    # Patches come in squares of so many a side, which become one token.
    square, inside = place // side**2, place % side**2
    across = width // side
    down, right = square // across, square % across
    positions = torch.stack([down * side + inside // side, right * side + inside % side], dim=-1)
    masks = [mask_of_others(image)] * len(visual.blocks)
    if hasattr(visual, "fullatt_block_indexes"):
        window = visual.window_size // side // visual.patch_size
        in_windows = mask_of_others(image, down // window, right // window)
        masks = [mask if layer in visual.fullatt_block_indexes else in_windows for layer, mask in enumerate(masks)]
    hidden = visual.patch_embed(pixels)
    angles = visual.rotary_pos_emb(hidden, positions)
    with attention_by_masks(visual, masks):
        for block in visual.blocks:
            hidden = block(hidden, cu_seqlens=None, position_embeddings=angles)
    return visual.merger(hidden)


def mask_of_others(*groups: Any) -> Any:
    """Return a mask of pairs of places that are not of one group each, float32 (places, places): 0, or the lowest."""
    import torch

    apart = torch.stack([group[:, None] != group[None] for group in groups]).any(0)
    return torch.zeros(apart.shape).masked_fill(apart, torch.finfo(torch.float32).min)  # len() would fix the size


def projected_features(network: Any, inputs: Mapping[str, Any]) -> Any:
    """Return what LLaVA makes of images, float32 (image tokens, size); its own method makes a list of the images.

    ``pixel_values`` are float32 (images, channels, height, width).
    """
    import torch

    core, config = network.model, network.config
    states = core.vision_tower(inputs[PIXELS], output_hidden_states=True).hidden_states
    layers = config.vision_feature_layer
    chosen = torch.cat([states[layer] for layer in ([layers] if isinstance(layers, int) else layers)], dim=-1)
    chosen = chosen[:, 1:] if config.vision_feature_select_strategy == "default" else chosen
    return core.multi_modal_projector(chosen).flatten(0, 1)


#: ``model_type`` → how its images are read, where its own method cannot be traced.
READERS: dict[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    "idefics3": tiles_features,
    "llava": projected_features,
    "qwen2_5_vl": patches_features,
    "qwen2_vl": patches_features,
    "smolvlm": tiles_features,
}


def _write_vision(network: Any, samples: Sequence[Mapping[str, Any]], path: Path) -> None:
    import torch

    read = READERS.get(network.config.model_type, image_features)

    class Vision(torch.nn.Module):
        """Gives the vectors of images alone."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, **features: Any) -> Tensors:
            return {IMAGE_FEATURES: read(network, features)}

    first, *others = (join_images(network, chosen) for chosen in image_batches(samples))
    axes = image_axes(first)
    with torch.inference_mode():
        try:
            size = int(image_features(network, _by_argument(first)).shape[1])
        except Exception as error:  # whatever the network's own code raises
            raise UserError(f"{type(network).__name__} cannot be run: {reason_of(error)}") from error
    # transformers' exporter makes inputs of its own where it finds one by the graph's name for the grid.
    renamed = {GRAPH_GRID: GRID} if GRAPH_GRID in first else {}
    write_graph(path, Vision().eval(), first, axes, {IMAGE_FEATURES: ["num_image_tokens", size]}, renamed)
    for inputs in others:
        with torch.inference_mode():
            expected = image_features(network, _by_argument(inputs))
        check_answers(path, inputs, {IMAGE_FEATURES: expected})


def image_batches(samples: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Return the images that are traced, of two prompts, then those that the graph is run on: of one, and of three."""
    repeated = [samples[index % len(samples)] for index in range(6)]
    return [repeated[:2], repeated[2:3], repeated[3:6]]


def join_images(network: Any, samples: Sequence[Mapping[str, Any]]) -> Tensors:
    """Return the images of several prompts as the vision encoder's graph takes them.

    Prompts of SmolVLM may have any number of images, and those with fewer are padded with images that are all 0.
    """
    import torch

    names = list(samples[0])
    if GRID in names:
        return {
            PIXELS: torch.cat([sample[PIXELS] for sample in samples]),
            GRAPH_GRID if network.config.model_type == "qwen2_vl" else GRID: torch.cat(
                [sample[GRID].reshape(-1, 3) for sample in samples]
            ),
        }
    if PIXEL_MASK not in names:
        return {name: torch.cat([sample[name] for sample in samples]) for name in names}
    most = 1 + max(sample[PIXELS].shape[1] for sample in samples)
    joined: Tensors = {}
    for name in names:
        rows = []
        for row, sample in enumerate(samples):
            images = sample[name][0]
            images = images if row else torch.cat([images, images[:1]])
            rows.append(torch.cat([images, images.new_zeros(most - len(images), *images.shape[1:])]))
        joined[name] = torch.stack(rows)
    return joined


def image_axes(inputs: Mapping[str, Any]) -> dict[str, list[str | None]]:
    """Return the names of the axes of images: their number varies, and that of their patches; not their size."""
    grids = {name: [IMAGES, None] for name in (GRID, GRAPH_GRID) if name in inputs}
    if grids:
        return {PIXELS: [PATCHES, None], **grids}
    several = [BATCH, IMAGES] if PIXEL_MASK in inputs else [IMAGES]
    return {name: [*several, *[None] * (tensor.ndim - len(several))] for name, tensor in inputs.items()}


def _by_argument(inputs: Mapping[str, Any]) -> Tensors:
    """Return the vision encoder's inputs by the names of the network's arguments."""
    return {item_name(name): tensor for name, tensor in inputs.items()}


# --------------------------------------------------------------------------------------- the tokens and the decoder


def _write_embedding(network: Any, path: Path) -> None:
    import torch

    table = network.get_input_embeddings()
    token = network.config.image_token_id
    is_outside = token >= table.num_embeddings

    class Embedding(torch.nn.Module):
        """Gives the vectors of tokens; that of an image token is replaced later, whatever it is."""

        def __init__(self) -> None:
            super().__init__()
            self.network = table

        def forward(self, input_ids: Any) -> Tensors:
            known = input_ids.masked_fill(input_ids == token, 0) if is_outside else input_ids
            return {EMBEDDINGS: self.network(known)}

    tokens = torch.arange(6).reshape(2, 3)
    with torch.inference_mode():
        size = int(table(tokens).shape[2])
    write_graph(
        path,
        Embedding().eval(),
        {TOKENS: tokens},
        {TOKENS: [BATCH, SEQUENCE]},
        {EMBEDDINGS: [BATCH, SEQUENCE, size]},
    )
    for tokens in (torch.tensor([[5]]), torch.arange(12).reshape(3, 4)):
        with torch.inference_mode():
            expected = table(tokens)
        check_answers(path, {TOKENS: tokens}, {EMBEDDINGS: expected})


def reading_of(network: Any) -> Reading:
    """Return how the decoder of a model is fed: vectors instead of tokens, and what its images need besides."""
    has_parts, has_kinds = takes_positions_in_parts(network), takes_token_kinds(network)
    axes: dict[str, Sequence[str | None]] = {
        EMBEDDINGS: [BATCH, SEQUENCE, None],
        MASK: [BATCH, TOTAL],
        POSITIONS: [None, BATCH, SEQUENCE] if has_parts else [BATCH, SEQUENCE],
        TOKEN_KINDS: [BATCH, TOTAL],
    }

    def make(network: Any, step: Step) -> Tensors:
        import torch

        inputs: Tensors = text_inputs(network, step)
        tokens, mask = inputs.pop(TOKENS), inputs[MASK]
        order = (mask.cumsum(1) - 1).clamp(min=0)
        if has_parts:
            # After one token of text come six of an image, which count in three ways.
            across = [torch.where(order < 7, 1 + order // divisor % 3, order - 3) for divisor in (7, 3, 1)]
            inputs[POSITIONS] = torch.where(order == 0, order, torch.stack(across))
        if has_kinds:
            # An image is never read in two steps: there is one before the new tokens, and one among them.
            places = torch.arange(step.past + step.new)
            before = (order > 0) & (order < 5) & (places < step.past)
            among = (places > step.past) & (places < step.past + 4)
            inputs[TOKEN_KINDS] = (before | among).long() * mask
        return {EMBEDDINGS: network.get_input_embeddings()(tokens), **inputs}

    return Reading(make, axes, MERGED_FILE)
