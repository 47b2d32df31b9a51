"""What the schema cannot tell about a configuration: its names, and the files, packages and revisions it names."""

import importlib.metadata
import os.path
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from onnxproof.config.labelled import evaluation_problems, search_problems
from onnxproof.config.packages import distribution_folders
from onnxproof.config.problem import NAME_PATTERN, ConfigError, KeyPath, Problem, listed, seen
from onnxproof.config.schema import config_schema, did_you_mean, schema_problems
from onnxproof.vocabulary import PYTORCH, VARIANTS

#: What lies beside the models' folders in ``results/``.
RESERVED_NAMES = ("logs", "summary.csv", "report.html")

LONGEST_MACHINE = 63  # as Kubernetes allows for a label
LONGEST_NAME = 100  # file systems allow 255 bytes; suffixes and temporary names need room

HUB_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")
COMMIT_PATTERN = re.compile(r"[0-9a-f]{40}")
REFERENCE_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]*")

SOURCE_KINDS = "one of: hub (with revision), package (with path), path"
REVISION_ADVICE = (
    "give the full commit, 40 hexadecimal digits, which the model's page lists under Files and versions, "
    "History; or name a branch or tag and set allow_floating_revision: true"
)


def check_config(config: Any, folder: Path) -> None:
    """Check a loaded configuration and the local files and distributions it names, without what ``models_from`` lists.

    Args:
        config: what the YAML loader returned.
        folder: the configuration's own folder, to which its paths are relative.

    Raises:
        ConfigError: lists every problem found: the key's dotted path, the value seen, what is allowed.
    """
    problems = problems_of(config, folder)
    if problems:
        raise ConfigError(listed("the configuration", problems))


def problems_of(config: Any, folder: Path, allow_floating_revision: bool = False) -> list[Problem]:
    """Return every problem in a loaded configuration.

    ``allow_floating_revision`` holds where the configuration does not set it.
    """
    return [*schema_problems(config), *_model_problems(config, folder, allow_floating_revision)]


def _model_problems(config: Any, folder: Path, allow_floating_revision: bool) -> Iterator[Problem]:
    """Yield the problems of names, sources and files, passing over what the schema's check told already."""
    config = {"allow_floating_revision": allow_floating_revision} | _mapping(config)
    models = _mapping(config.get("models"))
    yield from _name_problems(list(models))
    yield from _text_file_problems((), config, folder)
    yield from evaluation_problems(("evaluation",), config.get("evaluation"), folder)
    yield from _machine_problems((), config)
    for name, settings in models.items():
        path, settings = ("models", name), _mapping(settings)
        yield from _text_file_problems(path, settings, folder)
        shared, own = _mapping(config.get("evaluation")), _mapping(settings.get("evaluation"))
        if own:
            yield from evaluation_problems((*path, "evaluation"), shared | own, folder)
        if settings.get("evaluation", shared) is not None:
            yield from search_problems((*path, "evaluation"), shared | own, settings, folder)
        yield from _machine_problems(path, settings)
        yield from _fixed_shape_problems((*path, "release", "fixed_shapes"), config, settings)
        yield from _audit_problems((*path, "audits"), settings, _nearest_floating(settings, config), folder)
        if isinstance(settings.get("source"), dict):
            source = settings["source"]
            floating = _nearest_floating(source, settings, config)
            pickle = settings.get("allow_pickle") is True
            yield from _source_problems((*path, "source"), source, floating, folder, pickle)
            if settings.get("allow_remote_code") is True and not _is_pinned(source):
                yield Problem(
                    (*path, "allow_remote_code"),
                    "but code is run only from a hub source whose revision is a commit, 40 hexadecimal digits in "
                    "lower case: elsewhere it could change unseen",
                    True,
                )


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _nearest_floating(*levels: dict[Any, Any]) -> bool:
    """Return ``allow_floating_revision`` from the first level that sets it; false where none does."""
    key = "allow_floating_revision"
    return next((level[key] for level in levels if key in level), False) is True


def _is_pinned(source: dict[Any, Any]) -> bool:
    revision = source.get("revision")
    return "hub" in source and isinstance(revision, str) and COMMIT_PATTERN.fullmatch(revision) is not None


def _name_problems(names: list[Any]) -> Iterator[Problem]:
    first_of: dict[str, str] = {}
    for name in names:
        path = ("models", name)
        if message := _name_problem(name):
            yield Problem(path, message)
            continue
        first = first_of.setdefault(name.lower(), name)
        if first != name:
            yield Problem(
                path,
                f"differs from models.{first} by letter case only, and on some systems their folders would be one",
            )


