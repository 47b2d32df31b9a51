"""Attention that writes into its cache answers as the attention that it replaces, for programs that share a buffer."""

import re
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from cached_decoder import FORMS, HEADS, LAYERS, SIZE, VOCABULARY, cached_decoder
from graphs import constants_of, op_types, same_structure
from messages import check_message, raises
from onnxproof.graph.generation import generate_greedily
from onnxproof.graph.metadata import SHARE_BUFFER, read_metadata
from onnxproof.inputs.model_inputs import MASKED_POSITIONS, ModelInputs
from onnxproof.quantization.passes.cache_in_place import keep_cache_in_place
from onnxproof.quantization.search.in_place import why_not_in_place
from onnxproof.quantization.search.ladder import find_recipe
from project import ROOT

LENGTHS = (7, 12, 3)
NEW = 4
ROOM = 40


def copy_of(model):
    return onnx.ModelProto.FromString(model.SerializeToString())


def in_place(model):
    changed = copy_of(model)
    keep_cache_in_place(changed)
    return changed


class Reader:
    """A session of a decoder, and the cache of a batch: one that grows, or a buffer that is full of NaN at first."""

    def __init__(self, model, texts, shared):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        self.shared = shared
        values = {value.name: value.shape for value in self.session.get_inputs()}
        shapes = {name: shape for name, shape in values.items() if name.startswith("past_key_values.")}
        tokens = ROOM if shared else 0
        cache = {
            name: np.full((texts, shape[1], tokens, shape[3]), np.nan, np.float32) for name, shape in shapes.items()
        }
        self.cache = {name: onnxruntime.OrtValue.ortvalue_from_numpy(values) for name, values in cache.items()}

    def read(self, tokens, mask, positions):
        binding = self.session.io_binding()
        for name, values in (("input_ids", tokens), ("attention_mask", mask), ("position_ids", positions)):
            binding.bind_cpu_input(name, np.ascontiguousarray(values))
        binding.bind_output("logits")
        for name, values in self.cache.items():
            binding.bind_ortvalue_input(name, values)
            present = name.replace("past_key_values", "present")
            if self.shared:
                binding.bind_ortvalue_output(present, values)
            else:
                binding.bind_output(present)
        self.session.run_with_iobinding(binding)
        logits, *present = binding.get_outputs()
        if not self.shared:
            self.cache = dict(zip(self.cache, present, strict=True))
        return logits.numpy()


def padded_texts(side, lengths=LENGTHS):
    """Return tokens, mask and positions, (texts, longest), of texts of these lengths."""
    rng = np.random.default_rng(1)
    places = np.arange(max(lengths))
    ends = np.array(lengths)[:, None]
    mask = (places < ends if side == "right" else places >= max(lengths) - ends).astype(np.int64)
    return rng.integers(1, VOCABULARY, mask.shape), mask, np.maximum(mask.cumsum(axis=1) - 1, 0)


