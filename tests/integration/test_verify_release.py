"""A release verifies itself, and says so loudly when anything in it is not what was proven."""

import ast
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import verify_release
from onnxproof import metrics
from onnxproof.files import describe_files, sha256_of
from onnxproof.tasks.answers import batch_invariance, measure_answers, read_answers
from release import write_sums


@pytest.fixture(params=["stars.v1", "sentences"])
def release(finished, tmp_path, request) -> Path:
    """A copy of a release that a test may damage."""
    folder = tmp_path / "copy"
    shutil.copytree(finished.folder / "results" / request.param / "release", folder)
    return folder


def verify(folder: Path, capsys, *arguments: str) -> tuple[int, str]:
    status = verify_release.main([str(folder), "--threads", "1", *arguments])
    printed = capsys.readouterr()
    return status, printed.out + printed.err


def seal(folder: Path) -> None:
    """Write manifest and sums anew, as someone who hides a change would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("manifest.json", "SHA256SUMS"):
        (folder / name).unlink()
    manifest["files"] = describe_files(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    write_sums(folder)


def test_a_release_passes_where_it_was_made(release, capsys, tmp_path):
    status, text = verify(release, capsys, "--json", str(tmp_path / "result.json"))
    assert status == 0, text
    assert f"PASS: {text.count('  pass')} checks, 0 skipped" in text
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["passed"]
    manifest = json.loads((release / "manifest.json").read_text())
    limits = [limit for facts in manifest["variants"].values() for limit in facts["gate"]["limits"]]
    assert len(result["checks"]) == 2 + len(limits)
    assert {check["verdict"] for check in result["checks"]} == {"pass"}


def test_the_digest_of_the_release_can_be_demanded(release, capsys):
    assert verify(release, capsys, "--digest", sha256_of(release / "SHA256SUMS"))[0] == 0
    assert verify(release, capsys, "--digest", "0" * 64)[0] == 1


@pytest.mark.parametrize("name", ["model.onnx", "model_quantized.onnx"])
def test_one_flipped_weight_byte_fails(release, capsys, name):
    path = release / "onnx" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)
    status, text = verify(release, capsys)
    assert status == 1
    assert f"onnx/{name}" in text
    assert "FAIL" in text


def test_a_changed_weight_fails_by_its_answers_even_when_the_sums_were_written_anew(release, capsys):
    path = release / "onnx" / "model.onnx"
    model = onnx.load(path)
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 2 and tensor.dims[0] == 32)
    values = numpy_helper.to_array(weight).copy()
    values.view(np.uint8).reshape(-1)[3] ^= 0x40  # one byte, that of a weight's exponent
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)
    seal(release)
    status, text = verify(release, capsys)
    assert status == 1
    failed = [line for line in text.splitlines() if line.endswith("FAIL")]
    assert failed
    assert all(line.startswith("onnx/model.onnx ") for line in failed)


def test_a_mutated_tokenizer_fails_even_when_the_sums_were_written_anew(release, capsys):
    path = release / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["battery"], vocabulary["screen"] = vocabulary["screen"], vocabulary["battery"]
    path.write_text(json.dumps(tokenizer))
    status, text = verify(release, capsys)
    assert status == 1
    assert [line.split()[0] for line in text.splitlines() if line.endswith("FAIL")] == [
        "files",
        "tokenizer.json",
        "tokenizer",
    ]
    seal(release)
    status, text = verify(release, capsys)
    assert status == 1
    assert [line.split()[0] for line in text.splitlines() if line.endswith("FAIL")] == ["tokenizer"]


def test_the_shipped_tokenizer_cuts_and_pads_without_being_told(finished):
    from tokenizers import Tokenizer

    release = finished.folder / "results/sentences/release"
    tokenizer = Tokenizer.from_file(str(release / "tokenizer.json"))
    short, long = tokenizer.encode_batch(["good", "very bad battery " * 40])
    assert len(short.ids) == len(long.ids) == 48
    assert sum(short.attention_mask) == 3
    assert json.loads((release / "tokenizer_config.json").read_text())["model_max_length"] == 48


@pytest.mark.parametrize("name", ["config.json", "golden.npz", "golden.json", "SHA256SUMS", "onnx/model.onnx"])
def test_a_missing_file_fails(release, capsys, name):
    (release / name).unlink()
    status, text = verify(release, capsys)
    assert status == 1
    assert any(line.startswith(name) and line.endswith("FAIL") for line in text.splitlines())
    assert "Traceback" not in text


@pytest.mark.parametrize("name", ["golden.npz", "tokenizer.json", "onnx/model_quantized.onnx"])
def test_a_truncated_file_fails(release, capsys, name):
    path = release / name
    path.write_bytes(path.read_bytes()[:-100])
    status, text = verify(release, capsys)
    assert status == 1
    assert any(line.startswith(name) and line.endswith("FAIL") for line in text.splitlines())
    assert "Traceback" not in text


def test_an_edited_manifest_fails(release, capsys):
    path = release / "manifest.json"
    manifest = json.loads(path.read_text())
    for facts in manifest["variants"].values():
        facts["gate"]["limits"] = facts["gate"]["limits"][:1]
    path.write_text(json.dumps(manifest))
    status, text = verify(release, capsys)
    assert status == 1
    assert any(line.startswith("manifest.json") and line.endswith("FAIL") for line in text.splitlines())


@pytest.mark.parametrize("content", [None, "{", "[]", '{"model": "m"}'])
def test_a_folder_that_is_no_release_is_told_in_one_line(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    status, text = verify(tmp_path, capsys)
    assert status == 2
    (line,) = text.splitlines()
    assert line.startswith("error: ")


def test_it_needs_only_three_packages():
    tree = ast.parse(Path(verify_release.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    packages = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert packages == {"onnxruntime", "numpy", "tokenizers"}


def test_it_measures_what_the_gate_measures():
    random = np.random.default_rng(0)
    expected = random.normal(size=(12, 6)).astype(np.float32)
    actual = expected + random.normal(size=(12, 6)).astype(np.float32) / 10
    embeddings = metrics.embedding_metrics(expected, actual)
    assert verify_release.compare_embeddings(expected, actual) == pytest.approx(
        {name: embeddings[name] for name in ("cosine_min", "cosine_mean")}
    )
    for columns in (1, 6):
        left, right = expected[:, :columns], actual[:, :columns]
        gate = measure_answers("text-classification", [left], [right])
        assert verify_release.compare_labels(left, right) == pytest.approx(gate)
    pixels = metrics.map_metrics([expected], [actual])
    assert verify_release.compare_tokens(expected, actual) == pytest.approx(metrics.token_metrics(expected, actual))
    assert verify_release.compare_pixels(expected, actual) == pytest.approx(pixels)
    difference = metrics.field_metrics([expected], [actual])["mean_relative_diff"]
    assert verify_release.compare_depths(expected, actual) == pytest.approx({"mean_relative_diff": difference})
    for task, (read, name, _) in verify_release.TASKS.items():
        values = np.abs(actual) if task == "text-recognition" else actual  # likelihoods, of which logarithms are taken
        [answers] = read_answers(task, {name: [values]}, labels=6)
        assert read({name: values}, name) == pytest.approx(answers)


def test_a_score_near_zero_may_change_its_sign_in_a_batch():
    alone = [np.array([[score]]) for score in (3.0, -2.0, 0.001)]
    in_batch = [np.array([[score]]) for score in (3.0, -2.0, -0.001)]
    assert batch_invariance(alone, in_batch)["cosine_min"] > 0.9999
    in_batch[0] = -in_batch[0]
    assert batch_invariance(alone, in_batch)["cosine_min"] < 0


@pytest.mark.parametrize(("share", "verdict"), [(31 / 32, "pass"), (30 / 32, "FAIL")])
def test_a_share_is_rounded_to_whole_inputs(share, verdict):
    limit = {"metric": "top1_agreement", "allowed": 0.99, "at_least": True}
    assert verify_release.judge("m", limit, {"top1_agreement": share}, 32).verdict == verdict


def test_what_is_not_finite_fails():
    limit = {"metric": "max_abs_diff", "allowed": 1.0, "at_least": False}
    assert verify_release.judge("m", limit, {"max_abs_diff": float("nan")}, 32).verdict == "FAIL"
