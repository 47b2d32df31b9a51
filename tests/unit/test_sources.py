"""What a script is made of: exactly what an edit of it, or of a helper module that it imports, must change."""

from pathlib import Path

import pytest

from onnxproof import sources
from onnxproof.sources import digest_of_scripts, files_of_script

FILES = {
    "onnxproof/__init__.py": "",
    "onnxproof/shared.py": "import json\n",
    "onnxproof/deep.py": "from onnxproof.shared import nothing\n",
    "onnxproof/other.py": "",
    "make.py": "def main():\n    from onnxproof import deep\n",
    "judge.py": "import onnxproof.other\n",
}


@pytest.fixture
def scripts(tmp_path, monkeypatch) -> Path:
    (tmp_path / "onnxproof").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sources, "SCRIPTS", tmp_path)
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    for cached in (sources._imports, files_of_script, digest_of_scripts):
        cached.cache_clear()


def digests() -> dict[str, str]:
    forget()
    return {script: digest_of_scripts(script) for script in ("make", "judge")}


def test_the_files_are_the_script_and_what_it_imports_in_turn(scripts):
    names = [Path(path).relative_to(scripts).as_posix() for path in files_of_script("make")]
    assert names == ["make.py", "onnxproof/__init__.py", "onnxproof/deep.py", "onnxproof/shared.py"]


@pytest.mark.parametrize(
    ("edited", "changed"),
    [
        ("make.py", {"make"}),
        ("onnxproof/shared.py", {"make"}),
        ("onnxproof/other.py", {"judge"}),
        ("onnxproof/__init__.py", {"make", "judge"}),
    ],
)
def test_an_edit_changes_the_digest_of_the_scripts_that_use_the_file(scripts, edited, changed):
    before = digests()
    with (scripts / edited).open("a") as file:
        file.write("# edited\n")
    after = digests()
    assert {script for script in after if after[script] != before[script]} == changed


def test_the_same_contents_elsewhere_have_the_same_digest(scripts, monkeypatch):
    before = digests()
    elsewhere = scripts.rename(scripts.with_name("elsewhere"))
    monkeypatch.setattr(sources, "SCRIPTS", elsewhere)
    assert digests() == before
