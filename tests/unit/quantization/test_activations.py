import numpy as np
from onnx import helper

from graphs import FLOAT, build, op_types
from messages import raises
from onnxproof.quantization.activations import ROWS_PER_RUN, record_activations


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
