"""Asking a model about labelled inputs, keeping its answers, and the verdict on a variant."""

import numpy as np
import pytest
from test_labelled_data import EMBEDDER, SENTIMENT, write_rows

from messages import raises
from onnxproof.cli import UserError
from onnxproof.evaluation.answers import AnswerFile, read_answers
from onnxproof.evaluation.asking import answers_to, count_examples
from onnxproof.evaluation.gate import judge_record
from onnxproof.evaluation.plan import make_plan
from onnxproof.evaluation.sounds import read_sound

SAID = {"a": [1.0, 0.0], "b": [0.0, 2.0], "c": [3.0, 3.0], "query": [0.0, 1.0]}


def embed(text):
    return np.array(SAID[text], dtype=np.float32)


def test_the_nearest_documents_answer_a_query(tmp_path):
    documents = write_rows(tmp_path / "documents.jsonl", *({"id": name, "text": name} for name in "abc"))
    data = write_rows(tmp_path / "data.jsonl", {"query": "query", "relevant": ["b"]})
    plan = make_plan("m", {}, data, documents, EMBEDDER, {})
    assert count_examples(plan) == 1
    ((example, answer),) = answers_to(plan, 1, embed)
    assert example.label == {"b": 1}
    assert [name for name, _ in answer] == ["b", "c", "a"]
    assert [score for _, score in answer] == pytest.approx([1, 0.5**0.5, 0], abs=1e-6)


def test_a_document_that_is_missing(tmp_path):
    documents = write_rows(tmp_path / "documents.jsonl", {"id": 1, "text": "a"})
    data = write_rows(tmp_path / "data.jsonl", {"query": "query", "relevant": [1, 2]})
    with raises(UserError):
        count_examples(make_plan("m", {}, data, documents, EMBEDDER, {}))


@pytest.mark.parametrize("rows", [[{"text": "a"}], [{"id": 1, "text": "a"}, {"id": "1", "text": "b"}]])
def test_each_document_needs_an_id_of_its_own(tmp_path, rows):
    documents = write_rows(tmp_path / "documents.jsonl", *rows)
    plan = make_plan("m", {}, write_rows(tmp_path / "data.jsonl", {}), documents, EMBEDDER, {})
    with raises(UserError):
        list(answers_to(plan, 1, embed))


def test_pairs_have_a_cosine_similarity(tmp_path):
    data = write_rows(tmp_path / "data.jsonl", {"text1": "a", "text2": "c", "score": 3})
    plan = make_plan("m", {}, data, None, EMBEDDER, {})
    ((example, answer),) = answers_to(plan, 1, embed)
    assert (example.label, example.shown) == (3.0, "a | c")
    assert answer == pytest.approx(0.5**0.5)


def test_answers_come_back_as_they_were_written(tmp_path):
    places = np.arange(12, dtype=np.int32).reshape(3, 4)
    with AnswerFile(tmp_path / "answers.jsonl") as file:
        file.write(1, answer={"scores": [0.25, 0.75]}, label=1)
        file.write(3, answer=places, label="ü")
    rows, answers, labels = read_answers(tmp_path / "answers.jsonl", "row", "answer", "label")
    assert (rows, labels) == ([1, 3], [1, "ü"])
    assert answers[0] == {"scores": [0.25, 0.75]}
    np.testing.assert_array_equal(answers[1], places)
    assert answers[1].dtype == np.int32


def test_a_sound_is_brought_to_the_models_rate(tmp_path):
    from scipy.io import wavfile

    tone = np.sin(2 * np.pi * 220 * np.arange(44_100) / 44_100)
    wavfile.write(tmp_path / "tone.wav", 44_100, (np.stack([tone, tone], axis=1) * 32_767).astype(np.int16))
    sound = read_sound(tmp_path / "tone.wav", 16_000)
    expected = np.sin(2 * np.pi * 220 * np.arange(16_000) / 16_000)
    assert (sound.dtype, sound.shape) == (np.float32, (16_000,))
    np.testing.assert_allclose(sound[200:-200], expected[200:-200], atol=0.01)
    (tmp_path / "noise.wav").write_bytes(b"RIFF")
    with raises(UserError):
        read_sound(tmp_path / "noise.wav", 16_000)


def record(metric="accuracy", original=0.9, value=0.9, interval=(0.0, 0.0), inputs=1000, better=True):
    return {
        "model": "m",
        "variant": "int8",
        "metric": metric,
        "higher_is_better": better,
        "data": {"inputs": inputs},
        "original": original,
        "value": value,
        "difference": value - original,
        "interval": list(interval),
        "method": "tango",
        "changed": 0.0,
        "affected": 0,
        "gained": 0,
        "lost": 0,
    }


def test_a_variant_passes_only_if_the_whole_interval_is_within_the_limit():
    assert judge_record(record(value=0.898, interval=(-0.004, 0.001)), 0.005).passed
    undecided = judge_record(record(value=0.898, interval=(-0.007, 0.003)), 0.005)
    assert not undecided.passed
    assert undecided.decision.verdict == "undecided"
    worse = judge_record(record(value=0.89, interval=(-0.02, -0.001)), 0.005)
    assert worse.decision.verdict == "worse"
    assert "accuracy 0.89 against 0.9, difference -0.01 with a 95 % interval from -0.02 to -0.001" in str(worse)


@pytest.mark.parametrize(
    ("metric", "original", "better", "limit"),
    [("accuracy", 0.9, True, 0.01), ("bleu", 30.0, True, 1.0), ("word_error_rate", 0.2, False, 0.004)],
)
def test_the_limit_where_the_configuration_has_none(metric, original, better, limit):
    verdict = judge_record(record(metric, original, original, better=better), None)
    assert verdict.limit == pytest.approx(limit)
    assert verdict.passed


def test_a_label_is_checked_before_the_model_is_asked(tmp_path):
    data = write_rows(tmp_path / "data.jsonl", {"text": "a", "label": 0}, {"text": "b", "label": "neutral"})
    with raises(UserError):
        count_examples(make_plan("m", {}, data, None, SENTIMENT, {}))
