"""Tasks that are known by the names by which users quote them."""

from pathlib import Path

import numpy as np
import pytest
from test_labelled_data import CHOOSER, EMBEDDER, SENTIMENT, only, told, write_rows

from messages import raises
from onnxproof.cli import UserError
from onnxproof.evaluation.asking import answers_to, count_examples
from onnxproof.evaluation.forms import Model
from onnxproof.evaluation.metrics import METRICS
from onnxproof.evaluation.plan import make_plan
from onnxproof.evaluation.quoted import QUOTED
from onnxproof.release.card import dataset_of
from onnxproof.vocabulary import SUPPORTED_TASKS

WRITER = Model("text-generation", "text-generation", ())
ARC = {
    "id": "Mercury_7220990",
    "question": "Which factor will most likely cause a person to develop a fever?",
    "choices": {
        "text": ["a leg muscle", "a bacterial population", "several viral particles"],
        "label": ["A", "B", "C"],
    },
    "answerKey": "B",
}


@pytest.mark.parametrize("name", QUOTED)
def test_a_name_says_which_fields_there_are_and_what_is_measured(tmp_path, name):
    """By the models that it is for, with a metric of their kind."""
    quoted = QUOTED[name]
    documents = tmp_path / "corpus.jsonl" if quoted.document else None
    for use in quoted.uses:
        assert use in SUPPORTED_TASKS
        plan = make_plan("m", {"task": name}, tmp_path / "rows.jsonl", documents, Model(use, use, ("a", "b")), {})
        assert (plan.metric, plan.inputs, plan.settings.label) == (quoted.metric, quoted.inputs, quoted.label)
        assert plan.form.kind in METRICS[plan.metric].kinds


@pytest.mark.parametrize(
    ("name", "model", "row", "raw", "label"),
    [
        ("mteb/STSBenchmark", EMBEDDER, {"sentence1": "a", "sentence2": "b", "score": 2.5}, ["a", "b"], 2.5),
        ("mteb/ImdbClassification", SENTIMENT, {"text": "a", "label": 0, "label_text": "Positive"}, ["a"], 1),
        ("lm_eval/wikitext", WRITER, {"page": "a b"}, ["a b"], None),
        ("lm_eval/hellaswag", CHOOSER, {"ctx": "a", "endings": ["b", "c"], "label": "1"}, [["a", ["b", "c"]]], 1),
        ("lm_eval/arc_easy", CHOOSER, ARC, [[ARC["question"], ARC["choices"]["text"]]], 1),
    ],
)
def test_rows_of_the_datasets_are_read_as_they_are(tmp_path, name, model, row, raw, label):
    example = only(tmp_path, model, row, task=name)
    assert (example.raw, example.label) == (raw, label)


def test_a_right_answer_that_is_no_choice(tmp_path):
    with raises(UserError):
        only(tmp_path, CHOOSER, ARC | {"answerKey": "E"}, task="lm_eval/arc_challenge")


def test_keys_of_the_configuration_come_before_those_of_the_name(tmp_path):
    row = {"first": "a", "sentence2": "b", "score": 1, "sentence1": "x"}
    example = only(tmp_path, EMBEDDER, row, task="mteb/SICK-R", input=["first", "sentence2"])
    assert example.raw == ["a", "b"]
    plan = make_plan("m", {"task": "mteb/SICK-R", "metric": "pearson"}, tmp_path / "x.csv", None, EMBEDDER, {})
    assert plan.metric == "pearson"


def test_documents_have_the_fields_of_beir(tmp_path):
    documents = write_rows(
        tmp_path / "corpus.jsonl",
        {"_id": "7", "title": "A title", "text": "and a text."},
        {"_id": "8", "title": "", "text": "no title"},
    )
    data = write_rows(tmp_path / "queries.jsonl", {"_id": "1", "text": "query", "relevant": {"7": 1}})
    plan = make_plan("m", {"task": "mteb/SciFact"}, data, documents, EMBEDDER, {})
    asked = []

    def embed(text):
        asked.append(text)
        return np.ones(2)

    assert count_examples(plan) == 1
    ((example, answer),) = answers_to(plan, 1, embed)
    assert asked == ["A title and a text.", "no title", "query"]
    assert (example.label, [name for name, _ in answer]) == ({"7": 1}, ["7", "8"])


@pytest.mark.parametrize(("name", "model"), [("lm_eval/hellaswag", WRITER), ("mteb/Banking77Classification", EMBEDDER)])
def test_a_name_for_other_models(tmp_path, name, model):
    with raises(UserError):
        make_plan("m", {"task": name}, tmp_path / "rows.jsonl", None, model, {})


def test_a_configuration_that_names_a_task(tmp_path):
    write_rows(tmp_path / "sts.jsonl", {"sentence1": "a", "sentence2": "b", "score": 1})
    asked = {"task": "mteb/STSBenchmark", "data": "sts.jsonl"}
    assert told(tmp_path, asked) == []
    assert told(tmp_path, asked | {"task": "mteb/STS22"}) == [
        f"evaluation.task is 'mteb/STS22', which is not known by name; those that are: {', '.join(QUOTED)}"
    ]
    assert told(tmp_path, asked | {"task": "lm_eval/wikitext"}) == [
        "evaluation.task is 'lm_eval/wikitext', whose dataset EleutherAI/wikitext_document_level has the field 'page', "
        f"but the first row of {tmp_path / 'sts.jsonl'} has: sentence1, sentence2, score"
    ]
    assert told(tmp_path, asked | {"task": "lm_eval/wikitext", "input": "sentence1"}) == []
    assert "evaluation.documents is missing: mteb/SciFact looks for documents, those of mteb/scifact" in told(
        tmp_path, asked | {"task": "mteb/SciFact"}
    )


def test_the_documentation_lists_the_names():
    text = (Path(__file__).parents[3] / "docs/evaluation.md").read_text()
    assert all(f"`{name}`" in text for name in QUOTED)


def test_a_card_names_the_task():
    assert dataset_of({"file": "sts.jsonl", "task": "mteb/STSBenchmark"}) == {
        "name": "mteb/STSBenchmark",
        "type": "mteb/stsbenchmark-sts",
    }
    assert dataset_of({"file": "data/rows.jsonl"}) == {"name": "data/rows.jsonl", "type": "rows"}
