"""What is replaced in Snakemake while this workflow runs by itself, for the one version that it was written for.

As a module of another workflow it replaces nothing.
"""

import gc
import importlib.metadata
import sys
import threading
from collections.abc import Collection
from functools import cache
from typing import Any

import psutil

from onnxproof.engine.fork_client import job_name

#: The version of Snakemake that the patches were written for and measured with.
SNAKEMAKE = "9.27.1"
#: How many more objects than before Python holds when it looks for garbage, and how many such looks there are until it
#: looks at older objects too.
GARBAGE = (100_000, 20, 20)


@cache
def plan_with_less_work() -> bool:
    """Let Snakemake do once what it does several times for each job that it plans.

    It asks for the parameters of a function each time it calls it, and writes a job's command three times to log it
    once. Python looks for garbage after each 700 new objects, and finds none, because a plan keeps what it makes.

    Returns:
        Whether anything was replaced, at the first call: another version of Snakemake is left alone.
    """
    if importlib.metadata.version("snakemake") != SNAKEMAKE:
        return False
    gc.set_threshold(*GARBAGE)
    from snakemake import common, jobs, rules

    common.get_function_params = rules.get_function_params = cache(common.get_function_params)
    command_of, log_info = jobs.Job.shellcmd.fget, jobs.Job.log_info

    def log_with_one_command(job: Any, *arguments: Any, **options: Any) -> None:
        job.command_to_log = command_of(job)
        try:
            log_info(job, *arguments, **options)
        finally:
            del job.command_to_log

    def command(job: Any) -> str | None:
        found: str | None = job.command_to_log if hasattr(job, "command_to_log") else command_of(job)
        return found

    jobs.Job.log_info, jobs.Job.shellcmd = log_with_one_command, property(command)
    return True


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


def count_forked_jobs() -> bool:
    """Have ``benchmark:`` of a rule count what jobs take that ``fork_server`` forks.

    Snakemake looks at the process of a job's command and its descendants. A forked job is a child of the server; its
    name tells whose it is.

    Returns:
        Whether they will be counted. In another version of Snakemake they are not: they would seem to take nothing.
    """
    if importlib.metadata.version("snakemake") != SNAKEMAKE:
        return False
    from snakemake import benchmark

    class Command(psutil.Process):
        """The process of a job's command, which has forked jobs among its descendants."""

        def children(self, recursive: bool = False) -> list[psutil.Process]:
            found = super().children(recursive)
            names = {job_name(process.pid) for process in found}
            forked = (process for process in psutil.Process().children(recursive=True) if is_named(process, names))
            return found + [each for job in forked for each in (job, *job.children(recursive=True))]

    class Timer(benchmark.BenchmarkTimer):
        """Looks at a command now and then."""

        def __init__(self, pid: int, *arguments: Any) -> None:
            super().__init__(pid, *arguments)
            self.main = Command(pid)

    benchmark.BenchmarkTimer = Timer
    return True


def is_named(process: psutil.Process, names: Collection[str]) -> bool:
    """Tell whether a process has one of some names; one that has ended has none."""
    try:
        return process.name() in names
    except psutil.NoSuchProcess:
        return False


def forget_removed_folders() -> bool:
    """Let the S3 plugin see that a folder is no longer there, once it was removed.

    The plugin remembers that a name was a folder's. A job that fails after its old output was removed then seems to
    have it still, and Snakemake ends the whole run when it asks how old that is.

    Returns:
        Whether the plugin is in use.
    """
    plugin = sys.modules.get("snakemake_storage_plugin_s3")
    if plugin is None:
        return False
    remove = plugin.StorageObject.remove

    def remove_and_forget(self: Any) -> None:
        remove(self)
        self._is_dir = None

    plugin.StorageObject.remove = remove_and_forget
    return True
