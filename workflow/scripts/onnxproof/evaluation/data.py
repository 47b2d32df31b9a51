"""A user's labelled data, row by row: a ``.jsonl``, ``.csv`` or ``.parquet`` file, and the fields that were named."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxproof.cli import UserError

Row = Mapping[str, Any]
#: How many rows of a Parquet file are in memory at once.
ROWS_AT_ONCE = 1024
#: Cells of a CSV file may be whole documents.
LONGEST_CELL = sys.maxsize


@dataclass(frozen=True)
class Place:
    """Where a row is, for messages and for the report: its file, and its number, from 1 on, blank lines not counted."""

    file: Path
    number: int

    def __str__(self) -> str:
        """Return ``reviews.jsonl, row 3``."""
        return f"{self.file}, row {self.number}"


def read_rows(file: Path, most: int | None = None) -> Iterator[tuple[Place, Row]]:
    """Yield the rows of a file, at most ``most`` of them, each with its place. No more than a few are in memory.

    Raises:
        UserError: the file is missing, of another suffix, damaged, or has no rows; the message names the row.
    """
    if file.suffix not in READERS:
        raise UserError(f"{file}: labelled data must be a file that ends in {', '.join(READERS)}")
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    number = 0
    for number, row in enumerate(READERS[file.suffix](file), start=1):
        yield Place(file, number), row
        if number == most:
            return
    if not number:
        raise UserError(f"{file}: has no rows; at least one is needed")


def _json_rows(file: Path) -> Iterator[Row]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except ValueError as error:  # neither UTF-8 nor JSON
                raise UserError(f"{file}, line {number}: cannot be read: {error}") from None
            if not isinstance(row, dict):
                raise UserError(f"{file}, line {number}: must be an object with fields, not {type(row).__name__}")
            yield row


def _csv_rows(file: Path) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_CELL)
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            for row in reader:
                if None in row or None in row.values():
                    count = len(row[None]) + len(reader.fieldnames or ()) if None in row else _cells(row)
                    raise UserError(
                        f"{file}, line {reader.line_num}: cells: {count}, fields in the first line: "
                        f"{len(reader.fieldnames or ())}"
                    )
                yield row
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read as CSV in UTF-8: {error}") from None


def _cells(row: Row) -> int:
    return sum(value is not None for value in row.values())


def _parquet_rows(file: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f"{file}: reading Parquet needs pyarrow, which `make setup-evaluation` installs") from None
    try:
        with ParquetFile(file) as table:
            for batch in table.iter_batches(ROWS_AT_ONCE):
                yield from batch.to_pylist()
    except (ArrowException, OSError) as error:
        raise UserError(f"{file}: cannot be read as Parquet: {error}") from None


#: How a file is read, by the end of its name.
READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _json_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}


def field_of(row: Row, name: str, place: Place) -> Any:
    """Return a field of a row.

    Raises:
        UserError: the row has no such field.
    """
    if name not in row:
        raise UserError(f"{place}: has no field {name!r}; its fields are: {', '.join(map(str, row)) or 'none'}")
    return row[name]


def text_of(row: Row, name: str, place: Place) -> str:
    """Return a field that must be text.

    Raises:
        UserError: the row has no such field, or something else is there.
    """
    value = field_of(row, name, place)
    if not isinstance(value, str):
        raise UserError(f"{place}: the field {name!r} must be text, not {shown(value)}")
    return value


def number_of(row: Row, name: str, place: Place) -> float:
    """Return a field that must be a number, which in a CSV file is text.

    Raises:
        UserError: the row has no such field, or something else is there.
    """
    value = field_of(row, name, place)
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"{place}: the field {name!r} must be a number, not {shown(value)}") from None


def list_of(row: Row, name: str, place: Place) -> list[Any]:
    """Return a field that must be a list, which in a CSV file is JSON.

    Raises:
        UserError: the row has no such field, or something else is there.
    """
    value = field_of(row, name, place)
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            raise UserError(f"{place}: the field {name!r} must be a list, and is no JSON: {shown(value)}") from None
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise UserError(f"{place}: the field {name!r} must be a list, not {shown(value)}")
    return list(value)


def file_of(row: Row, name: str, place: Place) -> Path:
    """Return the file that a field names, relative to the folder of the data.

    Raises:
        UserError: the row has no such field, no text is there, or there is no such file.
    """
    path = place.file.parent / text_of(row, name, place)
    if not path.is_file():
        raise UserError(f"{place}: the field {name!r} names {row[name]!r}, and there is no such file in {path.parent}")
    return path


def shown(value: Any) -> str:
    """Return a value as a message shows it: its beginning."""
    words = repr(value)
    return words if len(words) <= 60 else f"{words[:57]}..."
