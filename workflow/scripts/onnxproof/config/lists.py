"""Files that list more models than a person wants to write into ``config.yaml``: tables, and configurations.

``models_from`` names them, by path or by pattern. A table (.csv, .tsv) has one model a row and one key a column; a
configuration (.yaml, .yml) lists models as ``config.yaml`` does, and its other settings hold for its own models.
All paths in them are relative to the folder of ``config.yaml``.
"""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from onnxproof.config.checks import check_config, problems_of
from onnxproof.config.problem import ConfigError, KeyPath, Problem, listed, seen
from onnxproof.config.resolve import merged, resolve_models
from onnxproof.config.schema import config_schema, dereferenced, did_you_mean
from onnxproof.config.yaml_text import reading_told, text_problems

SEPARATORS = {".csv": ",", ".tsv": "\t"}
CONFIGURATIONS = (".yaml", ".yml")
NAME_COLUMN = "name"
ENTRY_BREAK = re.compile(r"[\s,;]+")  # between the entries of a list in one cell


class Place(NamedTuple):
    """A place in a listed file; a table has lines, counted from 1, and columns."""

    file: str
    line: int | None = None
    column: str | None = None

    def __str__(self) -> str:
        """Return ``models.csv, line 3, column revision``."""
        line = "" if self.line is None else f", line {self.line}"
        return f"{self.file}{line}" + ("" if self.column is None else f", column {self.column}")


class ModelList(NamedTuple):
    """What one file lists: a configuration of its own, with, for a table, the line of each model."""

    file: str
    config: Any
    lines: dict[str, int]
    columns: dict[KeyPath, str]

    def names(self) -> list[Any]:
        """Return the models' names, as far as there are any."""
        models = self.config.get("models")
        return list(models) if isinstance(models, dict) else []

    def located(self, problem: Problem) -> Problem:
        """Return a problem with the file that it is in and, for a table, the line and column of its key."""
        is_of_model = len(problem.path) > 1 and problem.path[0] == "models"
        line = self.lines.get(problem.path[1]) if is_of_model else None
        keys = problem.path[2:]
        column = next((column for path, column in self.columns.items() if keys[: len(path)] == path), None)
        return problem.at(str(Place(self.file, line, column)))


def load_models(config: Any, folder: Path, check: bool = True) -> dict[str, dict[str, Any]]:
    """Check a loaded configuration with the files it lists in ``models_from``, and resolve all their models.

    Args:
        config: what the YAML loader returned.
        folder: the configuration's own folder, to which its paths are relative.
        check: false where the same configuration was checked a moment ago, by the process that started this one.

    Raises:
        ConfigError: as `check_config`; a problem in a listed file begins with the file, a table's line and column.
    """
    if check:
        check_config(config, folder)
    lists, problems = _check_lists(config, folder, check)
    if problems:
        raise ConfigError(listed("the configuration", problems))
    models = resolve_models(config)
    shared = {key: value for key, value in config.items() if key not in ("models", "models_from")}
    for each in lists:
        models |= resolve_models(merged(shared, each.config))
    if not models:
        raise ConfigError(
            listed("the configuration", [Problem(("models",), "is missing, and models_from lists no file")])
        )
    return models


def _check_lists(config: dict[str, Any], folder: Path, check: bool) -> tuple[list[ModelList], list[Problem | str]]:
    """Return what the listed files hold, and the problems in them, those of names across files included."""
    lists: list[ModelList] = []
    problems: list[Problem | str] = []
    first_of = {name.lower(): ("config.yaml", name) for name in config.get("models", {})}
    for each in read_lists(config.get("models_from", []), folder):
        if not isinstance(each, ModelList):
            problems.append(each)
            continue
        lists.append(each)
        if not check:
            continue
        floating = config.get("allow_floating_revision", False)
        problems += map(each.located, problems_of(each.config, folder, floating))
        for name in each.names():
            file, first = first_of.setdefault(str(name).lower(), (each.file, name))
            if file != each.file:
                problems.append(
                    each.located(Problem(("models", name), f"has a name that {file} lists already, as {seen(first)}"))
                )
    return lists, problems


def read_lists(patterns: list[str], folder: Path) -> Iterator[ModelList | Problem | str]:
    """Yield each file's list of models, in the order of the patterns, and a problem for whatever cannot be read."""
    for position, pattern in enumerate(patterns):
        path = ("models_from", position)
        if Path(pattern).suffix not in (*SEPARATORS, *CONFIGURATIONS):
            yield Problem(path, f"must end in one of: {', '.join((*SEPARATORS, *CONFIGURATIONS))}", pattern)
            continue
        try:
            files = sorted(folder.glob(pattern)) if not Path(pattern).is_absolute() else [Path(pattern)]
        except (ValueError, OSError):
            files = []
        if not any(file.is_file() for file in files):
            yield Problem(path, f"but there is no such file in {folder}", pattern)
        for file in files:
            name = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)
            try:
                yield _read_table(file, name) if file.suffix in SEPARATORS else _read_configuration(file, name)
            except ConfigError as error:
                yield str(error)


