"""One run at a time in one folder, told in words to the second."""

import os
from pathlib import Path
from typing import TextIO

from onnxproof.cli import UserError

#: Open files, each of which holds a lock until this process ends.
_HELD: list[TextIO] = []

LOCK_FILE = Path(".snakemake/onnxproof.lock")


def lock_folder(lock_file: Path = LOCK_FILE) -> None:
    """Lock a folder for as long as this process lives.

    The operating system lets go of the lock when the process ends, however it ends: unlike Snakemake's own
    lock, it never has to be removed by hand after a crash.

    Raises:
        UserError: another process has it, or the system has no such locks: it is Windows.
    """
    try:
        import fcntl
    except ImportError:
        raise UserError("onnxproof does not run on Windows itself: run it in WSL, as on Linux") from None
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    stream = lock_file.open("a+", encoding="utf-8")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        owner = stream.read().strip()
        stream.close()
        raise UserError(
            f"another run is at work in {lock_file.resolve().parents[1]} (process {owner or 'unknown'}): "
            "wait until it has ended, or end it"
        ) from None
    stream.truncate(0)
    stream.write(f"{os.getpid()}\n")
    stream.flush()
    _HELD.append(stream)
