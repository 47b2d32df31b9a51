"""Intervals of metrics that are no shares, where few answers change, and of metrics of a whole corpus."""

import contextlib
import io
import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from messages import raises
from onnxproof.cli import UserError
from onnxproof.evaluation.influence import find_influences
from onnxproof.evaluation.metric import Metric, mean_of
from onnxproof.evaluation.metrics import METRICS
from onnxproof.evaluation.paired import compare, judge

PAIRS = 1000
#: 95 % of 1,000 pairs vary by 1.4 points.
COVERAGE = (0.93, 0.97)
FALSELY_PASSED = 0.05


def score(labels, answers):
    return np.asarray(answers, dtype=np.float64)


#: A score of each input from 0 to 1 that is its own answer, such as F1 or NDCG.
SCORE = Metric("score", "score", ("text",), True, "onnxproof", mean_of(score), per_input=score, largest_change=1.0)


def simulate(draw_pair, metric, difference, pairs=PAIRS):
    """How often the interval holds the difference, and how often a variant passes that is worse by the limit."""
    generator, held, passed = np.random.default_rng(5), 0, 0
    for _ in range(pairs):
        compared = compare(metric, *draw_pair(generator), resamples=1000)
        held += compared.low <= difference <= compared.high
        passed += judge(compared, abs(difference), metric.higher_is_better).passed
    return held / pairs, passed / pairs


def losing(inputs, share, loss):
    """Pairs of models whose scores of some inputs fall from 1 by what ``loss`` draws."""

    def draw_pair(generator):
        lost = (generator.random(inputs) < share) * loss(generator, inputs)
        return [None] * inputs, [1.0] * inputs, list(1.0 - lost)

    return draw_pair


def test_no_change_at_all_leaves_what_clopper_and_pearson_leave():
    compared = compare(SCORE, [None] * 80, [0.5] * 80, [0.5] * 80, resamples=200_000)
    assert (compared.method, compared.affected, compared.difference) == ("bounded-bootstrap", 0, 0.0)
    bound = 1 - 0.025 ** (1 / 80)
    assert (compared.low, compared.high) == (pytest.approx(-bound, rel=0.02), pytest.approx(bound, rel=0.02))
    decision = judge(compared, 0.01, higher_is_better=True)
    assert (decision.passed, decision.verdict) == (False, "undecided")
    enough = decision.inputs_needed
    assert judge(compare(SCORE, [None] * enough, [0.5] * enough, [0.5] * enough), 0.0101, True).passed


@pytest.mark.parametrize(("inputs", "share"), [(50, 0.02), (200, 0.005), (200, 0.02)])
@pytest.mark.parametrize("loss", ["all", "half"])
def test_a_variant_that_rarely_fails_badly_does_not_pass(inputs, share, loss):
    """A plain bootstrap lets more than a fifth of them pass: the failures are not in the sample."""
    draws = {"all": lambda generator, n: np.ones(n), "half": lambda generator, n: generator.beta(2, 2, n)}
    mean = {"all": 1.0, "half": 0.5}[loss]
    held, passed = simulate(losing(inputs, share, draws[loss]), SCORE, -share * mean, pairs=500)
    assert held >= COVERAGE[0]
    assert passed < FALSELY_PASSED


@pytest.mark.slow
@pytest.mark.parametrize(("inputs", "share"), [(200, 0.2), (400, 0.2)])
def test_the_interval_of_scores_that_often_change_holds_the_difference(inputs, share):
    held, passed = simulate(
        losing(inputs, share, lambda generator, n: generator.uniform(-0.5, 1, n)), SCORE, -share / 4
    )
    assert COVERAGE[0] <= held <= COVERAGE[1]
    assert passed < FALSELY_PASSED


def entities(generator, inputs):
    """Labels of words, and two models that miss or invent an entity now and then, the second more often."""
    labels = np.where(generator.random((inputs, 8)) < 0.25, "B-PER", "O")

    def disturbed(tags, rate):
        return np.where(generator.random(tags.shape) < rate, np.where(tags == "O", "B-PER", "O"), tags)

    original = disturbed(labels, 0.05)
    return labels.tolist(), original.tolist(), disturbed(original, 0.02).tolist()


def pairs_of_texts(generator, inputs):
    """Gold similarities, and those of two models of which the second adds noise to the first."""
    gold = generator.random(inputs)
    original = gold + generator.normal(0, 0.3, inputs)
    return gold.tolist(), original.tolist(), (original + generator.normal(0, 0.15, inputs)).tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "draw_pair", "inputs"),
    [("entity_f1", entities, 150), ("pairs_spearman", pairs_of_texts, 100)],
)
def test_the_interval_of_a_metric_of_a_corpus_holds_the_difference(name, draw_pair, inputs):
    metric, generator = METRICS[name], np.random.default_rng(6)
    labels, original, variant = draw_pair(generator, 100_000)
    difference = metric.value(labels, variant) - metric.value(labels, original)
    held, passed = simulate(lambda generator: draw_pair(generator, inputs), metric, difference, pairs=400)
    assert 0.925 <= held <= 0.975  # 400 pairs: 95 % vary by 2.2 points
    assert passed < FALSELY_PASSED


def test_influences_of_parts_add_up_to_the_difference():
    labels, original, variant = pairs_of_texts(np.random.default_rng(7), 1001)
    influences = find_influences(METRICS["pairs_spearman"], labels, original, variant)
    difference = spearmanr(labels, variant).statistic - spearmanr(labels, original).statistic
    assert len(influences.values) == 167  # the fewest inputs a part are six: 200 parts at most
    assert influences.values.mean() == pytest.approx(difference, abs=1e-3)


