"""What is replaced in Snakemake while this workflow runs by itself, for the one version that it was written for.

As a module of another workflow it replaces nothing.
"""

import importlib.metadata
import threading
from typing import Any

#: The version of Snakemake that the patches were written for and measured with.
SNAKEMAKE = "9.27.1"


def keep_one_timer(scheduler: Any) -> bool:
    """Let one timer at a time wake Snakemake's scheduler, which is all that its limit of jobs a second needs.

    Snakemake starts another timer after each look at the ready jobs, and each of them leads to the next look: one more
    a second for every job that has ended, as long as jobs wait for a core. Its options do not turn the limit off.

    Args:
        scheduler: the ``JobScheduler`` of this run.

    Returns:
        Whether it was replaced: another version of Snakemake is left alone.
    """
    if importlib.metadata.version("snakemake") != SNAKEMAKE:
        return False
    waiting = threading.Event()

    def wake() -> None:
        waiting.clear()  # first: the look that follows starts the next timer
        scheduler._open_jobs.release()

    def wake_once_after(delay: float) -> None:
        if not waiting.is_set():
            waiting.set()
            threading.Timer(delay, wake).start()

    scheduler._schedule_reevalutation = wake_once_after
    return True
