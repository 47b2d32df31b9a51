"""Messages, each whole, as a user reads them: compared with one golden text a message.

``raises`` stands for ``pytest.raises`` where the words matter. The texts are in ``tests/messages/``, a file for each
test module and an entry for each test. ``make messages`` writes them anew; the difference is to be read like code.
"""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
FOLDER = TESTS / "messages"
#: Set by ``make messages``: texts are written, not compared.
WRITES = "ONNXPROOF_WRITE_MESSAGES"
#: What differs from run to run or from machine to machine, and what stands for it.
PLACEHOLDERS = (
    (re.compile(r"(/[\w.+-]+)*/pytest-(of-\w+/pytest-)?\d+(/popen-gw\d+)?/[\w.-]+"), "TMP"),
    (re.compile(re.escape(sys.executable)), "PYTHON"),
    (re.compile(re.escape(str(TESTS.parent))), "ROOT"),
    (re.compile(r"127\.0\.0\.1:\d+"), "HOST:PORT"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "SHA256"),
    (re.compile(r"git blob id is [0-9a-f]+, [0-9a-f]+ was"), "git blob id is ID, ID was"),
    (re.compile(r"\d+ bytes in \d+ s\b"), "BYTES in SECONDS"),
    (re.compile(r"/tmp/[\w./-]+"), "TMP"),
    (re.compile(r"(\n  \| .*)+"), "\n  | LOG"),
    (re.compile(r"\d+\.\d+(e[+-]?\d+)?|\d+e[+-]\d+"), "NUMBER"),
)

_asked: Counter[str] = Counter()


@contextmanager
def raises(kind: type[Exception]) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """Expect an exception with the message that the running test has in its golden file."""
    with pytest.raises(kind) as caught:
        yield caught
    check_message(str(caught.value))


def check_message(message: str) -> None:
    """Compare a message with the next one that the running test has in its golden file."""
    test = os.environ["PYTEST_CURRENT_TEST"].rsplit(" (", 1)[0]
    module, name = test.split("::", 1)
    file = (FOLDER / module.removeprefix("tests/")).with_suffix(".json")
    golden: dict[str, list[str]] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    position, told = _asked[test], without_accidents(message)
    _asked[test] += 1
    if os.environ.get(WRITES):
        golden[name] = [*golden.get(name, [])[:position], told]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(golden, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
        return
    known = golden.get(name, [])
    assert position < len(known), f"{file} has no message {position + 1} of {name}: run `make messages`"
    assert told == known[position]


def without_accidents(message: str) -> str:
    """Return a message with placeholders for temporary paths, ports and measured numbers."""
    for pattern, placeholder in PLACEHOLDERS:
        message = pattern.sub(placeholder, message)
    return message
