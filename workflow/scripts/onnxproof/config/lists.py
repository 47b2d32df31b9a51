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

from onnxproof.cli import UserError
from onnxproof.config.resolve import (
    ConfigError,
    check_config,
    listed,
    merged,
    problems_of,
    reading_told,
    resolve_models,
)
from onnxproof.config.schema import below, config_schema, dereferenced, did_you_mean, seen
from onnxproof.config.yaml_text import text_problems

SEPARATORS = {".csv": ",", ".tsv": "\t"}
CONFIGURATIONS = (".yaml", ".yml")
NAME_COLUMN = "name"
ENTRY_BREAK = re.compile(r"[\s,;]+")  # between the entries of a list in one cell


class Place(NamedTuple):
    """Where a table lists a model: its line, counted from 1, and the column of each key."""

    line: int
    columns: dict[str, str]


class ModelList(NamedTuple):
    """What one file lists: a configuration of its own, with, for a table, the place of each model."""

    file: str
    config: Any
    places: dict[str, Place]

    def names(self) -> list[Any]:
        """Return the models' names, as far as there are any."""
        models = self.config.get("models")
        return list(models) if isinstance(models, dict) else []

    def located(self, problem: str) -> str:
        """Return a problem, which begins with the key it is about, with the file, and a table's line and column."""
        named = [name for name in self.places if re.match(rf"{re.escape(below('models', name))}(?![\w-])", problem)]
        if not named:
            return f"{self.file}: {problem}"
        name = max(named, key=len)
        place = self.places[name]
        key = problem.removeprefix(below("models", name)).lstrip(".")
        columns = [column for path, column in place.columns.items() if re.match(rf"{re.escape(path)}(?![\w-])", key)]
        column = f", column {max(columns, key=len)}" if columns else ""
        return f"{self.file}, line {place.line}{column}: {problem}"


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
        raise ConfigError(listed("the configuration", ["models is missing, and models_from lists no file"]))
    return models


def _check_lists(config: dict[str, Any], folder: Path, check: bool) -> tuple[list[ModelList], list[str]]:
    """Return what the listed files hold, and the problems in them, those of names across files included."""
    lists, problems = [], []
    first_of = {name.lower(): ("config.yaml", name) for name in config.get("models", {})}
    for each in read_lists(config.get("models_from", []), folder):
        if isinstance(each, str):
            problems.append(each)
            continue
        lists.append(each)
        if not check:
            continue
        floating = config.get("allow_floating_revision", False)
        found = problems_of(each.config, folder, floating)
        problems += map(each.located, found)
        for name in each.names():
            file, first = first_of.setdefault(str(name).lower(), (each.file, name))
            if file != each.file:
                problems.append(each.located(f"{below('models', name)}: {file} lists the model {seen(first)} already"))
    return lists, problems


def read_lists(patterns: list[str], folder: Path) -> Iterator[ModelList | str]:
    """Yield each file's list of models, in the order of the patterns, and a sentence for whatever cannot be read."""
    for position, pattern in enumerate(patterns):
        label = f"models_from[{position}] is {seen(pattern)}"
        if Path(pattern).suffix not in (*SEPARATORS, *CONFIGURATIONS):
            yield f"{label}, must end in one of: {', '.join((*SEPARATORS, *CONFIGURATIONS))}"
            continue
        try:
            files = sorted(folder.glob(pattern)) if not Path(pattern).is_absolute() else [Path(pattern)]
        except (ValueError, OSError):
            files = []
        if not any(file.is_file() for file in files):
            yield f"{label}, but there is no such file in {folder}"
        for file in files:
            name = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)
            try:
                yield _read_table(file, name) if file.suffix in SEPARATORS else _read_configuration(file, name)
            except UserError as error:
                yield f"{name}{error}"


# ---------------------------------------------------------------------------------------------- configurations


def _read_configuration(file: Path, name: str) -> ModelList:
    with reading_told(""):  # the caller puts the file's name in front
        text = file.read_text(encoding="utf-8")
        problems = list(text_problems(text))
        config = None if problems else yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    if problems:
        raise UserError(f": {problems[0]}")
    if isinstance(config, dict) and "models_from" in config:
        raise UserError(": models_from is allowed in config.yaml only: list the files there")
    return ModelList(name, config, {})


