"""What is counted as work, and the products that show the limit."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from comparison.limit import PEAK_SHAPE, matrix_operations, peak_operations, save_peak_model


def model_of(nodes, inputs, constants):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_products_of_constants_and_of_activations_are_counted():
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["projected"]),
        helper.make_node("Transpose", ["projected"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["projected", "turned"], ["output"]),
    ]
    model = model_of(nodes, {"x": ["batch", "tokens", 8]}, {"weight": (8, 6)})
    counted = matrix_operations(model, {"x": np.ones((2, 5, 8), np.float32)})
    assert counted == 2 * (2 * 5 * 6) * 8 + 2 * (2 * 5 * 5) * 6


@pytest.mark.parametrize(("transposed", "shape"), [(0, (8, 6)), (1, (6, 8))])
def test_gemm_is_counted_however_it_stores_its_weight(transposed, shape):
    model = model_of(
        [helper.make_node("Gemm", ["x", "weight"], ["output"], transB=transposed)], {"x": [None, 8]}, {"weight": shape}
    )
    assert matrix_operations(model, {"x": np.ones((3, 8), np.float32)}) == 2 * 3 * 6 * 8


def test_convolutions_are_counted():
    model = model_of(
        [helper.make_node("Conv", ["x", "weight"], ["output"], strides=[4, 4])],
        {"x": [None, 3, 16, 16]},
        {"weight": (10, 3, 4, 4)},
    )
    assert matrix_operations(model, {"x": np.ones((1, 3, 16, 16), np.float32)}) == 2 * (10 * 4 * 4) * (3 * 4 * 4)


@pytest.mark.parametrize(
    ("kind", "dtype", "result"), [("float", np.float32, np.float32), ("integer", np.uint8, np.int32)]
)
def test_the_peak_is_one_large_product(tmp_path, kind, dtype, result):
    save_peak_model(kind, tmp_path)
    rows, inner, columns = PEAK_SHAPE
    assert peak_operations() == 2 * rows * inner * columns
    model = onnx.load(tmp_path / "model.onnx")
    assert len(model.graph.node) == 1
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    weight = numpy_helper.to_array(model.graph.initializer[0])
    (product,) = session.run(None, {"input_values": np.ones((1, inner), dtype)})
    assert product.dtype == result
    np.testing.assert_array_equal(product[0], weight.astype(np.int64).sum(axis=0))
