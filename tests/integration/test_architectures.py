"""Architectures beyond BERT through the real chain, and the document that says which."""

import json

import numpy as np
import onnx
import pytest

import coverage_matrix
from architectures import all_cases
from card_programs import programs, run_program
from compare_clients import as_markdown, compare
from coverage_matrix import ROOT, few_texts, run_case, run_rows
from project import make_project

QUICK = (
    "bert reranker",
    "bert sentences, cls, Dense",
    "vit image-classification",
    "yolos object-detection",
    "wav2vec2 automatic-speech-recognition",
)
QUICK_OR_SLOW = [
    *QUICK,
    pytest.param("modernbert token-classification", marks=pytest.mark.slow),
    pytest.param("mpnet token-classification", marks=pytest.mark.slow),
    pytest.param("deberta-v2 token-classification", marks=pytest.mark.slow),
    pytest.param("roberta question-answering", marks=pytest.mark.slow),
    pytest.param("segformer semantic-segmentation", marks=pytest.mark.slow),
]
#: What must be fused, beside what a case's model type tells onnxruntime's optimizer.
FUSED = {
    "mpnet token-classification": "2 BiasGelu",  # whose layers are BERT's, under another model type
    "deberta-v2 token-classification": "2 DisentangledAttention",
    "modernbert token-classification": "4 RotaryEmbedding",
}
CASES = {case.name: case for case in all_cases()}


@pytest.mark.parametrize("name", QUICK_OR_SLOW)
def test_cases_pass_the_whole_chain(name):
    row = run_case(CASES[name])
    assert row.reason == ""
    assert row.integers
    assert FUSED.get(name, "") in row.fused


def test_the_document_knows_every_case():
    document = (ROOT / "docs" / "coverage.md").read_text()
    assert [name for name in CASES if f"| {name} |" not in document] == []


#: A sample of the columns of docs/coverage.md: every kind of input, exporter and rewrite. `make coverage` runs all.
SAMPLE = (
    ("saved4", "bert text-classification"),
    ("saved4", "xlm-roberta sentences, cls"),
    ("saved4", "distilbert fill-mask"),
    ("saved4", "llama text-generation"),
    ("saved4", "t5 text2text-generation"),
    ("saved4", "vit image-classification"),
    ("saved4", "wav2vec2 audio-classification"),
    ("saved4", "rt_detr object-detection"),
    ("saved5", "albert text-classification"),
    ("saved5", "distilbert sentences, mean"),
    ("saved5", "gemma3_text text-generation"),
    ("saved5", "marian text2text-generation"),
    ("saved5", "swin image-classification"),
    ("saved5", "clip zero-shot"),
    ("saved5", "detr object-detection"),
    ("saved5", "whisper speech-to-text"),
    ("new", "nomic_bert feature-extraction"),
    ("new", "eurobert text-classification"),
    ("new", "gte token-classification"),
    ("new", "jina_embeddings_v3 fill-mask"),
    ("new", "olmo3 text-generation"),
    ("new", "dinov3_vit image-feature-extraction"),
    ("new", "depth_anything depth-estimation"),
    ("new", "pp_ocrv5_mobile_rec text-recognition"),
    ("new", "smolvlm image-text-to-text"),
    ("new", "qwen2_vl image-text-to-text"),
)


@pytest.mark.slow
def test_a_sample_of_all_columns_passes(optimum_python, monkeypatch):
    monkeypatch.setenv(coverage_matrix.OPTIMUM_PYTHON, str(optimum_python))
    rows = list(run_rows(SAMPLE, processes=2))
    assert {(row.column, row.name) for row in rows} == set(SAMPLE)
    assert [row for row in rows if row.reason and not row.is_known] == []
    # What the first exporter cannot do, the second does.
    assert {row.exporter for row in rows if row.name == "rt_detr object-detection"} == {"optimum"}
    assert {row.exporter for row in rows if row.name != "rt_detr object-detection"} == {"transformers"}


