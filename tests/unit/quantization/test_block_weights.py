import numpy as np
import onnx
import pytest
from onnx import helper

from graphs import FLOAT, INT64, attention_model, build, constants_of, linear_model, mask_of, op_types, run
from messages import raises
from onnxproof.quantization.blocks import BlockFormat, quantize_to_blocks
from onnxproof.quantization.passes.block_weights import quantize_block_weights
from onnxproof.quantization.passes.embedding_blocks import quantize_embedding_blocks


def nodes_of(model, op_type):
    return [node for node in model.graph.node if node.op_type == op_type]


def attribute(node, name):
    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), None)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_gemm_becomes_a_product_by_blocks_and_its_bias(bias, transposed):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(40, 6)).astype(np.float32)
    offset = rng.normal(size=6).astype(np.float32) if bias else None
    model = linear_model(weight.T.copy() if transposed else weight, offset, "Gemm", transB=int(transposed))
    quantize_block_weights(model, bits=8, block_size=32)
    assert op_types(model) == ["MatMulNBits", *(["Add"] if bias else [])]
    x = rng.normal(size=(3, 40)).astype(np.float32)
    stored = quantize_to_blocks(weight, BlockFormat(8, 32)).dequantized()
    expected = x @ stored + (0 if offset is None else offset)
    np.testing.assert_allclose(run(model, {"x": x})[0], expected, rtol=1e-4, atol=1e-4)


def test_an_attention_is_computed_from_one_product_by_blocks():
    rng = np.random.default_rng(1)
    model = attention_model(rng, hidden=32, heads=4)
    feeds = {"x": rng.normal(size=(2, 5, 32)).astype(np.float32), "mask_index": mask_of(5, 3)}
    expected = run(model, feeds)[0]
    quantize_block_weights(model, bits=8, block_size=16)
    assert op_types(model) == [
        *["Equal", "Where", "Unsqueeze", "Shape", "Concat", "Expand"],
        "MatMulNBits",
        "Split",
        "MultiHeadAttention",
    ]
    assert np.abs(run(model, feeds)[0] - expected).max() < 0.03 * np.abs(expected).max()


def test_attentions_with_one_mask_share_what_is_added_to_their_scores():
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(32, 96)).astype(np.float32) / 6
    model = attention_model(rng, hidden=32, heads=4, weight=weight)
    (first,) = model.graph.node
    second = onnx.NodeProto.FromString(first.SerializeToString())
    first.output[0] = second.input[0] = "between"
    second.name = "second"
    model.graph.node.append(second)
    feeds = {"x": rng.normal(size=(2, 5, 32)).astype(np.float32), "mask_index": mask_of(5, 3)}
    expected = run(model, feeds)[0]
    quantize_block_weights(model, bits=8, block_size=16)
    (bias,) = nodes_of(model, "Expand")
    for attention in nodes_of(model, "MultiHeadAttention"):
        assert list(attention.input[4:]) == ["", bias.output[0]]  # no key_padding_mask: WebGPU has none
    assert np.abs(run(model, feeds)[0] - expected).max() < 0.03 * np.abs(expected).max()


def two_products():
    rng = np.random.default_rng(2)
    constants = {"w1": rng.normal(size=(32, 64)), "w2": rng.normal(size=(64, 32))}
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="up"),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("MatMul", ["t", "w2"], ["y"], name="down"),
    ]
    spec = (FLOAT, ["rows", 32])
    floats = {name: values.astype(np.float32) / 6 for name, values in constants.items()}
    return build(nodes, {"x": spec}, {"y": spec}, floats)


def test_named_products_get_eight_bits_or_stay_in_float():
    model = two_products()
    quantize_block_weights(model, eight_bit=["down"], accuracy_level=4)
    assert [attribute(node, "bits") for node in nodes_of(model, "MatMulNBits")] == [4, 8]
    assert {attribute(node, "accuracy_level") for node in nodes_of(model, "MatMulNBits")} == {4}
    model = two_products()
    quantize_block_weights(model, exclude=["down"])
    assert op_types(model) == ["MatMulNBits", "Tanh", "MatMul"]
    assert attribute(nodes_of(model, "MatMulNBits")[0], "accuracy_level") is None


