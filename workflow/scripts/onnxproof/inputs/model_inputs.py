"""Inputs of a model, one item at a time, and how they are fed: alone, or padded into a batch.

An item maps names to arrays without a batch axis: token ids, the pixels of one image, the samples of one sound. What
is the same for every item, such as the candidate texts of zero-shot classification, is shared.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnxproof.inputs.final_answers import FinalAnswers
    from onnxproof.records.reference import MeasuredReference

Array = NDArray[Any]
Item = Mapping[str, Array]
#: What is known of a recorded reference: all of its record, or what a release carries.
Manifest = TypeVar("Manifest", bound="MeasuredReference", covariant=True)

MASK = "attention_mask"
TOKENS = "input_ids"
POSITIONS = "position_ids"
#: Of a prompt with an image: which of its tokens stand for the image, 1, and which for words, 0.
TOKEN_KINDS = "token_type_ids"
#: Of an image in patches: their numbers along time, height and width. The patches of a batch then follow each other.
PIXELS, GRID = "pixel_values", "image_grid_thw"
#: What the vision encoder of Qwen2-VL calls these numbers: transformers.js feeds them by this name.
GRAPH_GRID = "grid_thw"
#: Of an image in tiles: which pixels are none of padding.
PIXEL_MASK = "pixel_attention_mask"
#: Of a decoder behind a vision encoder: vectors in the place of tokens, float32 (tokens, size).
EMBEDDINGS = "inputs_embeds"
#: Of an encoder-decoder: the text that it is to go on with.
DECODER_TOKENS = "decoder_input_ids"
#: int64 (k,): which tokens of an item are masked, or have the next one guessed. Never fed: it says which rows of the
#: output are the answer.
MASKED_POSITIONS = "masked_positions"
#: What stands beside the outputs of a model that goes on with texts: how likely it finds the text itself.
LIKELIHOODS = "log_likelihoods"


@dataclass(frozen=True)
class ModelInputs:
    """Inputs of one model.

    ``shared`` holds whole arrays, fed as they are. ``padding_values`` says what each input is padded with, 0 where it
    is not named; ``padding_side`` is "right" or "left". ``is_alike`` tells whether the values are like those that users
    give the model.
    """

    items: Sequence[Item]
    shared: Item = field(default_factory=dict)
    padding_side: str = "right"
    padding_values: Mapping[str, int] = field(default_factory=dict)
    is_alike: bool = True

    def feed(self, indices: Sequence[int], names: Sequence[str]) -> dict[str, Array]:
        """Return those inputs that are in ``names`` for some items, padded along every axis to the largest."""
        return {
            name: self.shared[name] if name in self.shared else self._batch(name, indices)
            for name in names
            if name in self.shared or name in self.items[0]
        }

    def batches(self, size: int, names: Sequence[str]) -> list[list[int]]:
        """Return the indices of all items in batches of at most ``size``, in order.

        Items of different shapes share a batch only where the model takes a mask that tells padding apart, and answers
        in rows of tokens, which can be told apart too: else no answer of the padded item would be right.
        """
        fed = set(names) & self.items[0].keys()
        if MASK in names and {TOKENS, DECODER_TOKENS} & fed:
            return _slices(range(len(self.items)), size)
        return self.batches_of_one_shape(size, names, range(len(self.items)))

    def batches_of_one_shape(self, size: int, names: Sequence[str], indices: Iterable[int]) -> list[list[int]]:
        """Return some items in batches of at most ``size`` items of the same shape, which need no padding."""
        groups: dict[Any, list[int]] = {}
        for index in indices:
            item = self.items[index]
            shape = tuple((name, item[name].shape) for name in sorted(set(names) & item.keys()))
            groups.setdefault(shape, []).append(index)
        return [batch for group in groups.values() for batch in _slices(group, size)]

    def tokens_of(self, output: Array, row: int, index: int) -> Array:
        """Return the rows, shape (tokens, …), of a (batch, longest, …) output that belong to one item's tokens.

        Those of an encoder-decoder are the decoder's.
        """
        length = self.text_of(index).shape[-1]
        return np.asarray(output[row, -length:] if self.padding_side == "left" else output[row, :length])

    def text_of(self, index: int) -> Array:
        """Return the tokens of an item, int64 (tokens,); of an encoder-decoder those that the decoder reads."""
        item = self.items[index]
        return item[DECODER_TOKENS if DECODER_TOKENS in item else TOKENS]

    def _batch(self, name: str, indices: Sequence[int]) -> Array:
        arrays = [self.items[index][name] for index in indices]
        if name == PIXELS and {GRID, GRAPH_GRID} & self.items[0].keys():
            return np.concatenate(arrays)
        shape = np.max([array.shape for array in arrays], axis=0)
        batch = np.empty((len(arrays), *shape), dtype=arrays[0].dtype)
        for row, array in enumerate(arrays):
            padding = [(largest - size, 0) for size, largest in zip(array.shape, shape, strict=True)]
            if self.padding_side == "right":
                padding = [(after, before) for before, after in padding]
            batch[row] = np.pad(array, padding, constant_values=self.padding_values.get(name, 0))
        # Of positions with several parts each, as in the rotary embedding of images, the parts come first.
        return batch.swapaxes(0, 1) if name == POSITIONS and batch.ndim == 3 else batch


@dataclass(frozen=True)
class Reference(Generic[Manifest]):
    """What was recorded for one model: inputs and PyTorch's answers to them; whole, or the part that a release carries.

    ``outputs`` has one array an
    input for each output, for the first inputs where a release has not room for all. ``generated`` has the tokens that
    PyTorch generates after some of the inputs, by their numbers. ``texts`` are the inputs as a person reads them, where
    they are texts; in a release, where a tokenizer alone makes the inputs. ``final`` has the original's answers to raw
    inputs, where its card has a program that takes them.
    """

    manifest: Manifest
    inputs: ModelInputs
    outputs: dict[str, list[Array]]
    generated: dict[int, list[int]] = field(default_factory=dict)
    texts: Sequence[Any] = ()
    final: "FinalAnswers | None" = None

    @property
    def answered(self) -> int:
        """How many of the inputs, the first ones, have outputs."""
        return len(next(iter(self.outputs.values())))

    @property
    def answered_inputs(self) -> ModelInputs:
        """The inputs that have outputs."""
        return replace(self.inputs, items=self.inputs.items[: self.answered])


def _slices(indices: Sequence[int], size: int) -> list[list[int]]:
    return [list(indices[start : start + size]) for start in range(0, len(indices), size)]


def pack(items: Sequence[Item]) -> dict[str, Array]:
    """Return items as flat arrays for a file: ``name`` end to end, ``name.shapes`` int64 (items, axes)."""
    packed = {}
    for name in items[0]:
        packed[name] = np.concatenate([np.ravel(item[name]) for item in items])
        packed[f"{name}.shapes"] = np.array([np.shape(item[name]) for item in items], dtype=np.int64)
    return packed


def unpack(packed: Mapping[str, Array]) -> list[dict[str, Array]]:
    """Return the items that ``pack`` was given."""
    columns = {}
    for name, values in packed.items():
        if not name.endswith(".shapes"):
            shapes = packed[f"{name}.shapes"]
            ends = np.cumsum(shapes.prod(axis=1))[:-1]
            columns[name] = [part.reshape(shape) for part, shape in zip(np.split(values, ends), shapes, strict=True)]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
