"""What the measuring machine is, as far as it matters to the speed of a transformer."""

import os

import psutil

from onnxproof.cpu import name_and_flags
from onnxproof.records.benchmark import CpuDescription


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
