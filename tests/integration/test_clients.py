"""A release in the hands of its clients: each loads it as its users do and gives PyTorch's answers."""

import json
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from card_programs import programs, run_program
from compare_clients import GENERATED, TRANSFORMERS_JS, as_markdown, compare
from onnxproof.parity.metrics import log_probabilities
from onnxproof.release.node_models import MODEL_TYPES

MODELS = {"stars.v1": "stars", "sentences": "sentences"}


@pytest.fixture(params=MODELS)
def release(finished, request) -> Path:
    return finished.folder / "results" / request.param / "release"


def check_clients(rows: list[dict], clients: int) -> None:
    """Every client must give PyTorch's answers with fp32, and the same answers as the others with int8."""
    assert sum(row["variant"] == "fp32" for row in rows) == clients, as_markdown(rows)
    assert sum(row["variant"] == "int8" for row in rows) == clients, as_markdown(rows)
    spread = defaultdict(list)
    for row in rows:
        if row["compared"] == GENERATED:
            assert row["token_match"] == 1 or row["variant"] != "fp32", row
            spread[row["variant"], row["compared"], row["inputs"]].append(row["token_match"])
            continue
        if row["variant"] == "fp32":
            assert row["max_abs_diff"] < 1e-4, row
        assert row["cosine_min"] > 0.9, row
        spread[row["variant"], row["compared"], row["inputs"]].append(row["max_abs_diff"])
    for same, differences in spread.items():
        assert max(differences) - min(differences) < 1e-4, same


@pytest.mark.slow
def test_every_client_gives_pytorchs_answers(release, optimum_python):
    check_clients(compare(release, optimum_python), {"stars.v1": 4, "sentences": 5}[release.parent.name])


def answers_of_pytorch(finished, model: str, texts: list[str]) -> np.ndarray:
    """Return class probabilities or sentence embeddings, shape (texts, features)."""
    folder = str(finished.folder / "models" / MODELS[model])
    if model == "sentences":
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(folder, device="cpu").encode(texts)
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    logits = AutoModelForSequenceClassification.from_pretrained(folder)(**inputs).logits
    return np.exp(log_probabilities(logits.detach().numpy()))


def as_rows(answers: list[dict[str, float]]) -> np.ndarray:
    """Return class probabilities in the order of the labels' names."""
    return np.array([[answer[label] for label in sorted(answer)] for answer in answers])


@pytest.mark.slow
def test_the_python_examples_of_the_card_run_as_they_stand(finished, release, optimum_python):
    codes = programs(release, "python")
    assert len(codes) == {"stars.v1": 3, "sentences": 4}[release.parent.name]
    for code in codes:
        for text, tolerance in ((code, 0.25), (code.replace("model_quantized.onnx", "model.onnx"), 1e-4)):
            names = run_program(text, release, ["texts", "answers"], optimum_python)
            found = names["answers"] if release.parent.name == "sentences" else as_rows(names["answers"])
            expected = answers_of_pytorch(finished, release.parent.name, names["texts"])
            assert np.abs(found - expected).max() < tolerance, text


def test_the_card_tells_how_to_verify(release):
    (command,) = [line for code in programs(release, "bash") for line in code.splitlines() if "python" in line]
    assert (release / command.removeprefix("python ")).is_file()


def test_the_layout_is_that_of_text_embeddings_inference(finished):
    release = finished.folder / "results/sentences/release"
    for name in (
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "1_Pooling/config.json",
    ):
        json.loads((release / name).read_text())
    # fastembed takes the first output, text-embeddings-inference the one of this name.
    outputs = onnxruntime.InferenceSession(release / "onnx/model.onnx").get_outputs()
    assert [(output.name, len(output.shape)) for output in outputs] == [
        ("last_hidden_state", 3),
        ("sentence_embedding", 2),
    ]


@pytest.mark.slow
def test_fastembed_gives_pytorchs_answers(finished, optimum_python, fastembed):
    rows = compare(finished.folder / "results/sentences/release", optimum_python, fastembed=fastembed)
    assert {row["variant"] for row in rows if row["client"] == "fastembed"} == {"fp32", "int8", "int8-invariant"}
    check_clients(rows, 6)


@pytest.mark.slow
def test_transformers_js_gives_pytorchs_answers(release, optimum_python, node_modules):
    rows = compare(release, optimum_python, node_modules)
    by_dtype = {row["variant"]: row["cosine_min"] for row in rows if row["client"] == TRANSFORMERS_JS}
    assert by_dtype["int8, dtype int8"] == by_dtype["int8"]
    check_clients(rows, {"stars.v1": 5, "sentences": 6}[release.parent.name])


#: Task → what transformers.js calls the map of the models that it loads for it.
MAPS_IN_NODE = {
    "text-classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "text2text-generation": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "text-generation": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
}


@pytest.mark.slow
@pytest.mark.parametrize("task", MODEL_TYPES)
def test_the_models_that_transformers_js_loads_are_those_of_its_own_list(node_modules, task):
    bundle = (node_modules / "@huggingface/transformers/dist/transformers.node.mjs").read_text(encoding="utf-8")
    entries = re.search(MAPS_IN_NODE[task] + r" = [^\[]*\[(.*?)\n\]\);", bundle, flags=re.DOTALL)[1]
    assert set(re.findall(r'\["([^"]+)"', entries)) == MODEL_TYPES[task]


@pytest.mark.slow
def test_the_javascript_example_of_the_card_runs_as_it_stands(finished, release, node_modules):
    (code,) = programs(release, "js")
    script = node_modules.parent / "example.mjs"
    for text, tolerance in ((code, 0.25), (code.replace('"q8"', '"fp32"'), 1e-4)):
        script.write_text(text)
        process = subprocess.run(
            ["node", script], cwd=release, capture_output=True, text=True, timeout=100, check=False
        )
        assert process.returncode == 0, process.stderr
        answers = json.loads(process.stdout)
        if release.parent.name == "stars.v1":
            answers = as_rows([{entry["label"]: entry["score"] for entry in answer} for answer in answers])
        texts = json.loads(re.search(r"texts = (\[.*?\]);", code)[1])
        expected = answers_of_pytorch(finished, release.parent.name, texts)
        assert np.abs(np.array(answers) - expected).max() < tolerance
