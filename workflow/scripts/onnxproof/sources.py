"""Which files a script is made of, so that an edit reruns exactly the rules that use it."""

import ast
import hashlib
from functools import cache
from pathlib import Path

SCRIPTS = Path(__file__).parent.parent
PACKAGE = "onnxproof"


@cache
def _imports(path: Path) -> frozenset[Path]:
    """Return the files of the helper package that one file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    found: set[Path] = set()
    for name in names:
        if name.split(".")[0] == PACKAGE:
            # Importing a.b.c runs a and a.b too.
            parts = name.split(".")
            for depth in range(1, len(parts) + 1):
                stem = SCRIPTS.joinpath(*parts[:depth])
                found |= {path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()}
    return frozenset(found)


@cache
def files_of_script(name: str) -> list[str]:
    """Return the script's own path, then those of the helper modules it imports, directly or not, sorted."""
    script = SCRIPTS / f"{name}.py"
    seen: set[Path] = set()
    waiting = {script}
    while waiting:
        path = waiting.pop()
        seen.add(path)
        waiting |= _imports(path) - seen
    return [str(script), *sorted(str(path) for path in seen - {script})]


@cache
def digest_of_scripts(*names: str) -> str:
    """Return a sha256, in hex, over the names and the contents of what some scripts are made of."""
    digest = hashlib.sha256()
    for path in map(Path, (file for name in names for file in files_of_script(name))):
        for part in (path.relative_to(SCRIPTS).as_posix().encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
