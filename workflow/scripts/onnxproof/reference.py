"""The recorded reference: evaluation inputs and what PyTorch answers to them.

Inputs differ in length, so per-token arrays are stored end to end with the lengths beside them. No later step
needs a tokenizer or torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.files import read_json

Array = NDArray[Any]

INPUTS_FILE = "inputs.safetensors"
OUTPUTS_FILE = "outputs.safetensors"
TEXTS_FILE = "texts.json"

#: Outputs with one row a token; all others have one row an input.
PER_TOKEN = frozenset({"last_hidden_state"})


@dataclass(frozen=True)
class Reference:
    """What was recorded for one model.

    ``inputs`` and the per-token ``outputs`` are concatenated over the inputs, whose ``lengths`` (int64, in
    tokens) tell them apart; the other outputs have shape (inputs, features).
    """

    manifest: dict[str, Any]
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    lengths: Array

    def feed(self, indices: list[int]) -> dict[str, Array]:
        """Return the model inputs, int64 (batch, longest), for some inputs, padded like the tokenizer does."""
        padding = self.manifest["padding"]
        ends = np.cumsum(self.lengths)
        longest = int(self.lengths[indices].max())
        feed = {}
        for name, values in self.inputs.items():
            batch = np.full((len(indices), longest), padding["values"][name], dtype=np.int64)
            for row, index in enumerate(indices):
                tokens = values[ends[index] - self.lengths[index] : ends[index]]
                start = longest - len(tokens) if padding["side"] == "left" else 0
                batch[row, start : start + len(tokens)] = tokens
            feed[name] = batch
        return feed

    def unpad(self, output: Array, indices: list[int]) -> Array:
        """Return the rows, shape (tokens, features), of a (batch, longest, features) output that hold tokens."""
        longest = output.shape[1]
        from_left = self.manifest["padding"]["side"] == "left"
        return np.concatenate(
            [
                output[row, longest - length :] if from_left else output[row, :length]
                for row, length in enumerate(self.lengths[indices])
            ]
        )


def read_reference(folder: Path, manifest: Path) -> Reference:
    """Read a recorded reference and the manifest beside it."""
    from safetensors.numpy import load_file

    inputs = load_file(folder / INPUTS_FILE)
    return Reference(
        manifest=read_json(manifest),
        lengths=inputs.pop("lengths"),
        inputs=inputs,
        outputs=load_file(folder / OUTPUTS_FILE),
    )
