"""Intervals that hold the true difference of two models with a given probability.

The inputs are taken for a random sample of those that the models will meet; both models answer the same inputs.
"""

from collections.abc import Callable

import numpy as np

from onnxproof.evaluation.metric import Array

#: The probability with which an interval holds the true difference.
CONFIDENCE = 0.95
#: The largest number of draws held at once, (samples, n) in float64: 32 MB an array.
DRAWS_AT_ONCE = 2**22

Interval = tuple[float, float]


def paired_proportions(gained: int, lost: int, inputs: int, confidence: float = CONFIDENCE) -> Interval:
    """Return the interval of the difference of two shares of the same inputs.

    It is the score interval of Tango (1998), "Equivalence test and confidence interval for the difference in
    proportions for the paired-sample design", Statistics in Medicine 17, 891-908. Unlike Wald's, it is wide enough
    where few inputs are answered differently, and has a width where none is: z² / (n + z²) on each side.

    Args:
        gained: inputs that only the variant answers rightly.
        lost: inputs that only the original answers rightly.
        inputs: all inputs.
        confidence: the probability with which the interval holds the true difference.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    z = norm.ppf((1 + confidence) / 2)
    if gained == lost == 0:
        return -float(z**2 / (inputs + z**2)), float(z**2 / (inputs + z**2))

    def deviation(difference: float, sign: int) -> float:
        """Return by how much the data lie above the limit that ``difference`` would set them."""
        linear = (2 * inputs - gained + lost) * difference - gained - lost
        constant = -lost * difference * (1 - difference)
        # The share of lost inputs that is the likeliest, if the true difference is this one.
        share = (np.sqrt(max(linear**2 - 8 * inputs * constant, 0.0)) - linear) / (4 * inputs)
        variance = max(inputs * (2 * share + difference * (1 - difference)), 0.0)
        return float(gained - lost - inputs * difference - sign * z * np.sqrt(variance))

    measured = (gained - lost) / inputs
    low = -1.0 if lost == inputs else brentq(deviation, -1.0, measured, args=(1,))
    high = 1.0 if gained == inputs else brentq(deviation, measured, 1.0, args=(-1,))
    return float(low), float(high)


def resampled_differences(difference: Callable[[Array], Array], inputs: int, resamples: int, seed: int) -> Array:
    """Return the differences of two models on inputs drawn with replacement, (resamples,) in float64.

    Args:
        difference: takes how often each input is drawn, (samples, inputs), and returns the difference in each sample.
        inputs: how many inputs there are.
        resamples: how many samples are drawn.
        seed: of the random numbers.
    """
    generator = np.random.default_rng(seed)
    at_once = max(1, DRAWS_AT_ONCE // inputs)
    parts = []
    for start in range(0, resamples, at_once):
        samples = min(at_once, resamples - start)
        drawn = generator.integers(0, inputs, size=(samples, inputs))
        drawn += np.arange(samples)[:, None] * inputs
        times = np.bincount(drawn.ravel(), minlength=samples * inputs).reshape(samples, inputs)
        parts.append(difference(times.astype(np.float64)))
    return np.concatenate(parts)


def percentile(differences: Array, confidence: float = CONFIDENCE) -> Interval:
    """Return the interval between two percentiles of the differences of samples; NaN where one is not defined."""
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
