from collections.abc import Iterator

import numpy as np
import pytest
from onnx import helper

from graphs import FLOAT, build, op_types
from messages import raises
from onnxproof.quantization.activations import ROWS_PER_RUN, Calibration, record_activations


def doubling_model():
    nodes = [helper.make_node("Add", ["x", "x"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    spec = (FLOAT, ["batch", "tokens", 2])
    return build(nodes, {"x": spec}, {"y": spec}, {})


def test_magnitudes_over_all_runs_and_rows_of_each():
    first = np.array([[[1, -5], [0, 2]]], dtype=np.float32)
    second = np.arange(200, dtype=np.float32).reshape(1, 100, 2) / 100

    recorded = record_activations(doubling_model(), [{"x": first}, {"x": second}], ["h", "y"])

    np.testing.assert_allclose(recorded["h"].channel_max, [3.96, 10])
    np.testing.assert_allclose(recorded["y"].channel_max, [3.96, 4])
    rows = recorded["h"].rows
    assert rows.shape == (2 + ROWS_PER_RUN, 2)
    np.testing.assert_array_equal(rows[:2], 2 * first[0])
    np.testing.assert_array_equal(rows[[2, -1]], 2 * second[0, [0, -1]])


def test_the_model_is_not_changed_and_no_input_is_an_error():
    model = doubling_model()
    with raises(ValueError):
        record_activations(model, [], ["h"])
    assert op_types(model) == ["Add", "Relu"]
    assert [value.name for value in model.graph.output] == ["y"]


class CountedRuns(Calibration):
    """Calibration inputs that count how often all of them are run."""

    runs = 0

    def __iter__(self) -> Iterator:
        self.runs += 1
        return super().__iter__()


def test_the_same_model_is_run_once_for_the_same_tensors_and_any_other_is_run():
    inputs = CountedRuns([{"x": np.array([[[1, -5]]], dtype=np.float32)}])
    model = doubling_model()
    first = record_activations(model, inputs, ["h", "y"])
    assert record_activations(doubling_model(), inputs, ["h", "y"]) is first
    assert inputs.runs == 1
    assert list(record_activations(model, inputs, ["h"])) == ["h"]
    model.graph.node[0].op_type = "Mul"
    np.testing.assert_array_equal(record_activations(model, inputs, ["h", "y"])["h"].rows, [[1, 25]])
    assert inputs.runs == 3
    assert record_activations(doubling_model(), inputs, ["h", "y"]) is first


@pytest.mark.parametrize(("recordings", "runs"), [(2, 3), (1, 3), (0, 5)])
def test_what_was_asked_for_longest_ago_is_forgotten_first(monkeypatch, recordings, runs):
    inputs = CountedRuns([{"x": np.ones((1, 1, 2), dtype=np.float32)}])
    size = 3 * 2 * 4  # a row, the lowest and the highest values, of two channels of four bytes
    monkeypatch.setattr("onnxproof.quantization.activations.REMEMBERED_BYTES", recordings * size)
    for tensor in ("h", "h", "y", "x", "x"):
        record_activations(doubling_model(), inputs, [tensor])
    assert inputs.runs == runs
    assert len(inputs._recorded) == recordings