def _name_problem(name: Any) -> str | None:
    if not isinstance(name, str):
        return "is not text, as a model's name must be, because YAML reads it otherwise: put it in quotes"
    if not NAME_PATTERN.fullmatch(name):
        return (
            "is no model's name: it must consist of the letters A-Z and a-z, digits, '.', '_' and '-', "
            "and begin with a letter, a digit or '_', because it names a folder in results/"
        )
    if len(name) > LONGEST_NAME:
        return f"has {len(name)} characters, but a model's name must have at most {LONGEST_NAME}"
    if name.lower() in RESERVED_NAMES:
        return f"has a name that results/{name.lower()} takes; reserved are: {', '.join(RESERVED_NAMES)}"
    return None


def _text_file_problems(path: KeyPath, settings: dict[Any, Any], folder: Path) -> Iterator[Problem]:
    for section, key in (("quantization", "calibration_texts"), ("parity", "evaluation_texts")):
        texts = _mapping(settings.get(section)).get(key)
        if not isinstance(texts, str) or not texts:
            continue
        if not texts.endswith((".jsonl", ".txt")):
            yield Problem((*path, section, key), "must end in .jsonl or .txt", texts)
        elif not os.path.isfile(folder / texts):  # noqa: PTH113 - Path.is_file raises on over-long names
            yield Problem((*path, section, key), f"but there is no such file in {folder}", texts)


def _machine_problems(path: KeyPath, settings: dict[Any, Any]) -> Iterator[Problem]:
    machines = _mapping(settings.get("benchmark")).get("machines")
    for position, machine in enumerate(machines if isinstance(machines, list) else []):
        if isinstance(machine, str) and machine and (message := _machine_problem(machine)):
            yield Problem((*path, "benchmark", "machines", position), message, machine)


def _machine_problem(machine: str) -> str | None:
    if not NAME_PATTERN.fullmatch(machine):
        return (
            "must be one kind of node as its scheduler calls it, of the letters A-Z and a-z, digits, "
            "'.', '_' and '-', and begin with a letter, a digit or '_': it names a folder too"
        )
    if len(machine) > LONGEST_MACHINE:
        return f"must have at most {LONGEST_MACHINE} characters, this one has {len(machine)}"
    if machine in (*VARIANTS, PYTORCH):
        return "which is a variant's name, and in results/MODEL/benchmark the two would be mistaken"
    return None


def _fixed_shape_problems(path: KeyPath, config: dict[Any, Any], settings: dict[Any, Any]) -> Iterator[Problem]:
    """Yield the variants that a model is to have with fixed shapes and does not have at all."""
    built = settings.get("variants", config.get("variants", config_schema()["$defs"]["variants"]["default"]))
    for variant in _mapping(_mapping(settings.get("release")).get("fixed_shapes")):
        if isinstance(built, list) and variant in VARIANTS and variant not in built:
            yield Problem(
                (*path, variant), f"is no variant of this model: its variants are {', '.join(map(str, built))}"
            )


def _audit_problems(path: KeyPath, settings: dict[Any, Any], floating: bool, folder: Path) -> Iterator[Problem]:
    """Yield what is wrong with the places of others' files, passing over what the schema's check told already."""
    for name, place in _mapping(settings.get("audits")).items():
        key = (*path, name)
        if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
            yield Problem(
                key,
                "is no audit's name: it must consist of the letters A-Z and a-z, digits, '.', '_' and '-', "
                "and begin with a letter, a digit or '_', because it names a folder",
            )
        if not isinstance(place, dict) or not all(isinstance(value, str) and value for value in place.values()):
            continue
        kinds = [kind for kind in ("hub", "path") if kind in place]
        if len(kinds) != 1:
            yield Problem(key, "must have exactly one of: hub (with revision), path", place)
        elif kinds == ["hub"] and "revision" not in place:
            yield Problem((*key, "revision"), f"is missing: {REVISION_ADVICE}")
        elif kinds == ["hub"]:
            yield from _hub_problems(key, place, floating)
        elif "revision" in place:
            yield Problem((*key, "revision"), "but only a hub source has revisions: remove it", place["revision"])
        elif not os.path.isdir(folder / place["path"]):  # noqa: PTH112 - Path.is_dir raises on over-long names
            yield Problem((*key, "path"), f"but there is no such folder in {folder}", place["path"])


