"""The interval of a speed-up."""

import numpy as np
import pytest

from comparison.intervals import speedup_interval


def test_the_median_ratio_lies_within_its_interval():
    generator = np.random.default_rng(1)
    theirs = generator.normal(20, 1, size=(30, 3)).tolist()
    ours = generator.normal(10, 1, size=(30, 3)).tolist()
    speedup, low, high = speedup_interval(ours, theirs)
    assert low < speedup < high
    assert low == pytest.approx(2, abs=0.15)
    assert high == pytest.approx(2, abs=0.15)


def test_a_busy_spell_that_both_feel_changes_nothing():
    ours, theirs = [[1.0, 1.1], [1.0, 1.0], [1.2, 1.0]], [[2.0, 2.1], [2.0, 2.2], [2.0, 2.0]]
    busy = ([[3.5 * time for time in times] for times in ours], [[3.5 * time for time in times] for times in theirs])
    assert speedup_interval(*busy) == pytest.approx(speedup_interval(ours, theirs))


def test_fewer_rounds_are_less_sure():
    generator = np.random.default_rng(2)
    theirs, ours = generator.uniform(1, 2, size=(2, 60, 1)).tolist()
    _, low, high = speedup_interval(ours, theirs)
    _, low_of_few, high_of_few = speedup_interval(ours[:6], theirs[:6])
    assert high - low < high_of_few - low_of_few
