"""Where transformers 5 misreads a folder that transformers 4 saved: corrected on reading, or refused."""

import json

import pytest

from messages import raises
from onnxproof.checkpoint.inference import check_architecture
from onnxproof.checkpoint.misread_configs import check_config
from onnxproof.cli import UserError
from onnxproof.original.corrections import biases_to_copy, correct_tokenizer, file_of_4


@pytest.mark.parametrize("value", ["relative_key", "relative_key_query"])
def test_relative_positions_are_refused_before_the_download(value):
    config = {"model_type": "bert", "architectures": ["BertModel"], "position_embedding_type": value}
    with raises(UserError):
        check_architecture("m", config)
    with raises(UserError):
        check_config("m", {"model_type": "encoder-decoder", "encoder": config})


def test_absolute_and_rotary_positions_pass():
    check_config("m", {"model_type": "bert", "position_embedding_type": "absolute"})
    check_config("m", {"model_type": "esm", "position_embedding_type": "rotary"})


def test_a_scaled_mt5_of_4_is_refused_and_one_of_5_is_not():
    config = {"model_type": "mt5", "tie_word_embeddings": True}
    with raises(UserError):
        check_config("m", config | {"transformers_version": "4.57.6"})
    check_config("m", config | {"transformers_version": "5.24.0"})


def test_longrope_of_4_is_refused_where_the_versions_differ():
    config = {"model_type": "llama", "rope_scaling": {"rope_type": "longrope"}, "transformers_version": "4.57.6"}
    with raises(UserError):
        check_config("m", config)
    check_config("m", config | {"model_type": "phi3"})
    check_config("m", config | {"transformers_version": "5.24.0"})


def test_a_bias_that_was_one_with_another_takes_its_values():
    present = {"cls.predictions.bias", "cls.predictions.decoder.bias", "head.decoder.bias"}
    missing = ["cls.predictions.decoder.bias", "head.decoder.bias", "head.weight"]
    assert biases_to_copy(missing, present) == {"cls.predictions.decoder.bias": "cls.predictions.bias"}


def test_the_file_is_read_as_4_read_it():
    content = {
        "normalizer": {"type": "BertNormalizer", "lowercase": True},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True},
    }
    read = file_of_4(content, {"do_lower_case": False, "strip_accents": True}, "BertTokenizer")
    assert read["normalizer"] == {
        "type": "BertNormalizer",
        "lowercase": False,
        "strip_accents": True,
        "handle_chinese_chars": True,
    }
    assert read["pre_tokenizer"]["add_prefix_space"] is False
    assert file_of_4(content, {}, "RobertaTokenizer")["normalizer"] == content["normalizer"]


def test_a_tokenizer_cuts_texts_as_its_own_file_says(tmp_path):
    """A class of transformers 5 builds its parts anew; ``tokenizer.json`` of a folder of 4 has others."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    from tiny_models import write_tokenizer

    write_tokenizer(tmp_path)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text())
    content["post_processor"] = None
    content["normalizer"] = None
    file.write_text(json.dumps(content))
    settings = {"tokenizer_class": "BertTokenizer", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "the battery is good"
    wanted = Tokenizer.from_file(str(file)).encode(text).ids
    assert tokenizer(text)["input_ids"] != wanted
    assert correct_tokenizer("m", tmp_path, tokenizer, types=2)
    assert tokenizer(text)["input_ids"] == wanted


def test_what_transformers_5_saved_stays_as_it_reads_it(tmp_path):
    class Untouched:
        backend_tokenizer = object()

    (tmp_path / "tokenizer_config.json").write_text('{"backend": "tokenizers"}')
    assert correct_tokenizer("m", tmp_path, Untouched(), types=2) == []


def test_a_vocabulary_that_5_reads_otherwise_is_refused(tmp_path):
    class Tokenizer:
        backend_tokenizer = object()
        model_input_names = ("input_ids",)

    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "DebertaV2Tokenizer"}')
    (tmp_path / "spm.model").write_bytes(b"")
    with raises(UserError):
        correct_tokenizer("m", tmp_path, Tokenizer(), types=0)
