"""The parity metrics against numbers worked out by hand."""

import numpy as np
import pytest

from messages import raises
from onnxproof.cli import UserError
from onnxproof.parity.answers import answer_distance, measure_answers
from onnxproof.parity.metrics import (
    best_span,
    box_overlap,
    classification_metrics,
    compare_output,
    cosine_similarity,
    detection_metrics,
    embedding_metrics,
    field_metrics,
    map_metrics,
    next_token_metrics,
    order_agreement,
    perplexity_metrics,
    rank_overlap,
    span_metrics,
    token_metrics,
)


def test_cosine_of_known_angles():
    expected = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    actual = np.array([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    assert cosine_similarity(expected, actual) == pytest.approx([1.0, 0.0, 2**-0.5, 1.0, 0.0])


def test_differences_of_an_output():
    compared = compare_output([np.array([[1.0, 2.0], [3.0, 4.0]])], [np.array([[1.0, 2.5], [3.0, 3.0]])])
    assert compared["max_abs_diff"] == 1.0
    assert compared["mean_abs_diff"] == pytest.approx(0.375)
    assert compared["shape"] == [2, 2]
    assert compared["max_relative_diff"] == 0.25


def test_outputs_of_different_lengths_are_compared_input_by_input():
    expected = [np.ones(3), np.ones(5)]  # logits of the first token, say, one a token
    compared = compare_output(expected, [np.ones(3), 2 * np.ones(5)])
    assert compared["shape"] == [2, 5]
    assert (compared["max_abs_diff"], compared["cosine_min"]) == (1.0, pytest.approx(1.0))


def test_outputs_of_different_shapes_are_an_error():
    with raises(UserError):
        compare_output([np.zeros((2, 3))], [np.zeros((2, 4))])


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_not_finite_is_reported_as_none(broken):
    expected = np.ones((3, 4))
    actual = expected.copy()
    actual[1, 2] = broken
    assert compare_output([expected], [actual])["max_abs_diff"] is None
    assert embedding_metrics(expected, actual)["cosine_min"] is None
    assert embedding_metrics(expected, actual)["rank_overlap"] is None
    assert classification_metrics(expected, actual)["top1_agreement"] is None


@pytest.mark.parametrize("broken", [np.nan, np.inf])
@pytest.mark.parametrize(
    "measure",
    [
        classification_metrics,
        token_metrics,
        embedding_metrics,
        lambda left, right: span_metrics([left], [right]),
        lambda left, right: map_metrics([left, left], [right, right]),
        lambda left, right: next_token_metrics([left], [right]),
        np.errstate(invalid="ignore")(lambda left, right: field_metrics([left], [right])),
        lambda left, right: detection_metrics([left], [right]),
        lambda left, right: {"order": order_agreement(left[:, 1], right[:, 1])},
    ],
)
def test_no_metric_hides_what_is_not_finite_on_either_side(measure, broken):
    good = np.random.default_rng(0).random((2, 6))
    bad = good.copy()
    bad[1, 1] = broken
    assert None not in measure(good, good).values()
    for expected, actual in ((good, bad), (bad, good), (bad, bad)):
        assert set(measure(expected, actual).values()) == {None}


def test_a_divergence_that_overflows_is_not_perfect():
    huge = np.array([[1e308, -1e308]] * 2)
    with np.errstate(all="ignore"):
        metrics = classification_metrics(huge, -huge)
        assert metrics["mean_kl"] is None
        assert span_metrics([huge], [-huge])["mean_kl"] is None
        assert answer_distance("text-classification", [huge], [-huge]) == np.inf


def test_rank_overlap_counts_shared_neighbours():
    angles = np.radians([0, 10, 30, 60, 100])
    expected = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert rank_overlap(expected, expected * 3, neighbours=2) == 1.0
    moved = np.radians([0, 10, 30, 60, 5])  # the last one moves among the first
    actual = np.stack([np.cos(moved), np.sin(moved)], axis=1)
    assert rank_overlap(expected, actual, neighbours=1) == pytest.approx(2 / 5)
    assert rank_overlap(expected[:1], actual[:1]) == 1.0


def test_classification_metrics():
    expected = np.log([[0.7, 0.3], [0.4, 0.6]])
    actual = np.log([[0.7, 0.3], [0.6, 0.4]]) + 5.0  # a shift of all logits changes nothing
    metrics = classification_metrics(expected, actual)
    assert metrics["top1_agreement"] == 0.5
    assert metrics["max_probability_diff"] == pytest.approx(0.2)
    divergence = 0.4 * np.log(0.4 / 0.6) + 0.6 * np.log(0.6 / 0.4)
    assert metrics["mean_kl"] == pytest.approx(divergence / 2)


def test_a_single_logit_is_a_yes_or_no():
    metrics = classification_metrics(np.array([[2.0], [-1.0]]), np.array([[1.0], [0.5]]))
    assert metrics["top1_agreement"] == 0.5
    sigmoid = 1 / (1 + np.exp([-2.0, -1.0, 1.0, -0.5]))
    assert metrics["max_probability_diff"] == pytest.approx(max(sigmoid[0] - sigmoid[1], sigmoid[3] - sigmoid[2]))


def test_each_label_of_several_is_a_decision_of_its_own():
    expected = [np.array([[2.0, -1.0]]), np.array([[-3.0, 0.5]])]
    actual = [np.array([[1.0, -1.0]]), np.array([[-3.0, -0.5]])]  # one yes of four becomes a no
    metrics = measure_answers("multi-label-classification", expected, actual)
    assert metrics["label_agreement"] == 0.75
    assert "top1_agreement" not in metrics
    sigmoid = 1 / (1 + np.exp([-0.5, 0.5]))
    assert metrics["max_probability_diff"] == pytest.approx(sigmoid[0] - sigmoid[1])
    assert measure_answers("multi-label-classification", expected, [row * np.nan for row in actual]) == {
        "label_agreement": None,
        "max_probability_diff": None,
        "mean_kl": None,
    }


def test_the_ratio_of_perplexities_counts_the_tokens_of_all_texts():
    expected = [np.log([0.5, 0.25]), np.log([0.125]), np.empty(0)]
    actual = [np.log([0.25, 0.25]), np.log([0.125]), np.empty(0)]
    assert perplexity_metrics(expected, actual)["perplexity_ratio"] == pytest.approx(2 ** (1 / 3))
    assert perplexity_metrics(expected, [values * np.nan for values in actual]) == {"perplexity_ratio": None}
    assert perplexity_metrics([np.empty(0)], [np.empty(0)]) == {}


def test_token_and_pixel_agreement_count_rows_of_all_inputs():
    expected, actual = np.eye(4) * 5, np.eye(4)[[0, 1, 2, 2]] * 5
    assert token_metrics(expected, actual)["token_agreement"] == 0.75
    assert map_metrics([expected[:1], expected[1:]], [actual[:1], actual[1:]])["pixel_agreement"] == 0.75


def test_order_agreement_counts_pairs():
    assert order_agreement(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0])) == pytest.approx(2 / 3)
    assert order_agreement(np.array([1.0]), np.array([2.0])) == 1.0
    assert order_agreement(np.array([1.0, 2.0]), np.array([np.nan, 2.0])) is None


