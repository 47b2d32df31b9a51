"""The limit: how fast this CPU multiplies matrices through onnxruntime, and how much of that a model's work needs."""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxproof.graph.editor import attribute_of
from onnxproof.quantization.activations import Feeds
from onnxproof.quantization.sessions import serialize_exposing

#: (rows, inner, columns) of the products whose speed is called the peak: large enough to hide everything else, and
#: square, so that neither operand is favoured.
PEAK_SHAPE = (768, 1024, 1024)
PEAK_KINDS = ("float", "integer")


def peak_operations() -> int:
    """Return the multiplications and additions of one peak product."""
    return 2 * prod(PEAK_SHAPE)


def save_peak_model(kind: str, folder: Path) -> None:
    """Write a model that is one large product with a constant: MatMul in float32, or MatMulInteger of U8 and S8."""
    _, inner, columns = PEAK_SHAPE
    generator = np.random.default_rng(0)
    integer = kind == "integer"
    values = generator.integers(-64, 65, size=(inner, columns))
    weight = numpy_helper.from_array(values.astype(np.int8 if integer else np.float32), "weight")
    node = helper.make_node("MatMulInteger" if integer else "MatMul", ["input_values", "weight"], ["product"])
    element = TensorProto.UINT8 if integer else TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "peak",
        [helper.make_tensor_value_info("input_values", element, ["batch", inner])],
        [helper.make_tensor_value_info("product", TensorProto.INT32 if integer else TensorProto.FLOAT, None)],
        [weight],
    )
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "model.onnx"
    )


def matrix_operations(model: onnx.ModelProto, feeds: Feeds) -> int:
    """Return the multiplications and additions of all MatMul, Gemm and Conv of a plain ONNX graph for one call.

    The graph is run once on ``feeds``: only then are the sizes of products of two activations known.
    """
    import onnxruntime

    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm", "Conv")]
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    tensors = {node.output[0] for node in products} | {node.input[1] for node in products} - constants.keys()
    names = sorted(tensors - {value.name for value in model.graph.input})
    options = onnxruntime.SessionOptions()
    # An optimized graph would no longer have these tensors.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = serialize_exposing(model, names)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    outputs = session.run(names, dict(feeds))
    shapes = constants | {name: output.shape for name, output in zip(names, outputs, strict=True)}
    return sum(_operations_of(node, shapes) for node in products)


def _operations_of(node: onnx.NodeProto, shapes: Mapping[str, Sequence[int]]) -> int:
    right = shapes[node.input[1]]
    if node.op_type == "Conv":
        inner = prod(right[1:])
    else:
        inner = right[-1] if node.op_type == "Gemm" and attribute_of(node, "transB", 0) else right[-2]
    return 2 * prod(shapes[node.output[0]]) * inner
