"""What the measuring machine is, as far as it matters to the speed of a transformer."""

import os
import platform
from pathlib import Path
from typing import Any

import psutil

CPUINFO = Path("/proc/cpuinfo")

# The instruction sets that decide which matrix kernels a runtime can use, as Linux spells them.
FLAGS_OF_INTEREST = frozenset(
    {
        # x86
        "avx2",
        "fma",
        "avx_vnni",
        "avx512f",
        "avx512bw",
        "avx512vl",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "amx_tile",
        "amx_int8",
        "amx_bf16",
        # Arm
        "asimd",
        "asimddp",
        "i8mm",
        "bf16",
        "sve",
        "sve2",
    }
)


def parse_cpuinfo(text: str) -> tuple[str | None, list[str]]:
    """Return the CPU's name (None where Linux gives none, as on Arm) and its flags of interest, sorted.

    ``text`` is the content of ``/proc/cpuinfo``; the first core speaks for all.
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags", fields.get("Features", "")).split()
    return fields.get("model name"), sorted(FLAGS_OF_INTEREST.intersection(flags))


def cpu_description() -> dict[str, Any]:
    """Return ``{model, flags, logical_cores, physical_cores}`` of this machine.

    ``flags`` holds only those of interest and is empty where there is no ``/proc/cpuinfo``;
    a core count that the system does not tell is None.
    """
    name, flags = parse_cpuinfo(CPUINFO.read_text(encoding="utf-8")) if CPUINFO.exists() else (None, [])
    return {
        "model": name or platform.processor() or platform.machine(),
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
