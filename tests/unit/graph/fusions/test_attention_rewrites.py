"""Attentions that onnxruntime's optimizer does not know: fewer nodes, the same answers, and hands off what differs."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import optimize
from architectures import ENCODERS, save_text_model
from exported_graphs import export_by_torchscript, export_model
from onnxproof.graph import external_data
from onnxproof.graph.editor import GraphEditor
from onnxproof.graph.external_data import load_model, save_model, session_entries
from onnxproof.graph.fusions.disentangled_attention import simplify_disentangled_attention
from onnxproof.graph.fusions.rotary_embedding import fuse_rotary_embedding
from onnxproof.quantization.recipe import apply_recipe
from onnxproof.quantization.targets import find_targets

LAYERS = 2
DEBERTA = ("DebertaV2Config", {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]})


def deberta(**options):
    return DEBERTA[0], DEBERTA[1] | options


#: What is exported: config class, sizes.
MODELS = {
    "deberta": DEBERTA,
    "deberta with buckets": deberta(position_buckets=8, share_att_key=True, norm_rel_ebd="layer_norm"),
    "deberta, queries alone": deberta(pos_att_type=["c2p"], position_buckets=8),
    "deberta, keys alone": deberta(pos_att_type=["p2c"]),
    "first deberta": ENCODERS["deberta"],
    "modernbert": ENCODERS["modernbert"],
    "mpnet": ENCODERS["mpnet"],
}
DISENTANGLED = [name for name in MODELS if name.startswith("deberta")]
#: Exporting takes seconds, and other tests take these as well.
QUICK = ("deberta", "deberta with buckets")
slow = pytest.mark.slow
MOST_NODES = 150
GONE = {"GatherElements", "Tile", "If", "Sqrt"}


@pytest.fixture(scope="module", params=[export_model, pytest.param(export_by_torchscript, marks=pytest.mark.slow)])
def graph_of(request, tmp_path_factory):
    """A function that gives a model's graph as it comes from an exporter and onnxruntime's optimizations."""

    made = {}

    def make(name):
        from transformers import AutoModel

        config_class, options = MODELS[name]
        folder = tmp_path_factory.mktemp("model")
        save_text_model(folder / "model", config_class, "AutoModel", options)
        graph = request.param(AutoModel.from_pretrained(folder / "model"), folder / "model.onnx")
        optimize.optimize_basic(graph, folder / "basic.onnx")
        return optimize.fuse_transformer(onnx.load(folder / "basic.onnx"), {})

    def graph(name):
        if name not in made:
            made[name] = make(name)
        copied = onnx.ModelProto()
        copied.CopyFrom(made[name])
        return copied

    return graph


def run(model, feed):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    for key, value in session_entries(model).items():
        options.add_session_config_entry(key, value)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, {name: values for name, values in feed.items() if name in names})[0]


def feed_of(lengths, longest=None):
    """Random tokens of texts of these lengths, padded to the longest; a length of 0 masks the whole text."""
    longest = longest or max(lengths)
    shape = (len(lengths), longest)
    tokens = np.random.default_rng(longest).integers(5, 90, shape)
    mask = (np.arange(longest) < np.array(lengths)[:, np.newaxis]).astype(np.int64)
    return {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros(shape, np.int64)}


FEEDS = {
    "one token": feed_of([1]),
    "two tokens": feed_of([2]),
    "nothing masked": feed_of([30, 30]),
    "padding": feed_of([5, 33, 17]),
    "the longest text": feed_of([64]),
    "a text fully masked": feed_of([0, 12]),
    "all fully masked": feed_of([0], longest=7),
}


def operators(model):
    return Counter(node.op_type for node in model.graph.node)


def assert_same_answers(model, original, feeds=FEEDS):
    for name, feed in feeds.items():
        np.testing.assert_allclose(run(model, feed), run(original, feed), atol=2e-5, err_msg=name)


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=slow) for name in DISENTANGLED])
def test_disentangled_attention_gives_the_same_answers_from_fewer_nodes(graph_of, name):
    original, model = graph_of(name), graph_of(name)
    assert simplify_disentangled_attention(model) == LAYERS
    # The newer exporter writes most of what is left out here with fewer nodes already.
    assert len(model.graph.node) < min(len(original.graph.node), MOST_NODES)
    assert not GONE & set(operators(model))
    onnx.checker.check_model(model)
    assert_same_answers(model, original)


def test_rotations_become_one_operator_with_the_same_answers(graph_of):
    original, model = graph_of("modernbert"), graph_of("modernbert")
    assert fuse_rotary_embedding(model) == 2 * LAYERS
    after = operators(model)
    assert after["RotaryEmbedding"] == 2 * LAYERS
    assert not {"Neg", "Sqrt"} & set(after)
    assert_same_answers(model, original)


@pytest.mark.parametrize(
    ("name", "rewrite"),
    [
        ("mpnet", simplify_disentangled_attention),
        ("mpnet", fuse_rotary_embedding),
        ("modernbert", simplify_disentangled_attention),
        ("deberta", fuse_rotary_embedding),
        ("first deberta", simplify_disentangled_attention),
    ],
)
def test_graphs_of_other_kinds_are_left_as_they_are(graph_of, name, rewrite):
    model = graph_of(name)
    assert rewrite(model) == 0
    assert model == graph_of(name)


def nodes_of_type(model, op_type):
    return [node for node in model.graph.node if node.op_type == op_type]


def change_attribute(node, name, value):
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def change_constant(model, node, position, values):
    tensor = numpy_helper.from_array(np.asarray(values), f"{node.name}_changed")
    model.graph.initializer.append(tensor)
    node.input[position] = tensor.name


def pick_along_other_axis(model):
    for node in nodes_of_type(model, "GatherElements"):
        change_attribute(node, "axis", 1)


def positions_beyond_the_table(model):
    for node in nodes_of_type(model, "Clip"):
        change_constant(model, node, 2, np.array(10_000))


def distances_of_no_range(model):
    """The matrix is no longer a function of row minus column: one side counts in squares."""
    columns = {node.output[0] for node in nodes_of_type(model, "Unsqueeze")}
    difference = next(node for node in nodes_of_type(model, "Sub") if node.input[0] in columns)
    squares = helper.make_node("Mul", [difference.input[0]] * 2, ["squares"], name="squares")
    model.graph.node.insert(list(model.graph.node).index(difference), squares)
    difference.input[0] = "squares"


def keys_of_another_source(model):
    """Queries and keys no longer come from the same tensor, so that they could differ in number."""
    added = [set(node.input) for node in nodes_of_type(model, "Add") if "query_proj.bias" in " ".join(node.input)]
    products = [node for node in nodes_of_type(model, "MatMul") if any(node.output[0] in names for names in added)]
    assert products
    for product in products:
        copy = helper.make_node("Identity", [product.input[0]], [f"{product.name}_source"], name=f"{product.name}_copy")
        model.graph.node.insert(list(model.graph.node).index(product), copy)
        product.input[0] = copy.output[0]


def tables_repeated_by_position(model):
    read = {node.input[1] for node in nodes_of_type(model, "Tile")}
    for repeats in nodes_of_type(model, "Concat"):
        if repeats.output[0] in read:
            batch, one, _ = repeats.input
            repeats.input[:] = [one, batch, one]


def scores_are_an_output(model):
    for node in nodes_of_type(model, "Softmax"):
        model.graph.output.append(helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None))


DISENTANGLED_NEAR_MISSES = [
    (pick_along_other_axis, "the scores are not picked along the positions, or from another product"),
    (positions_beyond_the_table, "the positions reach beyond the table"),
    (distances_of_no_range, "the distances are no function of row minus column"),
    (keys_of_another_source, "queries and keys are not made from one activation"),
    (tables_repeated_by_position, "no constant where one is expected"),
    (scores_are_an_output, "a result inside the attention is an output of the graph"),
]


@pytest.mark.parametrize(("spoil", "reason"), DISENTANGLED_NEAR_MISSES)
def test_what_only_looks_like_disentangled_attention_is_left_alone_for_a_reason(graph_of, spoil, reason):
    model, reasons = graph_of("deberta with buckets"), Counter()
    spoil(model)
    assert simplify_disentangled_attention(model, reasons) == 0
    assert set(reasons) == {reason}


def every_second_channel(model):
    for node in nodes_of_type(model, "Slice"):
        if len(node.input) == 5:
            change_constant(model, node, 4, np.array([2]))


def sines_for_cosines(model):
    for node in nodes_of_type(model, "Cos"):
        node.op_type = "Sin"


def halves_of_other_angles(model):
    for node in nodes_of_type(model, "Concat"):
        if len(node.input) == 2 and node.input[0] == node.input[1]:
            other = helper.make_node("Neg", [node.input[1]], [f"{node.name}_other"], name=f"{node.name}_negative")
            model.graph.node.insert(list(model.graph.node).index(node), other)
            node.input[1] = other.output[0]


def positions_from_one(model):
    for node in nodes_of_type(model, "Range"):
        change_constant(model, node, 0, np.array(1))


ROTATION_NEAR_MISSES = [
    (every_second_channel, "the halves leave channels out, or are cut along another axis"),
    (sines_for_cosines, "Cos expected, Sin found"),
    (halves_of_other_angles, "the angles are not those of one half, twice"),
    (positions_from_one, "the positions do not count 0, 1, 2 ..."),
]


@pytest.mark.parametrize(("spoil", "reason"), ROTATION_NEAR_MISSES)
def test_what_only_looks_like_a_rotation_is_left_alone_for_a_reason(graph_of, spoil, reason):
    model, reasons = graph_of("modernbert"), Counter()
    spoil(model)
    assert fuse_rotary_embedding(model, reasons) == 0
    assert reasons[reason] >= LAYERS


@pytest.mark.parametrize(
    ("name", "rewrite"),
    [("deberta with buckets", simplify_disentangled_attention), ("modernbert", fuse_rotary_embedding)],
)
def test_weights_in_files_stay_in_files(graph_of, name, rewrite, tmp_path, monkeypatch):
    original = graph_of(name)  # made whole, whichever test runs first
    monkeypatch.setattr(external_data, "BY_REFERENCE_BYTES", 0)
    monkeypatch.setattr(external_data, "SMALLEST_OUTSIDE", 64)
    onnx.save(
        graph_of(name), tmp_path / "model.onnx", save_as_external_data=True, location="weights", size_threshold=64
    )
    model = load_model(tmp_path / "model.onnx", tmp_path)
    assert rewrite(model)
    assert max(len(tensor.raw_data) for tensor in model.graph.initializer) < 64
    assert_same_answers(model, original)
    save_model(model, tmp_path / "saved.onnx")
    assert_same_answers(onnx.load(tmp_path / "saved.onnx"), original)


@pytest.mark.parametrize(
    ("name", "rewrite"),
    [("deberta with buckets", simplify_disentangled_attention), ("modernbert", fuse_rotary_embedding)],
)
def test_the_same_products_are_quantized_and_answers_do_not_depend_on_the_batch(graph_of, name, rewrite):
    original, model = graph_of(name), graph_of(name)
    rewrite(model)
    assert len(find_targets(GraphEditor(model))) == len(find_targets(GraphEditor(original)))
    names = [value.name for value in model.graph.input]
    calibration = [{key: values for key, values in feed_of([20]).items() if key in names}]
    exact = run(model, FEEDS["padding"])
    for step in ("dynamic_matmul", "per_token"):
        quantized = apply_recipe(model, [{"pass": step}], calibration)
        assert np.abs(run(quantized, FEEDS["padding"]) - exact)[1].max() < 0.1 * np.abs(exact).max()
    batch = FEEDS["padding"]
    alone = {key: values[:1, :5] for key, values in batch.items()}
    np.testing.assert_allclose(run(quantized, batch)[0, :5], run(quantized, alone)[0], atol=1e-5)


def proof_of(model):
    """A proof whose expected answers are a graph's own."""
    names = [value.name for value in model.graph.input]
    proof = optimize.Proof.__new__(optimize.Proof)
    proof.feeds = [{key: values for key, values in feed.items() if key in names} for feed in FEEDS.values()]
    from onnxproof.quantization.sessions import open_session

    proof.expected = proof.run(open_session(model, 1))
    return proof