def _source_problems(
    path: KeyPath, source: dict[Any, Any], floating: bool, folder: Path, allow_pickle: bool
) -> Iterator[Problem]:
    """Yield what is wrong with one source: how its keys combine first, then what they name."""
    shape = list(_combination_problems(path, source))
    yield from shape
    if shape or not all(isinstance(value, str) and value for value in _locators(source).values()):
        return
    if "hub" in source:
        yield from _hub_problems(path, source, floating)
    elif "package" in source:
        yield from _package_problems(path, source["package"], source["path"], allow_pickle)
    else:
        yield from _folder_problems((*path, "path"), source["path"], folder, allow_pickle)


def _locators(source: dict[Any, Any]) -> dict[str, Any]:
    return {key: source[key] for key in ("hub", "revision", "package", "path") if key in source}


def _combination_problems(path: KeyPath, source: dict[Any, Any]) -> Iterator[Problem]:
    kinds = [key for key in ("hub", "package", "path") if key in source]
    if not kinds:
        yield Problem(path, f"which names no source: give exactly {SOURCE_KINDS}", source)
    elif len(kinds) > 1 and kinds != ["package", "path"]:
        count = {2: "two", 3: "three"}[len(kinds)]
        named = f"{', '.join(kinds[:-1])} and {kinds[-1]}"
        yield Problem(path, f"names {count} sources: {named}; give exactly {SOURCE_KINDS}")
    elif kinds == ["package"]:
        package = seen(source["package"])
        yield Problem((*path, "path"), f"is missing: it says which folder of the package {package} holds the model")
    elif kinds == ["hub"]:
        if "revision" not in source:
            yield Problem((*path, "revision"), f"is missing: {REVISION_ADVICE}")
        return
    for key in ("revision", "allow_floating_revision"):
        if kinds and "hub" not in kinds and key in source:
            yield Problem((*path, key), "but only a hub source has revisions: remove it", source[key])


def _hub_problems(path: KeyPath, source: dict[Any, Any], floating: bool) -> Iterator[Problem]:
    hub, revision = source["hub"], source["revision"]
    if not HUB_PATTERN.fullmatch(hub):
        yield Problem((*path, "hub"), "must be a repository's id, written owner/name", hub)
    if message := _revision_problem(revision, floating):
        yield Problem((*path, "revision"), message, revision)


def _revision_problem(revision: str, floating: bool) -> str | None:
    if COMMIT_PATTERN.fullmatch(revision):
        return None
    if COMMIT_PATTERN.fullmatch(revision.lower()):
        return "must be in lower case"
    if not REFERENCE_PATTERN.fullmatch(revision) or ".." in revision:
        return f"no name of a commit, branch or tag: {REVISION_ADVICE}"
    if floating:
        return None
    kind = "a shortened commit" if re.fullmatch(r"[0-9a-f]{7,39}", revision) else "a branch or tag, which may move"
    return f"{kind}: {REVISION_ADVICE}"


def _package_problems(path: KeyPath, package: str, subfolder: str, allow_pickle: bool) -> Iterator[Problem]:
    key, relative = (*path, "path"), PurePosixPath(subfolder)
    if relative.is_absolute() or ".." in relative.parts:
        yield Problem(key, f"must be relative and stay inside the package {seen(package)}", subfolder)
        return
    try:
        root, folders = distribution_folders(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        yield Problem((*path, "package"), "but no installed distribution has this name", package)
        return
    if folders and str(relative) not in folders:
        hint = did_you_mean(subfolder, folders)
        yield Problem(key, f"but the package {seen(package)} has no such folder.{hint}", subfolder)
        return
    yield from _folder_problems(key, subfolder, root, allow_pickle)


def _folder_problems(key: KeyPath, path: str, base: Path, allow_pickle: bool) -> Iterator[Problem]:
    from onnxproof.checkpoint.snapshot import snapshot_problem  # only a local source needs it

    folder = base / path
    if not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises on over-long names
        what = "a file, not a folder" if os.path.lexists(folder) else "no such folder"
        yield Problem(key, f"must be a folder that holds the model, and in {base} there is {what}", path)
        return
    try:
        problem = snapshot_problem(folder, allow_pickle=allow_pickle)
    except OSError as error:
        yield Problem(key, f"which cannot be read: {error.strerror}", path)
        return
    if problem:
        yield Problem(key, f"which cannot be used: {problem}", path)
