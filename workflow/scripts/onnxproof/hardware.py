"""What the measuring machine is, as far as it matters to the speed of a transformer."""

import contextlib
import os
from pathlib import Path

import psutil

from onnxproof.cpu import name_and_flags
from onnxproof.records.benchmark import CpuDescription

CGROUPS, CGROUP_OF_PROCESS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cpu_description() -> CpuDescription:
    """Return what this machine is; its flags are empty where there is no ``/proc/cpuinfo``."""
    name, flags = name_and_flags()
    return {
        "model": name,
        "flags": flags,
        "logical_cores": psutil.cpu_count(logical=True),
        "physical_cores": psutil.cpu_count(logical=False),
    }


def available_cores() -> int:
    """Return the number of logical cores this process may run on, which can be fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def granted_threads() -> int:
    """Return how many threads this process may compute with: those that Snakemake granted its job, else one a core."""
    granted = os.environ.get("OMP_NUM_THREADS", "")
    return int(granted) if granted.isdecimal() and int(granted) else available_cores()


def free_memory_mb() -> float:
    """Return how much memory processes may still take, in MB of 1e6 bytes: the machine's, or what is left of a limit.

    A container, or a job of a scheduler, may have a limit of its own: cgroups, version 2, tell.
    """
    left = [psutil.virtual_memory().available]
    try:
        own = CGROUP_OF_PROCESS.read_text(encoding="utf-8").rpartition("::/")[2].strip()
    except OSError:
        own = ""
    for group in (CGROUPS / own, *(CGROUPS / own).parents):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
            left.append(max(0, limit - used))
    return min(left) / 1e6
