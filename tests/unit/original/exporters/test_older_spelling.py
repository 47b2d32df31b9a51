"""Configurations of transformers 5 in the spelling of 4.57."""

import json

import pytest

from messages import raises
from onnxproof.checkpoint.sentence_modules import classic_modules
from onnxproof.checkpoint.tokenizer_files import older_tokenizer_config
from onnxproof.cli import UserError
from onnxproof.original.exporters.older_spelling import (
    Accepted,
    complete_config,
    translate_config,
    translate_preprocessor,
    unread_keys,
    write_older_copy,
)

PLAIN = {"rope_type": "default", "rope_theta": 500000.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192}


def two_bases(whole, window):
    return {
        "full_attention": {"rope_type": "default", "rope_theta": whole},
        "sliding_attention": {"rope_type": "default", "rope_theta": window},
    }


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        ({"model_type": "llama", "rope_parameters": PLAIN}, {"rope_theta": 500000.0, "rope_scaling": None}),
        (
            {"model_type": "llama", "rope_parameters": LLAMA3 | {"rope_theta": 500000.0}},
            {"rope_theta": 500000.0, "rope_scaling": LLAMA3},
        ),
        (
            {"model_type": "phi", "rope_parameters": PLAIN | {"partial_rotary_factor": 0.5}},
            {"rope_theta": 500000.0, "partial_rotary_factor": 0.5, "rope_scaling": None},
        ),
        (
            {"model_type": "gpt_neox", "rope_parameters": PLAIN | {"partial_rotary_factor": 0.25}},
            {"rotary_emb_base": 500000.0, "rotary_pct": 0.25, "rope_scaling": None},
        ),
        (
            {"model_type": "gemma3_text", "rope_parameters": two_bases(1e6, 1e4)},
            {"rope_theta": 1e6, "rope_scaling": None, "rope_local_base_freq": 1e4},
        ),
        (
            {"model_type": "modernbert", "rope_parameters": two_bases(160000.0, 1e4)},
            {"global_rope_theta": 160000.0, "local_rope_theta": 1e4},
        ),
        (
            {"model_type": "modernbert", "layer_types": ["full_attention", *["sliding_attention"] * 2] * 2},
            {"global_attn_every_n_layers": 3},
        ),
        (
            {"model_type": "modernbert", "layer_types": ["full_attention", "sliding_attention"]},
            {"global_attn_every_n_layers": 2},
        ),
        ({"model_type": "qwen3_moe", "num_local_experts": 4}, {"num_experts": 4}),
        (
            {"model_type": "t5", "tie_word_embeddings": True, "scale_decoder_outputs": False},
            {"tie_word_embeddings": False},
        ),
        (
            {"model_type": "t5", "tie_word_embeddings": True, "scale_decoder_outputs": True},
            {"tie_word_embeddings": True},
        ),
        ({"model_type": "mt5", "tie_word_embeddings": True}, {"tie_word_embeddings": False}),
        ({"model_type": "olmo3", "rope_parameters": two_bases(5e5, 5e5)}, {"rope_theta": 5e5, "rope_scaling": None}),
    ],
)
def test_a_configuration_is_said_in_the_older_words(newer, older):
    before = json.dumps(newer)
    assert translate_config("m", newer) == {"model_type": newer["model_type"]} | older
    assert json.dumps(newer) == before


def test_configurations_inside_others_are_translated():
    inside = {"model_type": "llama", "rope_parameters": PLAIN}
    older = translate_config("m", {"model_type": "llava", "text_config": inside})
    assert older["text_config"]["rope_theta"] == 500000.0
    assert "rope_parameters" not in older["text_config"]


def test_a_configuration_of_4_x_stays_as_it_is():
    config = {"model_type": "llama", "rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    assert translate_config("m", config) == config


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "olmo3", "rope_parameters": two_bases(5e5, 1e4)},
        {"model_type": "gemma3_text", "rope_parameters": {"sliding_attention": LLAMA3 | {"rope_theta": 1e4}}},
        {"model_type": "modernbert", "rope_parameters": {"full_attention": LLAMA3 | {"rope_theta": 1e4}}},
        {"model_type": "modernbert", "layer_types": ["sliding_attention", "full_attention"]},
        {"model_type": "modernbert", "layer_types": [*["full_attention"] * 2, "sliding_attention"]},
    ],
)
def test_what_has_no_older_words_is_refused(config):
    with raises(UserError):
        translate_config("m", config)


