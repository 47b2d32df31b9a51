"""What a folder of a variant holds beside its graphs: configuration, tokenizer, and modules behind the transformer."""

import shutil
from pathlib import Path

from onnxproof.checkpoint.reading import Checkpoint
from onnxproof.files import SNAKEMAKE_MARK

#: The weights of a module of sentence-transformers, as a snapshot keeps them.
WEIGHTS = "model.safetensors"
#: Documents about the source and its weights: an ONNX folder needs neither.
NOT_CARRIED = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*.bin",
    "*.bin.index.json",
    "*.onnx",
    "*.onnx_data",
    "export.json",  # of transformers' ExportedModel: names graphs of the source
)
DOCUMENTS = ("README*", "LICENSE*", "LICENCE*", "NOTICE*", ".gitattributes")


def copy_support_files(snapshot: Path, folder: Path) -> None:
    """Copy what a runtime needs beside the graph: configuration, tokenizer, and the modules behind the transformer.

    sentence-transformers applies these itself to what the graph says of tokens, so theirs are weights that it needs.
    """
    left_out = shutil.ignore_patterns(*NOT_CARRIED, *DOCUMENTS, SNAKEMAKE_MARK)
    shutil.copytree(snapshot, folder, dirs_exist_ok=True, ignore=left_out)
    for module in Checkpoint(snapshot).modules[1:]:
        weights = Path(module.path, WEIGHTS)
        if module.path and (snapshot / weights).is_file():
            shutil.copyfile(snapshot / weights, folder / weights)
