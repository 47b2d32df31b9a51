"""What a model's folder must hold, and which of a repository's files are worth fetching.

Standard library only: the config check asks these questions before any job starts.
"""

import json
import re
import struct
import zipfile
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

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
#: Modules that are nothing without their settings; others, such as Normalize, have no files at all.
MODULES_WITH_CONFIG = ("Pooling", "Dense", "LayerNorm")

#: Any one group, complete, is a vocabulary.
VOCABULARIES = (
    ("tokenizer.json",),
    ("vocab.txt",),
    ("vocab.json", "merges.txt"),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
    ("tokenizer.model",),
    ("spm.model",),
    ("source.spm", "target.spm"),
)
#: Tokenizers that read bytes or code points, and so have no vocabulary file.
TOKENIZERS_WITHOUT_VOCABULARY = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")
#: A model of images or sound brings one of these instead of a tokenizer.
PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")

#: The safetensors library refuses longer headers (``MAX_HEADER_SIZE`` in its ``tensor.rs``).
SAFETENSORS_MAX_HEADER_BYTES = 100_000_000
GIT_LFS_POINTER = b"version https://git-lfs"


class _ProblemError(Exception):
    """Carries one sentence from a check to ``snapshot_problem``."""


def needed_files(names: Iterable[str]) -> list[str]:
    """Choose the files to take from a repository, given all its relative paths; sorted.

    Taken: configuration, tokenizer, chat template, card and licence from the top folder and from the numbered
    folders of sentence-transformers; in each of these folders the weights in one format, safetensors before
    PyTorch's own, a single file before a split one. Left: other formats (ONNX, TensorFlow, Flax, GGUF,
    OpenVINO), training state, code, and any name that would leave the folder.
    """
    folders: dict[PurePosixPath, set[str]] = {}
    for name in names:
        path = PurePosixPath(name)
        if "\\" not in name and all(MODULE_FOLDER.fullmatch(part) for part in path.parts[:-1]):
            folders.setdefault(path.parent, set()).add(path.name)
    return sorted(
        (folder / name).as_posix()
        for folder, present in folders.items()
        for name in _support_files(present) | _weight_files(present)
    )


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


def snapshot_problem(folder: Path) -> str | None:
    """Return what keeps ``folder`` from being a usable model, as one sentence, or None when nothing does.

    The sentence names files relative to ``folder``, never the folder itself: the caller puts that in front.
    The checks are cheap: names, JSON files and headers are read, weights are not.
    """
    try:
        _check_snapshot(folder)
    except _ProblemError as problem:
        return str(problem)
    return None


def _check_snapshot(folder: Path) -> None:
    if not folder.exists():
        raise _ProblemError("the folder does not exist")
    if not folder.is_dir():
        raise _ProblemError("this is a file, not a folder")
    place = _transformer_path(folder)
    _read_object(folder, f"{place}config.json")
    _check_weights(folder, place)
    _check_modules(folder)
    _check_tokenizer(folder, place)


def _transformer_path(folder: Path) -> str:
    """Return the transformer's place in a sentence-transformers folder, as a prefix: empty, or ``name/``."""
    modules = _read_modules(folder)
    return f"{modules[0]['path']}/" if modules and modules[0]["path"] else ""


def _read_modules(folder: Path) -> list[dict[str, Any]]:
    if not (folder / "modules.json").is_file():
        return []
    modules = _read_json(folder, "modules.json")
    if not isinstance(modules, list) or not all(map(_is_module, modules)):
        raise _ProblemError(
            "modules.json must list the modules of sentence-transformers, each with a 'type' and a 'path' "
            "inside the folder"
        )
    return modules


def _is_module(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("type"), str)
        and isinstance(entry.get("path"), str)
        and not PurePosixPath(entry["path"]).is_absolute()
        and ".." not in PurePosixPath(entry["path"]).parts
    )


def _check_modules(folder: Path) -> None:
    for module in _read_modules(folder):
        if module["path"] and module["type"].rsplit(".", 1)[-1] in MODULES_WITH_CONFIG:
            _read_object(folder, f"{module['path']}/config.json")


