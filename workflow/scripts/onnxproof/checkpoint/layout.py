"""Which of a repository's files belong to a model. Standard library only."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from onnxproof.checkpoint.untrusted import stays_inside

#: The two weight formats PyTorch reads, the preferred first: the name of a single file, the index of a
#: split one, and the shape of the split one's parts.
WEIGHT_FORMATS = (
    ("model.safetensors", "model.safetensors.index.json", re.compile(r"model.*-\d{5}-of-\d{5}\.safetensors")),
    ("pytorch_model.bin", "pytorch_model.bin.index.json", re.compile(r"pytorch_model.*-\d{5}-of-\d{5}\.bin")),
)

#: Configuration, vocabularies, chat templates, and the documents that a licence obliges us to keep.
SUPPORT_FILES = (
    "*.json",
    "*.txt",
    "*.model",
    "*.spm",
    "*.tiktoken",
    "*.jinja",
    "bpe.codes",
    "README.md",
    "LICENSE*",
    "LICENCE*",
    "NOTICE*",
)
#: Indexes of weights are chosen with their weights; the rest is what training leaves behind.
NOT_SUPPORT_FILES = ("*.index.json", "trainer_state.json", "*_results.json", "requirements*.txt")

#: sentence-transformers numbers the folders of its modules: ``0_Transformer``, ``1_Pooling``, ``2_Dense``.
MODULE_FOLDER = re.compile(r"\d+_\w+")
#: Templates beside the default one, as transformers saves them: ``<name>.jinja``.
TEMPLATE_FOLDER = "additional_chat_templates"


def needed_files(names: Iterable[str], with_code: bool = False) -> list[str]:
    """Choose the files to take from a repository, given all its relative paths; sorted.

    Taken: configuration, tokenizer, chat templates, card and licence from the top folder and from the numbered
    folders of sentence-transformers; in each of these folders the weights in one format, safetensors before
    PyTorch's own, a single file before a split one. Left: other formats (ONNX, TensorFlow, Flax, GGUF,
    OpenVINO), training state, code (``*.py``) unless ``with_code``, and any name that would leave the folder.
    """
    folders: dict[PurePosixPath, set[str]] = {}
    for name in names:
        path = PurePosixPath(name)
        *parents, _ = path.parts or ("",)
        if parents and parents[-1] == TEMPLATE_FOLDER and path.suffix == ".jinja":
            parents.pop()
        if stays_inside(name) and all(MODULE_FOLDER.fullmatch(part) for part in parents):
            folders.setdefault(path.parent, set()).add(path.name)
    return sorted(
        (folder / name).as_posix()
        for folder, present in folders.items()
        for name in _support_files(present) | _weight_files(present) | _code_files(present if with_code else set())
    )


def pickled_files(names: Iterable[str]) -> list[str]:
    """Return those of the chosen files that are PyTorch's pickles, sorted."""
    return sorted(name for name in names if name.endswith(".bin"))


def _code_files(names: set[str]) -> set[str]:
    return {name for name in names if name.endswith(".py")}


def _support_files(names: set[str]) -> set[str]:
    return {
        name
        for name in names
        if any(fnmatchcase(name, pattern) for pattern in SUPPORT_FILES)
        and not any(fnmatchcase(name, pattern) for pattern in NOT_SUPPORT_FILES)
    }


def _weight_files(names: set[str]) -> set[str]:
    for single, index, part in WEIGHT_FORMATS:
        if single in names:
            return {single}
        if index in names:
            return {index} | {name for name in names if part.fullmatch(name)}
    return set()
