"""What a long step tells in its log of how far it is."""

import pytest

from onnxproof.formatting import format_duration
from onnxproof.progress import EVERY_S, Progress


def lines_of(seconds_a_run: float, runs: int) -> list[str]:
    lines: list[str] = []
    now = 100.0
    progress = Progress("model int8", 10 * runs, lines.append, lambda: now)
    for _ in range(runs):
        now += seconds_a_run
        progress.count(10)
    return lines


def test_a_long_step_tells_what_is_done_and_how_long_the_rest_takes():
    assert lines_of(EVERY_S / 2, 6) == [
        "model int8: 20 of 60 inputs done, about 40 s left",
        "model int8: 40 of 60 inputs done, about 20 s left",
    ]


def test_a_short_step_tells_nothing():
    assert lines_of(EVERY_S / 10, 9) == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (121, "2 min"), (7100, "118 min"), (12600, "3.5 h")]
)
def test_durations_have_the_unit_that_a_reader_expects(seconds, text):
    assert format_duration(seconds) == text


def test_a_step_that_counts_anything_but_inputs_says_what():
    lines: list[str] = []
    times = iter([0.0, EVERY_S])
    Progress("rounding weights", 4, lines.append, lambda: next(times), "activations").count(1)
    assert lines == ["rounding weights: 1 of 4 activations done, about 60 s left"]
