"""The CPU's name and those of its instruction sets that decide which matrix kernels a runtime can use."""

import platform
from pathlib import Path

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


def name_and_flags() -> tuple[str, list[str]]:
    """Return this machine's CPU and its flags of interest, sorted; no flags where there is no ``/proc/cpuinfo``."""
    name, flags = parse_cpuinfo(CPUINFO.read_text(encoding="utf-8")) if CPUINFO.exists() else (None, [])
    return name or platform.processor() or platform.machine(), flags


def cpu_name() -> str:
    """Return this machine's CPU in words, with its flags of interest as far as the system tells them."""
    name, flags = name_and_flags()
    return f"{name} ({' '.join(flags)})" if flags else name