#: Models of a run through the workflow: one of each kind of input, and of each kind of use that a card explains.
WORKFLOW = {
    "pictures": "vit image-classification",
    "speech": "wav2vec2 automatic-speech-recognition",
    "questions": "electra question-answering",
    "ranker": "bert reranker",
    "tags": "mpnet token-classification",
    "masks": "bert fill-mask",
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results of a finished run over models that are no embedders and write no text."""
    project = make_project(tmp_path_factory.mktemp("workflow"))
    for model, name in WORKFLOW.items():
        CASES[name].save(project.folder / "models" / model)
    few_texts(project.folder)
    thresholds = coverage_matrix.INT8_THRESHOLDS | {"max_probability_diff": None}
    project.config["parity"]["thresholds"] = {"int8": thresholds}
    models = {model: {"source": {"path": f"models/{model}"}} for model in WORKFLOW}
    models["masks"]["task"] = "fill-mask"
    for model in WORKFLOW.keys() - {"pictures"}:
        models[model]["benchmark"] = {"pytorch": False}
    quantization = {"targets": {"int8": coverage_matrix.INT8_THRESHOLDS}}
    project.configure(project.config | {"variants": ["fp32", "int8"], "models": models, "quantization": quantization})
    run = project.snakemake()
    assert run.returncode == 0, run.stdout
    return project.folder / "results"


@pytest.mark.slow
@pytest.mark.parametrize("model", WORKFLOW)
def test_every_kind_of_input_goes_through_the_workflow(results, model):
    parity = json.loads((results / model / "parity/int8.json").read_text())
    assert parity["task"] == CASES[WORKFLOW[model]].task
    benchmark = json.loads((results / model / "benchmark/int8.json").read_text())
    shapes = {(case["batch"], case["sequence"]) for case in benchmark["cases"]}
    assert shapes == ({(1, None), (2, None)} if model in ("pictures", "speech") else {(1, 8), (2, 8)})
    onnx.checker.check_model(results / model / "release/onnx/model_quantized.onnx")
    verified = json.loads((results / model / "verified.json").read_text())
    tokenizer = next(check for check in verified["checks"] if check["subject"] == "tokenizer")
    assert tokenizer["verdict"] == ("skipped" if model in ("pictures", "speech", "masks") else "pass")


@pytest.mark.slow
def test_pictures_are_timed_in_pytorch_too_and_released_with_their_processor(results):
    assert (results / "pictures/benchmark/pytorch.json").is_file()
    assert (results / "pictures/release/preprocessor_config.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("model", WORKFLOW)
def test_the_examples_of_the_card_run_as_they_stand(results, model, optimum_python):
    release = results / model / "release"
    codes = programs(release, "python")
    assert len(codes) == {"pictures": 3, "ranker": 2, "questions": 2, "tags": 2, "masks": 2}.get(model, 1)
    answers = []
    for code in codes:
        names = run_program(code, release, ["answers", "scores", "outputs"], optimum_python)
        answers.append(next(names[name] for name in ("answers", "scores", "outputs") if name in names))
    assert all(len(answer) for answer in answers)
    if model == "ranker":
        np.testing.assert_allclose(answers[0], answers[1], atol=1e-5)
    if model == "pictures":
        int8 = [answer for code, [answer] in zip(codes, answers, strict=True) if "ExportedModel" not in code]
        [fp32] = [answer for code, [answer] in zip(codes, answers, strict=True) if "ExportedModel" in code]
        assert int8[0] == pytest.approx(int8[1], abs=1e-5)
        assert fp32 == pytest.approx(int8[0], abs=0.1)


@pytest.mark.slow
def test_every_client_of_images_gives_pytorchs_answers(results, optimum_python, node_modules):
    rows = compare(results / "pictures/release", optimum_python, node_modules)
    # transformers.js scales images in a way of its own, which docs/clients.md tells.
    rows = [row for row in rows if row["client"] != "transformers.js"]
    assert len(rows) == 11, as_markdown(rows)
    for row in rows:
        assert row["max_abs_diff"] < (1e-5 if row["variant"] == "fp32" else 0.1), row


@pytest.mark.slow
def test_a_card_of_images_shows_no_client_that_scales_them_otherwise(results):
    assert "```js" not in (results / "pictures/release/README.md").read_text()