ACCEPTED = Accepted(frozenset({"hidden_size", "head_dim", "rope_theta", "rope_scaling", "pad_token_id"}))


def test_defaults_of_the_newer_version_are_written_out():
    older = {"hidden_size": 64, "head_dim": None}
    resolved = {"hidden_size": 64, "head_dim": 16, "rope_theta": 1e6, "unknown": 1, "dtype": "float32"}
    assert complete_config(older, resolved, ACCEPTED) == {"hidden_size": 64, "head_dim": 16, "rope_theta": 1e6}


def test_defaults_inside_are_written_out():
    accepted = Accepted(frozenset({"text_config"}), {"text_config": ACCEPTED})
    completed = complete_config({"text_config": {"hidden_size": 8}}, {"text_config": {"rope_theta": 1e6}}, accepted)
    assert completed == {"text_config": {"hidden_size": 8, "rope_theta": 1e6}}


@pytest.mark.parametrize(
    ("newer", "older", "unread"),
    [
        ({"hidden_size": 64}, {"hidden_size": 64}, []),
        ({"rope_theta": 1e6}, {"rope_theta": 10000.0}, ["rope_theta: 1000000.0 (there: 10000.0)"]),
        ({"rope_theta": 10000.0}, {"rope_theta": 10000}, []),
        ({"rope_scaling": None}, {}, []),
        ({"pad_token_id": 0}, {"pad_token_id": None}, ["pad_token_id: 0 (there: None)"]),
        ({"attention_kind": "new"}, {}, ["attention_kind: 'new' (there: no such key)"]),
        ({"attention_kind": "usual"}, {}, []),  # the default
        ({"kept": [1, 2]}, {"kept": [1, 2]}, []),  # neither version knows it
        ({"use_cache": True, "dtype": "float32"}, {"use_cache": False}, []),
    ],
)
def test_what_the_older_version_reads_otherwise_is_named(newer, older, unread):
    assert list(unread_keys(newer, {"attention_kind": "usual"}, older, ACCEPTED)) == unread


@pytest.mark.parametrize(("model_type", "unread"), [("d_fine", []), ("llama", ["head_dim: 8 (there: no such key)"])])
def test_a_key_that_both_versions_work_out_is_no_difference_for_its_type_alone(model_type, unread):
    newer = {"model_type": model_type, "head_dim": 8}
    assert list(unread_keys(newer, {"head_dim": 32}, {"model_type": model_type}, Accepted(frozenset()))) == unread


def test_what_is_read_otherwise_inside_is_named_with_its_place():
    accepted = Accepted(frozenset({"text_config"}), {"text_config": ACCEPTED})
    newer, older = {"text_config": {"rope_theta": 1e6, "kind": 1}}, {"text_config": {"rope_theta": 1e4}}
    assert list(unread_keys(newer, {"text_config": {"kind": 0}}, older, accepted)) == [
        "text_config.rope_theta: 1000000.0 (there: 10000.0)",
        "text_config.kind: 1 (there: no such key)",
    ]


def test_tokenizers_of_transformers_5():
    newer = {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers", "extra_special_tokens": ["<a>"]}
    assert older_tokenizer_config(newer | {"is_local": True, "pad_token": "<pad>"}) == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "additional_special_tokens": ["<a>"],
        "pad_token": "<pad>",
    }
    assert older_tokenizer_config({"tokenizer_class": "BertTokenizer", "extra_special_tokens": []}) == {
        "tokenizer_class": "BertTokenizer"
    }


@pytest.mark.parametrize("name", ["ViTImageProcessor", "ViTImageProcessorPil", "ViTImageProcessorFast"])
def test_image_processors_go_by_one_name(name):
    assert translate_preprocessor({"image_processor_type": name, "size": 4}) == {
        "image_processor_type": "ViTImageProcessor",
        "size": 4,
    }


