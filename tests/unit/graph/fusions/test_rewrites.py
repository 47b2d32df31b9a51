"""Graph rewrites: the same answers from fewer nodes, and hands off what only looks alike."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxproof.graph.fusions.rewrites import normalize_with_one_node, remove_unused_domains, remove_unused_nodes


def normalization(clamp: float = 1e-12, keepdims: int = 1) -> onnx.ModelProto:
    """F.normalize(x, dim=1) as PyTorch exports it."""
    nodes = [
        helper.make_node("ReduceL2", ["x", "axes"], ["norm"], keepdims=keepdims),
        helper.make_node("Clip", ["norm", "clamp", ""], ["clipped"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Expand", ["clipped", "shape"], ["expanded"]),
        helper.make_node("Div", ["x", "expanded"], ["y"], name="divide"),
    ]
    constants = [
        numpy_helper.from_array(np.array([1], np.int64), "axes"),
        numpy_helper.from_array(np.array(clamp, np.float32), "clamp"),
    ]
    graph = helper.make_graph(
        nodes,
        "normalize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_normalization_becomes_one_node_with_the_same_answers():
    model = normalization()
    x = np.vstack([np.random.default_rng(0).normal(size=(5, 4)), np.zeros((1, 4))]).astype(np.float32)
    before = run(model, x)
    assert normalize_with_one_node(model) == 1
    assert [node.op_type for node in model.graph.node] == ["LpNormalization"]
    assert not model.graph.initializer
    assert run(model, x) == pytest.approx(before, abs=1e-7)


def test_a_clamp_that_would_show_is_left_alone():
    model = normalization(clamp=0.5)
    assert normalize_with_one_node(model) == 0
    assert len(model.graph.node) == 5


def graph_with_if(*nodes, output):
    """Return a graph of these nodes and an If behind them, whose branches read the tensor ``outer``."""
    branch = helper.make_graph(
        [helper.make_node("Identity", ["outer"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1])],
    )
    choice = helper.make_node("If", ["condition"], [output], then_branch=branch, else_branch=branch)
    return helper.make_graph(
        [*nodes, choice],
        "with_if",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )


def test_nodes_that_only_a_subgraph_reads_are_kept():
    graph = graph_with_if(
        helper.make_node("Neg", ["x"], ["outer"]),
        helper.make_node("Abs", ["x"], ["dead"]),
        helper.make_node("Neg", ["dead"], ["dead_too"]),
        output="y",
    )
    remove_unused_nodes(graph)
    assert [node.op_type for node in graph.node] == ["Neg", "If"]


def test_what_only_an_unused_subgraph_reads_goes_with_it():
    graph = graph_with_if(
        helper.make_node("Neg", ["x"], ["outer"]), helper.make_node("Abs", ["x"], ["y"]), output="unused"
    )
    remove_unused_nodes(graph)
    assert [node.op_type for node in graph.node] == ["Abs"]


def test_unused_operator_sets_are_dropped():
    model = normalization()
    model.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
    remove_unused_domains(model)
    assert [entry.domain for entry in model.opset_import] == [""]
