"""A release takes a file only if it is the one that was made and judged."""

import json
import shutil
from pathlib import Path

import onnx
import pytest

from messages import raises
from onnxproof.cli import UserError
from onnxproof.files import describe_files
from records import make_parity, make_variant
from release import copy_proven_model


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "onnx" / "fp32"
    folder.mkdir(parents=True)
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])), folder / "model.onnx")
    files = describe_files(folder)
    (tmp_path / "parity").mkdir()
    (tmp_path / "onnx" / "fp32.json").write_text(json.dumps(make_variant(files=files)))
    (tmp_path / "parity" / "fp32.json").write_text(json.dumps(make_parity(model_sha256=files["model.onnx"]["sha256"])))
    return tmp_path


def test_only_the_proven_file_is_released(results: Path):
    target = results / "release" / "onnx" / "model.onnx"
    copy_proven_model("fp32", results, target)
    assert target.read_bytes() == (results / "onnx/fp32/model.onnx").read_bytes()
    shutil.rmtree(results / "release")
    with (results / "onnx/fp32/model.onnx").open("ab") as stream:
        stream.write(b"\0")
    with raises(UserError):
        copy_proven_model("fp32", results, target)
    assert not target.exists()


def test_a_broken_manifest_is_told(results: Path):
    (results / "onnx" / "fp32.json").write_text('{"files": {"model.onnx": {}}}')
    with raises(UserError):
        copy_proven_model("fp32", results, results / "release" / "model.onnx")
