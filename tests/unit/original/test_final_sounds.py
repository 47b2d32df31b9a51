"""What is asked of the original about raw sounds, and how its settings become those of a card's program."""

import json

import numpy as np
import pytest

from kinds import change_json, save_moonshine_model, save_transcriber, save_whisper_model
from messages import raises
from onnxproof.cli import UserError
from onnxproof.original.final_answers import record_final_answers
from onnxproof.original.final_sounds import (
    can_answer,
    check_language_and_task,
    starts_of,
)
from onnxproof.original.interfaces import cleans_text, load_own_tokenizer
from onnxproof.original.model import load_original

pytestmark = pytest.mark.slow


def test_a_folder_without_a_vocabulary_is_told_in_one_line(tmp_path, capsys):
    save_transcriber(tmp_path / "m")
    assert load_own_tokenizer("m", tmp_path / "m").decode([5, 5, 0, 5, 6]) == "eet"
    assert capsys.readouterr().out == ""
    (tmp_path / "m" / "vocab.json").unlink()
    assert load_own_tokenizer("m", tmp_path / "m") is None
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("m: it has no tokenizer for its text (there is no vocabulary)")


def test_a_tokenizer_that_cannot_be_loaded_is_told_in_one_line(tmp_path, capsys):
    save_transcriber(tmp_path / "m")
    (tmp_path / "m" / "vocab.json").write_text("[")
    assert load_own_tokenizer("m", tmp_path / "m") is None
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("m: it has no tokenizer for its text (")


def test_a_pipeline_that_stops_is_told_in_one_line(capsys):
    def stop(sound):
        raise TypeError("OmniASREncoderLayer(\n  (layer_norm): LayerNorm()\n) got multiple values")

    assert not can_answer("m", stop, 4000)
    (line,) = capsys.readouterr().out.splitlines()
    assert "TypeError: ) got multiple values" in line
    assert can_answer("m", lambda sound: "", 4000)


def test_a_language_model_that_chooses_words_is_named(tmp_path):
    save_transcriber(tmp_path / "m")
    change_json(tmp_path / "m" / "preprocessor_config.json", processor_class="Wav2Vec2ProcessorWithLM")
    original = load_original("m", tmp_path / "m", "automatic-speech-recognition")
    final = record_final_answers(original, "m", tmp_path / "m")
    assert final.settings["language_model"] == "Wav2Vec2ProcessorWithLM"
    assert [sound.ndim for sound in final.inputs].count(2) == 1
    assert len(set(final.answers)) > 10


def test_spaces_before_punctuation_stay_as_in_transformers_5(tmp_path):
    save_moonshine_model(tmp_path / "words")
    save_whisper_model(tmp_path / "pairs")
    texts = {}
    for name in ("words", "pairs"):
        change_json(tmp_path / name / "tokenizer_config.json", clean_up_tokenization_spaces=True)
        tokenizer = load_own_tokenizer("m", tmp_path / name)
        numbers = tokenizer.convert_tokens_to_ids(["e", "." if name == "words" else "\u0120."])
        texts[name] = cleans_text(tokenizer), tokenizer.decode(numbers)
    assert texts == {"words": (True, "e."), "pairs": (False, "e .")}


def test_settings_that_no_program_applies_are_named_and_not_asked_for(tmp_path):
    save_moonshine_model(tmp_path / "m")
    recorded = []
    for penalty in (1.0, 9.0):
        change_json(tmp_path / "m" / "generation_config.json", repetition_penalty=penalty)
        original = load_original("m", tmp_path / "m", "speech-to-text")
        recorded.append(record_final_answers(original, "m", tmp_path / "m"))
    assert [final.settings["not_applied"] for final in recorded] == [{}, {"repetition_penalty": 9.0}]
    assert recorded[0].answers == recorded[1].answers
    assert recorded[0].settings["first"] == [2, 40]


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """The folder of a Whisper, and the features of a sound."""
    from transformers import WhisperFeatureExtractor

    folder = tmp_path_factory.mktemp("whisper") / "m"
    save_whisper_model(folder)
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    sound = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    return folder, extractor(sound, sampling_rate=16000, return_tensors="pt").input_features


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"forced_decoder_ids": None},
        {"language": "german"},
        {"language": "<|de|>", "task": "translate"},
        {"task": "translate"},
        {"forced_decoder_ids": [[1, "<|de|>"], [2, "<|translate|>"]]},
        {"lang_to_id": None, "task_to_id": None, "forced_decoder_ids": [[1, "<|notimestamps|>"]]},
        {"forced_decoder_ids": None, "no_timestamps_token_id": None, "language": "en"},
    ],
    ids=json.dumps,
)
def test_a_text_of_whisper_begins_as_generate_begins_it(whisper, settings):
    import torch
    from transformers import GenerationConfig, WhisperForConditionalGeneration, WhisperTokenizer

    folder, features = whisper
    number = WhisperTokenizer.from_pretrained(folder).convert_tokens_to_ids
    content = json.loads((folder / "generation_config.json").read_text()) | settings
    for pair in content["forced_decoder_ids"] or ():
        pair[1] = number(pair[1]) if isinstance(pair[1], str) else pair[1]
    content = {key: value for key, value in content.items() if value is not None}
    content["suppress_tokens"] = [*content["suppress_tokens"], content["eos_token_id"]]  # so that no text ends early
    model = WhisperForConditionalGeneration.from_pretrained(folder)
    model.generation_config = GenerationConfig.from_dict(content)
    first, languages = starts_of(model.generation_config, model.config, True)
    with torch.no_grad():
        made = model.generate(features, max_new_tokens=3, return_segments=True)
    (segment,) = made["segments"][0]
    begun = segment["result"][: len(first)].tolist()
    assert len(begun) == len(segment["result"]) - 3
    assert first == [None if given is None else token for token, given in zip(begun, first, strict=True)]
    assert (None in first) == bool(languages)
    assert all(token in languages for token, given in zip(begun, first, strict=True) if given is None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("language", "klingon"),
        ("language", ["en"]),
        ("language", "french"),
        ("task", "sing"),
    ],
)
def test_a_language_or_task_without_a_token_is_told_in_one_line(whisper, key, value):
    from transformers import GenerationConfig

    content = json.loads((whisper[0] / "generation_config.json").read_text())
    with raises(UserError):
        check_language_and_task("m", GenerationConfig.from_dict(content | {key: value}))
    check_language_and_task("m", GenerationConfig.from_dict(content | {"language": "German", "task": "translate"}))
