"""What a configuration says reaches a shell as data, never as words of a command."""

import re
from pathlib import Path

import pytest

RULES = sorted((Path(__file__).parents[2] / "workflow" / "rules").glob("*.smk"))
#: Checked by the schema to be whole numbers, or set by Snakemake.
NUMBERS = {"params.threads", "params.batch_size"}
#: Matched against the variants' own names.
OWN_NAMES = {"wildcards.variant", "wildcards.quantized"}


def shell_commands(rules: Path) -> list[str]:
    text = rules.read_text()
    blocks = re.findall(r"^    shell:\n((?: {8}.*\n)+)", text, re.MULTILINE)
    return blocks + re.findall(r"\bshell\((.*)\)", text)


def test_there_are_commands_to_check():
    assert sum(len(shell_commands(rules)) for rules in RULES) >= 11


@pytest.mark.parametrize("rules", RULES, ids=lambda path: path.stem)
def test_every_field_of_a_command_is_quoted(rules: Path):
    for command in shell_commands(rules):
        fields = re.findall(r"\{([^{}]+)\}", command)
        assert fields
        assert [field for field in fields if not field.endswith(":q") and field not in NUMBERS | OWN_NAMES] == []
