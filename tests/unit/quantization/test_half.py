"""float16: what a graph is bound to stay within, how it is turned to float16, and how hardware would compute it."""

import itertools
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graphs import FLOAT, INT64, attention_model, build, constants_of, linear_model, mask_of, op_types, run
from messages import raises
from onnxproof.quantization.blocks import BlockFormat, quantize_to_blocks
from onnxproof.quantization.half_bounds import HIGHEST, MARGIN, measure_bounds
from onnxproof.quantization.half_emulation import emulated, uses_half
from onnxproof.quantization.passes.block_weights import quantize_block_weights, stored_weight
from onnxproof.quantization.passes.half import HIDDEN, halve, soften_masks
from onnxproof.quantization.passes.tied_tables import share_tied_tables
from quantize import certify

HALF = TensorProto.FLOAT16


def rows(count, inputs, seed=0, scale=1.0):
    return (np.random.default_rng(seed).normal(size=(count, inputs)) * scale).astype(np.float32)


def unary(op_type, inputs=8, constants=None, name="node", **attributes):
    """x (rows, inputs) → one node → y."""
    constants = constants or {}
    node = helper.make_node(op_type, ["x", *constants], ["y"], name=name, **attributes)
    return build([node], {"x": (FLOAT, ["rows", inputs])}, {"y": (FLOAT, None)}, constants)


# ------------------------------------------------------------------------------------------------------------- bounds


def test_a_node_with_infinite_values_stays_in_float32_and_its_bound_is_null():
    """As in the buckets of relative positions, which take the logarithm of distances."""
    bounds = measure_bounds(unary("Log"), [{"x": np.zeros((1, 8), np.float32)}])
    assert not bounds["node"].fits
    certificate = certify(bounds, {"node"})
    assert certificate["nodes"]["node"]["largest"] is None
    json.dumps(certificate, allow_nan=False)


def test_no_partial_sum_of_a_product_in_any_order_is_beyond_its_bound():
    x, weight = rows(4, 6, 1), rows(6, 3, 2)
    bound = measure_bounds(linear_model(weight), [{"x": x}])["linear"]
    assert bound.of == "partial sum"
    largest = 0.0
    for count in range(1, 7):
        for chosen in itertools.combinations(range(6), count):
            largest = max(largest, float(np.abs(x[:, list(chosen)] @ weight[list(chosen)]).max()))
    assert largest <= bound.largest <= 10 * largest


def test_a_normalization_is_bound_by_the_squares_that_it_sums():
    x = rows(3, 8, scale=50.0)
    constants = {"scale": np.ones(8, np.float32), "bias": np.zeros(8, np.float32)}
    bound = measure_bounds(unary("LayerNormalization", constants=constants), [{"x": x}])["node"]
    assert bound.of == "sum of squares"
    assert bound.largest == pytest.approx(float((x.astype(np.float64) ** 2).sum(axis=1).max()))
    assert not bound.fits


def test_attention_is_bound_by_its_scores():
    model = attention_model(np.random.default_rng(1), hidden=8, heads=2)
    x = rows(1, 40, scale=3.0).reshape(1, 5, 8)
    feeds = {"x": x, "mask_index": mask_of(5)}
    bound = measure_bounds(model, [feeds])["attention"]
    constants = constants_of(model)
    query, key, _ = np.split(x @ constants["qkv_weight"] + constants["qkv_bias"], 3, axis=-1)
    scores = [query[0, :, part] @ key[0, :, part].T for part in (slice(0, 4), slice(4, 8))]
    assert np.abs(scores).max() <= bound.largest


@pytest.mark.parametrize(
    ("model", "x", "lost"),
    [
        (unary("Add", constants={"c": np.array(1e-12, np.float32)}), rows(2, 8), "the constant 1e-12"),
        (
            unary("Mul", constants={"c": np.array(0.5, np.float32)}),
            np.full((2, 8), 1e-6, np.float32),
            "values of about 5e-07",
        ),
        (unary("Add", constants={"c": np.array(0.1, np.float32)}), rows(2, 8), ""),
    ],
)
def test_what_is_too_small_is_said(model, x, lost):
    bound = measure_bounds(model, [{"x": x}])["node"]
    assert bound.lost == lost
    assert bound.fits == (not lost)


def test_bounds_keep_a_margin_for_inputs_that_were_not_seen():
    for largest, fits in ((0.99 * HIGHEST / MARGIN, True), (1.01 * HIGHEST / MARGIN, False)):
        assert measure_bounds(unary("Relu"), [{"x": np.full((1, 8), largest, np.float32)}])["node"].fits == fits
    with raises(ValueError):
        measure_bounds(unary("Relu"), [])


# --------------------------------------------------------------------------------------------------------- conversion


