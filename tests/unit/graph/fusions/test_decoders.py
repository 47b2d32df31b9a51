"""Decoders with fused rotations and grouped queries answer as PyTorch does: prompts, padded batches, cached tokens."""

import functools
from collections import Counter

import numpy as np
import onnx
import pytest

import optimize
from architectures import randomize
from messages import raises
from onnxproof.cli import UserError
from onnxproof.graph.editor import GraphEditor
from onnxproof.graph.external_data import load_model
from onnxproof.graph.fusions.cached_attention import FuseCachedAttention, fuse_cached_attention
from onnxproof.graph.fusions.grouped import GroupQueries, GroupScaledScores, group_masks, group_queries
from onnxproof.graph.fusions.rotary import FusePartialRotation, FuseRotation, fuse_rotations, rotate_heads_first
from onnxproof.graph.fusions.rules import apply_rules
from onnxproof.graph.fusions.split_skip_layer_norm import split_skip_layer_normalization
from onnxproof.graph.generation import empty_cache
from onnxproof.inputs.model_inputs import ModelInputs
from onnxproof.original.exporters.generation import check_decoder, export_decoder, find_layers
from onnxproof.quantization.passes.cache_in_place import keep_cache_in_place
from onnxproof.quantization.recipe import apply_recipe
from onnxproof.quantization.search.in_place import why_not_in_place
from onnxproof.quantization.targets import find_targets

