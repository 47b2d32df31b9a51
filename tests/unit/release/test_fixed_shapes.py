"""Graphs with fixed shapes in a release: judged, unchanged, named after their shapes."""

import onnx
import pytest
from onnx import TensorProto, helper

from messages import raises
from onnxproof.cli import UserError
from onnxproof.files import describe_files, write_json
from records import make_output, make_released_variant
from release import add_fixed

LIMITS = {"fp32": {"cosine_min": 0.99, "batch_cosine_min": 0.99999}}


@pytest.fixture
def results(tmp_path):
    """A model's folder with a graph whose shapes are fixed, and what was measured on it."""
    made = tmp_path / "fixed/fp32/1x8"
    made.mkdir(parents=True)
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [value])
    graph.output[0].name = "y"
    onnx.save(helper.make_model(graph), made / "model.onnx")
    write_record(tmp_path, 0.999999)
    return tmp_path


def write_record(results, batch_cosine):
    record = {
        "model": "tiny",
        "variant": "fp32",
        "task": "sentence-similarity",
        "shape": [1, 8],
        "fitting": 20,
        "outputs": {"sentence_embedding": make_output()},
        "task_metrics": {"cosine_min": 0.999},
        "batch_invariance": {"batch_size": 1, "max_abs_diff": 0.1, "cosine_min": batch_cosine},
        "reference_batch_invariance": {"batch_size": 8, "inputs": 20, "max_abs_diff": None, "cosine_min": None},
        "files": describe_files(results / "fixed/fp32/1x8"),
        "versions": {},
    }
    write_json(results / "fixed/fp32/1x8.json", record)


def add(results, place="fp32/1x8"):
    """Return the entries of the variants after the graph was added to a release."""
    (results / "release/onnx").mkdir(parents=True, exist_ok=True)
    variants = {"fp32": make_released_variant()}
    add_fixed([place], variants, results, LIMITS, results / "release")
    return variants


def test_a_graph_within_its_limits_is_shipped(results):
    [one] = add(results)["fp32"]["fixed"]
    assert one["file"] == "onnx/model_1x8.onnx"
    assert (results / "release" / one["file"]).read_bytes() == (results / "fixed/fp32/1x8/model.onnx").read_bytes()
    assert one["fitting"] == 20
    assert [limit["metric"] for limit in one["limits"]] == ["cosine_min", "batch_cosine_min"]


def test_a_graph_whose_answers_padding_changes_is_not(results):
    write_record(results, 0.98)
    with raises(UserError):
        add(results)


def test_a_graph_that_was_changed_is_not(results):
    (results / "fixed/fp32/1x8/model.onnx").write_bytes(b"other")
    with raises(UserError):
        add(results)