# ------------------------------------------------------------------------------------------------------ tables


def _read_table(file: Path, name: str) -> ModelList:
    rows = _rows(file)
    header = [cell.strip() for cell in rows[0]]
    keys = [_column_keys(column) for column in header]
    _check_header(header)
    columns = {".".join(path): column for path, column in zip(keys, header, strict=True)}
    models: dict[str, Any] = {}
    places: dict[str, Place] = {}
    for line, row in enumerate(rows[1:], start=2):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        model = cells[header.index(NAME_COLUMN)]
        if not model:
            raise UserError(f", line {line}, column {NAME_COLUMN}: is empty, must be the model's name")
        if model in places:
            first = places[model].line
            raise UserError(
                f", line {line}, column {NAME_COLUMN}: the model {seen(model)} was given on line {first} already"
            )
        models[model] = _settings(zip(header, keys, cells, strict=True))
        places[model] = Place(line, columns)
    return ModelList(name, {"models": models}, places)


def _rows(file: Path) -> list[list[str]]:
    """Return a table's cells as text, "" where a row is short; the rows' numbers are the file's lines."""
    import pandas as pd  # a third of a second: only tables need it

    try:
        table = pd.read_csv(
            file,
            sep=SEPARATORS[file.suffix],
            header=None,
            dtype=str,
            na_filter=False,
            skip_blank_lines=False,
            encoding="utf-8-sig",
        )
    except OSError as error:
        raise UserError(f": cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f": not UTF-8 text: {error.reason} at byte {error.start}") from None
    except pd.errors.EmptyDataError:
        raise UserError(": is empty: its first line must name the columns") from None
    except pd.errors.ParserError as error:
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise UserError(f": not a table: {reason}; a cell that holds the separator needs quotes") from None
    return [[cell if isinstance(cell, str) else "" for cell in row] for row in table.to_numpy().tolist()]


def _check_header(header: list[str]) -> None:
    if NAME_COLUMN not in header:
        raise UserError(f", line 1: has no column {NAME_COLUMN}, which must hold each model's name")
    for position, column in enumerate(header):
        if column in header[:position]:
            raise UserError(f", line 1: the column {seen(column)} is there twice")
        if column != NAME_COLUMN and ".".join(_column_keys(column)) not in _leaves():
            hint = did_you_mean(column, [NAME_COLUMN, *_short_columns(), *_leaves()])
            raise UserError(
                f", line 1: the column {seen(column)} is unknown.{hint} A column is called {NAME_COLUMN}, "
                f"{', '.join(_short_columns())}, or like another key of a model: task, benchmark.threads, …"
            )


def _column_keys(column: str) -> list[str]:
    """Return the keys that lead to a column's setting; a source's keys may stand alone."""
    return ["source", column] if column in _short_columns() else column.split(".")


@functools.cache
def _short_columns() -> tuple[str, ...]:
    source = config_schema()["$defs"]["source"]["properties"]
    return tuple(key for key in source if key not in config_schema()["$defs"]["model"]["properties"])


@functools.cache
def _leaves() -> dict[str, dict[str, Any]]:
    """Return the schema of every setting of a model that fits into one cell, by its dotted path."""
    leaves: dict[str, dict[str, Any]] = {}
    _collect_leaves(config_schema()["$defs"]["model"], (), leaves)
    return leaves


def _collect_leaves(schema: dict[str, Any], path: tuple[str, ...], leaves: dict[str, dict[str, Any]]) -> None:
    for key, part in schema.get("properties", {}).items():
        part = dereferenced(part)
        if "properties" in part:
            _collect_leaves(part, (*path, key), leaves)
        else:
            leaves[".".join((*path, key))] = part


def _settings(cells: Any) -> dict[str, Any]:
    """Return a row as a model's settings; an empty cell sets nothing."""
    settings: dict[str, Any] = {}
    for column, keys, cell in cells:
        if column == NAME_COLUMN or not cell:
            continue
        inner = settings
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
        inner[keys[-1]] = _value(cell, _leaves()[".".join(keys)])
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
