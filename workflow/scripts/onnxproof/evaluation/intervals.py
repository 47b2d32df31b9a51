"""Intervals that hold the true difference of two models with a probability of 95 %.

The inputs are taken for a random sample of those that the models will meet; both models answer the same inputs.
``docs/evaluation.md`` has the coverage that was measured.
"""

import math

import numpy as np

from onnxproof.evaluation.metric import Array

#: The probability with which an interval holds the true difference.
CONFIDENCE = 0.95
#: How many draws are held at once: 32 MB an array of float64.
DRAWS_AT_ONCE = 2**22
#: Fewer changed inputs than these do not show what a changed answer does to the metric.
FEW = 10

Interval = tuple[float, float]


def paired_proportions(gained: float, lost: float, inputs: float) -> Interval:
    """Return the interval of the difference of two shares of the same inputs.

    It is the score interval of Tango (1998), "Equivalence test and confidence interval for the difference in
    proportions for the paired-sample design", Statistics in Medicine 17, 891-908. Unlike Wald's, it is wide enough
    where few inputs are answered differently. Where none is, it reaches z² / (n + z²) to each side.

    Args:
        gained: how many inputs only the variant answers rightly.
        lost: how many inputs only the original answers rightly.
        inputs: how many inputs there are.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    z = float(norm.ppf((1 + CONFIDENCE) / 2))
    if gained == lost == 0:
        return -(z**2) / (inputs + z**2), z**2 / (inputs + z**2)

    def distance(difference: float, sign: int) -> float:
        """Return by how many inputs the data lie beyond the end of what this difference makes likely."""
        linear = (2 * inputs - gained + lost) * difference - gained - lost
        constant = -lost * difference * (1 - difference)
        # The likeliest share of lost inputs, if this is the true difference.
        share = (math.sqrt(max(linear**2 - 8 * inputs * constant, 0.0)) - linear) / (4 * inputs)
        variance = max(inputs * (2 * share + difference * (1 - difference)), 0.0)
        return gained - lost - inputs * difference - sign * z * math.sqrt(variance)

    measured = (gained - lost) / inputs
    low = -1.0 if lost == inputs else brentq(distance, -1.0, measured, args=(1,))
    high = 1.0 if gained == inputs else brentq(distance, measured, 1.0, args=(-1,))
    return float(low), float(high)


def studentized_bootstrap(values: Array, difference: float, resamples: int, seed: int) -> Interval:
    """Return the interval of a difference from the influence of each input on it.

    It is the bootstrap-t interval: samples drawn with replacement tell how far their mean lies from that of the
    inputs, in their own standard errors (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 12.5).
    It is NaN for a single input, and has no width where all influences are equal.

    Args:
        values: the influences, (n,) in float64.
        difference: what was measured on all inputs.
        resamples: how many samples are drawn.
        seed: of the random numbers.
    """
    inputs = len(values)
    if inputs == 1:  # says nothing of others
        return math.nan, math.nan
    spread = float(values.std(ddof=1))
    if np.ptp(values) <= np.finfo(np.float64).eps * np.abs(values).max(initial=0.0):
        return difference, difference
    centred = (values - values.mean()) / spread
    generator = np.random.default_rng(seed)
    at_once = max(1, DRAWS_AT_ONCE // inputs)
    deviations = []
    for start in range(0, resamples, at_once):
        samples = min(at_once, resamples - start)
        drawn = centred[generator.integers(0, inputs, size=(samples, inputs), dtype=np.int32)]
        means = drawn.mean(axis=1)
        variances = np.einsum("sn,sn->s", drawn, drawn) / inputs - means**2
        # A sample that drew a single value has no spread, and lies infinitely many standard errors away.
        deviations.append(means / np.sqrt(np.maximum(variances, 1e-12)))
    high, low = np.quantile(np.concatenate(deviations), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    scale = spread * math.sqrt((inputs - 1) / inputs)
    return difference - float(low) * scale, difference - float(high) * scale


def bounded_bootstrap(
    values: Array, changed: Array, largest_change: float, difference: float, resamples: int, seed: int
) -> Interval:
    """Return the interval of a difference where few inputs changed what they add to the metric.

    Nothing but a bound is known then of what a changed answer does. Inputs have random weights, from a Dirichlet
    distribution, as in the Bayesian bootstrap. To the sample is added one input that is worse by as much as is
    possible, for the lower end, or better, for the upper one. For shares this is the exact interval of Clopper and
    Pearson. Sources: Gaffke (2005), "Three test statistics for a nonparametric one-sided hypothesis on the mean of a
    nonnegative variable"; Phan, Thomas and Learned-Miller (2021), "Towards practical mean bounds for small samples".

    Args:
        values: the influences, (n,) in float64.
        changed: which of them belong to inputs that changed, (n,).
        largest_change: the largest influence of a single input.
        difference: what was measured on all inputs.
        resamples: how many draws of weights there are.
        seed: of the random numbers.
    """
    generator = np.random.default_rng(seed)
    own, others = values[changed], values[~changed]
    weights = generator.standard_exponential((resamples, len(own)))
    together = generator.standard_gamma(len(others), resamples)  # the weight of those that did not change
    added = generator.standard_exponential(resamples)
    total = weights.sum(axis=1) + together + added
    largest = max(largest_change, float(np.abs(values).max()))
    known = weights @ own + together * (others.mean() if len(others) else 0.0)
    low = np.quantile((known - largest * added) / total, (1 - CONFIDENCE) / 2)
    high = np.quantile((known + largest * added) / total, (1 + CONFIDENCE) / 2)
    shift = difference - float(values.mean())  # a pseudo-value's mean is not quite the difference
    return float(low) + shift, float(high) + shift