LAYERS = 2
SIZES = {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": LAYERS}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
SIZES |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
WINDOWED = {"sliding_window": 8}
GPTJ = {"vocab_size": 97, "n_embd": 64, "n_layer": LAYERS, "n_head": 4, "n_positions": 64, "rotary_dim": 8}

#: Config class and options of decoders, and whether heads of keys and values are shared. Where they are not, the whole
#: attention is one operator.
DECODERS = {
    "llama, another base": ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 7.5e5}}, True),
    "llama, scaled frequencies": (
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 5e5,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
        True,
    ),
    "llama, cosines and sines multiplied": (
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
        True,
    ),
    "qwen3, normalized queries and keys": ("Qwen3", {"head_dim": 16}, True),
    "gemma, scaled weights of norms": ("Gemma", {"head_dim": 16}, True),
    "gemma3, two bases and a window": (
        "Gemma3Text",
        {"head_dim": 16, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
        True,
    ),
    "mistral, a window": ("Mistral", WINDOWED, True),
    "phi, the first half of the channels": ("Phi", {"num_key_value_heads": 4, "partial_rotary_factor": 0.5}, False),
    "gpt_neox, the first quarter": ("GPTNeoX", {"rotary_pct": 0.25}, False),
    "glm, the first half, in pairs": ("Glm", {"head_dim": 16, "partial_rotary_factor": 0.5}, True),
    "cohere, in pairs": ("Cohere", {}, True),
    "gptj, the first half, in pairs, from a table": ("GPTJ", GPTJ, False),
    "olmo, a clipped projection": ("Olmo", {"num_key_value_heads": 4, "clip_qkv": 0.5}, False),
}
#: Decoders without rotations, whose heads are not shared.
PLAIN = {
    "gpt2, tokens of all texts in one row": ("GPT2", {"n_embd": 64, "n_layer": LAYERS, "n_head": 4, "n_positions": 64}),
    "opt, queries scaled": ("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 64}),
}
QUICK = "llama, another base"
NAMES = [pytest.param(name, marks=() if name == QUICK else pytest.mark.slow) for name in DECODERS]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function that gives a network and its graph with onnxruntime's basic optimizations and fusions of norms."""
    import torch
    import transformers

    @functools.cache
    def export(config_class, options):
        torch.manual_seed(0)
        sizes = {} if config_class == "GPTJ" else SIZES
        config = getattr(transformers, f"{config_class}Config")(**sizes | dict(options))
        network = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        folder = tmp_path_factory.mktemp("decoder")
        export_decoder(randomize(network), folder)
        optimize.optimize_basic(onnx.load(folder / "model.onnx"), folder / "basic.onnx")
        return network, optimize.fuse_transformer(load_model(folder / "basic.onnx", folder), {})

    def give(name, **options):
        config_class, own = (DECODERS | PLAIN).get(name, (name, {}))[:2]
        network, model = export(config_class, _Options(own | options))
        return network, onnx.ModelProto.FromString(model.SerializeToString())

    return give


class _Options(dict):
    """Options that can be the key of a cache."""

    def __hash__(self):
        return hash(repr(sorted(self.items())))


def operators(model):
    return Counter(node.op_type for node in model.graph.node)


def reasons_of(model, *rules):
    """How many of the rules' rewrites are made, and why others are not."""
    count = sum(apply_rules(model, [rule]) for rule in rules)
    return count, dict(sum((rule.reasons for rule in rules), Counter()))


def assert_answers_as_pytorch(model, network, folder):
    """Run prompts, padded batches, and tokens with a cache, one and several at once; see ``export_decoder``."""
    onnx.save(model, folder / "fused.onnx")
    check_decoder(folder / "fused.onnx", network, find_layers(network))


@pytest.mark.parametrize("name", NAMES)
def test_decoder_is_fused_and_answers_as_pytorch(exported, tmp_path, name):
    network, model = exported(name)
    names = [[value.name for value in values] for values in (model.graph.input, model.graph.output)]
    assert fuse_rotations(model) == 2 * LAYERS
    assert group_queries(model) == (2 * LAYERS if DECODERS[name][2] else 0)
    assert group_masks(model) == (LAYERS if DECODERS[name][2] else 0)
    # Rotated heads of GPT-NeoX are not in the order that the operator reads.
    assert fuse_cached_attention(model) == (0 if DECODERS[name][2] or "gpt_neox" in name else LAYERS)
    rotated_later = 2 * LAYERS if DECODERS[name][2] and "gemma3" not in name else 0
    assert rotate_heads_first(model) == rotated_later  # of gemma3, onnxruntime has moved the transpositions
    split_skip_layer_normalization(model)
    after = operators(model)
    assert after["RotaryEmbedding"] == 2 * LAYERS
    assert not {"Neg", "SkipSimplifiedLayerNormalization", "SkipLayerNormalization"} & set(after)
    repeated = {node.input[0] for node in model.graph.node if node.op_type == "Expand"}
    present = {value.name for value in model.graph.output}
    assert not [node for node in model.graph.node if node.output[0] in repeated and node.input[0] in present]
    assert names == [[value.name for value in values] for values in (model.graph.input, model.graph.output)]
    assert_answers_as_pytorch(model, network, tmp_path)


@pytest.mark.parametrize("name", [*NAMES, *(pytest.param(name, marks=pytest.mark.slow) for name in PLAIN)])
def test_decoder_can_write_into_its_cache(exported, name):
    _, model = exported(name)
    for rewrite in (fuse_rotations, group_queries, group_masks, fuse_cached_attention, rotate_heads_first):
        rewrite(model)
    cache = empty_cache(model.graph.input)
    texts = [np.arange(5, 5 + length) for length in (3, 12, 7)]
    items = [
        {"input_ids": text, "attention_mask": np.ones_like(text), "position_ids": np.arange(len(text)), **cache}
        for text in texts
    ]
    assert why_not_in_place(model, ModelInputs(items)) is None
    keep_cache_in_place(model)
    assert operators(model)["GroupQueryAttention"] == LAYERS
    assert not operators(model)["Softmax"]


def test_a_wrong_graph_is_noticed(exported, tmp_path):
    """That the check above can fail: with the tables of cosines and sines exchanged it does."""
    network, model = exported(QUICK)
    fuse_rotations(model)
    for node in model.graph.node:
        if node.op_type == "RotaryEmbedding":
            node.input[2], node.input[3] = node.input[3], node.input[2]
    with raises(UserError):
        assert_answers_as_pytorch(model, network, tmp_path)


def test_tables_are_made_once_for_all_layers(exported):
    _, model = exported(QUICK)
    fuse_rotations(model)
    tables = {tuple(node.input[1:]) for node in model.graph.node if node.op_type == "RotaryEmbedding"}
    assert len(tables) == 1
    assert operators(model)["Cos"] == operators(model)["Sin"] == 1
    ((_, *made),) = tables
    makers = [node.op_type for node in model.graph.node if node.output[0] in made]
    assert sorted(makers) == ["Cos", "Sin"], "of the angles that are read, not of both halves"


@pytest.mark.slow
def test_layers_of_another_base_have_tables_of_their_own(exported):
    _, model = exported("gemma3, two bases and a window")
    fuse_rotations(model)
    tables = {tuple(node.input[1:]) for node in model.graph.node if node.op_type == "RotaryEmbedding"}
    assert len(tables) == 2


def test_the_same_products_are_quantized(exported, tmp_path):
    network, model = exported(QUICK)
    before = sorted(target.read_weight().sum() for target in find_targets(GraphEditor(model)))
    fuse_rotations(model)
    group_queries(model)
    split_skip_layer_normalization(model)
    assert sorted(target.read_weight().sum() for target in find_targets(GraphEditor(model))) == before
    quantized = apply_recipe(model, [{"pass": "dynamic_matmul"}])
    assert operators(quantized)["MatMulInteger"] == len(before) == 7 * LAYERS + 1
    assert operators(quantized)["MatMul"] == 2 * LAYERS  # of activations: scores, and their product with the values
    with raises(UserError):  # int8 is near, and not within 1e-4
        assert_answers_as_pytorch(quantized, network, tmp_path)


def change_halves(editor):
    """Let the first part of a head be shorter than its half."""
    for node in editor.of_type("Slice"):
        if editor.constant(node.input[1]).tolist() == [0] and editor.constant(node.input[2]).tolist() == [8]:
            editor.change_constant(node, 2, np.array([6]))


def change_source(editor):
    """Let the two halves come from different tensors."""
    halves = [node for node in editor.of_type("Slice") if editor.constant(node.input[1]).tolist() == [0]]
    for node in halves:
        node.input[0] = next(other.input[0] for other in halves if other.input[0] != node.input[0])


def change_angles(editor):
    """Let the second half of the cosines and sines be of other angles."""
    tables = {node.input[0] for node in editor.of_type("Cos")}
    [node] = [node for node in editor.of_type("Concat") if node.output[0] in tables]
    other = editor.new_tensor("other_angles")
    editor.insert_before(node, [editor.new_node("Neg", [node.input[0]], [other], "other_angles")])
    node.input[1] = other


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_halves, "a head is not cut in halves"),
        (change_source, "what is rotated are not the heads"),
        (change_angles, "not known to be there twice"),
    ],
)
def test_what_only_looks_like_a_rotation_is_left_and_the_reason_is_known(exported, change, reason):
    _, model = exported(QUICK)
    editor = GraphEditor(model)
    change(editor)
    editor.finish()
    count, reasons = reasons_of(model, FusePartialRotation(), FuseRotation())
    assert count == 0
    assert sum(reasons.values()) == 2 * LAYERS
    assert any(reason in known for known in reasons), reasons


