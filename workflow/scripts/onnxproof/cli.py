"""How every script starts and ends: one clear line for what the user can mend, a traceback only for our mistakes."""

import errno
import re
import sys
from collections.abc import Callable

#: What the operating system refuses, and what the user can do about it.
ADVICE = {
    errno.ENOSPC: "make room on this disk, then run again; what is finished is kept",
    errno.EDQUOT: "your quota on this disk is used up: make room, then run again; what is finished is kept",
    errno.EROFS: "this file system is read-only: run in a folder that can be written to",
    errno.EACCES: "you may not write or read here: check the owner and the permissions",
    errno.EPERM: "you may not write or read here: check the owner and the permissions",
    errno.ENOMEM: "close other programs, or run fewer jobs at once (snakemake --cores 1)",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n)",
}
#: How libraries written in other languages say the same.
SAID_BY_LIBRARIES = (
    (re.compile(r"No space left on device|os error 28|StorageFull"), errno.ENOSPC),
    (re.compile(r"Read-only file system|os error 30"), errno.EROFS),
    (re.compile(r"allocate memory|bad.?alloc|Failed to allocate|failed to map segment", re.IGNORECASE), errno.ENOMEM),
)
#: The shell's status of a program that was ended by Ctrl-C.
INTERRUPTED = 130


class UserError(Exception):
    """A mistake the user can mend.

    The message names the model, the key or file, the value seen and what is allowed.
    """


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's ``main`` and exit with its status.

    A ``UserError``, a full or read-only disk and a lack of memory become one line and status 1; Ctrl-C becomes
    status 130. Everything else keeps its traceback.
    """
    try:
        status = main()
    except KeyboardInterrupt:
        print("error: interrupted; the next run goes on from here", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(1)
    sys.exit(status or 0)


def explain(error: Exception) -> str | None:
    """Return one line for an error the user can mend, and None for any other."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"the memory did not suffice: {ADVICE[errno.ENOMEM]}"
    if isinstance(error, OSError) and error.errno in ADVICE:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}: {ADVICE[error.errno]}"
    for pattern, number in SAID_BY_LIBRARIES:
        if pattern.search(str(error)):
            return f"{first_line(error)}: {ADVICE[number]}"
    return None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
