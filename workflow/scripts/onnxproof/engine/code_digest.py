"""Which files a script is made of and what they do, so that an edit reruns exactly the rules that it concerns.

What a file says is found in its syntax tree. To parse all of ours takes a second, and every start of Snakemake asks for
it, so that it can be remembered on the disk, see ``remember_facts``.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from onnxproof.files import write_text
from onnxproof.places import SCRIPTS

PACKAGE = "onnxproof"
#: The package that defines types and reads files of these types, see ``onnxproof.records``.
RECORDS = f"{PACKAGE}.records"


class _TypeRemover(ast.NodeTransformer):
    """Removes from a syntax tree what only a type checker reads, and notes the names in it.

    These are the annotations of functions and variables, ``TypedDict`` classes, ``TypeAlias`` declarations, and what
    stands under ``if TYPE_CHECKING``. The annotated fields of other classes stay: a dataclass is made from them. A test
    makes sure that no code of ours reads annotations when it runs.
    """

    def __init__(self) -> None:
        """Start without names, and without classes that are a ``TypedDict``."""
        self.names: set[str] = set()
        self.records: set[str] = set()

    def _note(self, node: ast.AST) -> None:
        for part in ast.walk(node):
            if isinstance(part, ast.Name):
                self.names.add(part.id)
            elif isinstance(part, ast.Constant) and isinstance(part.value, str):  # an annotation in quotes
                with suppress(SyntaxError):
                    self._note(ast.parse(part.value, mode="eval"))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        """Note which names are records of another module."""
        if (node.module or "").startswith(RECORDS):
            self.records |= _names_of(node)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        """Remove the annotation of an argument."""
        if node.annotation:
            self._note(node.annotation)
        return ast.arg(node.arg)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Remove the annotation of what a function returns."""
        if node.returns:
            self._note(node.returns)
            node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        """Make an assignment of an annotated one; a declaration goes."""
        self._note(node.annotation)
        if node.value is None or _ends_in(node.annotation, "TypeAlias"):
            self._note(node)
            return None
        return self.generic_visit(ast.Assign([node.target], node.value))

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        """Remove a ``TypedDict`` that is made by a call."""
        if isinstance(node.value, ast.Call) and _ends_in(node.value.func, "TypedDict"):
            self._note(node)
            return None
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST | None:
        """Remove a ``TypedDict``; of another class, keep the fields."""
        if any(_ends_in(base, "TypedDict") or getattr(base, "id", None) in self.records for base in node.bases):
            self._note(node)
            self.records.add(node.name)
            return None
        fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
        node.body = [part for part in node.body if part not in fields]
        self.generic_visit(node)
        node.body = [*fields, *node.body]
        return node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST]:
        """Remove what stands under ``if TYPE_CHECKING``."""
        if _ends_in(node.test, "TYPE_CHECKING"):
            self._note(node.test)
            return [self.visit(part) for part in node.orelse]
        return self.generic_visit(node)


def _ends_in(node: ast.AST, name: str) -> bool:
    """Tell whether an expression is a name, perhaps after those of modules."""
    return name in (getattr(node, "id", None), getattr(node, "attr", None))


class Alias(NamedTuple):
    """A name that an import statement imports, what it is called from then on, and whether only types use it."""

    name: str
    called: str
    of_types: bool


class Facts(NamedTuple):
    """What a file says, wherever it lies.

    ``words`` is a digest of what it does, but for its imports. ``does_something`` is whether it holds more than a
    docstring and types, as the ``__init__.py`` of most packages does not. Of an import from a module, ``imports`` has
    that module first, of others None.
    """

    words: str
    does_something: bool
    imports: list[tuple[str | None, list[Alias]]]


#: Facts by the sha256 of the file that they are of, and the file on the disk that remembers them, where there is one.
_known: dict[str, Facts] = {}
_memory: list[Path] = []
#: From so many files on, what is remembered is begun anew: old versions of files are among them.
MOST_REMEMBERED = 2000