def _check_weights(folder: Path, place: str) -> None:
    for single, index, _ in WEIGHT_FORMATS:
        if (folder / place / single).is_file():
            _check_weight_file(folder, place + single)
            return
        if (folder / place / index).is_file():
            for part in _parts_of(folder, place + index):
                if not (folder / place / part).is_file():
                    raise _ProblemError(f"{place}{index} names {part}, which is missing")
                _check_weight_file(folder, place + part)
            return
    allowed = ", ".join(f"{place}{name}" for single, index, _ in WEIGHT_FORMATS for name in (single, index))
    raise _ProblemError(f"there are no weights; one of these is needed: {allowed}")


def _parts_of(folder: Path, index: str) -> list[str]:
    weight_map = _read_object(folder, index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise _ProblemError(f"{index} has no 'weight_map'")
    parts = set(weight_map.values())
    if not all(isinstance(part, str) and part == PurePosixPath(part).name for part in parts):
        raise _ProblemError(f"{index}: 'weight_map' must name files beside it")
    return sorted(parts)


def _check_weight_file(folder: Path, name: str) -> None:
    path = folder / name
    with path.open("rb") as stream:
        start = stream.read(len(GIT_LFS_POINTER))
    if not start:
        raise _ProblemError(f"{name} is empty")
    if start == GIT_LFS_POINTER:
        raise _ProblemError(f"{name} is a Git LFS pointer, not the weights: run 'git lfs pull' in its repository")
    if path.suffix == ".safetensors":
        _check_safetensors(path, name)
    # torch.save writes a zip archive, whose directory is at the end; before PyTorch 1.6 it wrote a pickle.
    elif start.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise _ProblemError(f"{name} is truncated: the archive has no end")


def _check_safetensors(path: Path, name: str) -> None:
    """Compare a file's size with what its header says.

    The format: https://huggingface.co/docs/safetensors, eight bytes with the header's length (little-endian),
    the header in JSON, then the tensors, whose ``data_offsets`` count from the header's end.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise _ProblemError(f"{name} is truncated: {size} bytes are too few for a safetensors file")
        (header_bytes,) = struct.unpack("<Q", prefix)
        if header_bytes > min(size - 8, SAFETENSORS_MAX_HEADER_BYTES):
            raise _ProblemError(
                f"{name} is truncated or no safetensors file: {size} bytes, with a header of {header_bytes}"
            )
        header = stream.read(header_bytes)
    try:
        tensors = json.loads(header)
        ends = [entry["data_offsets"][1] for key, entry in tensors.items() if key != "__metadata__"]
        expected = 8 + header_bytes + max(ends)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        raise _ProblemError(f"{name} is no safetensors file: its header describes no tensors") from None
    if size != expected:
        fault = "truncated" if size < expected else "damaged"
        raise _ProblemError(f"{name} is {fault}: it has {size} bytes, its header says {expected}")


def _check_tokenizer(folder: Path, place: str) -> None:
    if any((folder / place / name).is_file() for name in PREPROCESSOR_FILES):
        return
    # A sentence-transformers folder keeps the tokenizer beside the transformer, or at the top.
    if any(_has_vocabulary(candidate) for candidate in (folder / place, folder)):
        return
    if (folder / place / "tokenizer_config.json").is_file():
        tokenizer = _read_object(folder, f"{place}tokenizer_config.json").get("tokenizer_class")
        if tokenizer in TOKENIZERS_WITHOUT_VOCABULARY:
            return
    allowed = ", ".join(" with ".join(group) for group in VOCABULARIES)
    raise _ProblemError(
        f"there is no tokenizer; one of these is needed: {allowed} "
        f"(or, for images and sound, {' or '.join(PREPROCESSOR_FILES)})"
    )


def _has_vocabulary(folder: Path) -> bool:
    return any(all((folder / name).is_file() for name in group) for group in VOCABULARIES)


def _read_object(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / name).is_file():
        raise _ProblemError(f"there is no {name}")
    content = _read_json(folder, name)
    if not isinstance(content, dict):
        raise _ProblemError(f"{name} must hold a JSON object, not {type(content).__name__}")
    return content


def _read_json(folder: Path, name: str) -> Any:
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise _ProblemError(f"{name} cannot be read as JSON: {reason}") from None