def gated_products():
    """Two products of x, (rows, 64), and one of another; with a bias behind one of the two."""
    rng = np.random.default_rng(7)
    constants = {name: rng.normal(size=(64, width)) / 8 for name, width in (("gate", 48), ("up", 40), ("out", 40))}
    nodes = [
        helper.make_node("MatMul", ["x", "gate"], ["g"], name="gate"),
        helper.make_node("Gemm", ["x", "up", "offset"], ["u"], name="up"),
        helper.make_node("Tanh", ["x"], ["t"]),
        helper.make_node("MatMul", ["t", "out"], ["o"], name="out"),
    ]
    floats = {name: values.astype(np.float32) for name, values in constants.items()}
    floats["offset"] = rng.normal(size=40).astype(np.float32)
    outputs = {name: (FLOAT, ["rows", width]) for name, width in (("g", 48), ("u", 40), ("o", 40))}
    return build(nodes, {"x": (FLOAT, ["rows", 64])}, outputs, floats)


@pytest.mark.parametrize("options", [{"zero_points": True}, {"bits": 8}, {"accuracy_level": 4, "block_size": 64}])
def test_products_that_read_the_same_values_are_joined_and_answer_the_same(options):
    x = np.random.default_rng(8).normal(size=(1, 64)).astype(np.float32)
    alone = []
    for others in (["up", "out"], ["gate", "out"], ["gate", "up"]):
        model = gated_products()
        quantize_block_weights(model, exclude=others, **options)
        assert len(nodes_of(model, "MatMulNBits")) == 1
        alone.append(run(model, {"x": x})[len(alone)])
    model = gated_products()
    quantize_block_weights(model, **options)
    assert [attribute(node, "N") for node in nodes_of(model, "MatMulNBits")] == [88, 40]
    for together, single in zip(run(model, {"x": x}), alone, strict=True):
        np.testing.assert_allclose(together, single, rtol=1e-5, atol=1e-6)


def test_products_of_other_formats_stay_apart():
    model = gated_products()
    quantize_block_weights(model, eight_bit=["up"])
    assert [attribute(node, "bits") for node in nodes_of(model, "MatMulNBits")] == [4, 8, 4]
    assert "Split" not in op_types(model)


@pytest.mark.parametrize("parameter", ["eight_bit", "exclude"])
def test_a_name_of_no_product_is_refused(parameter):
    with raises(ValueError):
        quantize_block_weights(two_products(), **{parameter: ["sideways"]})


def test_compensated_rounding_needs_calibration_inputs_and_brings_the_answers_nearer():
    rng = np.random.default_rng(3)
    mixing = rng.normal(size=(32, 32))
    feeds = [{"x": (rng.normal(size=(20, 32)) @ mixing).astype(np.float32)} for _ in range(10)]
    errors = {}
    for rounding in ("nearest", "compensated"):
        model = two_products()
        quantize_block_weights(model, feeds[:8], zero_points=True, rounding=rounding)
        answers = [(run(model, feed)[0], run(two_products(), feed)[0]) for feed in feeds[8:]]
        errors[rounding] = np.mean([(left - right) ** 2 for left, right in answers])
    assert errors["compensated"] < 0.8 * errors["nearest"]
    with raises(ValueError):
        quantize_block_weights(two_products(), rounding="compensated")


