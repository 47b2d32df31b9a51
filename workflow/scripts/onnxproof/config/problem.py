"""Mistakes in a configuration: where each one is, what is wrong there, and the sentence that a user reads."""

import math
import re
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onnxproof.cli import UserError

#: Keys of mappings and positions in lists, from the top of a configuration; () is the whole of it.
KeyPath = tuple[Any, ...]

NAME_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")

#: The value of a problem whose sentence shows none.
NOT_SHOWN: Any = object()


class ConfigError(UserError):
    """The configuration is wrong; the message lists every problem, one line each."""


@dataclass(frozen=True)
class Problem:
    """One mistake in a configuration.

    Attributes:
        path: the key that it is about.
        message: what is wrong, and what is allowed or what to do: the sentence's end.
        value: the value seen.
        place: the listed file that holds the key, and the line and column of a table; "" for ``config.yaml``.
    """

    path: KeyPath
    message: str
    value: Any = NOT_SHOWN
    place: str = ""

    def at(self, place: str) -> "Problem":
        """Return the same problem in another place."""
        return replace(self, place=place)

    def __str__(self) -> str:
        """Return the sentence: ``models.X.task is 'sum', must be one of …``."""
        place = f"{self.place}: " if self.place else ""
        shown = "" if self.value is NOT_SHOWN else f" is {seen(self.value)},"
        return f"{place}{dotted(self.path)}{shown} {self.message}"


def listed(subject: str, problems: Sequence[Problem | str]) -> str:
    """Return problems as one message: a line, or a heading and a line each."""
    if len(problems) == 1:
        return f"{subject} has a problem: {problems[0]}"
    return "\n".join([f"{subject} has {len(problems)} problems:", *(f"  {problem}" for problem in problems)])


def seen(value: Any) -> str:
    """Return a short, one-line form of a value, spelled as in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 80
    return short.repr(value)


def dotted(path: Iterable[Any]) -> str:
    """Return ``models.X.variants[0]`` for a path of keys and list positions."""
    text = ""
    for step in path:
        if isinstance(step, int) and not isinstance(step, bool) and text != "models":  # below models, 123 is a name
            text += f"[{step}]"
        else:
            text += f".{_key_label(step)}" if text else _key_label(step)
    return text or "the configuration"


def _key_label(key: Any) -> str:
    """Return a key as written where that is plain, else its short form in quotes."""
    return key if isinstance(key, str) and NAME_PATTERN.fullmatch(key) else seen(key)
