"""Mistakes in a YAML text that a loader hides or tells badly: keys given twice, endless aliases."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from onnxproof.config.problem import ConfigError, listed

DEEPEST_NESTING = 50  # no configuration needs 10; loaders recurse, and fail or crash on thousands


def check_yaml_text(path: Path) -> None:
    """Check what a YAML loader would hide or tell badly: syntax errors, and keys given twice.

    Of two equal keys a loader silently keeps the last, so a model listed twice would vanish.

    Raises:
        ConfigError: the file is missing, is no UTF-8 text, holds no mapping, or breaks YAML's rules; with
            line numbers, and columns for syntax errors.
    """
    with reading_told(str(path)):
        problems = list(text_problems(path.read_text(encoding="utf-8")))
    if problems:
        raise ConfigError(listed(str(path), problems))


@contextmanager
def reading_told(subject: str) -> Iterator[None]:
    """Turn what goes wrong when a YAML file is read and parsed into one sentence.

    Raises:
        ConfigError: begins with the ``subject``.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{subject}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{subject}: not UTF-8 text: {error.reason} at byte {error.start}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{subject}: not YAML: {syntax_sentence(error)}") from None


class _OpenCollection:
    """A mapping or sequence whose end has not been reached yet."""

    def __init__(self, event: yaml.CollectionStartEvent) -> None:
        self.anchor = event.anchor
        self.is_mapping = isinstance(event, yaml.MappingStartEvent)
        self.awaits_key = self.is_mapping
        self.lines: dict[tuple[str, str], int] = {}


def text_problems(text: str) -> Iterator[str]:
    """Yield what is wrong with a YAML text that parses, each with its line.

    The text is read as events, without recursion, so that no nesting can overflow the stack.

    Raises:
        yaml.YAMLError: the text breaks YAML's syntax.
    """
    loader: Any = yaml.SafeLoader(text)  # accepts what Snakemake's loader does; libyaml's accepts more
    open_collections: list[_OpenCollection] = []
    anchors: set[str | None] = set()
    documents = 0
    while loader.check_event():
        event = loader.get_event()
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            open_collections.pop()
        elif isinstance(event, yaml.NodeEvent):
            yield from _alias_problems(event, anchors, open_collections)
            yield from _node_problems(loader, event, open_collections)
            anchors.add(event.anchor)
            if isinstance(event, yaml.CollectionStartEvent):
                open_collections.append(_OpenCollection(event))
            if len(open_collections) > DEEPEST_NESTING:
                yield f"line {_line(event)}: nested more than {DEEPEST_NESTING} levels deep"
                return
    if not documents:
        yield "is empty: it must at least list models"
    if documents > 1:
        yield f"holds {documents} YAML documents, must hold one"


def _node_problems(loader: Any, event: yaml.NodeEvent, parents: list[_OpenCollection]) -> Iterator[str]:
    line = _line(event)
    if not parents:
        if not isinstance(event, yaml.MappingStartEvent):
            yield f"line {line}: must hold keys at its top level, such as models:"
        return
    parent = parents[-1]
    if not parent.is_mapping:
        return
    if parent.awaits_key and isinstance(event, yaml.ScalarEvent):
        tag = event.tag or loader.resolve(yaml.ScalarNode, event.value, event.implicit)
        first = parent.lines.get((tag, event.value))
        if first is not None:
            yield f"line {line}: the key {event.value!a} was given on line {first} already"
        parent.lines.setdefault((tag, event.value), line)
    parent.awaits_key = not parent.awaits_key


def _alias_problems(event: yaml.NodeEvent, anchors: set[str | None], parents: list[_OpenCollection]) -> Iterator[str]:
    if not isinstance(event, yaml.AliasEvent):
        return
    if event.anchor not in anchors:
        yield f"line {_line(event)}: *{event.anchor} refers to &{event.anchor}, which stands nowhere above"
    if any(parent.anchor == event.anchor for parent in parents):
        yield f"line {_line(event)}: *{event.anchor} stands inside &{event.anchor}, so it would never end"


def _line(event: Any) -> int:
    line: int = event.start_mark.line
    return line + 1


def syntax_sentence(error: Any) -> str:
    """Return a `yaml.YAMLError` as one line: where, and what the parser did not expect."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    context = f" {error.context}" if getattr(error, "context", None) else ""
    hint = " (write spaces: YAML refuses tabs here)" if "found character '\\t'" in str(error) else ""
    problem = getattr(error, "problem", error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}{context}{hint}"
