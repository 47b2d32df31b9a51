"""How much memory processes have resident, for tools that measure them from outside."""

import contextlib
from collections.abc import Callable, Iterable

import psutil


def resident_bytes(processes: Iterable[psutil.Process]) -> int:
    """Return what processes have resident together, in bytes: shared pages count for each, ended processes as 0."""
    return _sum(processes, lambda process: process.memory_info().rss)


def shared_once_bytes(processes: Iterable[psutil.Process]) -> int:
    """Return the memory that processes take together, in bytes: the sum of their proportional set sizes.

    A page that several processes share counts once, whether they were forked or have opened the same library. Where the
    system does not tell (only Linux does), it counts for each.
    """
    return _sum(processes, _proportional_bytes)


def _proportional_bytes(process: psutil.Process) -> int:
    told = process.memory_full_info()
    return getattr(told, "pss", told.rss)


def _sum(processes: Iterable[psutil.Process], measure: Callable[[psutil.Process], int]) -> int:
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):  # it has just ended
            total += measure(process)
    return total


def descendants_of(process: psutil.Process) -> list[psutil.Process]:
    """Return a process's children and theirs; none where it has ended."""
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []
