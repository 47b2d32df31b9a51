"""List the licence of every locked dependency, as its own distribution declares it: `make licenses`."""

import importlib.metadata
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "docs" / "licenses.md"
LOCKS = ("run.txt", "torch-cpu.txt")

HEAD = """# Licences of the dependencies

What `envs/locks` installs for the pipeline on this platform, as each distribution declares it. `make licenses`
rewrites the list, and a test keeps it equal to the locks.

| distribution | version | licence |
| --- | --- | --- |
"""


def locked() -> dict[str, str]:
    """Return the locked distributions that are installed here, with their versions."""
    text = "".join((ROOT / "envs" / "locks" / lock).read_text() for lock in LOCKS)
    versions = dict(re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", text, flags=re.MULTILINE))
    installed = {re.sub(r"[-_.]+", "-", entry.name).lower() for entry in importlib.metadata.distributions()}
    return {name: version for name, version in sorted(versions.items()) if name in installed}


def license_of(distribution: str) -> str:
    """Return a distribution's licence: its SPDX expression, else its classifiers, the name it gives, or its text's."""
    metadata = importlib.metadata.metadata(distribution)
    if expression := metadata.get("License-Expression"):
        return expression
    prefix = "License :: "
    classifiers = [
        entry.removeprefix(prefix).removeprefix("OSI Approved :: ")
        for entry in metadata.get_all("Classifier", [])
        if entry.startswith(prefix) and entry != "License :: OSI Approved"
    ]
    named = (metadata.get("License") or "").strip().partition("\n")[0][:80]
    return "; ".join(classifiers) or named or title_of_license_file(distribution) or "unknown"


def title_of_license_file(distribution: str) -> str:
    """Return the first line of the licence that lies in a distribution; empty where there is none."""
    files = importlib.metadata.files(distribution) or []
    texts = (file.locate().read_text(encoding="utf-8") for file in files if re.match("LICEN[CS]E", file.name))
    return next((text.strip().partition("\n")[0] for text in texts), "")


def table() -> str:
    """Return the whole list as Markdown."""
    rows = (f"| {name} | {version} | {license_of(name)} |\n" for name, version in locked().items())
    return HEAD + "".join(rows)


if __name__ == "__main__":
    LIST.write_text(table(), encoding="utf-8")
