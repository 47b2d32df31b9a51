"""Reading labelled data: files, fields and labels, and one clear message for what is wrong with them."""

import json

import numpy as np
import pytest

from messages import raises
from onnxproof.cli import UserError
from onnxproof.config.checks import problems_of
from onnxproof.config.labelled import files_named
from onnxproof.config.resolve import resolve_models
from onnxproof.evaluation.data import read_rows
from onnxproof.evaluation.forms import Model
from onnxproof.evaluation.plan import make_plan

SENTIMENT = Model("text-classification", "text-classification", ("negative", "positive"))
TAGGER = Model("token-classification", "token-classification", ("O", "B-PER", "I-PER"))
READER = Model("question-answering", "question-answering", ())
EMBEDDER = Model("sentence-similarity", "sentence-similarity", ())
RERANKER = Model("reranking", "text-classification", ("LABEL_0",))
EYE = Model("image-classification", "image-classification", ("cat", "dog"))
SEER = Model("object-detection", "object-detection", ("cat", "dog"))
PAINTER = Model("semantic-segmentation", "semantic-segmentation", ("cat", "dog"))
CHOOSER = Model("multiple-choice", "multiple-choice", ())


def write_rows(file, *rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def examples(folder, model, rows, config=None, **settings):
    """The labelled inputs in rows, as a model of this configuration takes them."""
    documents = settings.pop("documents", None)
    file = write_rows(folder / "data.jsonl", *rows)
    plan = make_plan("m", settings, file, documents, model, config or {})
    return [plan.form.example(row, place, plan.settings, model) for place, row in read_rows(file, plan.most)]


def only(folder, model, row, config=None, **settings):
    (example,) = examples(folder, model, [row], config, **settings)
    return example


def test_the_three_kinds_of_files_have_the_same_rows(tmp_path):
    rows = [{"text": "ein Satz,\nzwei Zeilen", "label": "a"}, {"text": "", "label": "b"}]
    lines = write_rows(tmp_path / "rows.jsonl", *rows)
    table = tmp_path / "rows.csv"
    table.write_text('text,label\n"ein Satz,\nzwei Zeilen",a\n,b\n', encoding="utf-8-sig")
    assert [row for _, row in read_rows(lines)] == rows
    assert [row for _, row in read_rows(table)] == rows
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert [row for _, row in read_rows(tmp_path / "rows.parquet")] == rows


def test_no_more_rows_are_read_than_asked_for(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a"}\n\n{"text": "b"}\nno JSON\n')
    assert [str(place).removeprefix(f"{file}, ") for place, _ in read_rows(file, 2)] == ["row 1", "row 2"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.txt", b"a"),
        ("rows.jsonl", b"\n\n"),
        ("rows.jsonl", b'{"text": "a"}\n[1]\n'),
        ("rows.jsonl", b"{"),
        ("rows.jsonl", b'{"text": "\xff"}'),
        ("rows.csv", b"text,label\na,b,c\n"),
        ("rows.csv", b"text,label\na\n"),
        ("rows.csv", b'text,label\n"a'),
        ("rows.csv", b"text,label\n\xff,a\n"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with raises(UserError):
        list(read_rows(tmp_path / name))


def test_a_file_that_is_missing(tmp_path):
    with raises(UserError):
        list(read_rows(tmp_path / "none.jsonl"))


@pytest.mark.parametrize(
    ("label", "index"), [("positive", 1), ("Positive", 1), (1, 1), ("0", 0), ("gut", 1), ("schlecht", 0), (1.0, 1)]
)
def test_labels_are_known_by_name_by_number_and_by_the_map(tmp_path, label, index):
    names = {"gut": "positive", "schlecht": 0}
    assert only(tmp_path, SENTIMENT, {"text": "x", "label": label}, labels=names).label == index


@pytest.mark.parametrize("label", ["neutral", 2, -1, True, 0.5, None, ["positive"]])
def test_a_label_that_the_model_does_not_have(tmp_path, label):
    with raises(UserError):
        only(tmp_path, SENTIMENT, {"text": "x", "label": label})


def test_other_fields_can_be_named(tmp_path):
    example = only(tmp_path, SENTIMENT, {"review": "x", "stars": 1}, input="review", label="stars")
    assert (example.raw, example.label, example.shown) == (["x"], 1, "x")


@pytest.mark.parametrize(
    ("model", "row"),
    [
        (SENTIMENT, {"sentence": "x", "label": 1}),
        (SENTIMENT, {"text": 7, "label": 1}),
        (SENTIMENT, {"text": "x"}),
        (TAGGER, {"tokens": ["Anna"], "tags": ["O", "O"]}),
        (TAGGER, {"tokens": "Anna", "tags": ["O"]}),
        (TAGGER, {"tokens": ["New York"], "tags": ["O"]}),
        (READER, {"question": "Who?", "context": "Anna.", "answers": []}),
        (EMBEDDER, {"text1": "a", "text2": "b", "score": "high"}),
        (RERANKER, {"query": "a", "documents": ["b", "c"], "relevant": [1]}),
        (RERANKER, {"query": "a", "documents": ["b"], "relevant": ["yes"]}),
        (EYE, {"image": "none.png", "label": "cat"}),
        (SEER, {"image": "none.png", "objects": [{"label": "cat"}]}),
        (CHOOSER, {"text": "a", "choices": ["b", "c"], "label": 2}),
    ],
)
def test_a_row_that_is_not_as_the_task_wants_it(tmp_path, model, row):
    with raises(UserError):
        only(tmp_path, model, row)


def test_a_head_of_several_labels_or_of_a_value(tmp_path):
    several = {"problem_type": "multi_label_classification"}
    assert only(tmp_path, SENTIMENT, {"text": "x", "labels": ["positive", 0]}, several).label == [0, 1]
    assert only(tmp_path, SENTIMENT, {"text": "x", "labels": []}, several).label == []
    value = only(tmp_path, RERANKER, {"query": "q", "documents": ["a", "b"], "relevant": [0, 2]})
    assert value.raw == [("q", "a"), ("q", "b")]
    assert value.label == {"0": 0, "1": 2}


def test_the_label_of_a_word_is_that_of_its_first_part(tmp_path):
    example = only(tmp_path, TAGGER, {"tokens": ["Anna", "Lee", "sings"], "tags": ["B-PER", "I-PER", "O"]})
    plan = make_plan("m", {}, tmp_path / "data.jsonl", None, TAGGER, {})
    found = [
        {"entity": "B-PER", "start": 0, "end": 2},
        {"entity": "I-PER", "start": 2, "end": 4},
        {"entity": "I-PER", "start": 6, "end": 8},  # the second part of Lee: its first one is outside
    ]
    assert example.raw == ["Anna Lee sings"]
    assert plan.form.answer([found], example, TAGGER) == ["B-PER", "O", "O"]


def test_accepted_answers_are_one_text_several_or_those_of_squad(tmp_path):
    row = {"question": "Who?", "context": "Anna."}
    for answers in ("Anna", ["Anna"], {"text": ["Anna"], "answer_start": [0]}):
        assert only(tmp_path, READER, row | {"answers": answers}).label == ["Anna"]


def test_a_map_must_have_the_size_of_the_answer(tmp_path):
    np.save(tmp_path / "map.npy", np.zeros((2, 3), dtype=np.int64))
    (tmp_path / "image.png").write_bytes(b"PNG")
    example = only(tmp_path, PAINTER, {"image": "image.png", "map": "map.npy"})
    plan = make_plan("m", {}, tmp_path / "data.jsonl", None, PAINTER, {})
    assert plan.form.answer([np.ones((2, 3))], example, PAINTER).sum() == 6
    with raises(UserError):
        plan.form.answer([np.ones((4, 6))], example, PAINTER)


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (Model("fill-mask", "fill-mask", ()), {}),
        (SENTIMENT, {"metric": "word_error_rate"}),
        (SENTIMENT, {"metric": "exactness"}),
    ],
)
def test_a_use_or_a_metric_that_does_not_fit(tmp_path, model, settings):
    with raises(UserError):
        make_plan("m", settings, tmp_path / "data.jsonl", None, model, {})


def test_documents_are_for_embedders(tmp_path):
    with raises(UserError):
        make_plan("m", {}, tmp_path / "data.jsonl", tmp_path / "documents.jsonl", SENTIMENT, {})


# ------------------------------------------------------------------------------------------------ configuration


def told(folder, evaluation, source=None):
    config = {"models": {"X": {"source": source or {"path": "."}}}, "evaluation": evaluation}
    return [str(problem) for problem in problems_of(config, folder) if "evaluation" in str(problem)]


def test_a_configuration_is_right(tmp_path):
    write_rows(tmp_path / "rows.jsonl", {"review": "a", "stars": 1})
    assert told(tmp_path, {"data": "rows.jsonl", "input": "review", "label": "stars", "not_worse_by": 0.01}) == []
    assert told(tmp_path, {"hub": "a/b", "revision": "0" * 40, "file": "x.parquet"}) == []
    assert told(tmp_path, None) == []


def test_problems_of_a_configuration_name_the_key(tmp_path):
    write_rows(tmp_path / "rows.jsonl", {"review": "a", "stars": 1})
    (tmp_path / "empty.jsonl").write_text("")
    problems = [
        told(tmp_path, evaluation)[0].replace(str(tmp_path), "FOLDER")
        for evaluation in (
            {},
            {"data": "rows.jsonl", "hub": "a/b"},
            {"hub": "a/b", "file": "x.csv"},
            {"data": "rows.txt"},
            {"data": "none.jsonl"},
            {"data": "empty.jsonl"},
            {"data": "rows.jsonl", "input": "text"},
            {"data": "rows.jsonl", "label": "label"},
            {"data": "rows.jsonl", "documents": "none.csv"},
            {"data": "rows.jsonl", "not_worse_by": -1},
            {"hub": "a/b", "revision": "main", "file": "x.csv"},
        )
    ]
    assert problems == [
        "evaluation names no data: give data, or hub with revision and file",
        "evaluation.hub is 'a/b', but data names a file already: remove one of the two",
        "evaluation.revision is missing: a dataset on the Hub is named by hub, revision and file",
        "evaluation.data is 'rows.txt', must end in .jsonl, .csv, .parquet",
        "evaluation.data cannot be used: FOLDER/none.jsonl: no such file",
        "evaluation.data cannot be used: FOLDER/empty.jsonl: has no rows; at least one is needed",
        "evaluation.input is 'text', but the first row of FOLDER/rows.jsonl has the fields: review, stars",
        "evaluation.label is 'label', but the first row of FOLDER/rows.jsonl has the fields: review, stars",
        "evaluation.documents cannot be used: FOLDER/none.csv: no such file",
        "evaluation.not_worse_by is -1, must be at least 0",
        "evaluation.revision is 'main', must be the full commit of the dataset, 40 hexadecimal digits",
    ]


def test_a_model_adds_to_the_evaluation_of_all_or_switches_it_off(tmp_path):
    config = {
        "evaluation": {"data": "rows.jsonl", "not_worse_by": 0.1},
        "models": {
            "a": {"source": {"path": "."}},
            "b": {"source": {"path": "."}, "evaluation": {"label": "stars"}},
            "c": {"source": {"path": "."}, "evaluation": None},
        },
    }
    resolved = resolve_models(config)
    assert resolved["a"]["evaluation"]["label"] is None
    assert resolved["a"]["evaluation"]["new_tokens"] == 128
    assert resolved["b"]["evaluation"]["label"] == "stars"
    assert resolved["b"]["evaluation"]["not_worse_by"] == 0.1
    assert resolved["c"]["evaluation"] is None


def test_images_that_rows_name_are_found(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(b"")
    rows = [{"image": "b.png", "label": "cat"}, {"image": "a.png", "label": "dog"}]
    assert files_named(write_rows(tmp_path / "rows.jsonl", *rows)) == [tmp_path / "a.png", tmp_path / "b.png"]
    assert files_named(write_rows(tmp_path / "texts.jsonl", {"text": "a\nb", "label": "c"})) == []
