"""How every script starts and ends: one clear line for a user's mistake, a traceback only for ours."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake the user can mend.

    The message names the model, the key or file, the value seen and what is allowed.
    """


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's ``main`` and exit with its status; a ``UserError`` becomes one line and status 1."""
    try:
        status = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    sys.exit(status or 0)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
