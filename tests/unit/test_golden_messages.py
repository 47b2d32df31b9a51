"""The golden texts of messages are those of tests that exist, and nearly all are one line."""

import json
import re

import pytest

from messages import FOLDER, TESTS, without_accidents

FILES = sorted(FOLDER.rglob("*.json"))
#: What a message may go on with: the log of a process that ended.
LOGS = ("  | LOG", "some words")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FOLDER)))
def test_every_golden_text_is_one_line_of_a_test_that_exists(file):
    module = (TESTS / file.relative_to(FOLDER)).with_suffix(".py").read_text(encoding="utf-8")
    for test, texts in json.loads(file.read_text(encoding="utf-8")).items():
        assert f"def {test.split('[')[0]}(" in module, test
        for text in texts:
            assert len([line for line in text.splitlines() if line not in LOGS]) == 1, text
            assert without_accidents(text) == text


def test_no_test_looks_for_a_piece_of_a_message_for_users():
    pieces = re.compile(r"raises\((UserError|ConfigError), match=")
    assert not [path for path in TESTS.rglob("test_*.py") if pieces.search(path.read_text(encoding="utf-8"))]
