"""Do the intervals hold the true difference, and how often does a variant pass that is worse by the limit?"""

import math

import numpy as np
import pytest
from scipy.stats import norm

from messages import raises
from onnxproof.cli import UserError
from onnxproof.evaluation.intervals import paired_proportions
from onnxproof.evaluation.metrics import METRICS
from onnxproof.evaluation.paired import compare, judge

PAIRS = 1000
#: The share of 1,000 simulated pairs whose interval holds the true difference; 95 % vary by 1.4 points.
COVERAGE = (0.93, 0.97)
FALSELY_PASSED = 0.05


def answers_of(right):
    """Answers of a classifier of two labels to inputs of the label 1."""
    return [{"scores": [0.2, 0.8] if is_right else [0.8, 0.2]} for is_right in right]


def simulate_shares(inputs, gained, lost, seed=0):
    """How often the interval holds the difference of two classifiers, and how often the worse one passes."""
    draw, held, passed = np.random.default_rng(seed), 0, 0
    difference = gained - lost
    for _ in range(PAIRS):
        kinds = draw.choice(4, inputs, p=[gained, lost, 0.7, 0.3 - gained - lost])
        low, high = paired_proportions(int((kinds == 0).sum()), int((kinds == 1).sum()), inputs)
        held += low <= difference <= high
        passed += low >= difference  # the limit is exactly how much worse it is
    return held / PAIRS, passed / PAIRS


@pytest.mark.parametrize(
    ("inputs", "gained", "lost"),
    [(200, 0.02, 0.03), (1000, 0.02, 0.03), (1000, 0.005, 0.015), (5000, 0.005, 0.005), (50, 0.1, 0.1)],
)
def test_the_interval_of_shares_holds_the_difference(inputs, gained, lost):
    held, passed = simulate_shares(inputs, gained, lost)
    assert COVERAGE[0] <= held <= COVERAGE[1]
    assert passed < FALSELY_PASSED


@pytest.mark.parametrize(("inputs", "gained", "lost"), [(50, 0.002, 0.008), (200, 0.002, 0.003)])
def test_with_hardly_a_change_the_interval_is_rather_too_wide(inputs, gained, lost):
    held, passed = simulate_shares(inputs, gained, lost)
    assert held >= COVERAGE[0]
    assert passed < FALSELY_PASSED


@pytest.mark.slow
@pytest.mark.parametrize("inputs", [100, 400])
def test_the_interval_of_a_mean_holds_the_difference(inputs):
    """Errors of a regression: a variant adds noise to them, and a little to all."""
    metric, draw, held, passed = METRICS["mean_absolute_error"], np.random.default_rng(1), 0, 0
    # The mean of noise that is cut at the errors: E[max(n, -e)] with e ~ Exp(1) and n ~ N(0, spread²).
    spread = 0.2
    cut = spread / math.sqrt(2 * math.pi) - 0.5 + math.exp(spread**2 / 2) * norm.cdf(-spread)
    difference = 0.05 + cut
    for _ in range(PAIRS):
        errors = draw.exponential(1.0, inputs)
        changed = errors + 0.05 + draw.normal(0, spread, inputs).clip(-errors)
        labels = [0.0] * inputs
        compared = compare(metric, labels, list(errors), list(np.abs(changed)), resamples=1000)
        held += compared.low <= difference <= compared.high
        passed += judge(compared, difference, higher_is_better=False).passed
    assert COVERAGE[0] <= held / PAIRS <= COVERAGE[1]
    assert passed / PAIRS < FALSELY_PASSED


def test_the_gate_passes_fails_or_asks_for_more():
    right = np.arange(2000) % 10 < 9
    metric, labels = METRICS["accuracy"], [1] * 2000
    same = compare(metric, labels, answers_of(right), answers_of(right))
    assert (same.difference, same.changed, same.gained, same.lost) == (0.0, 0.0, 0, 0)
    assert judge(same, 0.005, higher_is_better=True).passed
    few = compare(metric, labels[:100], answers_of(right[:100]), answers_of(right[:100]))
    undecided = judge(few, 0.005, higher_is_better=True)
    assert (undecided.passed, undecided.verdict) == (False, "undecided")
    # With no change at all, the end of the interval is z² / (n + z²).
    assert undecided.inputs_needed == pytest.approx(3.8415 * (1 / 0.005 - 1), abs=1)
    worse = right.copy()
    worse[:100] = False
    found = judge(compare(metric, labels, answers_of(right), answers_of(worse)), 0.005, higher_is_better=True)
    assert (found.passed, found.verdict) == (False, "worse")


def test_the_same_seed_gives_the_same_interval():
    draw = np.random.default_rng(3)
    labels, first = list(draw.normal(size=60)), list(draw.normal(size=60))
    second = list(np.array(first) + draw.normal(size=60) / 10)
    metric = METRICS["spearman"]
    once, again = (compare(metric, labels, first, second, seed=5) for _ in range(2))
    assert once == again
    assert once.low < once.difference < once.high


def test_every_input_needs_a_label_and_both_answers():
    with raises(UserError):
        compare(METRICS["accuracy"], [1, 1], answers_of([True, True]), answers_of([True]))
