"""Labelled rows that the search for a recipe uses and the gate never sees."""

import json
import random

import numpy as np
import pytest
from test_labelled_data import EMBEDDER, SENTIMENT, told, write_rows

from keep_aside import documents_for, keep_aside
from messages import raises
from onnxproof.cli import UserError
from onnxproof.evaluation.aside import Chooser
from onnxproof.evaluation.asking import count_examples, examples_of, rows_kept_aside
from onnxproof.evaluation.metrics import METRICS
from onnxproof.evaluation.plan import make_plan
from onnxproof.inputs.calibration import calibration_inputs
from onnxproof.quantization.search.labelled import Examples
from quantize import describe_labelled
from release import evaluation_in_config
from tiny_models import save_classifier

ROWS = [{"text": f"text {number}", "label": number % 2} for number in range(400)]


def plan_for(folder, rows=ROWS, share=0.25, **settings):
    file = write_rows(folder / "rows.jsonl", *rows)
    return make_plan("m", {"search_share": share, **settings}, file, None, SENTIMENT, {})


def numbers(plan, kept_aside):
    return [example.place.number for example in examples_of(plan, kept_aside)]


def test_every_row_is_either_judged_or_kept_aside(tmp_path):
    plan = plan_for(tmp_path)
    judged, aside = numbers(plan, False), numbers(plan, True)
    assert sorted(judged + aside) == list(range(1, 401))
    assert 70 <= len(aside) <= 130
    assert rows_kept_aside(plan) == aside
    assert count_examples(plan) == len(judged)
    assert aside[:5] == [1, 2, 7, 15, 16], "the choice is the same on every machine"


def test_nothing_is_kept_aside_unless_asked_for(tmp_path):
    plan = plan_for(tmp_path, share=None)
    assert numbers(plan, True) == rows_kept_aside(plan) == []
    assert count_examples(plan) == 400


def test_the_same_input_is_never_on_both_sides():
    chooser, draw = Chooser(0.5, most=20), random.Random(0)
    sides = {}
    for _ in range(2000):
        inputs = (f"text {draw.randrange(100)}",)
        assert sides.setdefault(inputs, chooser.chooses(inputs)) == chooser.chooses(inputs)
    assert sum(sides.values()) == 20, "no more are chosen than a search can run"


def test_rows_beyond_those_that_are_read_are_not_kept_aside(tmp_path):
    assert max(rows_kept_aside(plan_for(tmp_path, max_inputs=50))) <= 50


def test_a_share_that_leaves_no_row_to_judge_by(tmp_path):
    with raises(UserError):
        count_examples(plan_for(tmp_path, [{"text": "text 0", "label": 1}]))


@pytest.fixture
def classifier(tmp_path):
    save_classifier(tmp_path / "model")
    return tmp_path / "model"


def test_the_rows_for_the_search_have_inputs_labels_and_a_limit(tmp_path, classifier):
    data = write_rows(tmp_path / "rows.jsonl", *ROWS)
    record = keep_aside("m", classifier, None, data, None, {"search_share": 0.25})
    assert (record["kind"], record["metric"], record["not_worse_by"]) == ("classification", "accuracy", 0.01)
    assert record["inputs"] == [f"text {row - 1}" for row in record["rows"]]
    assert record["labels"] == [(row - 1) % 2 for row in record["rows"]]
    strict = keep_aside("m", classifier, None, data, None, {"search_share": 0.25, "not_worse_by": 0.0})
    assert strict["not_worse_by"] == 0.0
    described = describe_labelled(Examples(record))
    assert (described["share"], described["inputs"]) == (0.25, len(record["rows"]))
    texts = tmp_path / "texts.txt"
    texts.write_text("good\nbad\n")
    inputs = calibration_inputs(classifier, "text-classification", ["input_ids"], texts, Examples(record).entries)
    assert len(inputs.items) == 2 + len(record["rows"]), "they are calibration inputs too"


@pytest.mark.parametrize("settings", [{"search_share": 0.001}, {"search_share": 0.5, "metric": "macro_f1"}])
def test_what_a_search_cannot_use(tmp_path, classifier, settings):
    data = write_rows(tmp_path / "rows.jsonl", *ROWS[:9])
    with raises(UserError):
        keep_aside("m", classifier, None, data, None, settings)


