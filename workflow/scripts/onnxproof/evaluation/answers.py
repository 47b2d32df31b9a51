"""Files of answers to labelled inputs, a line an input."""

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np


class AnswerFile:
    """Answers, a line an input, written as they come. Maps of pixels are compressed."""

    def __init__(self, file: Path) -> None:
        """Name the file, a ``.jsonl``; it is written when this is entered."""
        self.file = file

    def __enter__(self) -> "AnswerFile":
        """Open the file."""
        self.lines = self.file.open("w", encoding="utf-8")
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self.lines.close()

    def write(self, row: int, **parts: Any) -> None:
        """Write what is said of a row."""
        line = {"row": row} | {name: _packed(value) for name, value in parts.items()}
        print(json.dumps(line, ensure_ascii=False), file=self.lines)


def _packed(value: Any) -> Any:
    """Return an array as JSON can hold it; anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    content = base64.b64encode(zlib.compress(np.ascontiguousarray(value).tobytes())).decode("ascii")
    return {"array": content, "dtype": str(value.dtype), "shape": list(value.shape)}


def _unpacked(value: Any) -> Any:
    """Return the value that ``_packed`` was given."""
    if not isinstance(value, dict) or value.keys() != {"array", "dtype", "shape"}:
        return value
    content = zlib.decompress(base64.b64decode(value["array"]))
    return np.frombuffer(content, dtype=value["dtype"]).reshape(value["shape"])


def read_answers(file: Path, *names: str) -> list[list[Any]]:
    """Return parts of a file of answers: a list for each name, one entry a row."""
    columns: list[list[Any]] = [[] for _ in names]
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            for column, name in zip(columns, names, strict=True):
                column.append(_unpacked(row[name]))
    return columns
