"""Masks are known by what they compute: padding masks in any writing, and nothing that depends on the query."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cached_decoder import cached_decoder
from messages import raises
from onnxproof.graph.fusions.masks import MaskReader, PaddingMask
from onnxproof.graph.matcher import MismatchError

HIDDEN = float(np.finfo(np.float32).min)


def graph_of(nodes, constants):
    """A model with an attention mask as its input and these nodes, the last of which makes the mask."""
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    given = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "sequence"])
    made = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "masks", [given], [made], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def node(op_type, inputs, output, **attributes):
    return helper.make_node(op_type, inputs.split(), [output], **attributes)


FLOATS = {"zero": np.float32(0), "lowest": np.float32(HIDDEN), "one": np.float32(1)}
INTEGERS = {"first": np.int64(0), "step": np.int64(1), "inner": np.array([1, 2]), "last": np.array([3]), "down": [1]}
CONSTANTS = FLOATS | INTEGERS
VISIBLE = [
    node("Cast", "attention_mask", "shown", to=TensorProto.BOOL),
    node("Unsqueeze", "shown inner", "keys"),
]
#: Rows minus columns of a matrix of shape (S, S).
DISTANCES = [
    node("Shape", "attention_mask", "length", start=1),
    node("Squeeze", "length", "count"),
    node("Range", "first count step", "columns"),
    node("Unsqueeze", "columns down", "rows"),
    node("Sub", "rows columns", "distances"),
]
WHERE = node("Where", "shows zero lowest", "mask")


def test_a_padding_mask_is_known_as_that_of_its_input():
    chosen = [*VISIBLE, node("Where", "keys zero lowest", "mask")]
    assert MaskReader(graph_of(chosen, CONSTANTS)).read("mask") == PaddingMask("attention_mask", HIDDEN)


def test_a_padding_mask_by_arithmetic_is_known_too():
    product = [
        node("Cast", "attention_mask", "numbers", to=TensorProto.FLOAT),
        node("Unsqueeze", "numbers inner", "keys"),
        node("Sub", "one keys", "hidden"),
        node("Mul", "hidden far", "mask"),
    ]
    reader = MaskReader(graph_of(product, CONSTANTS | {"far": np.float32(-1e4)}))
    assert reader.read("mask") == PaddingMask("attention_mask", -1e4)


def test_a_padding_mask_repeated_for_each_query_is_known_too():
    repeated = [
        *VISIBLE,
        *DISTANCES,
        node("Equal", "distances distances", "everything"),
        node("And", "keys everything", "shows"),
        WHERE,
    ]
    assert MaskReader(graph_of(repeated, CONSTANTS)).read("mask") == PaddingMask("attention_mask", HIDDEN)


def test_a_mask_that_hides_nothing_is_none():
    nothing = [node("Cast", "attention_mask", "numbers", to=TensorProto.FLOAT), node("Mul", "numbers zero", "mask")]
    assert MaskReader(graph_of(nothing, CONSTANTS)).read("mask") == PaddingMask("")


def test_a_mask_computed_from_the_input_otherwise_is_taken_itself():
    """As for the frames of a sound: here all keys before the last real one are shown."""
    ahead = [
        node("CumSum", "attention_mask last_axis", "from_here", reverse=1),
        node("Cast", "from_here", "shown", to=TensorProto.BOOL),
        node("Unsqueeze", "shown inner", "keys"),
        node("Where", "keys zero lowest", "mask"),
    ]
    found = MaskReader(graph_of(ahead, CONSTANTS | {"last_axis": np.int64(1)})).read("mask")
    assert found == PaddingMask("mask", HIDDEN, is_input=False)


def windowed(width):
    return [
        *VISIBLE,
        *DISTANCES,
        node("Abs", "distances", "away"),
        node("LessOrEqual", "away width", "near"),
        node("And", "keys near", "shows"),
        WHERE,
    ], CONSTANTS | {"width": np.int64(width)}


@pytest.mark.parametrize("width", [2, 64, 500])
def test_a_windowed_mask_is_no_padding_mask_however_wide_the_window(width):
    with raises(MismatchError):
        MaskReader(graph_of(*windowed(width))).read("mask")


def test_a_window_too_wide_to_be_computed_is_not_taken_for_padding():
    with raises(MismatchError):
        MaskReader(graph_of(*windowed(5000))).read("mask")


def test_a_causal_mask_is_no_padding_mask():
    causal = [
        *VISIBLE,
        *DISTANCES,
        node("GreaterOrEqual", "distances first", "before"),
        node("And", "keys before", "shows"),
        WHERE,
    ]
    with raises(MismatchError):
        MaskReader(graph_of(causal, CONSTANTS)).read("mask")


def test_a_bias_is_no_padding_mask():
    bias = [node("Cast", "attention_mask", "numbers", to=TensorProto.FLOAT), node("Unsqueeze", "numbers inner", "mask")]
    with raises(MismatchError):
        MaskReader(graph_of(bias, CONSTANTS)).read("mask")


def test_what_is_made_of_products_of_activations_is_not_computed():
    product = [
        node("Cast", "attention_mask", "numbers", to=TensorProto.FLOAT),
        node("Transpose", "numbers", "turned"),
        node("MatMul", "turned numbers", "mask"),
    ]
    with raises(MismatchError):
        MaskReader(graph_of(product, CONSTANTS)).read("mask")


def test_the_graph_is_only_read():
    model = graph_of([*VISIBLE, node("Where", "keys zero lowest", "mask")], CONSTANTS)
    before = onnx.ModelProto.FromString(model.SerializeToString())
    MaskReader(model).read("mask")
    assert model == before


def change_width(model, in_node):
    """Let a window have forty tokens, more than what masks are first computed for."""
    (stored,) = (tensor for tensor in model.graph.initializer if tensor.name == "width")
    stored.CopyFrom(numpy_helper.from_array(np.array(40), "width"))
    if in_node:
        model.graph.node.insert(0, helper.make_node("Constant", [], ["width"], value=stored))
        model.graph.initializer.remove(stored)


def test_the_mask_of_a_decoder_hides_padding_and_later_tokens():
    assert MaskReader(cached_decoder()).read_causal("mask") == HIDDEN


@pytest.mark.parametrize("in_node", [None, False, True])
def test_a_window_is_another_mask_however_wide(in_node):
    model = cached_decoder("windowed")
    if in_node is not None:
        change_width(model, in_node)
    with raises(MismatchError):
        MaskReader(model).read_causal("mask")


def see_later_tokens(model):
    return next(node for node in model.graph.node if node.output[0] == "visible"), ["given_rows", "given_rows"]


def see_padding(model):
    return next(node for node in model.graph.node if node.output[0] == "visible"), ["earlier", "earlier"]


def hide_little(model):
    lowest = next(tensor for tensor in model.graph.initializer if tensor.name == "hidden")
    lowest.CopyFrom(numpy_helper.from_array(np.array(-1, np.float32), "hidden"))
    return model.graph.node[0], list(model.graph.node[0].input)


def depend_on_a_token(model):
    """Let a token's own number decide what it sees."""
    return next(node for node in model.graph.node if node.output[0] == "earlier"), ["input_ids", "rows"]


@pytest.mark.parametrize("change", [see_later_tokens, see_padding, hide_little, depend_on_a_token])
def test_a_decoder_may_have_another_mask(change):
    model = cached_decoder()
    node_of, inputs = change(model)
    node_of.input[:] = inputs
    with raises(MismatchError):
        MaskReader(model).read_causal("mask")


def test_a_mask_that_reads_other_inputs_is_none_of_a_decoder():
    with raises(MismatchError):
        model = graph_of([*VISIBLE, node("Where", "keys zero lowest", "mask")], CONSTANTS)
        model.graph.input[0].name = model.graph.node[0].input[0] = "padding_mask"
        MaskReader(model).read_causal("mask")
