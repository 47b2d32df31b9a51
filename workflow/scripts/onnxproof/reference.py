"""The recorded reference: evaluation inputs and what PyTorch answers to them.

No later step needs a tokenizer, another preprocessor, or torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxproof.files import read_json
from onnxproof.inputs import Array, Item, ModelInputs, pack, unpack

INPUTS_FILE = "inputs.safetensors"
OUTPUTS_FILE = "outputs.safetensors"
TEXTS_FILE = "texts.json"

#: Marks, in the inputs' file, what every item shares.
SHARED = "shared."


@dataclass(frozen=True)
class Reference:
    """What was recorded for one model: the inputs, and for each output one array an input."""

    manifest: dict[str, Any]
    inputs: ModelInputs
    outputs: dict[str, list[Array]]


def save_reference(folder: Path, inputs: ModelInputs, outputs: list[Item]) -> None:
    """Write inputs and outputs, one mapping an input, as safetensors."""
    from safetensors.numpy import save_file

    shared = {f"{SHARED}{name}": values for name, values in inputs.shared.items()}
    save_file(pack(inputs.items) | shared, folder / INPUTS_FILE)
    save_file(pack(outputs), folder / OUTPUTS_FILE)


def read_reference(folder: Path, manifest_file: Path) -> Reference:
    """Read a recorded reference and the manifest beside it."""
    from safetensors.numpy import load_file

    manifest = read_json(manifest_file)
    stored = load_file(folder / INPUTS_FILE)
    shared = {name.removeprefix(SHARED): stored.pop(name) for name in list(stored) if name.startswith(SHARED)}
    padding = manifest["padding"]
    inputs = ModelInputs(unpack(stored), shared, padding["side"], padding["values"])
    outputs = unpack(load_file(folder / OUTPUTS_FILE))
    return Reference(manifest, inputs, {name: [item[name] for item in outputs] for name in outputs[0]})
