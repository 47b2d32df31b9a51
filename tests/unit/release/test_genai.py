"""What onnxruntime-genai is told of a graph that writes text."""

import json

import onnx
import pytest

from cached_decoder import HEADS, LAYERS, SIZE, VOCABULARY, cached_decoder
from onnxproof.quantization.passes.cache_in_place import keep_cache_in_place
from onnxproof.release import genai
from onnxproof.release.genai import write_genai_config

CONTEXT = 512
#: Bytes of keys and values of a token: two heads of each in every layer.
TOKEN_BYTES = 2 * LAYERS * 2 * SIZE * 4


@pytest.fixture
def release(tmp_path):
    config = {"max_position_embeddings": CONTEXT, "num_attention_heads": HEADS, "hidden_size": 32, "eos_token_id": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def settings_of(release, in_place, others=()):
    model = cached_decoder()
    if in_place:
        keep_cache_in_place(model)
    onnx.save(model, release / "model_q4_cpu.onnx")
    files = {"q4-cpu": "model_q4_cpu.onnx"} | dict(others)
    assert list(write_genai_config(release, files)) == ["genai_config.json"]
    return json.loads((release / "genai_config.json").read_text())


def test_a_graph_that_gives_a_new_cache_shares_no_buffer(release):
    settings = settings_of(release, in_place=False)
    assert settings["search"]["past_present_share_buffer"] is False
    assert settings["search"]["max_length"] == settings["model"]["context_length"] == CONTEXT
    decoder = settings["model"]["decoder"]
    assert (decoder["num_hidden_layers"], decoder["num_key_value_heads"], decoder["head_size"]) == (LAYERS, 2, SIZE)
    assert settings["model"]["vocab_size"] == VOCABULARY


@pytest.mark.parametrize(("room", "expected"), [(CONTEXT + 1, CONTEXT), (100, 100)])
def test_a_shared_buffer_is_as_long_as_the_longest_text_but_not_too_large(release, monkeypatch, room, expected):
    monkeypatch.setattr(genai, "BUFFER_BYTES", room * TOKEN_BYTES + 1)
    settings = settings_of(release, in_place=True)
    assert settings["search"]["past_present_share_buffer"] is True
    assert settings["search"]["max_length"] == expected
    assert settings["model"]["context_length"] == CONTEXT


def test_the_file_that_is_named_decides(release):
    settings = settings_of(release, in_place=True, others={"fp32": "model.onnx"})
    assert settings["model"]["decoder"]["filename"] == "model_q4_cpu.onnx"
    assert settings["search"]["past_present_share_buffer"] is True
