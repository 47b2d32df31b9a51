"""What the check command says of a model, from its small files alone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import check
from hub_server import HubServer
from onnxproof.checkpoint.reading import Checkpoint
from onnxproof.config.resolve import resolve_models

ROOT = Path(__file__).parents[2]
STAR = ROOT / "examples" / "star-rating-tiny"
SETTINGS = resolve_models({"models": {"m": {"source": {"path": str(STAR)}}}})["m"]


def edited(tmp_path: Path, name: str, **keys: object) -> Path:
    folder = tmp_path / "model"
    if not folder.is_dir():
        shutil.copytree(STAR, folder)
    path = folder / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | keys))
    return folder


def test_it_says_what_a_model_is_and_what_is_made_of_it(capsys):
    assert check.main([str(STAR)]) == 0
    told = capsys.readouterr().out
    for words in ("bert, BertForSequenceClassification", "text-classification", "0.3 million", "512 tokens"):
        assert words in told
    for words in ("one of 5 classes (softmax): 1 star", "onnx/model_int8.onnx", "GB of memory", "nothing is in"):
        assert words in told


def test_everything_in_the_way_is_told_at_once(tmp_path, capsys):
    folder = edited(tmp_path, "config.json", hidden_act="x", quantization_config={"quant_method": "gptq"})
    edited(tmp_path, "adapter_config.json")
    assert check.main([str(folder), "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert len(found["problems"]) == 3
    assert all("\n" not in problem for problem in found["problems"])


@pytest.mark.parametrize(
    ("keys", "meaning"),
    [
        ({"problem_type": "multi_label_classification"}, "5 labels, each by itself (sigmoid): 1 star"),
        ({"problem_type": "regression", "id2label": {"0": "price"}}, "1 numbers, as they are: price"),
        ({"id2label": {"0": "LABEL_0"}}, "one score of a pair of texts"),
    ],
)
def test_what_the_labels_mean(tmp_path, keys, meaning):
    found = check.check("m", Checkpoint(edited(tmp_path, "config.json", **keys)), SETTINGS)
    assert found["labels"].startswith(meaning)


def test_a_task_that_is_not_served_is_in_the_way():
    found = check.check("m", Checkpoint(STAR), SETTINGS | {"task": "question-answering"})
    assert "serves only: text-classification" in found["problems"][0]


def test_a_folder_that_is_not_there_and_one_without_files_are_told(tmp_path, capsys):
    assert check.main([str(tmp_path / "none")]) == 1
    assert "there is no such folder" in capsys.readouterr().out
    assert check.main([str(tmp_path)]) == 1
    assert "there is no config.json" in capsys.readouterr().out


def test_neither_torch_nor_transformers_is_imported():
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'workflow/scripts')!r}); import check; "
        f"check.main([{str(STAR)!r}]); assert not {{'torch', 'transformers'}} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_a_repository_of_the_hub_is_checked_from_its_small_files(tmp_path):
    with HubServer() as hub:
        hub.add("org/stars", STAR, "1" * 40)
        run = subprocess.run(
            [sys.executable, ROOT / "workflow/scripts/check.py", "--hub", "org/stars", "--json"],
            env=os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            check=False,
        )
        fetched = {request.path.rpartition("/")[2] for request in hub.served("GET", "/resolve/")}
    assert run.returncode == 0, run.stderr
    (found,) = json.loads(run.stdout)
    assert found["problems"] == []
    assert found["parameters"] == pytest.approx(
        (STAR / "model.safetensors").stat().st_size / check.BYTES_PER_PARAMETER, rel=0.05
    )
    assert {"config.json", "tokenizer.json"} <= fetched
    assert "model.safetensors" not in fetched
