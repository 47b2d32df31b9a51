import numpy as np
import pytest
from onnx import TensorProto, helper

from graphs import FLOAT, INT64, build, constants_of, op_types, run
from onnxproof.quantization.passes.embedding_rows import quantize_embedding_rows, quantize_rows


def embedding_model(table, nodes=None):
    nodes = nodes or [helper.make_node("Gather", ["table", "ids"], ["y"], name="embed")]
    return build(nodes, {"ids": (INT64, ["n"])}, {"y": (FLOAT, None)}, {"table": table})


def test_rows_have_their_own_scale_and_exact_integers():
    table = np.array([[127, -63.5, 0], [1.27, 0.01, -0.02], [0, 0, 0]], dtype=np.float32)

    rows, scales = quantize_rows(table)

    np.testing.assert_array_equal(rows, [[127, -64, 0], [127, 1, -2], [0, 0, 0]])
    np.testing.assert_allclose(scales, [[1.0], [0.01], [1.0]], rtol=1e-6)
    assert rows.dtype == np.int8
    assert scales.dtype == np.float32


def test_the_graph_answers_within_half_a_step_of_its_own_row():
    rng = np.random.default_rng(0)
    table = (rng.normal(size=(50, 16)) * 10.0 ** rng.integers(-4, 4, (50, 1))).astype(np.float32)
    table[7] = 0
    model = embedding_model(table)
    quantize_embedding_rows(model, minimum_rows=50)
    ids = np.arange(50)

    [y] = run(model, {"ids": ids})

    half_step = np.abs(table).max(axis=1, keepdims=True) / 127 / 2
    assert (np.abs(y - table) <= half_step * (1 + 1e-5)).all()
    assert (y[7] == 0).all()
    assert op_types(model) == ["Gather", "Cast", "Gather", "Mul"]
    assert sorted(values.dtype.name for values in constants_of(model).values()) == ["float32", "int8"]


def test_gathers_of_one_table_share_it():
    table = np.random.default_rng(1).normal(size=(300, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["a"]),
        helper.make_node("Gather", ["table", "ids"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    model = embedding_model(table, nodes)

    quantize_embedding_rows(model)

    assert len(model.graph.initializer) == 2
    [y] = run(model, {"ids": np.array([3, 5])})
    np.testing.assert_allclose(y, 2 * table[[3, 5]], atol=np.abs(table).max() / 127)


@pytest.mark.parametrize(
    ("rows", "nodes"),
    [
        (255, [helper.make_node("Gather", ["table", "ids"], ["y"])]),
        (300, [helper.make_node("Gather", ["table", "ids"], ["y"], axis=1)]),
        (
            300,
            [
                helper.make_node("Gather", ["table", "ids"], ["a"]),
                helper.make_node("MatMul", ["a", "table_again"], ["b"]),
                helper.make_node("Identity", ["b"], ["y"]),
                helper.make_node("Transpose", ["table"], ["table_again"], perm=[1, 0]),
            ],
        ),
    ],
    ids=["too few rows", "other axis", "read by another operator"],
)
def test_other_tables_stay(rows, nodes):
    table = np.ones((rows, 4), dtype=np.float32)
    model = embedding_model(table, nodes)
    before = op_types(model)

    quantize_embedding_rows(model)

    assert op_types(model) == before
    np.testing.assert_array_equal(constants_of(model)["table"], table)


def test_a_table_the_caller_may_override_stays():
    table = np.ones((300, 4), dtype=np.float32)
    model = embedding_model(table)
    model.graph.input.append(helper.make_tensor_value_info("table", TensorProto.FLOAT, [300, 4]))

    quantize_embedding_rows(model)

    assert op_types(model) == ["Gather"]
