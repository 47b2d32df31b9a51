"""The recorded reference: evaluation inputs and what PyTorch answers to them.

No later step needs a tokenizer, another preprocessor, or torch.
"""

from pathlib import Path

from onnxproof.files import read_json, write_json
from onnxproof.inputs.final_answers import FINAL_FILE, FINAL_VECTORS_FILE, FinalAnswers, from_json
from onnxproof.inputs.model_inputs import Item, ModelInputs, Reference, pack, unpack
from onnxproof.records.reference import FinalRecord, Generated, RecordedTexts, ReferenceRecord, read_reference_record

INPUTS_FILE = "inputs.safetensors"
OUTPUTS_FILE = "outputs.safetensors"
TEXTS_FILE = "texts.json"
#: What PyTorch generates: lists of tokens by the number of the input that they follow.
GENERATED_FILE = "generated.json"

#: Marks, in the inputs' file, what every item shares.
SHARED = "shared."


def save_reference(
    folder: Path, inputs: ModelInputs, outputs: list[Item], generated: dict[int, list[int]] | None = None
) -> None:
    """Write inputs and outputs, one mapping an input, as safetensors; and generated tokens where there are any."""
    from safetensors.numpy import save_file

    shared = {f"{SHARED}{name}": values for name, values in inputs.shared.items()}
    save_file(pack(inputs.items) | shared, folder / INPUTS_FILE)
    save_file(pack(outputs), folder / OUTPUTS_FILE)
    if generated:
        write_json(folder / GENERATED_FILE, generated)


def save_final_answers(folder: Path, final: FinalAnswers) -> None:
    """Write raw inputs and the original's final answers: JSON, and vectors as safetensors."""
    from safetensors.numpy import save_file

    facts, arrays = final.as_json()
    write_json(folder / FINAL_FILE, facts)
    if arrays:
        save_file(arrays, folder / FINAL_VECTORS_FILE)


def read_final_answers(folder: Path) -> FinalAnswers | None:
    """Read what ``save_final_answers`` wrote; None where nothing was recorded."""
    from safetensors.numpy import load_file

    if not (folder / FINAL_FILE).is_file():
        return None
    vectors = folder / FINAL_VECTORS_FILE
    facts: FinalRecord = read_json(folder / FINAL_FILE)
    return from_json(facts, load_file(vectors) if vectors.is_file() else {})


def read_reference(folder: Path, manifest_file: Path) -> Reference[ReferenceRecord]:
    """Read a recorded reference and the manifest beside it."""
    from safetensors.numpy import load_file

    manifest = read_reference_record(manifest_file)
    stored = load_file(folder / INPUTS_FILE)
    shared = {name.removeprefix(SHARED): stored.pop(name) for name in list(stored) if name.startswith(SHARED)}
    padding = manifest["padding"]
    inputs = ModelInputs(unpack(stored), shared, padding["side"], padding["values"])
    outputs = unpack(load_file(folder / OUTPUTS_FILE))
    columns = {name: [item[name] for item in outputs] for name in outputs[0]}
    file = folder / GENERATED_FILE
    generated: Generated = read_json(file) if file.is_file() else {}
    by_number = {int(index): tokens for index, tokens in generated.items()}
    texts_file = folder / TEXTS_FILE  # absent where the inputs are no texts
    texts: RecordedTexts = read_json(texts_file) if texts_file.is_file() else []
    return Reference(manifest, inputs, columns, by_number, texts, read_final_answers(folder))
