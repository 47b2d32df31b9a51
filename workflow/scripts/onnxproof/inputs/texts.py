"""The texts that models are compared and calibrated on: the bundled ones, or a user's own file."""

import json
from pathlib import Path

from onnxproof.cli import UserError
from onnxproof.places import RESOURCES

#: What parity is measured on.
EVALUATION_TEXTS = RESOURCES / "evaluation_texts.jsonl"
#: What a quantization recipe may look at. Shares no sentence with the evaluation texts.
CALIBRATION_TEXTS = RESOURCES / "calibration_texts.jsonl"
#: What the original and a release's programs are asked as users ask them: empty, odd, in many scripts.
RAW_TEXTS = RESOURCES / "raw_texts.jsonl"


def read_texts(path: Path) -> list[str]:
    """Return the texts of a UTF-8 file, in order.

    A ``.jsonl`` file has one JSON object a line, with the text under ``text`` (other keys are ignored; the
    text may be any string). A ``.txt`` file has one text a line. Blank lines are skipped in both.

    Raises:
        UserError: the file is missing, no file, not UTF-8, empty, or of another suffix; or a line of a
            ``.jsonl`` file is no JSON object with a string ``text``. The message names the file and the line.
    """
    parsers = {".jsonl": _text_of_json, ".txt": _text_of_line}
    if path.suffix not in parsers:
        raise UserError(f"{path}: a file of texts ends in .jsonl or .txt, not '{path.suffix}'")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    parse = parsers[path.suffix]
    texts = [
        parse(line, f"{path}, line {number}")
        for number, line in enumerate(_decoded_lines(content, path), start=1)
        if line.strip()
    ]
    if not texts:
        raise UserError(f"{path}: holds no text; at least one is needed")
    return texts


def _decoded_lines(content: bytes, path: Path) -> list[str]:
    """Split at line feeds only: a text may hold the other characters that Python takes for line ends."""
    lines = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            lines.append(line.decode("utf-8").removesuffix("\r"))
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, line {number}: not UTF-8: {error.reason}") from None
    return lines


def _text_of_line(line: str, place: str) -> str:
    return line


def _text_of_json(line: str, place: str) -> str:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: not JSON: {error}") from None
    if not isinstance(entry, dict):
        raise UserError(f'{place}: must be an object such as {{"text": "…"}}, not {type(entry).__name__}')
    if "text" not in entry:
        raise UserError(f'{place}: has no "text"; its keys are: {", ".join(entry) or "none"}')
    if not isinstance(entry["text"], str):
        raise UserError(f'{place}: "text" must be a string, not {type(entry["text"]).__name__}')
    return entry["text"]
