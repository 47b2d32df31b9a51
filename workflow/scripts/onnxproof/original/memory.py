"""What an exporter's process does about its memory."""

import ctypes

#: Of mallopt, see glibc's malloc.h.
M_MMAP_THRESHOLD = -3


def free_large_blocks_at_once() -> None:
    """Have glibc map every block of a MB or more by itself, and so give it back as soon as it is freed.

    By default it raises that limit to 32 MB and keeps what was freed below it: the exporter's passes, each of which
    copies weights, then hold several copies. See mallopt(3). Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1 << 20)
