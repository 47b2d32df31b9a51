"""What a script is made of: exactly what an edit of it, or of a helper module that it imports, must change."""

import ast
import shutil
from pathlib import Path

import pytest

from onnxproof.engine import code_digest as sources
from onnxproof.engine.code_digest import digest_of_files, digest_of_scripts, digest_of_texts, files_of_script

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
    sources._known.clear()
    sources._memory.clear()
    for cached in vars(sources).values():
        if hasattr(cached, "cache_clear"):
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
        file.write("EDITED = True\n")
    after = digests()
    assert {script for script in after if after[script] != before[script]} == changed


def test_the_same_contents_elsewhere_have_the_same_digest(scripts, monkeypatch):
    before = digests()
    elsewhere = scripts.rename(scripts.with_name("elsewhere"))
    monkeypatch.setattr(sources, "SCRIPTS", elsewhere)
    assert digests() == before


def test_a_module_that_is_moved_changes_no_digest_but_that_of_the_texts(scripts):
    before, texts = digests(), digest_of_texts("make")
    folder = scripts / "onnxproof" / "parts"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""Parts."""\n')
    (scripts / "onnxproof/shared.py").rename(folder / "common.py")
    (scripts / "onnxproof/deep.py").write_text("from onnxproof.parts.common import nothing\n")
    assert digests() == before
    assert digest_of_texts("make") != texts


def test_files_are_known_by_their_names_and_bytes_wherever_they_lie(tmp_path):
    def digest(folder: Path) -> str:
        digest_of_files.cache_clear()
        return digest_of_files(folder, "card", "usage")

    first, second = tmp_path / "first", tmp_path / ".second"
    (first / "usage" / "task").mkdir(parents=True)
    for name in ("card", "usage/task/example", "unnamed"):
        (first / name).write_text("text")
    before = digest(first)
    for name in ("usage/task/.example.swp", "unnamed"):
        (first / name).write_text("edited")
    assert digest(shutil.copytree(first, second)) == before
    (second / "usage/task/example").rename(second / "usage/example")
    assert digest(second) != before
    (first / "usage/task/example").write_text("edited")
    assert digest(first) != before


def test_the_name_that_is_imported_counts(scripts):
    found = set()
    for names in ("nothing", "something", "something as nothing"):
        (scripts / "onnxproof/deep.py").write_text(f"from onnxproof.shared import {names}\n")
        found.add(digests()["make"])
    assert len(found) == 3


PROGRAM = """
import warnings

LIMIT = 0.5


def judge(value, parser):
    if value > LIMIT:
        print(f"{value:.3g} is too large")
        warnings.warn("look")
        raise ValueError(f"judge: {value} is above {LIMIT}")
    parser.add_argument("--limit", help="what is allowed", default="x")
    return "passed"
"""
#: What a reader sees, changed.
REWORDED = {
    "a comment": ("LIMIT = 0.5", "LIMIT = 0.5  # half"),
    "a docstring": ("def judge(value, parser):", 'def judge(value, parser):\n    """Judge."""'),
    "an error": ('f"judge: {value} is above {LIMIT}"', 'f"judge says that {value:.2f} exceeds {LIMIT}, the limit"'),
    "an error in two parts": ('f"judge: {value} is above {LIMIT}"', 'f"judge: {value}"\n f" exceeds {LIMIT}"'),
    "what is printed": ('f"{value:.3g} is too large"', 'f"too large: {value}"'),
    "a warning": ('"look"', '"look here"'),
    "a help": ('"what is allowed"', '"the limit"'),
    "an empty line": ("import warnings", "import warnings\n\n"),
}
#: What it does, changed.
CHANGED = {
    "a constant": ("LIMIT = 0.5", "LIMIT = 0.25"),
    "a comparison": ("value > LIMIT", "value >= LIMIT"),
    "an answer": ('"passed"', '"pass"'),
    "a name of an option": ("--limit", "--most"),
    "a default": ('default="x"', 'default="y"'),
    "the value that an error names": ("{LIMIT}", "{value}"),
    "the kind of an error": ("raise ValueError", "raise KeyError"),
}


@pytest.mark.parametrize("edit", REWORDED)
def test_rewording_changes_no_digest_but_that_of_the_text(scripts, edit):
    (scripts / "judge.py").write_text(PROGRAM)
    forget()
    before, text = digest_of_scripts("judge"), digest_of_texts("judge")
    old, new = REWORDED[edit]
    assert PROGRAM.count(old) == 1
    (scripts / "judge.py").write_text(PROGRAM.replace(old, new))
    forget()
    assert digest_of_scripts("judge") == before
    assert digest_of_texts("judge") != text


@pytest.mark.parametrize("edit", CHANGED)
def test_a_change_of_what_is_done_changes_the_digest(scripts, edit):
    (scripts / "judge.py").write_text(PROGRAM)
    forget()
    before = digest_of_scripts("judge")
    old, new = CHANGED[edit]
    assert PROGRAM.count(old) == 1
    (scripts / "judge.py").write_text(PROGRAM.replace(old, new))
    forget()
    assert digest_of_scripts("judge") != before


TYPED = """
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from onnxproof.records.common import Entry
from onnxproof.shared import Shown, shown

