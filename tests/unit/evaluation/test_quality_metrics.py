"""Each metric on a case whose value is known: by hand, and by the library's own function."""

import math

import numpy as np
import pytest

from messages import raises
from onnxproof.cli import UserError
from onnxproof.evaluation.metrics import METRICS


def scores(*rows):
    return [{"scores": list(row)} for row in rows]


#: Three labels, five inputs: the first four are right by 0.9, 0.6, 0.5 and 0.4; the last is wrong by 0.7.
ANSWERS = scores((0.9, 0.1, 0), (0.3, 0.6, 0.1), (0.2, 0.3, 0.5), (0.3, 0.3, 0.4), (0.7, 0.2, 0.1))
LABELS = [0, 1, 2, 2, 1]
#: Two queries: the relevant document is the first, and the third.
RANKED = [[("a", 3.0), ("b", 2.0)], [("b", 3.0), ("c", 2.0), ("a", 1.0)]]
BOX = {"box": [0, 0, 10, 10], "label": "cat"}

CASES = {
    "accuracy": (LABELS, ANSWERS, 4 / 5),
    "top_1": (LABELS, ANSWERS, 4 / 5),
    "top_5": ([0, 5], scores((0, 1, 2, 3, 4, 5), (1, 2, 3, 4, 5, 0.5)), 0.0),
    # Labels 0, 1, 2: found 1 of 2 answered and 1 labelled; 1 of 1 and 2; 2 of 2 and 2.
    "macro_f1": (LABELS, ANSWERS, (2 / 3 + 2 / 3 + 1) / 3),
    "log_loss": (LABELS, ANSWERS, -np.log([0.9, 0.6, 0.5, 0.4, 0.2]).mean()),
    # Every input has a bin of its own: gaps of 0.1, 0.4, 0.5, 0.6 and 0.7.
    "expected_calibration_error": (LABELS, ANSWERS, (0.1 + 0.4 + 0.5 + 0.6 + 0.7) / 5),
    # Two of three answered are right, of three labelled.
    "micro_f1": ([[0, 1], [2]], scores((0.9, 0.2, 0.8), (0.1, 0.2, 0.7)), 2 * 2 / (3 + 3)),
    # Label 0: its input comes second; label 1: first.
    "average_precision": ([[0], [1]], scores((0.4, 0.1), (0.6, 0.9)), (1 / 2 + 1) / 2),
    "mean_absolute_error": ([1.0, 2.0], [1.5, 4.0], 1.25),
    "root_mean_squared_error": ([1.0, 2.0], [2.0, 9.0], 5.0),
    "pearson": ([1.0, 2.0, 3.0], [2.0, 2.0, 5.0], 3 / math.sqrt(2 * 6)),
    "spearman": ([1.0, 2.0, 3.0, 4.0], [0.1, 0.3, 0.2, 0.4], 0.8),
    "pairs_spearman": ([1.0, 2.0, 3.0, 4.0], [0.1, 0.3, 0.2, 0.4], 0.8),
    # One of two answered entities has the words and the type of one of two labelled.
    "entity_f1": ([["B-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "I-PER", "O", "B-ORG"]], 0.5),
    "token_accuracy": ([["A", "B", "A", "B"]], [["A", "A", "A", "B"]], 0.75),
    "exact_match": ([["The cat"], ["a dog"]], ["cat!", "two dogs"], 0.5),
    # 'black cat' shares one of two words with 'cat'.
    "answer_f1": ([["the cat"], ["Berlin", "a dog"]], ["black cat", "dog"], (2 / 3 + 1) / 2),
    "ndcg_at_10": ([{"a": 1}, {"a": 1}], RANKED, (1 + 1 / math.log2(4)) / 2),
    "recall_at_10": ([{"a": 1, "z": 1}, {"a": 1}], RANKED, (1 / 2 + 1) / 2),
    "mrr": ([{"a": 1}, {"a": 1}], RANKED, (1 + 1 / 3) / 2),
    # One word wrong, one missing, of six.
    "word_error_rate": (["one two three", "four five six"], ["one too three", "four five"], 2 / 6),
    "character_error_rate": (["abcd"], ["abxd"], 1 / 4),
    # All four orders of n-grams match; the answer is one word short of ten.
    "bleu": (["a b c d e f g h i j"], ["a b c d e f g h i"], 100 * math.exp(1 - 10 / 9)),
    "chrf": (["abc", "def"], ["abc", "def"], 100.0),
    # The longest common words are two of three and two of two.
    "rouge_l": (["the cat sat"], ["cat sat"], 2 * 1 * (2 / 3) / (1 + 2 / 3)),
    "perplexity": (
        [None, None],
        [{"log_likelihood": -math.log(16), "tokens": 2}, {"log_likelihood": 0.0, "tokens": 2}],
        2.0,
    ),
    "mean_average_precision": ([[BOX], [BOX]], [[BOX | {"score": 0.9}], []], 51 / 101),
    # Of class 0: two of three; of class 1: one of two. 255 is not labelled.
    "mean_iou": ([np.array([[0, 0, 1, 255]])], [np.array([[0, 0, 0, 1]])], (2 / 3 + 0) / 2),
    "depth_absolute_relative_error": ([np.array([[2.0, 4.0, 0.0]])], [np.array([[3.0, 4.0, 9.0]])], 0.25),
}


def test_every_metric_has_a_case():
    assert CASES.keys() == METRICS.keys()


@pytest.mark.parametrize("name", CASES)
def test_the_value_is_the_one_that_is_known(name):
    labels, answers, expected = CASES[name]
    assert METRICS[name].value(labels, answers) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_the_sums_of_what_inputs_add_give_the_same_value(name):
    metric, (labels, answers, expected) = METRICS[name], CASES[name]
    if metric.per_input:
        assert metric.per_input(labels, answers).mean() == pytest.approx(expected, abs=1e-9)
    if metric.counts:
        total = np.asarray(metric.counts(labels, answers).sum(axis=0), dtype=np.float64)
        assert metric.from_counts(total[None])[0] == pytest.approx(expected, abs=1e-9)
    if metric.of_subset:
        assert metric.of_subset(labels, answers)(np.arange(len(labels))) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("kind", ["LOGITS", "PROBABILITIES"])
def test_logits_and_probabilities_give_the_same(kind):
    logits = [np.log(np.maximum(answer["scores"], 1e-30)) + 3 for answer in ANSWERS]
    answers = ANSWERS if kind == "PROBABILITIES" else scores(*logits)
    assert METRICS["log_loss"].value(LABELS, answers) == pytest.approx(CASES["log_loss"][2])


def test_random_corpora_give_what_the_libraries_give():
    import jiwer
    import sacrebleu
    from seqeval.metrics import f1_score
    from sklearn import metrics

    draw = np.random.default_rng(0)
    words = [f"w{number}" for number in range(12)]
    texts = [[" ".join(draw.choice(words, 8)) for _ in range(40)] for _ in range(2)]
    assert METRICS["bleu"].value(*texts) == pytest.approx(sacrebleu.corpus_bleu(texts[1], [texts[0]]).score)
    assert METRICS["chrf"].value(*texts) == pytest.approx(sacrebleu.corpus_chrf(texts[1], [texts[0]]).score)
    assert METRICS["word_error_rate"].value(*texts) == pytest.approx(jiwer.wer(*texts))
    tags = [[list(draw.choice(["O", "B-A", "I-A", "B-B"], 9)) for _ in range(40)] for _ in range(2)]
    assert METRICS["entity_f1"].value(*tags) == pytest.approx(f1_score(*tags))
    labels, drawn = draw.integers(0, 4, 200), draw.dirichlet(np.ones(4), 200)
    answers, chosen = scores(*drawn), drawn.argmax(axis=1)
    assert METRICS["macro_f1"].value(labels, answers) == pytest.approx(
        metrics.f1_score(labels, chosen, average="macro")
    )
    assert METRICS["log_loss"].value(labels, answers) == pytest.approx(metrics.log_loss(labels, drawn))
    maps = draw.integers(0, 3, (2, 5, 6, 7))
    assert METRICS["mean_iou"].value(list(maps[0]), list(maps[1])) == pytest.approx(
        metrics.jaccard_score(maps[0].ravel(), maps[1].ravel(), average="macro")
    )


@pytest.mark.parametrize(
    ("name", "labels", "answers"),
    [
        ("accuracy", [3], scores((0.1, 0.9))),
        ("accuracy", [0, 0], scores((0.1, 0.9), (1,))),
        ("entity_f1", [["PERSON"]], [["O"]]),
        ("token_accuracy", [["A", "B"]], [["A"]]),
        ("word_error_rate", [["a", "b"]], ["a"]),
        ("bleu", [[]], ["a"]),
        ("mean_iou", [np.zeros((2, 2))], [np.zeros((3, 3))]),
        ("depth_absolute_relative_error", [np.zeros((1, 1))], [np.zeros((1, 1))]),
    ],
)
def test_labels_and_answers_that_do_not_fit(name, labels, answers):
    with raises(UserError):
        METRICS[name].value(labels, answers)
