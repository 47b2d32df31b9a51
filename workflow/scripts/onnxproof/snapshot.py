"""What a model's folder must hold, and which of a repository's files are worth fetching.

Standard library only: the config check asks these questions before any job starts.
"""

import json
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from onnxproof.files import read_manifest
from onnxproof.untrusted import (
    MOST_JSON_BYTES,
    archive_problem,
    is_own_module,
    module_problem,
    remote_code_of,
    safetensors_problem,
    shortened,
    size_problem,
    stays_inside,
    tokenizer_path_problem,
)

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
#: Modules that are nothing without their settings, and the file of these. Others, such as Normalize, need no file.
MODULE_CONFIGS = {
    "Pooling": "config.json",
    "Dense": "config.json",
    "LayerNorm": "config.json",
    "WeightedLayerPooling": "config.json",
    "WordWeights": "config.json",
    "CNN": "cnn_config.json",
    "LSTM": "lstm_config.json",
}

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

GIT_LFS_POINTER = b"version https://git-lfs"


class _ProblemError(Exception):
    """Carries one sentence from a check to ``snapshot_problem``."""


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


def snapshot_problem(folder: Path, allow_pickle: bool = False, allow_remote_code: bool = False) -> str | None:
    """Return what keeps ``folder`` from being a usable and harmless model, as one sentence, or None.

    The sentence names files relative to ``folder``, never the folder itself: the caller puts that in front.
    The checks are cheap: names, JSON files and headers are read, weights are not.
    """
    try:
        _check_snapshot(folder, allow_pickle, allow_remote_code)
    except _ProblemError as problem:
        return str(problem)
    return None


def _check_snapshot(folder: Path, allow_pickle: bool, allow_remote_code: bool) -> None:
    if not folder.exists():
        raise _ProblemError("the folder does not exist")
    if not folder.is_dir():
        raise _ProblemError("this is a file, not a folder")
    place = _transformer_path(folder)
    config = _read_object(folder, f"{place}config.json")
    weights = _check_weights(folder, place)
    if problem := size_problem(config, sum((folder / name).stat().st_size for name in weights)):
        raise _ProblemError(f"{place}config.json: {problem}")
    names = needed_files(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    if not allow_pickle and (pickled := pickled_files(names)):
        raise _ProblemError(pickle_refusal(pickled))
    _check_modules(folder)
    _check_tokenizer(folder, place)
    _check_code(folder, place, allow_remote_code)


def pickle_refusal(names: list[str]) -> str:
    """Return the sentence that refuses pickled weights."""
    return (
        f"the weights are a Python pickle ({names[0]}), which can run code when it is loaded; take a source with "
        "model.safetensors, or set allow_pickle: true for this model: then only tensors are read from it, and "
        "kept as safetensors"
    )


def _check_code(folder: Path, place: str, allow_remote_code: bool) -> None:
    """Refuse code of the repository's own, whichever file asks for it."""
    for path in sorted((folder / place).glob("*.json")):
        if path.name not in ("config.json", "tokenizer_config.json", *PREPROCESSOR_FILES):
            continue
        code = remote_code_of(_read_object(folder, f"{place}{path.name}"))
        elsewhere = [name for name in code if "--" in name]
        if elsewhere:
            raise _ProblemError(
                f"{place}{path.name}: 'auto_map' names code of another repository ({shortened(elsewhere[0])}), which "
                "no revision pins"
            )
        if code and not allow_remote_code:
            raise _ProblemError(code_refusal(f"{place}{path.name}", code[0]))
    foreign = [module["type"] for module in _read_modules(folder) if not is_own_module(module["type"])]
    if foreign and not allow_remote_code:
        raise _ProblemError(code_refusal("modules.json", foreign[0]))


def code_refusal(name: str, class_name: str) -> str:
    """Return the sentence that refuses a repository's own code."""
    return (
        f"{name} has the model's own Python code run ({shortened(class_name)}); after reading that code, set "
        "allow_remote_code: true for this model, which must come from the Hub at a 40-hex commit"
    )


def remote_code_allowed(folder: Path) -> bool:
    """Tell whether the manifest beside a downloaded snapshot records that its own code may run.

    Only ``download.py`` writes that, for a pinned source whose user allowed it; without a manifest nothing runs.
    """
    manifest = folder.with_name(f"{folder.name}.json")
    return manifest.is_file() and read_manifest(manifest).get("allow_remote_code") is True


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
        and stays_inside(entry["path"])
    )


def _check_modules(folder: Path) -> None:
    for module in _read_modules(folder)[1:]:
        for single, _, _ in WEIGHT_FORMATS:
            if module["path"] and (folder / module["path"] / single).is_file():
                _check_weight_file(folder, f"{module['path']}/{single}")
        kind = module["type"].rsplit(".", 1)[-1]
        if module["path"] and kind in MODULE_CONFIGS:
            name = f"{module['path']}/{MODULE_CONFIGS[kind]}"
            settings = _read_object(folder, name)
            weights = [path.stat().st_size for path in (folder / module["path"]).glob("*") if path.is_file()]
            if problem := module_problem(kind, settings, sum(weights)):
                raise _ProblemError(f"{name}: {problem}")


def _check_weights(folder: Path, place: str) -> list[str]:
    """Check the weights that would be loaded; return their files' names."""
    for single, index, _ in WEIGHT_FORMATS:
        if (folder / place / single).is_file():
            _check_weight_file(folder, place + single)
            return [place + single]
        if (folder / place / index).is_file():
            for part in _parts_of(folder, place + index):
                if not (folder / place / part).is_file():
                    raise _ProblemError(f"{place}{index} names {part}, which is missing")
                _check_weight_file(folder, place + part)
            return [place + part for part in _parts_of(folder, place + index)]
    allowed = ", ".join(f"{place}{name}" for single, index, _ in WEIGHT_FORMATS for name in (single, index))
    raise _ProblemError(f"there are no weights; one of these is needed: {allowed}")


def _parts_of(folder: Path, index: str) -> list[str]:
    weight_map = _read_object(folder, index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise _ProblemError(f"{index} has no 'weight_map'")
    parts = weight_map.values()
    if not all(isinstance(part, str) and part == PurePosixPath(part).name and stays_inside(part) for part in parts):
        raise _ProblemError(f"{index}: 'weight_map' must name files beside it")
    return sorted(set(parts))


def _check_weight_file(folder: Path, name: str) -> None:
    path = folder / name
    with path.open("rb") as stream:
        start = stream.read(len(GIT_LFS_POINTER))
    if not start:
        raise _ProblemError(f"{name} is empty")
    if start == GIT_LFS_POINTER:
        raise _ProblemError(f"{name} is a Git LFS pointer, not the weights: run 'git lfs pull' in its repository")
    fault = safetensors_problem(path) if path.suffix == ".safetensors" else archive_problem(path)
    if fault:
        raise _ProblemError(f"{name} is {fault}")


def _check_tokenizer(folder: Path, place: str) -> None:
    for name in sorted({"tokenizer_config.json", f"{place}tokenizer_config.json"}):
        if (folder / name).is_file() and (problem := tokenizer_path_problem(_read_object(folder, name))):
            raise _ProblemError(f"{name}: {problem}")
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
    path = folder / name
    try:
        if path.stat().st_size > MOST_JSON_BYTES:
            raise _ProblemError(f"{name} has {path.stat().st_size} bytes, more than any configuration needs")
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise _ProblemError(f"{name} cannot be read as JSON: nested too deeply") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise _ProblemError(f"{name} cannot be read as JSON: {reason}") from None
