"""How sure a measured ratio is."""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000


def speedup_interval(
    ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Return the median over rounds of ``theirs / ours`` and the ends of its bootstrap confidence interval.

    Both hold the times of each round, of any one unit; a round counts by its median. Whole rounds are drawn again,
    with replacement: what disturbs a round disturbs both of its sides.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, the percentile interval.
    """
    ratios = np.array([np.median(right) / np.median(left) for left, right in zip(ours, theirs, strict=True)])
    drawn = np.random.default_rng(seed).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(np.median(ratios)), float(low), float(high)