def three_nodes():
    """x → MatMul → Tanh → MatMul → y, and the hidden values as a second output."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="up"),
        helper.make_node("Tanh", ["h"], ["t"], name="squash"),
        helper.make_node("MatMul", ["t", "w2"], ["y"], name="down"),
    ]
    constants = {"w1": rows(32, 64, 1, 0.2), "w2": rows(64, 32, 2, 0.2)}
    return build(nodes, {"x": (FLOAT, ["rows", 32])}, {"y": (FLOAT, None), "t": (FLOAT, None)}, constants)


def test_weights_are_half_and_inputs_and_outputs_are_not():
    model, x = three_nodes(), rows(5, 32)
    expected = run(model, {"x": x})
    halve(model)
    assert op_types(model) == ["Cast", "MatMul", "Tanh", "Cast", "MatMul", "Cast"]
    assert {values.dtype for values in constants_of(model).values()} == {np.dtype(np.float16)}
    assert [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)] == [FLOAT] * 3
    for made, wanted in zip(run(model, {"x": x}), expected, strict=True):
        assert made.dtype == np.float32
        np.testing.assert_allclose(made, wanted, atol=5e-3)


def test_a_node_that_is_kept_computes_in_float32_from_a_weight_in_half():
    model = three_nodes()
    halve(model, keep=["down"])
    kept = next(node for node in model.graph.node if node.name == "down")
    makers = {name: node for node in model.graph.node for name in node.output}
    assert makers[kept.input[1]].op_type == "Cast", "the weight is stored in half"
    assert "y" in kept.output, "nothing is rounded behind it"
    assert {values.dtype for values in constants_of(model).values()} == {np.dtype(np.float16)}
    with raises(ValueError):
        halve(three_nodes(), keep=["sideways"])


def test_a_constant_beyond_the_range_and_a_node_without_kernel_stay_in_float32():
    huge = unary("Max", constants={"c": np.full(8, 1e9, np.float32)})
    x = rows(2, 8)
    halve(huge, keep=["node"])
    np.testing.assert_array_equal(run(huge, {"x": x})[0], np.full((2, 8), 1e9, np.float32))
    nodes = [
        helper.make_node("Cast", ["n"], ["f"], name="cast", to=FLOAT),
        helper.make_node("Range", ["zero", "f", "one"], ["r"], name="range"),
        helper.make_node("Mul", ["r", "half"], ["y"], name="scale"),
    ]
    constants = {"zero": np.float32(0).reshape(()), "one": np.float32(1).reshape(()), "half": np.float32(0.5)}
    counted = build(nodes, {"n": (INT64, [])}, {"y": (FLOAT, None)}, {k: np.array(v) for k, v in constants.items()})
    halve(counted)
    np.testing.assert_array_equal(run(counted, {"n": np.array(4)})[0], np.float32([0, 0.5, 1, 1.5]))


@pytest.mark.parametrize("reduction", ["none", "add"])
@pytest.mark.parametrize(("op_type", "axes"), [("ScatterElements", 8), ("ScatterND", 1)])
def test_a_scatter_is_half_unless_it_adds(op_type, axes, reduction):
    """As the answers of experts are added up. onnxruntime's CPU provider adds no float16 there."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node(op_type, ["h", "places", "h"], ["s"], name="scatter", reduction=reduction),
        helper.make_node("MatMul", ["s", "w"], ["y"], name="behind"),
    ]
    inputs = {"x": (FLOAT, [3, 8]), "places": (INT64, [3, axes])}
    model = build(nodes, inputs, {"y": (FLOAT, None)}, {"w": rows(8, 8, 1, 0.2)})
    feeds = {"x": rows(3, 8), "places": np.broadcast_to(np.array([[2], [0], [1]]), (3, axes)).copy()}
    expected = run(model, feeds)[0]
    halve(model)
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    scatter = next(node for node in model.graph.node if node.name == "scatter")
    assert makers[scatter.input[0]] == ("MatMul" if reduction == "none" else "Cast")
    np.testing.assert_allclose(run(model, feeds)[0], expected, atol=1e-2)


def test_zeros_of_no_named_type_are_half_too():
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("Add", ["x", "zeros"], ["y"]),
    ]
    model = build(nodes, {"x": (FLOAT, ["rows", 8])}, {"y": (FLOAT, None)}, {})
    x = rows(2, 8)
    halve(model)
    np.testing.assert_allclose(run(model, {"x": x})[0], x, rtol=1e-3)


def test_what_a_subgraph_reads_stays_float32():
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op_type, ["h"], [f"{name}_out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", FLOAT, None)],
        )
        for name, op_type in (("then", "Abs"), ("else", "Neg"))
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("If", ["chosen"], ["y"], name="choice", **branches),
    ]
    inputs = {"x": (FLOAT, ["rows", 32]), "chosen": (TensorProto.BOOL, [])}
    model = build(nodes, inputs, {"y": (FLOAT, None)}, {"w": rows(32, 16, 3, 0.2)})
    x = rows(2, 32)
    halve(model)
    for chosen in (True, False):
        product = x @ rows(32, 16, 3, 0.2)
        made = run(model, {"x": x, "chosen": np.array(chosen)})[0]
        np.testing.assert_allclose(made, np.abs(product) if chosen else -product, atol=1e-2)


