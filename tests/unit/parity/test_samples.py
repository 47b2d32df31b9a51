"""Which inputs a reader is shown, and how the answers to them are given."""

import numpy as np
import pytest

from onnxproof.parity.samples import LONGEST_TEXT, sample_answers


def test_each_label_is_shown_by_its_first_text():
    texts = ["first", "second", "third", "x" * (LONGEST_TEXT + 1)]
    expected = np.array([[0.0, 2.0, 0.0], [0.0, 3.0, 0.0], [4.0, 0.0, 0.0], [0.0, 0.0, 5.0]])
    actual = expected.copy()
    actual[0] = [2.0, 0.0, 0.0]
    samples = sample_answers("text-classification", texts, expected, actual, {"0": "bad", "1": "good"})
    assert [sample["texts"] for sample in samples] == [["third"], ["first"]]
    assert [sample["expected"]["label"] for sample in samples] == ["bad", "good"]
    assert [sample["actual"]["label"] for sample in samples] == ["bad", "bad"]
    assert samples[0]["expected"]["probability"] == pytest.approx(np.exp(4) / (np.exp(4) + 2))


def test_pairs_go_from_alike_to_unlike_and_no_text_is_shown_twice():
    angles = np.deg2rad([0, 1, 45, 90, 180, 181])
    expected = np.stack([np.cos(angles), np.sin(angles)], axis=1) * 3
    samples = sample_answers("sentence-similarity", list("abcdef"), expected, expected, None)
    assert samples[0]["texts"] == ["a", "b"]
    similarities = [sample["expected"]["similarity"] for sample in samples]
    assert similarities[0] == pytest.approx(np.cos(np.deg2rad(1)))
    shown = [text for sample in samples for text in sample["texts"]]
    assert len(shown) == len(set(shown)) == 6
    assert all(sample["expected"] == sample["actual"] for sample in samples)


@pytest.mark.parametrize("task", ["text-classification", "sentence-similarity"])
def test_answers_that_are_not_finite_give_no_samples(task):
    expected = np.eye(3)
    assert sample_answers(task, list("abc"), expected, expected * np.nan, None) == []


@pytest.mark.parametrize("texts", [[], ["one"], [" ", ""]])
def test_too_few_texts_give_no_pairs(texts):
    vectors = np.eye(3)[: len(texts)]
    assert sample_answers("sentence-similarity", texts, vectors, vectors, None) == []


def test_a_task_without_samples_has_none():
    assert sample_answers("feature-extraction", ["a", "b"], np.eye(2), np.eye(2), None) == []