def language_model(rows=300, width=40, tied="shared"):
    """ids → embedding → product with its transpose: ``shared`` reads one constant, ``copied`` holds another."""
    rng = np.random.default_rng(4)
    table = rng.normal(size=(rows, width)).astype(np.float32)
    head = helper.make_node("MatMul", ["e", "head"], ["y"], name="head")
    if tied == "shared":
        head = helper.make_node("Gemm", ["flat", "table"], ["y"], name="head", transB=1)
    nodes = [helper.make_node("Gather", ["table", "ids"], ["e"], name="embed")]
    constants = {"table": table}
    if tied == "shared":
        nodes.append(helper.make_node("Reshape", ["e", "rows"], ["flat"]))
        constants["rows"] = np.array([-1, width])
    else:
        constants["head"] = table.T.copy() if tied == "copied" else rng.normal(size=(width, rows)).astype(np.float32)
    outputs = {"e": (FLOAT, ["batch", "tokens", width]), "y": (FLOAT, None)}
    return build([*nodes, head], {"ids": (INT64, ["batch", "tokens"])}, outputs, constants), table


@pytest.mark.parametrize("width", [64, 40])
@pytest.mark.parametrize("bits", [4, 8])
def test_rows_of_a_table_are_unpacked_in_plain_operators(bits, width):
    model, table = language_model(width=width, tied="not tied")
    quantize_embedding_blocks(model, bits=bits)
    ids = np.array([[0, 299, 7], [1, 1, 250]])
    expected = quantize_to_blocks(table.T.copy(), BlockFormat(bits, 32)).dequantized().T[ids]
    np.testing.assert_allclose(run(model, {"ids": ids})[0], expected, rtol=0, atol=1e-6)
    assert {node.domain for node in model.graph.node} == {""}, "every runtime has a kernel"
    assert "head" in constants_of(model), "a head of its own is not touched"


@pytest.mark.parametrize("width", [64, 40])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("computed", [False, True])
def test_one_operator_reads_the_same_rows_of_a_table(bits, width, computed):
    plain, _ = language_model(width=width, tied="shared" if width == 64 else "not tied")
    if computed:  # how many axes the numbers of the rows have is not known then
        plain.graph.node[0].input[1] = "same_ids"
        plain.graph.node.insert(0, helper.make_node("Identity", ["ids"], ["same_ids"]))
    operator = onnx.ModelProto.FromString(plain.SerializeToString())
    quantize_embedding_blocks(plain, bits=bits)
    quantize_embedding_blocks(operator, bits=bits, one_operator=True)
    ids = {"ids": np.array([[0, 299, 7], [1, 1, 250]])}
    for expected, found in zip(run(plain, ids), run(operator, ids), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert "GatherBlockQuantized" in op_types(operator)
    assert len(operator.graph.node) < len(plain.graph.node)
    assert "table" not in constants_of(operator)


@pytest.mark.parametrize("tied", ["shared", "copied"])
def test_a_tied_head_reads_the_table_of_the_embedding(tied):
    model, table = language_model(tied=tied, width=64)
    ids = np.array([[3, 4], [5, 299]])
    quantize_embedding_blocks(model, bits=8, accuracy_level=4)
    assert len(nodes_of(model, "MatMulNBits")) == 1
    stored = constants_of(model)
    assert not {"table", "head"} & stored.keys()
    assert sum(values.nbytes for values in stored.values()) < table.nbytes * 0.32
    rows, scores = run(model, {"ids": ids})
    exact = rows.reshape(-1, 64) @ table.T
    assert np.abs(scores.reshape(exact.shape) - exact).max() < 0.03 * np.abs(exact).max()


def test_small_tables_and_tables_with_other_readers_stay_in_float():
    model, _ = language_model(rows=200, tied="not tied")
    quantize_embedding_blocks(model)
    assert op_types(model) == ["Gather", "MatMul"]
    model, _ = language_model(tied="not tied")
    model.graph.node.append(helper.make_node("Add", ["table", "table"], ["twice"]))
    model.graph.output.append(helper.make_tensor_value_info("twice", FLOAT, None))
    quantize_embedding_blocks(model)
    assert op_types(model) == ["Gather", "MatMul", "Add"]