def test_masks_hide_the_same_keys_by_a_number_that_half_holds():
    nodes = [
        helper.make_node("Where", ["hidden", "lowest", "zero"], ["mask"]),
        helper.make_node("Add", ["x", "mask"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["y"]),
    ]
    inputs = {"x": (FLOAT, ["rows", 6]), "hidden": (TensorProto.BOOL, ["rows", 6])}
    constants = {"lowest": np.array(np.finfo(np.float32).min), "zero": np.array(0, np.float32)}
    model = build(nodes, inputs, {"y": (FLOAT, None)}, constants)
    feeds = {"x": rows(3, 6, scale=5.0), "hidden": np.arange(18).reshape(3, 6) % 3 == 0}
    expected = run(model, feeds)[0]
    soften_masks(model)
    assert HIDDEN in [values.item() for values in constants_of(model).values()]
    np.testing.assert_array_equal(run(model, feeds)[0], expected)


def test_a_tied_head_reads_its_table_and_is_stored_once():
    table = rows(300, 32, 4)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"]),
        helper.make_node("MatMul", ["x", "head"], ["y"], name="head"),
    ]
    constants = {"table": table, "head": table.T.copy()}
    model = build(nodes, {"ids": (INT64, ["tokens"])}, {"y": (FLOAT, None)}, constants)
    ids = np.array([3, 299, 0])
    expected = run(model, {"ids": ids})[0]
    share_tied_tables(model)
    assert set(constants_of(model)) == {"table"}
    np.testing.assert_allclose(run(model, {"ids": ids})[0], expected, rtol=1e-6)


# ---------------------------------------------------------------------------------------------------------- emulation


def halved(model, **options):
    own = onnx.ModelProto()
    own.CopyFrom(model)
    halve(own, **options)
    return own


def test_a_square_that_overflows_shows_in_the_emulation_alone():
    nodes = [helper.make_node("Mul", ["x", "x"], ["s"], name="square"), helper.make_node("Sqrt", ["s"], ["y"])]
    model = build(nodes, {"x": (FLOAT, ["rows", 8])}, {"y": (FLOAT, None)}, {})
    x = np.full((1, 8), 300, np.float32)
    half = halved(model)
    assert np.isfinite(run(half, {"x": x})[0]).all(), "a CPU does not overflow"
    assert np.isinf(run(emulated(half), {"x": x})[0]).all()
    bounds = measure_bounds(model, [{"x": x}])
    safe = halved(model, keep=[name for name, bound in bounds.items() if not bound.fits])
    np.testing.assert_allclose(run(emulated(safe), {"x": x})[0], 300, rtol=1e-3)


def test_a_partial_sum_that_overflows_shows_in_the_emulation_alone():
    x = np.concatenate([np.full(32, 3000), np.full(32, -3000)]).astype(np.float32)[None]
    model = linear_model(np.ones((64, 4), np.float32))
    half = halved(model)
    np.testing.assert_array_equal(run(half, {"x": x})[0], np.zeros((1, 4)))
    assert not np.isfinite(run(emulated(half), {"x": x})[0]).any()
    assert not measure_bounds(model, [{"x": x}])["linear"].fits


def test_every_value_of_the_emulation_is_one_of_float16():
    model, x = three_nodes(), rows(5, 32)
    half = halved(model)
    emulation = emulated(half)
    assert uses_half(half)
    for made, exact in zip(run(emulation, {"x": x}), run(model, {"x": x}), strict=True):
        np.testing.assert_array_equal(made, made.astype(np.float16).astype(np.float32))
        np.testing.assert_allclose(made, exact, atol=1e-2)
    assert emulated(model) is model, "there is nothing to emulate"


def test_attention_and_weights_by_blocks_are_emulated():
    model = attention_model(np.random.default_rng(1), hidden=32, heads=4)
    feeds = {"x": rows(2, 160, scale=0.5).reshape(2, 5, 32), "mask_index": mask_of(5, 3)}
    expected = run(model, feeds)[0]
    made = run(emulated(halved(model)), feeds)[0]
    np.testing.assert_allclose(made[0], expected[0], atol=0.02)
    by_blocks = linear_model(rows(64, 16, 5))
    quantize_block_weights(by_blocks, bits=4, block_size=32, zero_points=True)
    x = rows(3, 64)
    np.testing.assert_allclose(
        run(emulated(halved(by_blocks)), {"x": x})[0], run(by_blocks, {"x": x})[0], rtol=1e-2, atol=5e-2
    )


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zero_points", [False, True])
def test_a_stored_weight_is_read_as_it_was_written(bits, zero_points):
    from onnxproof.graph.editor import GraphEditor

    weight = rows(72, 5, 6)
    model = linear_model(weight)
    quantize_block_weights(model, bits=bits, block_size=16, zero_points=zero_points)
    expected = quantize_to_blocks(weight, BlockFormat(bits, 16, zero_points))
    editor = GraphEditor(model)
    stored = stored_weight(editor, editor.of_type("MatMulNBits")[0])
    np.testing.assert_array_equal(stored.integers, expected.integers)
    np.testing.assert_array_equal(stored.dequantized(), expected.dequantized())
