"""Whether a model's folder is whole, harmless, and can be served rightly: one sentence where it is not.

Standard library only: the config check asks these questions before any job starts.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from onnxproof.checkpoint.layout import WEIGHT_FORMATS, needed_files, pickled_files
from onnxproof.checkpoint.problem import ProblemError
from onnxproof.checkpoint.reading import PROCESSOR_CONFIGS, TOKENIZER_CONFIG, Checkpoint
from onnxproof.checkpoint.refusals import CHECKS, FIRST_CHECKS
from onnxproof.checkpoint.untrusted import (
    archive_problem,
    is_own_module,
    module_problem,
    remote_code_of,
    safetensors_problem,
    shortened,
    size_problem,
    tokenizer_path_problem,
)
from onnxproof.records.source import read_source

#: Modules that are nothing without their settings. Others, such as Normalize, need no file.
WITH_SETTINGS = ("Pooling", "Dense", "LayerNorm", "WeightedLayerPooling", "WordWeights", "CNN", "LSTM")

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

GIT_LFS_POINTER = b"version https://git-lfs"


def snapshot_problem(folder: Path, allow_pickle: bool = False, allow_remote_code: bool = False) -> str | None:
    """Return what keeps ``folder`` from being a usable and harmless model, as one sentence, or None.

    The sentence names files relative to ``folder``, never the folder itself: the caller puts that in front.
    The checks are cheap: names, JSON files and headers are read, weights are not.
    """
    if not folder.exists():
        return "the folder does not exist"
    if not folder.is_dir():
        return "this is a file, not a folder"
    return next(problems_of(Checkpoint(folder, lean=True), allow_pickle, allow_remote_code), None)


def problems_of(checkpoint: Checkpoint, allow_pickle: bool = False, allow_remote_code: bool = False) -> Iterator[str]:
    """Yield what keeps a model from being served, a sentence for each check that fails, the gravest first.

    Of a ``Checkpoint`` whose weights are not there yet, only their names and sizes are checked.
    """
    checks: list[Callable[[Checkpoint], None]] = [
        *FIRST_CHECKS,
        _check_config_and_weights,
        lambda each: _check_pickles(each, allow_pickle),
        _check_modules,
        _check_tokenizer,
        lambda each: _check_code(each, allow_remote_code),
        *CHECKS,
    ]
    told = set()
    for check in checks:
        try:
            check(checkpoint)
        except ProblemError as problem:
            if str(problem) not in told:
                yield str(problem)
            told.add(str(problem))


def _check_config_and_weights(checkpoint: Checkpoint) -> None:
    config = checkpoint.config
    weights = _check_weights(checkpoint)
    if problem := size_problem(config, sum(map(checkpoint.size, weights))):
        raise ProblemError(f"{checkpoint.place}config.json: {problem}")


def _check_pickles(checkpoint: Checkpoint, allow_pickle: bool) -> None:
    if not allow_pickle and (pickled := pickled_files(needed_files(checkpoint.names))):
        raise ProblemError(pickle_refusal(pickled))


def pickle_refusal(names: list[str]) -> str:
    """Return the sentence that refuses pickled weights."""
    return (
        f"the weights are a Python pickle ({names[0]}), which can run code when it is loaded; take a source with "
        "model.safetensors, or set allow_pickle: true for this model: then only tensors are read from it, and "
        "kept as safetensors"
    )


def _check_code(checkpoint: Checkpoint, allow_remote_code: bool) -> None:
    """Refuse code of the repository's own, whichever file asks for it."""
    for each in sorted(("config.json", TOKENIZER_CONFIG, *PROCESSOR_CONFIGS)):
        name = f"{checkpoint.place}{each}"
        code = remote_code_of(checkpoint.optional(name))
        elsewhere = [name for name in code if "--" in name]
        if elsewhere:
            raise ProblemError(
                f"{name}: 'auto_map' names code of another repository ({shortened(elsewhere[0])}), which "
                "no revision pins"
            )
        if code and not allow_remote_code:
            raise ProblemError(code_refusal(name, code[0]))
    foreign = [module.type for module in checkpoint.modules if not is_own_module(module.type)]
    if foreign and not allow_remote_code:
        raise ProblemError(code_refusal("modules.json", foreign[0]))


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
    return manifest.is_file() and read_source(manifest).get("allow_remote_code") is True


def _check_modules(checkpoint: Checkpoint) -> None:
    for module in checkpoint.modules[1:]:
        for single, _, _ in WEIGHT_FORMATS:
            if module.path and checkpoint.has(f"{module.path}/{single}"):
                _check_weight_file(checkpoint, f"{module.path}/{single}")
        if module.path and module.kind in WITH_SETTINGS:
            settings = checkpoint.read_object(module.config_file)
            beside = [other for other in checkpoint.names if other.rpartition("/")[0] == module.path]
            if problem := module_problem(module.kind, settings, sum(map(checkpoint.size, beside))):
                raise ProblemError(f"{module.config_file}: {problem}")


def _check_weights(checkpoint: Checkpoint) -> list[str]:
    """Check the weights that would be loaded; return their files' names."""
    files = checkpoint.weight_files
    place = checkpoint.place
    for name in files:
        if not checkpoint.has(name):
            index = next(index for _, index, _ in WEIGHT_FORMATS if checkpoint.has(place + index))
            raise ProblemError(f"{place}{index} names {name.removeprefix(place)}, which is missing")
        _check_weight_file(checkpoint, name)
    if not files:
        allowed = ", ".join(f"{place}{name}" for single, index, _ in WEIGHT_FORMATS for name in (single, index))
        raise ProblemError(f"there are no weights; one of these is needed: {allowed}")
    return files


def _check_weight_file(checkpoint: Checkpoint, name: str) -> None:
    if checkpoint.folder is None or checkpoint.is_listing:  # the download holds each file against its checksum
        return
    path = checkpoint.folder / name
    with path.open("rb") as stream:
        start = stream.read(len(GIT_LFS_POINTER))
    if not start:
        raise ProblemError(f"{name} is empty")
    if start == GIT_LFS_POINTER:
        raise ProblemError(f"{name} is a Git LFS pointer, not the weights: run 'git lfs pull' in its repository")
    fault = safetensors_problem(path) if path.suffix == ".safetensors" else archive_problem(path)
    if fault:
        raise ProblemError(f"{name} is {fault}")


def _check_tokenizer(checkpoint: Checkpoint) -> None:
    for name in sorted({TOKENIZER_CONFIG, f"{checkpoint.place}{TOKENIZER_CONFIG}"}):
        if problem := tokenizer_path_problem(checkpoint.optional(name)):
            raise ProblemError(f"{name}: {problem}")
    place = checkpoint.place
    if any(checkpoint.has(f"{place}{name}") for name in PROCESSOR_CONFIGS):
        return
    # A sentence-transformers folder keeps the tokenizer beside the transformer, or at the top.
    if any(_has_vocabulary(checkpoint, prefix) for prefix in (place, "")):
        return
    if checkpoint.optional(f"{place}{TOKENIZER_CONFIG}").get("tokenizer_class") in TOKENIZERS_WITHOUT_VOCABULARY:
        return
    allowed = ", ".join(" with ".join(group) for group in VOCABULARIES)
    raise ProblemError(
        f"there is no tokenizer; one of these is needed: {allowed} "
        f"(or, for images and sound, {' or '.join(PROCESSOR_CONFIGS)})"
    )


def _has_vocabulary(checkpoint: Checkpoint, place: str) -> bool:
    return any(all(checkpoint.has(f"{place}{name}") for name in group) for group in VOCABULARIES)
