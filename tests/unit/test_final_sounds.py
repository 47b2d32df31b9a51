"""What is asked of the original about raw sounds, and how its settings become those of a card's program."""

import pytest

from kinds import change_json, save_transcriber
from onnxproof.original.final_answers import record_final_answers
from onnxproof.original.final_sounds import can_answer, load_speech_tokenizer
from onnxproof.original.model import load_original

pytestmark = pytest.mark.slow


def test_a_folder_without_a_vocabulary_is_told_in_one_line(tmp_path, capsys):
    save_transcriber(tmp_path / "m")
    assert load_speech_tokenizer("m", tmp_path / "m").decode([5, 5, 0, 5, 6]) == "eet"
    assert capsys.readouterr().out == ""
    (tmp_path / "m" / "vocab.json").unlink()
    assert load_speech_tokenizer("m", tmp_path / "m") is None
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("m: there is no vocabulary for its text")


def test_a_tokenizer_that_cannot_be_loaded_is_told_in_one_line(tmp_path, capsys):
    save_transcriber(tmp_path / "m")
    (tmp_path / "m" / "vocab.json").write_text("[")
    assert load_speech_tokenizer("m", tmp_path / "m") is None
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("m: its tokenizer cannot be loaded here (")


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