def remember_facts(path: Path) -> None:
    """Read what an earlier process has found in our files, and have this one add to it.

    What other code found, or another version of Python, is not read. Without the file, or where it cannot be written,
    all is found anew.
    """
    _memory[:] = [path]
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["finder"] == _finder() and len(stored["facts"]) < MOST_REMEMBERED:
            for sha256, (words, does_something, imports) in stored["facts"].items():
                listed = [(module, [Alias(*alias) for alias in aliases]) for module, aliases in imports]
                _known[sha256] = Facts(words, does_something, listed)


def _write_facts() -> None:
    for path in _memory:
        with suppress(OSError, ImportError):  # of locks, which Windows has not
            write_text(path, json.dumps({"finder": _finder(), "facts": _known}))


@cache
def _finder() -> str:
    """Return what tells this code, and the grammar that it reads, from another."""
    return f"{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()} {sys.version_info[:2]}"


@cache
def _facts_of(path: Path) -> Facts:
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 not in _known:
        _known[sha256] = _find_facts(content.decode())
    return _known[sha256]


def _find_facts(text: str) -> Facts:
    tree, types = _without_types(text)
    words: list[str] = []
    _add_words(tree, False, words)
    does_something = any(
        not isinstance(node, ast.Expr) and not (isinstance(node, ast.ImportFrom) and _names_of(node) <= types)
        for node in tree.body
    )
    return Facts(hashlib.sha256("\0".join(words).encode()).hexdigest(), does_something, list(_imports_of(tree, types)))


