"""The configuration: every mistake in it told at once and in words, then each model's settings resolved.

The Snakefile calls this before any job exists, so importing it is cheap and its work grows linearly with the
number of models. What a key means, may hold and defaults to: see ``workflow/schemas/config.schema.yaml``.
"""

import functools
import importlib.metadata
import os.path
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from onnxproof.cli import UserError
from onnxproof.config.schema import (
    NAME_PATTERN,
    below,
    config_schema,
    dereferenced,
    did_you_mean,
    schema_problems,
    seen,
)
from onnxproof.config.yaml_text import syntax_sentence, text_problems
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


class ConfigError(UserError):
    """The configuration is wrong; the message lists every problem, one line each."""


# ----------------------------------------------------------------------------------------- public functions


def check_yaml_text(path: Path) -> None:
    """Check what a YAML loader would hide or tell badly: syntax errors, and keys given twice.

    Of two equal keys a loader silently keeps the last, so a model listed twice would vanish.

    Raises:
        ConfigError: the file is missing, is no UTF-8 text, holds no mapping, or breaks YAML's rules; with
            line numbers, and columns for syntax errors.
    """
    with reading_told(str(path)):
        problems = list(text_problems(path.read_text(encoding="utf-8")))
    if problems:
        raise ConfigError(listed(str(path), problems))


@contextmanager
def reading_told(subject: str) -> Iterator[None]:
    """Turn what goes wrong when a YAML file is read and parsed into one sentence.

    Raises:
        ConfigError: begins with the ``subject``.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{subject}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{subject}: not UTF-8 text: {error.reason} at byte {error.start}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{subject}: not YAML: {syntax_sentence(error)}") from None


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


def problems_of(config: Any, folder: Path, allow_floating_revision: bool = False) -> list[str]:
    """Return a sentence for every problem in a loaded configuration, each beginning with the key it is about.

    ``allow_floating_revision`` holds where the configuration does not set it.
    """
    return [*schema_problems(config), *_model_problems(config, folder, allow_floating_revision)]


def resolve_models(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each model's settings with global values and defaults filled in; no two share mutable state.

    A model's settings are those of the schema's ``model``: ``task`` is None where it is to be inferred, targets and
    thresholds switched off by null are absent, and ``allow_floating_revision`` is the value nearest to the model's
    revision.

    Args:
        config: a configuration that passed `check_config`.
    """
    given = {key: value for key, value in config.items() if key not in ("models", "models_from")}
    shared = merged(_model_defaults(), given)
    return {name: _resolved(shared, settings) for name, settings in config.get("models", {}).items()}


# ------------------------------------------------------------------------------------------------ resolving


@functools.cache
def _model_defaults() -> dict[str, Any]:
    defaults: dict[str, Any] = _defaults_of(config_schema()["$defs"]["model"])
    del defaults["source"]
    return defaults


def _defaults_of(schema: dict[str, Any]) -> Any:
    """Return a schema's default: its own, or a mapping of its properties' defaults."""
    schema = dereferenced(schema)
    if "default" in schema:
        return schema["default"]
    return {
        key: _defaults_of(part)
        for key, part in schema.get("properties", {}).items()
        if _has_default(dereferenced(part))
    }


def _has_default(schema: dict[str, Any]) -> bool:
    return "default" in schema or schema.get("type") == "object"


def merged(base: Any, override: Any) -> Any:
    """Return ``override`` laid over ``base``: mappings merge, all else replaces; shares nothing."""
    if isinstance(override, dict):
        under = base if isinstance(base, dict) else {}
        kept = {key: merged(None, value) for key, value in under.items() if key not in override}
        return kept | {key: merged(under.get(key), value) for key, value in override.items()}
    return list(override) if isinstance(override, list) else override


