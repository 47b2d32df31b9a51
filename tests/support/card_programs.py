"""The programs of a model card, run as they stand, each in the environment that it asks for.

As a script, ``python card_programs.py ANSWERS.json NAME ...`` runs the program given on standard input and writes the
values that its variables of these names end with; arrays and tensors become lists.
"""

import ast
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def programs(release: Path, language: str) -> list[str]:
    """Return the code blocks of a release's card, as they stand."""
    return re.findall(rf"```{language}\n(.*?)```", (release / "README.md").read_text(), flags=re.DOTALL)


def needs_optimum(program: str) -> bool:
    """Return whether a program imports Optimum, itself or through sentence-transformers."""
    return "optimum" in program or 'backend="onnx"' in program


def with_inputs(program: str, name: str, inputs: str) -> str:
    """Return a program that reads other inputs: a Python expression in the place of what it assigns to that name."""
    tree = ast.parse(program)
    (statement,) = [
        node
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name and node.col_offset == 0
    ][:1]
    lines = program.splitlines(keepends=True)
    assert statement.end_lineno is not None
    return "".join([*lines[: statement.lineno - 1], f"{name} = {inputs}\n", *lines[statement.end_lineno :]])


def run_program(program: str, folder: Path, names: list[str], optimum_python: Path) -> dict[str, Any]:
    """Run a program in a folder and return the variables of these names that it has, in types that JSON has.

    Raises:
        RuntimeError: it failed; the end of what it wrote to standard error is in the message.
    """
    python = optimum_python if needs_optimum(program) else Path(sys.executable)
    with tempfile.TemporaryDirectory() as scratch:
        answers = Path(scratch) / "answers.json"
        run = subprocess.run(
            [python, Path(__file__).resolve(), answers, *names],
            cwd=folder,
            input=program,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if run.returncode:
            raise RuntimeError(f"{program}\n{run.stderr[-2000:]}")
        values: dict[str, Any] = json.loads(answers.read_text())
    return values


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())  # as for a program that lies in that folder
    variables: dict[str, Any] = {}
    exec(compile(sys.stdin.read(), "program", "exec"), variables)
    ended = {name: variables[name] for name in sys.argv[2:] if name in variables}
    Path(sys.argv[1]).write_text(json.dumps(ended, default=lambda value: value.tolist()))