def test_keys_that_are_repeated_otherwise_are_left_and_the_reason_is_known(exported):
    _, model = exported(QUICK)
    editor = GraphEditor(model)
    expanded = {node.input[0] for node in editor.of_type("Expand")}
    for node in editor.of_type("Unsqueeze"):
        if node.output[0] in expanded and "present" in node.input[0]:
            editor.change_constant(node, 1, np.array([1]))
    editor.finish()
    count, reasons = reasons_of(model, GroupScaledScores(), GroupQueries())
    assert (count, set(reasons)) == (0, {"heads are not repeated next to each other"})


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN)
def test_attention_behind_a_cache_is_one_operator_and_answers_as_pytorch(exported, tmp_path, name):
    network, model = exported(name)
    named = [value.name for value in model.graph.output]
    assert reasons_of(model, FuseCachedAttention()) == (LAYERS, {})
    assert operators(model)["MultiHeadAttention"] == LAYERS
    assert not operators(model)["Softmax"]
    assert [value.name for value in model.graph.output] == named
    assert_answers_as_pytorch(model, network, tmp_path)


def test_attention_whose_keys_are_shared_is_left_and_the_reason_is_known(exported):
    _, model = exported(QUICK)
    assert reasons_of(model, FuseCachedAttention()) == (0, {"Transpose expected, Add found": LAYERS})
    fuse_rotations(model)
    reason = "keys or values are not those of a cache, each head with its own"
    assert reasons_of(model, FuseCachedAttention()) == (0, {reason: LAYERS})


@pytest.mark.slow
def test_rotations_in_another_order_of_dimensions_are_left_and_the_reason_is_known(exported, tmp_path):
    """One head of keys for all, cut out of one projection: onnxruntime turns the keys after it rotates them."""
    network, model = exported("Falcon", multi_query=True, alibi=False)
    count, reasons = reasons_of(model, FusePartialRotation(), FuseRotation())
    assert (count, reasons) == (LAYERS, {"Concat or Reshape expected, Transpose found": LAYERS})
    assert_answers_as_pytorch(model, network, tmp_path)
