"""A release verifies itself, and says so loudly when anything in it is not what was proven."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import verify_release
from measure_parity import measure
from onnxproof.files import describe_files, read_json, sha256_of
from onnxproof.inputs.reference import read_reference
from onnxproof.parity.answers import batch_invariance
from onnxproof.parity.gate import measurements
from onnxproof.release.golden import read_golden
from onnxproof.vocabulary import METRICS
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
    on_raw_inputs = [check for check in result["checks"] if check["what"].startswith("raw inputs")]
    copies = [check for check in result["checks"] if check["what"] == "bytes"]
    assert [check["subject"] for check in copies] == ["onnx/model_int8.onnx"]
    assert len(result["checks"]) == 2 + len(limits) + len(copies) + len(on_raw_inputs)
    assert {check["subject"] for check in on_raw_inputs} == {facts["file"] for facts in manifest["variants"].values()}
    assert {check["verdict"] for check in result["checks"]} == {"pass"}


def test_without_a_file_json_is_all_that_is_printed(release, capsys):
    assert verify_release.main([str(release), "--threads", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True
    with pytest.raises(SystemExit) as end:
        verify_release.main(["--json", str(release)])
    assert end.value.code == 2
    assert "name the release before --json" in capsys.readouterr().err


def test_the_digest_of_the_release_can_be_demanded(release, capsys):
    assert verify(release, capsys, "--digest", sha256_of(release / "SHA256SUMS"))[0] == 0
    assert verify(release, capsys, "--digest", "0" * 64)[0] == 1


@pytest.mark.parametrize("name", ["model.onnx", "model_quantized.onnx", "model_int8.onnx"])
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


def test_a_copy_is_held_to_the_limits_of_its_variant_where_it_is_not_the_same_file(release, capsys):
    folder = release / "onnx"
    text = verify(release, capsys)[1]
    assert re.search(r"^onnx/model_int8\.onnx +bytes +those of onnx/model_quantized\.onnx +pass$", text, re.MULTILINE)
    manifest = json.loads((release / "manifest.json").read_text())
    limits = [limit["metric"] for limit in manifest["variants"]["int8"]["gate"]["limits"]]
    shutil.copyfile(folder / "model.onnx", folder / "model_int8.onnx")
    seal(release)

    status, text = verify(release, capsys)

    assert status == 0
    judged = [line.split()[1] for line in text.splitlines() if line.startswith("onnx/model_int8.onnx ")]
    assert judged == limits


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
    failed = [line for line in text.splitlines() if line.endswith("FAIL")]
    assert failed[0].split()[0] == "tokenizer"
    assert all("raw inputs" in line for line in failed[1:]), "the card's program reads the tokenizer too"


def test_the_shipped_tokenizer_cuts_and_pads_without_being_told(finished):
    from tokenizers import Tokenizer

    release = finished.folder / "results/sentences/release"
    tokenizer = Tokenizer.from_file(str(release / "tokenizer.json"))
    short, long = tokenizer.encode_batch(["good", "very bad battery " * 40])
    assert len(short.ids) == len(long.ids) == 48
    assert sum(short.attention_mask) == 3
    assert json.loads((release / "tokenizer_config.json").read_text())["model_max_length"] == 48


@pytest.mark.parametrize(
    "name",
    ["config.json", "golden.npz", "golden.json", "SHA256SUMS", "onnx/model.onnx", "verifier/onnxproof/parity/gate.py"],
)
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


def test_it_measures_what_the_gate_measures(finished, release, capsys, tmp_path):
    """The script's numbers are those of measure_parity on the same few inputs, and its limits those of the gate."""
    verify(release, capsys, "--json", str(tmp_path / "result.json"))
    checks = json.loads((tmp_path / "result.json").read_text())["checks"]
    results = finished.folder / "results" / json.loads((release / "manifest.json").read_text())["model"]
    reference = read_reference(results / "reference", results / "reference.json")
    golden = read_golden(release)
    few = replace(golden, manifest=reference.manifest, texts=())
    for variant, facts in json.loads((release / "manifest.json").read_text())["variants"].items():
        manifest = read_json(results / "onnx" / f"{variant}.json")
        batch_size = facts["parity"]["batch_invariance"]["batch_size"]
        parity = measure(results / "onnx" / variant, manifest, few, batch_size, threads=1)
        measured = measurements(parity)
        own = [check for check in checks if check["subject"] == facts["file"]]
        shown = {check["what"]: check["seen"] for check in own if not check["what"].startswith("raw inputs")}
        judged = facts["gate"]["thresholds"].keys() & measured.keys()
        assert len(judged) >= 2
        assert shown == {metric: f"{measured[metric]:.9g}" for metric in judged}
        whole = {limit["metric"]: limit["measured"] for limit in facts["gate"]["limits"]}
        for metric in whole.keys() & {"cosine_min", "max_relative_diff", "max_abs_diff", "max_probability_diff"}:
            least = METRICS[metric].bound == "at least"
            assert (measured[metric] >= whole[metric]) if least else (measured[metric] <= whole[metric])


def test_the_script_of_a_release_is_verified_with_the_modules_beside_it(release, tmp_path):
    """As a user runs it, with no checkout of the pipeline around."""
    run = subprocess.run(
        [sys.executable, "-I", release / "verify_release.py", "--threads", "1"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "PASS" in run.stdout
    assert not list(release.rglob("__pycache__"))


def test_a_score_near_zero_may_change_its_sign_in_a_batch():
    alone = [np.array([[score]]) for score in (3.0, -2.0, 0.001)]
    in_batch = [np.array([[score]]) for score in (3.0, -2.0, -0.001)]
    assert batch_invariance(alone, in_batch)["cosine_min"] > 0.9999
    in_batch[0] = -in_batch[0]
    assert batch_invariance(alone, in_batch)["cosine_min"] < 0