if TYPE_CHECKING:
    from onnxproof.deep import Deep

LIMIT: float = 0.5


class Record(TypedDict):
    size: int


@dataclass
class Case:
    batch: int = 1

    def run(self, count: int) -> list[Any]:
        made: list[Any] = [count]
        return made


def judge(value: float, *rest: Shown, entry: Entry = None, deep: "Deep | None" = None) -> Record:
    return shown(value)
"""
#: What only a type checker reads, changed.
RETYPED = {
    "an argument": ("value: float", "value: int"),
    "an argument, not annotated": ("value: float", "value"),
    "further arguments": ("*rest: Shown", "*rest: Shown | str"),
    "an answer": ("-> Record", "-> dict[str, int]"),
    "an answer of a method": ("-> list[Any]", "-> list[int]"),
    "a variable": ("made: list[Any]", "made"),
    "a constant": ("LIMIT: float", "LIMIT"),
    "a field of a record": ("    size: int", "    size: int\n    sha256: str"),
    "another record": ("LIMIT: float", "class Other(TypedDict):\n    name: str\n\n\nLIMIT: float"),
    "a record made of another": ("@dataclass\n", "class Other(Record):\n    name: str\n\n\n@dataclass\n"),
    "a record made of an imported one": ("LIMIT: float", "class Other(Entry):\n    name: str\n\n\nLIMIT: float"),
    "a record by a call": ("LIMIT: float", 'Other = TypedDict("Other", {"class": str})\nLIMIT: float'),
    "a name of a type": ("LIMIT: float", "Sizes: TypeAlias = dict[str, int]\nLIMIT: float"),
    "an import of types alone": ("import Shown, shown", "import shown"),
    "an import for the checker": ("    from onnxproof.deep import Deep", "    from onnxproof.other import Deep"),
}
#: Not only types, changed.
MORE_THAN_TYPES = {
    "a field of a dataclass": ("batch: int", "batch: float"),
    "another field": ("    batch: int = 1", "    batch: int = 1\n    size: int = 1"),
    "a value": ("made: list[Any] = [count]", "made: list[Any] = []"),
    "a constant": ("LIMIT: float = 0.5", "LIMIT: float = 0.25"),
    "a default": ('"Deep | None" = None', '"Deep | None" = 1'),
    "an import that is used too": ("import Shown, shown", "import Shown, deep as shown"),
}


@pytest.mark.parametrize("edit", RETYPED)
def test_types_change_no_digest(scripts, edit):
    assert is_same_after(scripts, *RETYPED[edit])


@pytest.mark.parametrize("edit", MORE_THAN_TYPES)
def test_what_is_more_than_a_type_changes_the_digest(scripts, edit):
    assert not is_same_after(scripts, *MORE_THAN_TYPES[edit])


def is_same_after(scripts: Path, old: str, new: str) -> bool:
    (scripts / "judge.py").write_text(TYPED)
    before = digests()["judge"]
    assert TYPED.count(old) == 1
    (scripts / "judge.py").write_text(TYPED.replace(old, new))
    return digests()["judge"] == before


def test_a_module_of_types_alone_changes_no_digest(scripts):
    (scripts / "judge.py").write_text("from onnxproof.other import Record\n\n\ndef judge(given: Record):\n    pass\n")
    (scripts / "onnxproof/other.py").write_text("")
    before = digests()
    (scripts / "onnxproof/other.py").write_text(
        "from typing import TypedDict\n\n\nclass Record(TypedDict):\n    size: int\n"
    )
    assert digests() == before
    assert str(scripts / "onnxproof/other.py") in files_of_script("judge")  # it runs all the same


def test_what_is_imported_for_the_type_checker_alone_is_no_part(scripts):
    (scripts / "judge.py").write_text(TYPED)
    forget()
    assert str(scripts / "onnxproof/deep.py") not in files_of_script("judge")


def test_the_records_are_types_but_for_the_functions_that_read_them():
    for path in (sources.SCRIPTS / "onnxproof/records").glob("*.py"):
        tree, _ = sources._without_types(path.read_text())
        found = [node for node in tree.body if not isinstance(node, ast.Expr | ast.Import | ast.ImportFrom)]
        assert all(isinstance(node, ast.FunctionDef) and node.name.startswith("read_") for node in found), path
        assert sources._facts_of(path).does_something == bool(found)


def test_no_code_reads_annotations():
    """Else they would be more than types, and had to count."""
    readers = {"__annotations__", "annotation", "get_annotations", "get_type_hints", "singledispatch", "TypeAdapter"}
    for path in sources.SCRIPTS.rglob("*.py"):
        if path.name == "code_digest.py":  # names them in syntax trees
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            assert getattr(node, "attr", getattr(node, "id", None)) not in readers, (path, node.lineno)


def test_no_word_of_a_message_in_any_script_counts(tmp_path, monkeypatch):
    """Every docstring, error, print and help of the whole package is reworded."""
    names = [path.stem for path in sources.SCRIPTS.glob("*.py")]
    before = {name: digest_of_scripts(name) for name in names}
    copy = tmp_path / "scripts"
    shutil.copytree(sources.SCRIPTS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    changed = sum(reword(path) for path in copy.rglob("*.py"))
    assert changed > 1000
    monkeypatch.setattr(sources, "SCRIPTS", copy)
    forget()
    assert {name: digest_of_scripts(name) for name in names} == before
    forget()


def reword(path: Path) -> int:
    """Write other words into a file's docstrings and into the constants of what it raises; return how many."""
    tree, count = ast.parse(path.read_text()), 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            texts = [part for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            texts = [node.body[0].value]
        else:
            continue
        for text in texts:
            text.value = f"other words than {text.value}"
            count += 1
    path.write_text(ast.unparse(tree))
    return count


def test_what_was_found_is_remembered_and_gives_the_same_digests(scripts, tmp_path_factory, monkeypatch):
    memory = tmp_path_factory.mktemp("memory") / "code.json"
    (scripts / "judge.py").write_text(TYPED + "\n\nimport onnxproof.other as other\n")
    before = digests()
    forget()
    sources.remember_facts(memory)
    first = {script: digest_of_scripts(script) for script in before}
    forget()
    sources.remember_facts(memory)
    monkeypatch.setattr(sources, "_find_facts", lambda text: pytest.fail("parsed again"))
    assert {script: digest_of_scripts(script) for script in before} == first == before
    assert files_of_script("judge")


@pytest.mark.parametrize("content", ["", "[]", '{"finder": "another", "facts": {}}', '{"facts": 1}', "{}"])
def test_what_cannot_be_remembered_is_found_anew(scripts, tmp_path_factory, content):
    memory = tmp_path_factory.mktemp("memory") / "code.json"
    before = digests()
    forget()
    memory.write_text(content)
    sources.remember_facts(memory)
    assert {script: digest_of_scripts(script) for script in before} == before
    assert memory.read_text() != content


def test_an_edit_of_what_is_remembered_is_noticed(scripts, tmp_path_factory):
    sources.remember_facts(tmp_path_factory.mktemp("memory") / "code.json")
    before = digest_of_scripts("make")
    (scripts / "make.py").write_text(FILES["make.py"] + "EDITED = True\n")
    memory = sources._memory[0]
    forget()
    sources.remember_facts(memory)
    assert digest_of_scripts("make") != before
