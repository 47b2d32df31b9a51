"""The labelled data that a configuration names: what can be told of them before any job."""

import importlib.metadata
import itertools
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from onnxproof.checkpoint.inference import choose_task
from onnxproof.cli import UserError
from onnxproof.config.packages import distribution_folders
from onnxproof.config.problem import KeyPath, Problem
from onnxproof.evaluation.aside import SEARCHED_METRICS, SEARCHED_TASKS
from onnxproof.evaluation.data import READERS, read_rows
from onnxproof.evaluation.quoted import QUOTED

#: Keys that name a file on the Hub, all of them or none.
ON_HUB = ("hub", "revision", "file")
COMMIT = re.compile(r"[0-9a-f]{40}")


def evaluation_problems(path: KeyPath, evaluation: Any, folder: Path) -> Iterator[Problem]:
    """Yield what is wrong with ``evaluation``: how its keys combine, then the files and the fields that it names.

    Args:
        path: the key.
        evaluation: its value; the schema tells what is wrong where it is no mapping.
        folder: the configuration's own, to which its paths are relative.
    """
    if not isinstance(evaluation, dict):
        return
    hub = [key for key in ON_HUB if key in evaluation]
    if "data" in evaluation and hub:
        yield Problem((*path, hub[0]), "but data names a file already: remove one of the two", evaluation[hub[0]])
        return
    if hub and len(hub) < len(ON_HUB):
        missing = next(key for key in ON_HUB if key not in evaluation)
        yield Problem((*path, missing), "is missing: a dataset on the Hub is named by hub, revision and file")
        return
    if not hub and "data" not in evaluation:
        yield Problem(path, "names no data: give data, or hub with revision and file")
        return
    task = evaluation.get("task")
    if isinstance(task, str) and task not in QUOTED:
        yield Problem((*path, "task"), f"which is not known by name; those that are: {', '.join(QUOTED)}", task)
    elif isinstance(task, str) and QUOTED[task].document and not evaluation.get("documents"):
        yield Problem((*path, "documents"), f"is missing: {task} looks for documents, those of {QUOTED[task].dataset}")
    revision = evaluation.get("revision")
    if isinstance(revision, str) and not COMMIT.fullmatch(revision):
        yield Problem((*path, "revision"), "must be the full commit of the dataset, 40 hexadecimal digits", revision)
    for key in ("data", "file", "documents"):
        file = evaluation.get(key)
        if isinstance(file, str) and not file.endswith(tuple(READERS)):
            yield Problem((*path, key), f"must end in {', '.join(READERS)}", file)
        elif isinstance(file, str) and key != "file":
            yield from _content_problems((*path, key), folder / file, evaluation if key == "data" else {})


def search_problems(path: KeyPath, evaluation: Any, settings: Mapping[str, Any], folder: Path) -> Iterator[Problem]:
    """Yield why the search for a recipe cannot use a share of a model's labelled data, as far as it is known by now.

    Args:
        path: the key ``evaluation``.
        evaluation: its value for the model, with what holds for all.
        settings: the model's own, with its source and its task.
        folder: the configuration's own.
    """
    if not isinstance(evaluation, dict) or not evaluation.get("search_share"):
        return
    key, metric = (*path, "search_share"), evaluation.get("metric")
    if metric is not None and metric not in SEARCHED_METRICS:
        yield Problem(key, f"is for the metrics {', '.join(SEARCHED_METRICS)}, and not for {metric}")
    task = settings.get("task") or _task_of(settings.get("source"), folder)
    if task is not None and task not in SEARCHED_TASKS:
        yield Problem(key, f"is for text classifiers and embedders, and not for {task}")


def _task_of(source: Any, folder: Path) -> str | None:
    """Return the task of a local model; None where it is not here, or has none, which other checks tell."""
    source = source if isinstance(source, dict) else {}
    path, package = source.get("path"), source.get("package")
    if isinstance(package, str):
        try:
            folder = distribution_folders(package)[0]
        except (importlib.metadata.PackageNotFoundError, ValueError):
            return None
    if not isinstance(path, str) or not (folder / path).is_dir():
        return None
    with suppress(UserError):
        return choose_task("", folder / path, None)
    return None


def _content_problems(path: KeyPath, file: Path, evaluation: dict[str, Any]) -> Iterator[Problem]:
    """Yield what the first row of a file tells."""
    try:
        _, row = next(read_rows(file, 1))
    except UserError as error:
        yield Problem(path, f"cannot be used: {error}")
        return
    fields = ", ".join(map(str, row))
    inputs = evaluation.get("input") or []
    named = [("input", name) for name in ([inputs] if isinstance(inputs, str) else inputs)]
    for key, name in [*named, ("label", evaluation.get("label"))]:
        if isinstance(name, str) and name not in row:
            yield Problem((*path[:-1], key), f"but the first row of {file} has the fields: {fields}", name)
    quoted = QUOTED.get(str(evaluation.get("task")))
    if quoted is None:
        return
    own = [*(() if inputs else quoted.inputs), *(() if evaluation.get("label") else [quoted.label])]
    for name in own:
        if name is not None and name not in row:
            told = f"whose dataset {quoted.dataset} has the field '{name}', but the first row of {file} has: {fields}"
            yield Problem((*path[:-1], "task"), told, evaluation["task"])


def files_named(data: Path) -> list[Path]:
    """Return the files, such as images, that the rows of labelled data name, sorted.

    A field names files where it does in the first row.

    Raises:
        UserError: the data cannot be read.
    """
    rows = (row for _, row in read_rows(data))
    first = next(rows)
    fields = [name for name, value in first.items() if _is_file(data, value)]
    if not fields:
        return []
    named = {row[name] for row in itertools.chain([first], rows) for name in fields if isinstance(row.get(name), str)}
    return sorted(data.parent / name for name in named)


def _is_file(data: Path, value: Any) -> bool:
    """Tell whether a value is the name of a file beside the data."""
    is_name = isinstance(value, str) and 0 < len(value) < 256 and "\n" not in value and "\0" not in value
    return is_name and (data.parent / value).is_file()
