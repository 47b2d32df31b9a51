"""Architectures beyond BERT through the real chain, and the document that says which."""

import json

import onnx
import pytest

import coverage_matrix
from architectures import all_cases
from coverage_matrix import ROOT, few_texts, run_case, run_cases

QUICK = (
    "mpnet token-classification",
    "roberta question-answering",
    "bert reranker",
    "bert sentences, cls, Dense",
    "vit image-classification",
    "yolos object-detection",
    "segformer semantic-segmentation",
    "wav2vec2 automatic-speech-recognition",
)
CASES = {case.name: case for case in all_cases()}


@pytest.mark.parametrize("name", QUICK)
def test_quick_cases_pass_the_whole_chain(name):
    row = run_case(CASES[name])
    assert row.reason == ""
    assert row.integers
    if name == "mpnet token-classification":  # whose layers are BERT's, under another model type
        assert "BiasGelu" in row.fused


def test_a_graph_whose_outputs_have_other_shapes_is_refused_in_words():
    case = CASES["sew automatic-speech-recognition"]
    assert case.refused in run_case(case).reason


def test_the_document_knows_every_case():
    document = (ROOT / "docs" / "coverage.md").read_text()
    assert [name for name in CASES if f"| {name} |" not in document] == []


@pytest.mark.slow
def test_nearly_all_cases_pass(tmp_path):
    rows = run_cases(list(CASES.values()), processes=2)
    coverage_matrix.write_table(rows, tmp_path / "coverage.md")
    wrong = [row for row in rows if CASES[row.name].refused]
    assert wrong
    assert all(CASES[row.name].refused in row.reason for row in wrong)
    failed = [(row.name, row.reason) for row in rows if row.reason and not CASES[row.name].refused]
    assert len(failed) <= 0.05 * len(rows), failed


@pytest.mark.slow
def test_images_sounds_and_questions_go_through_the_workflow(tmp_path, project_factory):
    names = {
        "pictures": "vit image-classification",
        "speech": "wav2vec2 automatic-speech-recognition",
        "questions": "electra question-answering",
    }
    project = project_factory(tmp_path)
    for model, name in names.items():
        CASES[name].save(project.folder / "models" / model)
    few_texts(project.folder)
    thresholds = coverage_matrix.INT8_THRESHOLDS | {"max_probability_diff": None}
    project.config["parity"]["thresholds"] = {"int8": thresholds}
    models = {model: {"source": {"path": f"models/{model}"}} for model in names}
    for model in ("speech", "questions"):
        models[model]["benchmark"] = {"pytorch": False}
    project.configure(project.config | {"variants": ["fp32", "int8"], "models": models})
    run = project.snakemake()
    assert run.returncode == 0, run.stdout
    for model, name in names.items():
        results = project.folder / "results" / model
        parity = json.loads((results / "parity/int8.json").read_text())
        assert parity["task"] == CASES[name].task
        benchmark = json.loads((results / "benchmark/int8.json").read_text())
        shapes = {(case["batch"], case["sequence"]) for case in benchmark["cases"]}
        assert shapes == ({(1, 8), (2, 8)} if model == "questions" else {(1, None), (2, None)})
        onnx.checker.check_model(results / "release/onnx/model_quantized.onnx")
    assert (project.folder / "results/pictures/benchmark/pytorch.json").is_file()
    assert (project.folder / "results/pictures/release/preprocessor_config.json").is_file()