def test_a_span_ends_after_it_starts_and_is_not_long():
    start, end = np.array([0.0, 5.0, 0.0, 0.0]), np.array([9.0, 0.0, 1.0, 2.0])
    assert best_span(start, end) == (0, 0)  # 9 before 5 + 2, though the best single start is token 1
    assert best_span(start, np.array([0.0, 0.0, 1.0, 2.0]), longest=2) == (1, 2)


def test_span_agreement_counts_questions():
    first, other = np.eye(4)[[1, 2]] * 9, np.eye(4)[[1, 3]] * 9
    metrics = span_metrics([first, first], [first, other])
    assert metrics["span_agreement"] == 0.5
    assert span_metrics([first], [first * np.nan])["span_agreement"] is None


def test_box_overlap_of_known_boxes():
    boxes = np.array([[0.5, 0.5, 1.0, 1.0], [0.25, 0.5, 0.5, 1.0], [5.0, 5.0, 1.0, 1.0]])
    assert box_overlap(boxes[:1], boxes) == pytest.approx(np.array([[1.0, 0.5, 0.0]]))


def test_detections_are_matched_wherever_they_are_in_the_list():
    generator = np.random.default_rng(0)
    boxes = np.hstack([generator.uniform(0.2, 0.8, (40, 2)), generator.uniform(0.1, 0.2, (40, 2))])
    answer = np.hstack([generator.normal(size=(40, 3)), boxes])
    assert detection_metrics([answer], [answer[::-1]]) == {"detection_agreement": 1.0}
    strongest = np.argsort(-answer[:, :3].max(axis=1))[:5]
    moved = answer.copy()
    moved[strongest, -4:-2] += 5
    assert detection_metrics([answer], [moved])["detection_agreement"] == 0.5
    assert detection_metrics([answer], [answer * np.nan]) == {"detection_agreement": None}


def test_a_field_is_judged_by_its_shape_and_its_size():
    metrics = field_metrics([np.full((2, 3), 2.0)], [np.full((2, 3), 2.5)])
    assert metrics == {"cosine_min": pytest.approx(1), "cosine_mean": pytest.approx(1), "mean_relative_diff": 0.25}
