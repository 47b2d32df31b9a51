"""How what was measured is written for a reader: differences and agreements, and what they were measured with."""

import math


def format_figure(value: float | None) -> str:
    """Format a measured difference or agreement; ``None`` is a value that was not finite.

    What is just short of 1 keeps enough digits not to read as 1.
    """
    if value is None:
        return "not finite"
    if 1 - 1e-9 < value < 1:
        return ">0.999999999"
    if 0.99 < value < 1:
        digits = min(math.ceil(-math.log10(1 - value)) + 1, 9)
        return f"{value:.{digits}f}".rstrip("0")
    return f"{value:.3g}" if abs(value) < 0.01 else f"{value:.5g}"


def format_shape(batch: int, sequence: int | None) -> str:
    """Format a shape of inputs: batch x tokens, or the batch alone where inputs have no length."""
    return f"{batch}" if sequence is None else f"{batch}x{sequence}"


def format_threads(count: int) -> str:
    """Format a number of threads: ``2 threads``."""
    return f"{count} thread{'' if count == 1 else 's'}"


def format_duration(seconds: float) -> str:
    """Format a duration: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def format_pair(measured: float | None, allowed: float) -> tuple[str, str]:
    """Format a measured value and its bound, with as many digits as tell them apart."""
    texts = (format_figure(measured), f"{allowed:g}")
    if measured is None or measured == allowed or texts[0] != texts[1]:
        return texts
    return (repr(measured), repr(allowed))