def test_of_the_documents_those_that_answer_and_the_first_others_are_searched(tmp_path, monkeypatch):
    monkeypatch.setattr("keep_aside.OTHER_DOCUMENTS", 2)
    documents = write_rows(tmp_path / "documents.jsonl", *({"id": number, "text": f"t{number}"} for number in range(9)))
    data = write_rows(tmp_path / "queries.jsonl", {"query": "q", "relevant": [7]})
    plan = make_plan("m", {}, data, documents, EMBEDDER, {})
    assert documents_for(plan, [{"7": 1}]) == {"0": "t0", "1": "t1", "7": "t7"}


def examples(kind, inputs, labels, documents=None):
    return Examples({"kind": kind, "inputs": inputs, "labels": labels, "documents": documents or {}, "metric": "x"})


def test_the_metrics_of_a_search_are_those_of_the_evaluation():
    draw = np.random.default_rng(0)
    logits, labels = draw.normal(size=(60, 3)), draw.integers(0, 3, 60).tolist()
    own = examples("classification", ["a"] * 60, labels)
    answers = [{"scores": row.tolist()} for row in logits]
    assert own.quality(list(logits[:, None])) == METRICS["accuracy"].value(labels, answers)

    vectors, scores = draw.normal(size=(80, 8)), draw.integers(0, 6, 40).tolist()  # scores with ties
    own = examples("pair", [["a", "b"]] * 40, scores)
    cosines = [
        left @ right / np.linalg.norm(left) / np.linalg.norm(right)
        for left, right in zip(vectors[::2], vectors[1::2], strict=True)
    ]
    assert own.entries == ["a", "b"] * 40
    assert own.quality(list(vectors[:, None])) == pytest.approx(METRICS["pairs_spearman"].value(scores, cosines))

    names = [f"d{number}" for number in range(30)]
    vectors = draw.normal(size=(45, 6))
    vectors[3] = vectors[7]  # two documents with equal scores
    relevant = [{names[place]: int(draw.integers(1, 4)) for place in draw.integers(0, 30, 4)} for _ in range(15)]
    own = examples("retrieval", ["q"] * 15, relevant, dict.fromkeys(names, "text"))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = [list(zip(names, map(float, unit[:30] @ query), strict=True)) for query in unit[30:]]
    assert len(own.entries) == 45
    assert own.quality(list(vectors[:, None])) == pytest.approx(METRICS["ndcg_at_10"].value(relevant, found))


def test_answers_that_are_not_finite_keep_nothing():
    own = Examples({"kind": "classification", "labels": [0], "inputs": ["a"], "documents": {}, "not_worse_by": 0.1})
    assert np.isnan(own.quality([np.array([[np.nan, 1.0]])]))
    assert own.distance(None, 0.9) == np.inf
    assert own.distance(0.85, 0.9) == pytest.approx(0.5)
    assert own.distance(0.95, 0.9) == 0.0


def test_a_configuration_that_asks_for_it(tmp_path, classifier, monkeypatch):
    write_rows(tmp_path / "rows.jsonl", {"text": "a", "label": 1})
    asked = {"data": "rows.jsonl", "search_share": 0.2}
    assert told(tmp_path, asked) == []
    assert evaluation_in_config(asked) == asked
    assert told(tmp_path, asked | {"search_share": 1}) == ["evaluation.search_share is 1, must be between 0.01 and 0.9"]
    assert told(tmp_path, asked | {"metric": "macro_f1"}) == [
        "models.X.evaluation.search_share is for the metrics accuracy, top_1, pairs_spearman, ndcg_at_10, and not for "
        "macro_f1"
    ]
    config = json.loads((classifier / "config.json").read_text())
    architecture = config["architectures"][0].replace("SequenceClassification", "TokenClassification")
    (classifier / "config.json").write_text(json.dumps(config | {"architectures": [architecture]}))
    unfit = ["models.X.evaluation.search_share is for text classifiers and embedders, and not for token-classification"]
    assert told(tmp_path, asked, source={"path": "model"}) == unfit
    record = tmp_path / "unfit_model-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: unfit-model\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert told(tmp_path, asked, source={"package": "unfit-model", "path": "model"}) == unfit
    assert told(tmp_path, asked, source={"package": "not-there", "path": "model"}) == []