def _without_types(text: str) -> tuple[ast.Module, set[str]]:
    """Return a file's syntax tree without what only a type checker reads, and the names that stand there alone."""
    remover = _TypeRemover()
    tree: ast.Module = remover.visit(ast.parse(text))
    return tree, remover.names - {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _imports_of(tree: ast.Module, types: set[str]) -> Iterator[tuple[str | None, list[Alias]]]:
    """Yield each import, anywhere in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module and not node.level):
            called = [(alias.name, alias.asname or alias.name) for alias in node.names]
            yield getattr(node, "module", None), [Alias(name, known, known in types) for name, known in called]


def _files_of_import(module: str | None, aliases: list[Alias]) -> list[Path]:
    """Return the files of the helper package that an import runs."""
    names = {_full_name(module, alias) for alias in aliases} | ({module} if module else set())
    return sorted({file for name in names for file in _files_of_module(name)})


def _full_name(module: str | None, alias: Alias) -> str:
    return f"{module}.{alias.name}" if module else alias.name


@cache
def _files_of_module(name: str) -> list[Path]:
    """Return the files of the helper package that importing a module runs: importing a.b.c runs a and a.b too."""
    parts = name.split(".")
    if parts[0] != PACKAGE:
        return []
    stems = (SCRIPTS.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1))
    return [path for stem in stems for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()]


@cache
def files_of_script(name: str) -> list[str]:
    """Return the script's own path, then those of the helper modules it imports, directly or not, sorted."""
    script = SCRIPTS / f"{name}.py"
    seen: set[Path] = set()
    waiting = {script}
    while waiting:
        path = waiting.pop()
        seen.add(path)
        waiting |= {file for found in _facts_of(path).imports for file in _files_of_import(*found)} - seen
    return [str(script), *sorted(str(path) for path in seen - {script})]


#: Functions and methods whose texts people read, and names of arguments that have such texts.
TELLING = frozenset({"print", "error", "warn", "warning", "info"})
HELPS = frozenset({"help", "description", "epilog", "metavar"})
#: Fields of a syntax tree that follow from the others.
FOLLOWING = frozenset({"ctx", "type_comment", "kind"})


@cache
def _digest_of_file(path: Path) -> str:
    """Return a sha256, in hex, over what a file does: its syntax tree without comments, docstrings, messages and types.

    Of an import the names count, but not the module of this package that they come from: its own digest counts in its
    place, so that renaming or moving it changes nothing. Nor does the order of imports, which follows from their names.
    """
    facts = _facts_of(path)
    imports = []
    for module, aliases in facts.imports:
        origin = None if _files_of_import(module, aliases) else module
        names = sorted(
            ("" if _is_module(_full_name(module, alias)) else alias.name, alias.called)
            for alias in aliases
            if not alias.of_types
        )
        if names:
            imports.append(repr((origin, names)))
    return hashlib.sha256("\0".join([facts.words, *sorted(imports)]).encode()).hexdigest()


@cache
def _is_module(name: str) -> bool:
    """Tell whether what is imported is a module of this package, not something in it."""
    stem = SCRIPTS.joinpath(*name.split("."))
    return name.split(".")[0] == PACKAGE and (stem.is_dir() or stem.with_suffix(".py").is_file())


def _names_of(node: ast.ImportFrom) -> set[str]:
    return {alias.asname or alias.name for alias in node.names}


def _add_words(node: ast.AST, in_message: bool, words: list[str]) -> None:
    """Append a tree's words, in its order. Of a message they are the values that it names, without their formats."""
    kind = type(node)
    if kind in (ast.Import, ast.ImportFrom):
        return  # see ``_digest_of_file``
    if kind is ast.Constant:
        words.append("" if in_message and isinstance(node.value, str) else repr(node.value))  # type: ignore[attr-defined]
        return
    if kind is ast.Expr and isinstance(getattr(node.value, "value", None), str):  # type: ignore[attr-defined]
        return  # a docstring, perhaps of an attribute
    if kind is ast.JoinedStr and in_message:
        for value in node.values:  # type: ignore[attr-defined]
            if isinstance(value, ast.FormattedValue):
                _add_words(value.value, True, words)
        return
    in_message = in_message or kind is ast.Raise or _tells(node)
    words.append(kind.__name__)
    for field in node._fields:
        if field in FOLLOWING:
            continue
        value = getattr(node, field)
        if isinstance(value, ast.AST):
            _add_words(value, in_message, words)
        elif isinstance(value, list):
            words.append("[")
            for item in value:
                if isinstance(item, ast.AST):
                    _add_words(item, in_message, words)
                else:
                    words.append(repr(item))
            words.append("]")
        else:
            words.append(repr(value))


def _tells(node: ast.AST) -> bool:
    """Tell whether a node is a call, or an argument, whose texts people read."""
    if isinstance(node, ast.Call):
        return (node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", None)) in TELLING
    return isinstance(node, ast.keyword) and node.arg in HELPS


@cache
def digest_of_scripts(*names: str) -> str:
    """Return a sha256, in hex, over what some scripts and the modules that they import do.

    Comments, docstrings, messages, types and the names of modules do not count, so that rewording or moving one of them
    makes no one repeat a job.
    """
    parts, known = [], len(_known)
    for name in names:
        script, *modules = map(Path, files_of_script(name))
        doing = [path for path in modules if _facts_of(path).does_something]
        parts += [_digest_of_file(script), *sorted(map(_digest_of_file, doing))]
    if len(_known) > known:
        _write_facts()
    return hashlib.sha256("".join(parts).encode()).hexdigest()


@cache
def digest_of_texts(*names: str) -> str:
    """Return a sha256, in hex, over the bytes of some scripts and the modules that they import, as they are shipped."""
    return _digest_of_bytes(SCRIPTS, map(Path, (file for name in names for file in files_of_script(name))))


@cache
def digest_of_files(folder: Path, *names: str) -> str:
    """Return a sha256, in hex, over the names and bytes of some files of a folder, and of all files in its subfolders.

    Args:
        folder: an absolute path.
        names: files and subfolders of it. Nothing hidden in a subfolder counts.
    """
    files = {file for name in names for file in (folder / name, *(folder / name).rglob("*")) if file.is_file()}
    seen = (file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts))
    return _digest_of_bytes(folder, sorted(seen))


def _digest_of_bytes(folder: Path, files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        for part in (path.relative_to(folder).as_posix().encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
