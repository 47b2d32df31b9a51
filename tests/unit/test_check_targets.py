"""The command that names the nodes of a file that execution providers refuse."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import check_targets
from messages import raises
from onnxproof.cli import UserError


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The name of a file in the working directory, with a product of integers."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], "ranges"),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["y"], "product"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.INT32, None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(np.ones((4, 2), np.int8), "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    return "model.onnx"


def test_refused_nodes_are_named_and_end_with_status_1(file, capsys):
    with pytest.raises(SystemExit) as ended:
        check_targets.main([file, "--targets", "tensorrt", "qnn"])
    assert ended.value.code == 1
    assert capsys.readouterr().out.splitlines() == [
        "model.onnx on TensorRT: 2 of 2 nodes are refused",
        "  DynamicQuantizeLinear ranges: the operator is not listed",
        "  MatMulInteger product: the operator is not listed",
        "model.onnx on QNN (NPUs of Qualcomm, backend HTP): 0 of 2 nodes are refused; "
        "the shapes of x must be fixed first",
    ]


def test_a_file_without_refused_nodes_ends_well_and_json_says_the_same(file, capsys):
    check_targets.main([file, "--targets", "qnn", "--json"])
    assert json.loads(capsys.readouterr().out) == {
        "model.onnx": {"qnn": {"nodes": 2, "refused": [], "not_fixed": ["x"]}}
    }


@pytest.mark.parametrize("content", [None, b"no graph", b""], ids=["absent", "text", "empty"])
def test_what_is_no_onnx_file_is_told(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)
    with raises(UserError):
        check_targets.main(["model.onnx"])
