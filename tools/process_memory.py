"""How much memory processes have resident, for tools that measure them from outside."""

from collections.abc import Iterable

import psutil


def resident_bytes(processes: Iterable[psutil.Process]) -> int:
    """Return what processes have resident together, in bytes: shared pages count for each, ended processes as 0."""
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.Error:  # it has just ended
            continue
    return total


def shared_once_bytes(processes: Iterable[psutil.Process]) -> int:
    """Return the memory that processes take together, in bytes: the sum of their proportional set sizes.

    A page that several processes share counts once, whether they were forked or have opened the same library. Where the
    system does not tell (only Linux does), it counts for each.
    """
    total = 0
    for process in processes:
        try:
            told = process.memory_full_info()
        except psutil.Error:  # it has just ended
            continue
        total += getattr(told, "pss", told.rss)
    return total


def descendants_of(process: psutil.Process) -> list[psutil.Process]:
    """Return a process's children and theirs; none where it has ended."""
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []
