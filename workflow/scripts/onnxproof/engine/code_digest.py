"""Which files a script is made of and what they do, so that an edit reruns exactly the rules that it concerns."""

import ast
import hashlib
from contextlib import suppress
from functools import cache
from pathlib import Path

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


@cache
def _read(path: Path) -> tuple[ast.Module, set[str]]:
    """Return a file's syntax tree without what only a type checker reads, and the names that stand there alone."""
    remover = _TypeRemover()
    tree: ast.Module = remover.visit(ast.parse(path.read_text(encoding="utf-8")))
    return tree, remover.names - {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


@cache
def _modules(path: Path) -> list[tuple[ast.Import | ast.ImportFrom, list[Path]]]:
    """Return each import of a file, anywhere in it, with the files of the helper package that it runs."""
    found: list[tuple[ast.Import | ast.ImportFrom, list[Path]]] = []
    for node in ast.walk(_read(path)[0]):
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        else:
            continue
        found.append((node, sorted({file for name in names for file in _files_of_module(name)})))
    return found


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
        waiting |= {file for _, files in _modules(path) for file in files} - seen
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
    words: list[str] = []
    tree, types = _read(path)
    _add_words(tree, False, words)
    imports = []
    for node, files in _modules(path):
        origin = None if files else getattr(node, "module", None)
        names = sorted(
            ("" if _is_module(node, alias) else alias.name, alias.asname or alias.name)
            for alias in node.names
            if (alias.asname or alias.name) not in types
        )
        if names:
            imports.append(repr((origin, names)))
    return hashlib.sha256("\0".join([*words, *sorted(imports)]).encode()).hexdigest()


def _is_module(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> bool:
    """Tell whether what is imported is a module of this package, not something in it."""
    name = f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
    stem = SCRIPTS.joinpath(*name.split("."))
    return name.split(".")[0] == PACKAGE and (stem.is_dir() or stem.with_suffix(".py").is_file())


def _does_something(path: Path) -> bool:
    """Tell whether a file holds more than a docstring and types, as the ``__init__.py`` of most packages does not."""
    tree, types = _read(path)
    return any(
        not isinstance(node, ast.Expr) and not (isinstance(node, ast.ImportFrom) and _names_of(node) <= types)
        for node in tree.body
    )


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
    parts = []
    for name in names:
        script, *modules = map(Path, files_of_script(name))
        parts += [_digest_of_file(script), *sorted(_digest_of_file(path) for path in modules if _does_something(path))]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


@cache
def digest_of_texts(*names: str) -> str:
    """Return a sha256, in hex, over the bytes of some scripts and the modules that they import, as they are shipped."""
    digest = hashlib.sha256()
    for path in map(Path, (file for name in names for file in files_of_script(name))):
        for part in (path.relative_to(SCRIPTS).as_posix().encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