def answers(model, side, shared, lengths=LENGTHS):
    """Return the logits of all tokens of padded texts, and those of further tokens, one after another."""
    reader = Reader(model, len(lengths), shared)
    tokens, mask, positions = padded_texts(side, lengths)
    found = [reader.read(tokens, mask, positions)[mask.astype(bool)]]
    positions = positions.max(axis=1, keepdims=True)
    for token in range(NEW):
        mask = np.concatenate([mask, np.ones((len(lengths), 1), np.int64)], axis=1)
        positions = positions + 1
        found.append(reader.read(np.full((len(lengths), 1), token + 3), mask, positions)[:, 0])
    return found


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("form", FORMS)
def test_texts_with_padding_and_what_follows_them_are_answered_alike(form, side, shared):
    model = cached_decoder(form)
    for expected, actual in zip(answers(model, side, False), answers(in_place(model), side, shared), strict=True):
        assert np.abs(expected).max() > 1
        np.testing.assert_allclose(actual, expected, atol=2e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_several_tokens_behind_the_cache_of_one_text_are_answered_alike(shared):
    model = cached_decoder()
    tokens, mask, positions = padded_texts("left", [9])
    found = []
    for each, is_shared in ((model, False), (in_place(model), shared)):
        reader = Reader(each, 1, is_shared)
        parts = [(slice(0, 4), slice(0, 4)), (slice(4, 9), slice(0, 9))]
        found.append([reader.read(tokens[:, fed], mask[:, told], positions[:, fed]) for fed, told in parts])
    for expected, actual in zip(*found, strict=True):
        np.testing.assert_allclose(actual, expected, atol=2e-5)


def test_the_operator_refuses_several_tokens_behind_the_caches_of_several_texts():
    """What the pass takes from a program; once onnxruntime allows it, the documents can say so."""
    tokens, mask, positions = padded_texts("left")
    reader = Reader(in_place(cached_decoder()), len(LENGTHS), False)
    reader.read(tokens[:, :4], mask[:, :4], positions[:, :4])
    with pytest.raises(RuntimeError, match="batch_size must be 1"):
        reader.read(tokens[:, 4:], mask, positions[:, 4:])


@pytest.mark.parametrize("form", FORMS)
def test_nothing_but_the_operator_reads_or_gives_a_cache(form):
    model = cached_decoder(form)
    changed = in_place(model)
    assert op_types(changed).count("GroupQueryAttention") == LAYERS
    assert not {"Softmax", "MultiHeadAttention"} & set(op_types(changed))
    readers = Counter(node.op_type for node in changed.graph.node for name in node.input if name.startswith("past_key"))
    assert readers == Counter({"GroupQueryAttention": 2 * LAYERS, "Shape": readers["Shape"]})
    assert bool(readers["Shape"]) == (form == "windowed"), "any other mask is made of attention_mask alone"
    assert ("Range" in op_types(changed)) == (form == "windowed")
    for node in changed.graph.node:
        assert not [name for name in node.input if name.startswith("present.")]
        if node.op_type == "GroupQueryAttention":
            values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            assert (values["num_heads"], values["kv_num_heads"]) == (HEADS, FORMS[form][1])
            assert values["scale"] == pytest.approx(SIZE**-0.5)
    assert [value.name for value in changed.graph.output] == [value.name for value in model.graph.output]
    assert read_metadata(changed) == {SHARE_BUFFER: "true"}


def test_values_of_a_known_shape_are_read_as_their_product_gives_them():
    """The second layer's come behind an answer whose axes are not known."""
    model = in_place(cached_decoder())
    values = [node.input[2] for node in model.graph.node if node.op_type == "GroupQueryAttention"]
    makers = {name: node for node in model.graph.node for name in node.output}
    assert values[0] == "v_made0"
    assert (makers[values[1]].op_type, makers[values[1]].input[0]) == ("Reshape", "v_heads1")


def replace_node(model, name, *others):
    """Put other nodes where the one is that makes a tensor; return that one."""
    position = next(index for index, node in enumerate(model.graph.node) if name in node.output)
    old = model.graph.node[position]
    del model.graph.node[position]
    for node in reversed(others):
        node.name = f"new_{node.output[0]}"
        model.graph.node.insert(position, node)
    return old


def cap_scores(model):
    """Bound the scores softly, as Gemma 2 does."""
    replace_node(
        model,
        "masked0",
        helper.make_node("Tanh", ["scores0"], ["capped"]),
        helper.make_node("Add", ["capped", "mask_of_groups"], ["masked0"]),
    )


def add_sinks(model):
    """Let scores have a further column, as gpt-oss does."""
    joined = helper.make_node("Concat", ["masked0", "products0"], ["with_sink"], axis=-1)
    replace_node(model, "shares0", joined, helper.make_node("Softmax", ["with_sink"], ["shares0"], axis=-1))


def read_cache_elsewhere(model):
    model.graph.node.append(helper.make_node("Size", ["past_key_values.0.key"], ["size"], name="size"))


def read_new_keys_elsewhere(model):
    model.graph.node.append(helper.make_node("Size", ["present.1.key"], ["size"], name="size"))


def put_new_keys_first(model):
    node = replace_node(model, "present.0.key")
    node.input[:] = reversed(node.input)
    model.graph.node.insert(0, node)


def take_no_mask(model):
    given = next(value for value in model.graph.input if value.name == "attention_mask")
    given.name = "padding_mask"


def change_channels(model):
    for value in model.graph.input:
        if value.name.startswith("past_key"):
            value.type.tensor_type.shape.dim[3].dim_value = 12


def forget_heads(model):
    for value in model.graph.input:
        if value.name.startswith("past_key"):
            value.type.tensor_type.shape.dim[1].dim_param = "heads"


def take_no_cache(model):
    kept = [value for value in model.graph.input if not value.name.startswith("past_key")]
    del model.graph.input[:]
    model.graph.input.extend(kept)


OTHERS = [
    take_no_cache,
    cap_scores,
    add_sinks,
    read_cache_elsewhere,
    read_new_keys_elsewhere,
    put_new_keys_first,
    take_no_mask,
    change_channels,
    forget_heads,
]


@pytest.mark.parametrize("change", OTHERS)
def test_another_attention_stays_and_the_reason_is_told(change):
    model = cached_decoder()
    change(model)
    before = copy_of(model)
    with raises(ValueError):
        keep_cache_in_place(model)
    assert same_structure(model, before)


def prompts(*lengths):
    rng = np.random.default_rng(5)
    groups = FORMS["grouped"][1]
    cache = np.empty((groups, 0, SIZE), np.float32)
    names = [f"past_key_values.{layer}.{part}" for layer in range(LAYERS) for part in ("key", "value")]
    items = [
        {
            "input_ids": rng.integers(1, VOCABULARY, length),
            "attention_mask": np.ones(length, np.int64),
            "position_ids": np.arange(length),
            MASKED_POSITIONS: np.arange(length),
            **dict.fromkeys(names, cache),
        }
        for length in lengths
    ]
    return ModelInputs(items, padding_side="left")


def see_later_tokens(model):
    """Let prompts see all of their tokens, which the operator does not allow."""
    replace_node(model, "visible", helper.make_node("And", ["given_rows", "given_rows"], ["visible"]))


def break_cache(model):
    """Let the mask have one row for all queries, which the operator refuses."""
    replace_node(
        model,
        "mask_shape",
        helper.make_node("Concat", ["batch", "one_row", "one_row", "whole"], ["mask_shape"], axis=0),
    )
    replace_node(model, "visible", helper.make_node("And", ["given_rows", "given_rows"], ["visible"]))
    for layer in range(LAYERS):
        replace_node(model, f"masked{layer}", helper.make_node("Add", [f"scores{layer}", "mask"], [f"masked{layer}"]))


def test_a_decoder_is_held_to_the_answers_of_the_old_graph():
    inputs = prompts(9, 4, 1, 12)
    assert why_not_in_place(cached_decoder(), inputs) is None
    for change in (cap_scores, see_later_tokens, break_cache):
        model = cached_decoder()
        change(model)
        check_message(why_not_in_place(model, inputs))


@pytest.mark.parametrize(("variant", "expected"), [("q4", False), ("w8", False), ("q4-cpu", True)])
def test_only_the_file_for_cpus_writes_in_place(variant, expected):
    found = find_recipe(cached_decoder(), prompts(9, 4, 12), {}, task="text-generation", variant=variant, progress=len)
    assert ("cache_in_place" in [step["pass"] for step in found.recipe]) == expected
    assert ("GroupQueryAttention" in op_types(found.model)) == expected
    assert any(step.get("one_operator") for step in found.recipe) == expected, "other files run in other runtimes too"
    assert "left_out" not in found.record()


def test_where_it_cannot_the_record_says_why():
    model = cached_decoder()
    cap_scores(model)
    lines = []
    found = find_recipe(model, prompts(9, 4, 12), {}, task="text-generation", variant="q4-cpu", progress=lines.append)
    assert [step["pass"] for step in found.recipe] == ["embedding_blocks", "block_weights"]
    assert not any("one_operator" in step for step in found.recipe)
    assert list(found.record()["left_out"]) == ["cache_in_place"]
    check_message(found.record()["left_out"]["cache_in_place"])
    check_message(lines[0])


def test_constants_of_the_pass_are_shared_by_all_layers():
    names = set(constants_of(in_place(cached_decoder()))) - set(constants_of(cached_decoder()))
    assert names == {"axis_0", "axis_1", "joined_heads"}


@pytest.mark.parametrize("part", [1, 3, 64])
def test_the_program_of_the_documentation_writes_what_the_plain_graph_writes(tmp_path, monkeypatch, part):
    (program,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/quantization.md").read_text(), re.M | re.S)
    (tmp_path / "onnx").mkdir()
    plain = cached_decoder()
    onnx.save(in_place(plain), tmp_path / "onnx/model_q4_cpu.onnx")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(program, names)
    session = onnxruntime.InferenceSession(plain.SerializeToString(), providers=["CPUExecutionProvider"])
    prompt = [3, 1, 4, 1, 5, 9, 2]
    assert names["generate"](prompt, 12, part) == generate_greedily(session, np.array(prompt), 12)
