"""Each command line in the file for coding agents is one that the commands accept."""

import re
import shlex

import pytest
import yaml

import attest
import audit
import check
import convert
import verify_release
from onnxproof.commands import COMMANDS, MAIN_COMMANDS, main
from onnxproof.records.conversion import Conversion
from project import ROOT

FILE = ROOT / "skills/onnxproof/SKILL.md"
TEXT = FILE.read_text(encoding="utf-8")
LINES = [
    line for block in re.findall(r"^```bash\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]


class AcceptedError(Exception):
    """The command line was read to its end."""


def accept(*_: object, **__: object) -> None:
    raise AcceptedError


@pytest.fixture
def without_work(monkeypatch):
    """Commands stop where they have read their command line."""
    monkeypatch.setattr(convert, "convert", accept)
    monkeypatch.setattr(check, "find_source", accept)
    monkeypatch.setattr(verify_release, "verify", accept)
    monkeypatch.setattr(attest, "attest", accept)
    monkeypatch.setattr(audit, "bring_and_audit", accept)


@pytest.mark.parametrize("line", LINES)
def test_every_command_line_is_accepted(line, without_work):
    program, *arguments = shlex.split(line, comments=True)
    assert program == "onnxproof"
    assert arguments[0] in {*MAIN_COMMANDS, *COMMANDS}
    with pytest.raises(AcceptedError):
        main(arguments)


def test_a_wrong_command_line_would_be_noticed(without_work):
    with pytest.raises(SystemExit) as end:
        main(["convert", "models/my-classifier", "--variant-list", "fp32"])
    assert end.value.code == 2


def test_it_says_when_to_use_it():
    header = yaml.safe_load(TEXT.split("---\n")[1])
    assert header["name"] == FILE.parent.name
    assert 100 < len(header["description"]) <= 1024


def test_it_names_keys_and_exit_statuses_that_exist():
    keys = set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE))
    assert keys
    assert keys <= set(Conversion.__annotations__)
    assert {str(convert.REFUSED), "0", "1", "2", "130"} == set(re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE))
