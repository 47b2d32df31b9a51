"""Each defence that the threat model claims names tests, and these exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODEL = (ROOT / "docs" / "threat-model.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", MODEL)


def test_every_row_of_the_defences_names_a_test():
    rows = [line for line in MODEL.splitlines() if line.startswith("| ") and line.count("|") == 4]
    defences = [row for row in rows if not row.startswith(("| threat", "| ---"))]
    assert len(defences) > 20
    assert [row for row in defences if "::test_" not in row] == []


@pytest.mark.parametrize(("file", "test"), sorted(set(NAMED)))
def test_every_named_test_exists(file, test):
    tree = ast.parse((ROOT / file).read_text())
    assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