def test_modules_that_moved():
    modules = [{"idx": 0, "type": "sentence_transformers.base.modules.normalize.Normalize"}, {"type": "my.Own"}]
    moved, own = classic_modules(modules)
    assert moved["type"] == "sentence_transformers.models.Normalize"
    assert own == {"type": "my.Own"}


def write_weights(path, tensors):
    """Write float32 tensors of given values in the safetensors format."""
    header, values = {}, b""
    for name, numbers in tensors.items():
        block = b"".join(bytes([number]) * 4 for number in numbers)
        place = [len(values), len(values) + len(block)]
        header[name] = {"dtype": "F32", "shape": [len(numbers), 1], "data_offsets": place}
        values += block
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + values)


def read_weights(path):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    start = 8 + length
    return {name: content[start + e["data_offsets"][0] : start + e["data_offsets"][1]] for name, e in header.items()}


@pytest.fixture
def snapshot(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    config = {"model_type": "t5", "tie_word_embeddings": True, "scale_decoder_outputs": False}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "processor_config.json").write_text(
        json.dumps({"image_processor": {"image_processor_type": "ViTImageProcessorPil"}})
    )
    write_weights(folder / "model.safetensors", {"other": [7], "shared.weight": [1, 2, 3]})
    return folder


def test_a_copy_leaves_the_snapshot_alone_and_links_its_weights(snapshot, tmp_path):
    before = {path.name: path.read_bytes() for path in snapshot.iterdir()}
    write_older_copy("m", snapshot, tmp_path / "copy")
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == before
    assert json.loads((tmp_path / "copy/config.json").read_text())["tie_word_embeddings"] is False
    preprocessor = json.loads((tmp_path / "copy/preprocessor_config.json").read_text())
    assert preprocessor == {"image_processor_type": "ViTImageProcessor"}


def test_an_unscaled_tied_head_gets_weights_of_its_own(snapshot, tmp_path):
    write_older_copy("m", snapshot, tmp_path / "copy")
    index = json.loads((tmp_path / "copy/model.safetensors.index.json").read_text())["weight_map"]
    assert set(index) == {"other", "shared.weight", "lm_head.weight"}
    head = read_weights(tmp_path / "copy" / index["lm_head.weight"])
    table = read_weights(tmp_path / "copy" / index["shared.weight"])
    assert head["lm_head.weight"] == table["shared.weight"] == b"\1\1\1\1\2\2\2\2\3\3\3\3"
    assert (tmp_path / "copy" / index["shared.weight"]).is_symlink()


def test_a_head_with_weights_of_its_own_keeps_them(snapshot, tmp_path):
    write_weights(snapshot / "model.safetensors", {"lm_head.weight": [9], "shared.weight": [1]})
    write_older_copy("m", snapshot, tmp_path / "copy")
    assert not (tmp_path / "copy/model.safetensors.index.json").exists()
    assert read_weights(tmp_path / "copy/model.safetensors")["lm_head.weight"] == b"\t" * 4


def test_the_bias_that_is_added_is_the_one_that_the_older_version_reads(snapshot, tmp_path):
    names = ("cls.predictions.bias", "cls.predictions.decoder.bias", "other.bias")
    write_weights(snapshot / "model.safetensors", dict(zip(names, ([1, 2], [3, 4], [5, 6]), strict=True)))
    write_older_copy("m", snapshot, tmp_path / "copy")
    values = read_weights(tmp_path / "copy/model.safetensors")
    assert values["cls.predictions.bias"] == values["cls.predictions.decoder.bias"] == b"\3\3\3\3\4\4\4\4"
    assert values["other.bias"] == b"\5\5\5\5\6\6\6\6"
    assert read_weights(snapshot / "model.safetensors")["cls.predictions.bias"] == b"\1\1\1\1\2\2\2\2"


def test_what_could_have_other_code_loaded_is_left_out():
    code = {"_attn_implementation_internal": "somebody/kernel", "attn_implementation": "somebody/kernel"}
    config = {"model_type": "bert", "hidden_size": 64, "text_config": {"model_type": "bert", **code}, **code}
    assert translate_config("m", config) == {
        "model_type": "bert",
        "hidden_size": 64,
        "text_config": {"model_type": "bert"},
    }