def boxes(generator, images, noise):
    """Boxes of three labels, and answers that miss some, add some, and are a little beside them."""
    truth, answers = [], []
    for _ in range(images):
        corners = generator.uniform(0, 80, (4, 2))
        found = [[*corner, *(corner + generator.uniform(8, 20, 2))] for corner in corners]
        named = generator.choice(["cat", "dog", "fox"], 4)
        truth.append([{"box": box, "label": label} for box, label in zip(found, named, strict=True)])
        answers.append(
            [
                {"box": list(box + generator.normal(0, noise, 4)), "label": label, "score": generator.random()}
                for box, label in zip(map(np.array, found), named, strict=True)
                if generator.random() < 0.8
            ]
        )
    return truth, answers


def test_mean_average_precision_is_the_first_figure_of_coco():
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, answers = boxes(np.random.default_rng(8), 30, 1.0)
    names = ["cat", "dog", "fox"]
    rows = [
        [
            {
                "image_id": image,
                "category_id": names.index(box["label"]),
                "bbox": [box["box"][0], box["box"][1], box["box"][2] - box["box"][0], box["box"][3] - box["box"][1]],
                "score": box.get("score"),
            }
            for image, found in enumerate(images)
            for box in found
        ]
        for images in (truth, answers)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        gold = COCO()
        gold.dataset = {
            "info": {},
            "images": [{"id": image} for image in range(30)],
            "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
            "annotations": [
                row | {"id": number + 1, "iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3]}
                for number, row in enumerate(rows[0])
            ],
        }
        gold.createIndex()
        evaluation = COCOeval(gold, gold.loadRes(rows[1]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    metric = METRICS["mean_average_precision"]
    assert metric.value(truth, answers) == pytest.approx(evaluation.stats[0], abs=1e-9)
    # A part of the images has the figure that it has alone.
    of_subset = metric.of_subset(truth, answers)
    assert of_subset(np.arange(5, 15)) == pytest.approx(metric.value(truth[5:15], answers[5:15]), abs=1e-9)


def test_an_interval_of_detections_has_a_width():
    truth, answers = boxes(np.random.default_rng(9), 40, 1.0)
    generator = np.random.default_rng(10)
    moved = [
        [box | {"box": list(np.array(box["box"]) + generator.normal(0, 0.5, 4))} for box in image] for image in answers
    ]
    compared = compare(METRICS["mean_average_precision"], truth, answers, moved)
    assert compared.low < compared.difference < compared.high


@pytest.mark.parametrize("name", ["mean_absolute_error", "pairs_spearman", "perplexity"])
def test_without_a_bound_the_record_says_that_no_input_changed(name):
    metric, generator = METRICS[name], np.random.default_rng(11)
    labels, answers = generator.random(40).tolist(), generator.random(40).tolist()
    if name == "perplexity":
        answers = [{"log_likelihood": -3 * number, "tokens": 3} for number in answers]
    same = compare(metric, labels, answers, answers)
    assert (same.method, same.affected, same.low, same.high) == ("unchanged", 0, 0.0, 0.0)
    decision = judge(same, 0.001, metric.higher_is_better)
    assert decision.passed
    assert decision.reason == "changes nothing that any of them adds to the metric (0.001 is allowed)"
    first = answers[0]
    moved = first | {"log_likelihood": -9.0} if isinstance(first, dict) else first + 0.5
    changed = compare(metric, labels, answers, [moved, *answers[1:]])
    assert changed.method == "bootstrap-t"
    assert changed.low < changed.high


def test_the_scores_of_a_comparison_are_those_of_the_metric():
    metric, generator = METRICS["mean_absolute_error"], np.random.default_rng(12)
    labels, original, variant = (generator.random(30).tolist() for _ in range(3))
    compared = compare(metric, labels, original, variant)
    for own, answers in zip(compared.scores, (original, variant), strict=True):
        np.testing.assert_array_equal(own, metric.per_input(labels, answers))
    assert compare(METRICS["pairs_spearman"], labels, original, variant).scores is None


def test_a_single_input_decides_nothing():
    compared = compare(METRICS["mean_absolute_error"], [1.0], [1.5], [1.5])
    decision = judge(compared, 1.0, higher_is_better=False)
    assert (decision.passed, decision.verdict) == (False, "undecided")


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_inputs_may_have_different_numbers_of_references(name):
    metric = METRICS[name]
    labels = [["the cat sat on the mat", "a cat was on the mat"], ["it rains again in the north"]]
    answers = ["the cat sat on a mat", "it rains again in the far north"]
    total = metric.counts(labels, answers).sum(axis=0)
    assert metric.from_counts(total[None])[0] == pytest.approx(metric.value(labels, answers))
    assert metric.value(labels, answers) > metric.value([[own[-1]] for own in labels], answers)


def test_a_score_that_is_no_number_is_not_the_best():
    ranked = [[("a", 2.0), ("b", 1.0)], [("a", math.nan), ("b", 1.0)]]
    assert math.isnan(METRICS["mrr"].value([{"a": 1}, {"a": 1}], ranked))


def test_the_relevance_of_a_document_is_an_integer():
    with raises(UserError):
        METRICS["ndcg_at_10"].value([{"a": 0.5}], [[("a", 1.0)]])


def test_a_pixel_without_an_answer_is_wrong():
    value = METRICS["mean_iou"].value([np.array([[0, 0, 1, 1]])], [np.array([[0, -1, 1, 1]])])
    assert value == pytest.approx((1 / 2 + 1) / 2)
