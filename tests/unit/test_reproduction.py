"""The comparison of two results folders sees every byte but timings."""

import json
import shutil
from pathlib import Path

import pytest

from reproduction import compare, digests, golden_problem


def made(folder: Path, milliseconds: float) -> Path:
    files = {
        "m/onnx/fp32/model.onnx": "nodes",
        "m/onnx/fp32.json": json.dumps({"files": {"model.onnx": {"size": 5}}}),
        "m/onnx/int8.json": json.dumps({"rungs": [{"speedup": milliseconds, "recipe": ["b"]}]}),
        "m/benchmark/fp32.json": json.dumps({"p50_ms": milliseconds}),
        "m/release/README.md": f"{milliseconds} ms",
        "m/release/manifest.json": json.dumps({"variants": {"fp32": {"file": "a", "benchmark": milliseconds}}}),
        "m/release/SHA256SUMS": f"{milliseconds}  README.md\nfeed  onnx/model.onnx\n",
        "m/release.json": json.dumps({"files": {"README.md": milliseconds, "SHA256SUMS": milliseconds, "a": 1}}),
        "m/evaluation/fp32.json": json.dumps({"seconds": {"variant": milliseconds}, "value": 0.5}),
        "m/evaluation/answers/fp32.json": json.dumps({"seconds": milliseconds, "rows": 5}),
        "m/audits/theirs/audit.json": json.dumps({"seconds": milliseconds, "files": [{"verdict": "sound"}]}),
        "m/audits/theirs/audit.md": f"{milliseconds} s in all",
        "logs/export/m.log": str(milliseconds),
        "summary.csv": str(milliseconds),
        "report.html": str(milliseconds),
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return made(tmp_path / "a", 1.5), made(tmp_path / "b", 2.5)


def test_timings_may_differ(pair):
    assert compare(*map(digests, pair)) == []


@pytest.mark.parametrize(
    "name",
    [
        "m/onnx/fp32/model.onnx",
        "m/onnx/fp32.json",
        "m/onnx/int8.json",
        "m/release/manifest.json",
        "m/release.json",
        "m/release/SHA256SUMS",
        "m/evaluation/fp32.json",
        "m/evaluation/answers/fp32.json",
        "m/audits/theirs/audit.json",
    ],
)
def test_a_changed_byte_is_told(pair, name, capsys):
    path = pair[1] / name
    path.write_text(path.read_text().replace("e", "E"))
    assert compare(*map(digests, pair)) == [name]
    assert f"DIFFERENT  {digests(pair[0])[name][:16]}" in capsys.readouterr().out


def test_a_file_too_many_or_too_few_is_told(pair):
    (pair[0] / ".left.partial").touch()
    shutil.rmtree(pair[1] / "m/benchmark")
    assert compare(*map(digests, pair)) == [".left.partial", "m/benchmark/fp32.json"]


def test_other_bytes_than_recorded_are_told_with_the_probable_cause():
    recorded = {"versions": {"onnx": "1"}, "sha256": {"a": "0", "b": "0"}}
    assert golden_problem(recorded, recorded) is None
    bumped = golden_problem({"versions": {"onnx": "2"}, "sha256": {"a": "0", "b": "1"}}, recorded)
    assert "tests/golden.json: b. Probable cause: these versions changed: onnx 1 → 2." in bumped
    assert "`make golden`" in bumped
    assert "a recipe or the CPU changed" in golden_problem({"versions": {"onnx": "1"}, "sha256": {"a": "0"}}, recorded)
