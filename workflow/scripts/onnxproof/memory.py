"""What a process asks of glibc's memory, see mallopt(3). Other C libraries are left as they are."""

import ctypes

#: Of mallopt, see glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
#: The most that glibc takes for a threshold of blocks that are mapped.
LARGEST_KEPT = 32 << 20


def free_large_blocks_at_once() -> None:
    """Map every block of a MB or more by itself, so that it is given back as soon as it is freed.

    By default glibc raises that limit to 32 MB and keeps what was freed below it: the exporter's passes, each of which
    copies weights, then hold several copies.
    """
    _set(M_MMAP_THRESHOLD, 1 << 20)


def keep_freed_blocks() -> None:
    """Keep blocks of up to 32 MB that were freed for the next ones of their size.

    By default glibc gives them back and asks for them again. Where arrays of one size come and go, as in a search for a
    recipe, clearing their pages takes a tenth of the CPU time.
    """
    _set(M_MMAP_THRESHOLD, LARGEST_KEPT)
    _set(M_TRIM_THRESHOLD, 1 << 30)


def _set(option: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(option, value)
