"""Optimizing with a fallback: a graph is kept only when it is proven to answer the same."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import optimize
from messages import raises
from onnxproof.cli import UserError
from onnxproof.files import write_json
from tiny_models import write_tokenizer

WIDTH, LABELS = 8, 3


@pytest.fixture
def exported(tmp_path):
    """A folder with a small classifier over mean token embeddings, and its tokenizer."""
    folder = tmp_path / "fp32"
    size = write_tokenizer(folder)
    generator = np.random.default_rng(0)
    table = numpy_helper.from_array(generator.normal(size=(size, WIDTH)).astype(np.float32), "table")
    head = numpy_helper.from_array(generator.normal(size=(WIDTH, LABELS)).astype(np.float32), "head")
    axes = numpy_helper.from_array(np.array([1]), "axes")
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Identity", ["embedded"], ["same"]),
        helper.make_node("ReduceMean", ["same", "axes"], ["pooled"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "head"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", LABELS])],
        [table, head, axes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    write_json(folder / "config.json", {"model_type": "bert", "max_position_embeddings": 64})
    return folder


def optimized(folder, tmp_path):
    config = {"model_type": "bert"}
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return optimize.optimize_graph(folder, "text-classification", config, scratch)


def test_nothing_to_fuse_is_told_and_the_basic_graph_taken(exported, tmp_path):
    graph, settings = optimized(exported, tmp_path)
    assert settings["method"] == "onnxruntime basic optimization"
    assert settings["reason"] == "the fusions found nothing in this graph that is faster fused"
    assert settings["proof"] == {"inputs": 5, "max_relative_diff": 0.0}
    assert "Identity" not in [node.op_type for node in graph.graph.node]


def test_a_fusion_that_changes_answers_is_not_kept(exported, tmp_path, monkeypatch):
    def spoil(model, config):
        for tensor in model.graph.initializer:
            if tensor.name == "head":
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.01, "head"))
        return model

    monkeypatch.setattr(optimize, "fuse_transformer", spoil)
    fused = iter([{"Attention": 1}, {}, {}])  # by onnxruntime's optimizer alone
    monkeypatch.setattr(optimize, "fused_operators", lambda model: next(fused))
    _, settings = optimized(exported, tmp_path)
    assert settings["method"] == "onnxruntime basic optimization"
    assert "changes an answer by" in settings["reason"]
    assert settings["rewrites"] == {"LpNormalization": 0}


def test_where_onnxruntimes_optimizer_fails_our_rules_still_hold(exported, tmp_path, monkeypatch):
    def fail(model, config):
        raise IndexError("list index out of range")

    monkeypatch.setattr(optimize, "fuse_transformer", fail)
    monkeypatch.setattr(optimize, "fused_operators", lambda model: {"Attention": 1})
    _, settings = optimized(exported, tmp_path)
    assert settings["method"] == "fusion rules"
    assert settings["reason"] == "the optimizer failed: IndexError: list index out of range"
    assert settings["proof"]["max_relative_diff"] == 0


def test_an_operator_of_onnx_itself_is_not_counted_as_fused():
    nodes = [helper.make_node("Gelu", ["x"], ["y"]), helper.make_node("Gelu", ["y"], ["z"], domain="com.microsoft")]
    model = helper.make_model(helper.make_graph(nodes, "two", [], []))
    assert optimize.fused_operators(model) == {"Gelu": 1}


def test_where_nothing_works_the_graph_stays_as_it_is(exported, tmp_path, monkeypatch):
    def fail(source, target):
        raise RuntimeError("no kernel\nand more")

    monkeypatch.setattr(optimize, "optimize_basic", fail)
    graph, settings = optimized(exported, tmp_path)
    assert graph == onnx.load(exported / "model.onnx")
    assert settings["method"] == "unchanged"
    assert settings["reason"] == "the optimizer failed: RuntimeError: no kernel"


def test_without_a_tokenizer_nothing_is_changed(exported, tmp_path):
    (exported / "tokenizer.json").unlink()
    graph, settings = optimized(exported, tmp_path)
    assert graph == onnx.load(exported / "model.onnx")
    assert settings["method"] == "unchanged"
    assert "tokenizer.json: no such file" in settings["reason"]


def test_a_graph_that_does_not_run_is_an_error(exported, tmp_path):
    model = onnx.load(exported / "model.onnx")
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((2, WIDTH), np.float32), "table"))
    onnx.save(model, exported / "model.onnx")
    with raises(UserError):
        optimized(exported, tmp_path)