def test_an_attention_is_rewritten_where_the_rewrite_is_proven(graph_of):
    original = graph_of("modernbert")
    reasons = []
    _, counts = optimize.apply_rewrites(original, optimize.special_attentions(), proof_of(original), reasons)
    assert counts == {"DisentangledAttention": 0, "RotaryEmbedding": 2 * LAYERS}
    assert reasons == []


def spoil(model):
    sines_for_cosines(model)
    return 3


def give_up_halfway(model):
    sines_for_cosines(model)
    raise KeyError("x")


@pytest.mark.parametrize(
    ("rewrite", "reason"),
    [(spoil, "the optimized graph changes an answer by"), (give_up_halfway, "the optimizer failed: KeyError: 'x'")],
)
def test_a_rewrite_that_changes_answers_or_fails_is_dropped_and_told(graph_of, monkeypatch, rewrite, reason):
    original = graph_of("modernbert")
    proof, reasons = proof_of(original), []
    monkeypatch.setattr("onnxproof.graph.fusions.rotary_embedding.fuse_rotary_embedding", rewrite)
    model, counts = optimize.apply_rewrites(original, optimize.special_attentions(), proof, reasons)
    assert model == graph_of("modernbert")
    assert counts == {"DisentangledAttention": 0, "RotaryEmbedding": 0}
    [told] = reasons
    assert told.startswith(f"without a rewrite of RotaryEmbedding: {reason}")
