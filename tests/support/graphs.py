"""Tiny graphs for the tests of the quantization passes."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def build(nodes, inputs, outputs, constants):
    """Make a checked model; ``inputs`` and ``outputs`` map names to (type, shape)."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def run(model, feeds, optimize=True):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def op_types(model):
    return [node.op_type for node in model.graph.node]


def constants_of(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def linear_model(weight, bias=None, op_type="MatMul", **attributes):
    """x (batch, inputs) → one MatMul or Gemm node named ``linear`` → y."""
    constants = {"w": weight} | ({} if bias is None else {"b": bias})
    node = helper.make_node(op_type, ["x", *constants], ["y"], name="linear", **attributes)
    return build([node], {"x": (FLOAT, ["batch", None])}, {"y": (FLOAT, ["batch", None])}, constants)


def attention_model(rng, hidden=8, heads=2, weight=None, bias=None):
    """x (batch, tokens, hidden), mask_index (batch, tokens) → one Attention node named ``attention`` → y."""
    node = helper.make_node(
        "Attention",
        ["x", "qkv_weight", "qkv_bias", "mask_index"],
        ["y"],
        name="attention",
        domain="com.microsoft",
        num_heads=heads,
    )
    constants = {
        "qkv_weight": rng.normal(size=(hidden, 3 * hidden)).astype(np.float32) if weight is None else weight,
        "qkv_bias": rng.normal(size=3 * hidden).astype(np.float32) if bias is None else bias,
    }
    inputs = {"x": (FLOAT, ["batch", "tokens", hidden]), "mask_index": (TensorProto.INT32, ["batch", "tokens"])}
    return build([node], inputs, {"y": (FLOAT, ["batch", "tokens", hidden])}, constants)


def mask_of(*lengths):
    """Return the mask of texts of these lengths, int32 (texts, longest), 0 for what is hidden."""
    return (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int32)


def same_structure(left: onnx.ModelProto, right: onnx.ModelProto) -> bool:
    return left.SerializeToString(deterministic=True) == right.SerializeToString(deterministic=True)