def _resolved(shared: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    model: dict[str, Any] = merged(shared, settings)
    nearest = model["source"].pop("allow_floating_revision", model["allow_floating_revision"])
    model["allow_floating_revision"] = nearest
    for limits_of in (model["quantization"]["targets"], model["parity"]["thresholds"]):
        for variant, limits in limits_of.items():
            limits_of[variant] = {metric: limit for metric, limit in limits.items() if limit is not None}
    return model


# ----------------------------------------------------------------------------------- words for all problems


def listed(subject: str, problems: list[str]) -> str:
    """Return problems as one message: a line, or a heading and a line each."""
    if len(problems) == 1:
        return f"{subject} has a problem: {problems[0]}"
    return "\n".join([f"{subject} has {len(problems)} problems:", *(f"  {line}" for line in problems)])


# ------------------------------------------------------------------------------ what the schema cannot tell


def _model_problems(config: Any, folder: Path, allow_floating_revision: bool) -> Iterator[str]:
    """Yield the problems of names, sources and files, passing over what the schema's check told already."""
    config = {"allow_floating_revision": allow_floating_revision} | _mapping(config)
    models = _mapping(config.get("models"))
    yield from _name_problems(list(models))
    yield from _text_file_problems("", config, folder)
    yield from _machine_problems("", config)
    for name, settings in models.items():
        label, settings = below("models", name), _mapping(settings)
        yield from _text_file_problems(f"{label}.", settings, folder)
        yield from _machine_problems(f"{label}.", settings)
        if isinstance(settings.get("source"), dict):
            source = settings["source"]
            floating = _nearest_floating(source, settings, config)
            pickle = settings.get("allow_pickle") is True
            yield from _source_problems(f"{label}.source", source, floating, folder, pickle)
            if settings.get("allow_remote_code") is True and not _is_pinned(source):
                yield (
                    f"{label}.allow_remote_code is true, but code is run only from a hub source whose revision is a "
                    "commit, 40 hexadecimal digits in lower case: elsewhere it could change unseen"
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


def _name_problems(names: list[Any]) -> Iterator[str]:
    first_of: dict[str, str] = {}
    for name in names:
        problem = _name_problem(name)
        if problem:
            yield f"{below('models', name)}: {problem}"
            continue
        first = first_of.setdefault(name.lower(), name)
        if first != name:
            yield (
                f"models.{name}: differs from models.{first} by letter case only, "
                "and on some systems their folders would be one"
            )


def _name_problem(name: Any) -> str | None:
    if not isinstance(name, str):
        return "a model's name must be text, and YAML reads this one otherwise: put it in quotes"
    if not NAME_PATTERN.fullmatch(name):
        return (
            "a model's name must consist of the letters A-Z and a-z, digits, '.', '_' and '-', "
            "and begin with a letter, a digit or '_': it names a folder in results/"
        )
    if len(name) > LONGEST_NAME:
        return f"a model's name must have at most {LONGEST_NAME} characters, this one has {len(name)}"
    if name.lower() in RESERVED_NAMES:
        return f"this name is taken by results/{name.lower()}; reserved are: {', '.join(RESERVED_NAMES)}"
    return None


def _text_file_problems(prefix: str, settings: dict[Any, Any], folder: Path) -> Iterator[str]:
    for section, key in (("quantization", "calibration_texts"), ("parity", "evaluation_texts")):
        texts = _mapping(settings.get(section)).get(key)
        if not isinstance(texts, str) or not texts:
            continue
        if not texts.endswith((".jsonl", ".txt")):
            yield f"{prefix}{section}.{key} is {seen(texts)}, must end in .jsonl or .txt"
        elif not os.path.isfile(folder / texts):  # noqa: PTH113 - Path.is_file raises on over-long names
            yield f"{prefix}{section}.{key} is {seen(texts)}, but there is no such file in {folder}"


def _machine_problems(prefix: str, settings: dict[Any, Any]) -> Iterator[str]:
    machines = _mapping(settings.get("benchmark")).get("machines")
    for position, machine in enumerate(machines if isinstance(machines, list) else []):
        if not isinstance(machine, str) or not machine:
            continue
        label = f"{prefix}benchmark.machines[{position}] is {seen(machine)}"
        if not NAME_PATTERN.fullmatch(machine):
            yield (
                f"{label}, must be one kind of node as its scheduler calls it, of the letters A-Z and a-z, digits, "
                "'.', '_' and '-', and begin with a letter, a digit or '_': it names a folder too"
            )
        elif len(machine) > LONGEST_MACHINE:
            yield f"{label}, must have at most {LONGEST_MACHINE} characters, this one has {len(machine)}"
        elif machine in (*VARIANTS, PYTORCH):
            yield f"{label}, which is a variant's name, and in results/MODEL/benchmark the two would be mistaken"


def _source_problems(
    label: str, source: dict[Any, Any], floating: bool, folder: Path, allow_pickle: bool
) -> Iterator[str]:
    """Yield what is wrong with one source: how its keys combine first, then what they name."""
    shape = list(_combination_problems(label, source))
    yield from shape
    if shape or not all(isinstance(value, str) and value for value in _locators(source).values()):
        return
    if "hub" in source:
        yield from _hub_problems(label, source, floating)
    elif "package" in source:
        yield from _package_problems(label, source["package"], source["path"], allow_pickle)
    else:
        yield from _folder_problems(f"{label}.path", source["path"], folder, allow_pickle)


def _locators(source: dict[Any, Any]) -> dict[str, Any]:
    return {key: source[key] for key in ("hub", "revision", "package", "path") if key in source}


def _combination_problems(label: str, source: dict[Any, Any]) -> Iterator[str]:
    kinds = [key for key in ("hub", "package", "path") if key in source]
    if not kinds:
        yield f"{label} is {seen(source)}, which names no source: give exactly {SOURCE_KINDS}"
    elif len(kinds) > 1 and kinds != ["package", "path"]:
        count = {2: "two", 3: "three"}[len(kinds)]
        named = f"{', '.join(kinds[:-1])} and {kinds[-1]}"
        yield f"{label} names {count} sources: {named}; give exactly {SOURCE_KINDS}"
    elif kinds == ["package"]:
        package = seen(source["package"])
        yield f"{label}.path is missing: it says which folder of the package {package} holds the model"
    elif kinds == ["hub"]:
        if "revision" not in source:
            yield f"{label}.revision is missing: {REVISION_ADVICE}"
        return
    for key in ("revision", "allow_floating_revision"):
        if kinds and "hub" not in kinds and key in source:
            yield f"{label}.{key} is {seen(source[key])}, but only a hub source has revisions: remove it"


def _hub_problems(label: str, source: dict[Any, Any], floating: bool) -> Iterator[str]:
    hub, revision = source["hub"], source["revision"]
    if not HUB_PATTERN.fullmatch(hub):
        yield f"{label}.hub is {seen(hub)}, must be a repository's id, written owner/name"
    if COMMIT_PATTERN.fullmatch(revision):
        return
    if COMMIT_PATTERN.fullmatch(revision.lower()):
        yield f"{label}.revision is {seen(revision)}, must be in lower case"
    elif not REFERENCE_PATTERN.fullmatch(revision) or ".." in revision:
        yield f"{label}.revision is {seen(revision)}, no name of a commit, branch or tag: {REVISION_ADVICE}"
    elif not floating:
        kind = "a shortened commit" if re.fullmatch(r"[0-9a-f]{7,39}", revision) else "a branch or tag, which may move"
        yield f"{label}.revision is {seen(revision)}, {kind}: {REVISION_ADVICE}"


def _package_problems(label: str, package: str, path: str, allow_pickle: bool) -> Iterator[str]:
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts:
        yield f"{label}.path is {seen(path)}, must be relative and stay inside the package {seen(package)}"
        return
    try:
        root, folders = _distribution_folders(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        yield f"{label}.package is {seen(package)}, but no installed distribution has this name"
        return
    if folders and str(relative) not in folders:
        hint = did_you_mean(path, folders)
        yield f"{label}.path is {seen(path)}, but the package {seen(package)} has no such folder.{hint}"
        return
    yield from _folder_problems(f"{label}.path", path, root, allow_pickle)


@functools.cache
def _distribution_folders(package: str) -> tuple[Path, frozenset[str]]:
    """Return where a distribution is installed and its folders; none where it keeps no list of its files.

    Raises:
        PackageNotFoundError, ValueError: no distribution of this name is installed, or none can have it.
    """
    distribution = importlib.metadata.distribution(package)
    parents = (str(parent) for file in distribution.files or () for parent in file.parents)
    return Path(str(distribution.locate_file(""))), frozenset(parents) - {"."}


def _folder_problems(label: str, path: str, base: Path, allow_pickle: bool) -> Iterator[str]:
    from onnxproof.checkpoint.snapshot import snapshot_problem  # only a local source needs it

    folder = base / path
    if not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises on over-long names
        what = "a file, not a folder" if os.path.lexists(folder) else "no such folder"
        yield f"{label} is {seen(path)}, must be a folder that holds the model, and in {base} there is {what}"
        return
    try:
        problem = snapshot_problem(folder, allow_pickle=allow_pickle)
    except OSError as error:
        problem = f"it cannot be read: {error.strerror}"
    if problem:
        yield f"{label} is {seen(path)}: {problem}"
