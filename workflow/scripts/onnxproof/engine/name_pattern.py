"""A regular expression for one of very many names."""

import re
from collections.abc import Iterable
from typing import Any


def any_of(names: Iterable[str]) -> str:
    """Return a regular expression for any of some names, which is matched in as many steps as a name is long.

    Of ``a|b|c``, Python tries one branch after the other: among a thousand models, that is a fifth of a plan's time.

    Args:
        names: at least one.
    """
    beginnings: dict[str, Any] = {}
    for name in names:
        branch = beginnings
        for character in name:
            branch = branch.setdefault(character, {})
        branch[""] = {}  # a name ends here
    return _pattern_of(beginnings)


def _pattern_of(branch: dict[str, Any]) -> str:
    """Return the pattern for what may follow a beginning: by its first character, all that may follow that one."""
    followed = [re.escape(character) + _pattern_of(further) for character, further in branch.items() if character]
    if not followed:
        return ""
    if len(followed) == 1 and "" not in branch:
        return followed[0]
    return f"(?:{'|'.join(followed)})" + "?" * ("" in branch)