# ---------------------------------------------------------------------------------------------- configurations


def _read_configuration(file: Path, name: str) -> ModelList:
    with reading_told(name):
        text = file.read_text(encoding="utf-8")
        problems = list(text_problems(text))
        config = None if problems else yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    if problems:
        raise ConfigError(f"{name}: {problems[0]}")
    if isinstance(config, dict) and "models_from" in config:
        raise ConfigError(f"{name}: models_from is allowed in config.yaml only: list the files there")
    return ModelList(name, config, {}, {})


# ------------------------------------------------------------------------------------------------------ tables


def _read_table(file: Path, name: str) -> ModelList:
    rows = _rows(file, name)
    header = [cell.strip() for cell in rows[0]]
    keys = [_column_keys(column) for column in header]
    _check_header(header, Place(name, 1))
    models: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for line, row in enumerate(rows[1:], start=2):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        model = cells[header.index(NAME_COLUMN)]
        place = Place(name, line, NAME_COLUMN)
        if not model:
            raise ConfigError(f"{place}: is empty, must be the model's name")
        if model in lines:
            raise ConfigError(f"{place}: the model {seen(model)} was given on line {lines[model]} already")
        models[model] = _settings(zip(header, keys, cells, strict=True))
        lines[model] = line
    return ModelList(name, {"models": models}, lines, dict(zip(keys, header, strict=True)))


def _rows(file: Path, name: str) -> list[list[str]]:
    """Return a table's cells as text, "" where a row is short; the rows' numbers are the file's lines."""
    import pandas as pd  # a third of a second: only tables need it

    try:
        with reading_told(name):
            table = pd.read_csv(
                file,
                sep=SEPARATORS[file.suffix],
                header=None,
                dtype=str,
                na_filter=False,
                skip_blank_lines=False,
                encoding="utf-8-sig",
            )
    except pd.errors.EmptyDataError:
        raise ConfigError(f"{name}: is empty: its first line must name the columns") from None
    except pd.errors.ParserError as error:
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise ConfigError(f"{name}: not a table: {reason}; a cell that holds the separator needs quotes") from None
    return [[cell if isinstance(cell, str) else "" for cell in row] for row in table.to_numpy().tolist()]


def _check_header(header: list[str], place: Place) -> None:
    if NAME_COLUMN not in header:
        raise ConfigError(f"{place}: has no column {NAME_COLUMN}, which must hold each model's name")
    for position, column in enumerate(header):
        if column in header[:position]:
            raise ConfigError(f"{place}: the column {seen(column)} is there twice")
        if column != NAME_COLUMN and _column_keys(column) not in _leaves():
            known = [NAME_COLUMN, *_short_columns(), *map(".".join, _leaves())]
            raise ConfigError(
                f"{place}: the column {seen(column)} is unknown.{did_you_mean(column, known)} A column is called "
                f"{NAME_COLUMN}, {', '.join(_short_columns())}, or like another key of a model: task, "
                "benchmark.threads, …"
            )


def _column_keys(column: str) -> KeyPath:
    """Return the keys that lead to a column's setting; a source's keys may stand alone."""
    return ("source", column) if column in _short_columns() else tuple(column.split("."))


@functools.cache
def _short_columns() -> tuple[str, ...]:
    source = config_schema()["$defs"]["source"]["properties"]
    return tuple(key for key in source if key not in config_schema()["$defs"]["model"]["properties"])


@functools.cache
def _leaves() -> dict[KeyPath, dict[str, Any]]:
    """Return the schema of every setting of a model that fits into one cell, by its path below the model."""
    leaves: dict[KeyPath, dict[str, Any]] = {}
    _collect_leaves(config_schema()["$defs"]["model"], (), leaves)
    return leaves


def _collect_leaves(schema: dict[str, Any], path: KeyPath, leaves: dict[KeyPath, dict[str, Any]]) -> None:
    for key, part in schema.get("properties", {}).items():
        part = dereferenced(part)
        if "properties" in part:
            _collect_leaves(part, (*path, key), leaves)
        else:
            leaves[(*path, key)] = part


def _settings(cells: Any) -> dict[str, Any]:
    """Return a row as a model's settings; an empty cell sets nothing."""
    settings: dict[str, Any] = {}
    for column, keys, cell in cells:
        if column == NAME_COLUMN or not cell:
            continue
        inner = settings
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
        inner[keys[-1]] = _value(cell, _leaves()[keys])
    return settings


def _value(cell: str, schema: dict[str, Any]) -> Any:
    """Return a cell as what the schema allows; the text itself where it is no such thing, which the check tells."""
    kinds = schema.get("type", "string")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if "array" in kinds:
        return [_value(entry, schema["items"]) for entry in ENTRY_BREAK.split(cell) if entry]
    if cell == "null":
        return None
    if "boolean" in kinds:  # spreadsheets write TRUE
        return {"true": True, "false": False}.get(cell.lower(), cell)
    for kind, parse in (("integer", int), ("number", float)):
        if kind in kinds:
            try:
                return parse(cell)
            except ValueError:
                pass
    return cell
