"""int8 with fixed scales against public tools: the files that they make, the distances, and the page."""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from compare_static import MODELS, compare_answers, entries_of, main, make_files, measured_so_far, render_page
from comparison import static_peers, static_quantize
from comparison.static_peers import STATIC_PEERS, quantize_statically
from messages import check_message, raises
from onnx_folder import INPUTS, VOCAB_SIZE, write_onnx_folder
from onnxproof.cli import UserError
from onnxproof.files import write_json
from onnxproof.inputs.model_inputs import pack


@pytest.fixture
def items():
    generator = np.random.default_rng(0)
    made = []
    for length in (3, 7, 5, 9):
        ids = generator.integers(1, VOCAB_SIZE, size=(1, length))
        made.append(dict(zip(INPUTS, (ids, np.ones_like(ids), np.zeros_like(ids)), strict=True)))
    return made


def test_the_tools_read_the_items_that_are_written(items, tmp_path):
    from safetensors.numpy import save_file

    save_file(pack(items), tmp_path / "calibration.safetensors")
    for item, read in zip(items, static_quantize.read_items(tmp_path / "calibration.safetensors"), strict=True):
        assert item.keys() == read.keys()
        assert all(np.array_equal(item[name], read[name]) for name in item)


def test_shorter_texts_get_padding_that_the_mask_hides(items):
    padded = static_quantize.pad(items)
    assert {item["input_ids"].shape for item in padded} == {(1, 9)}
    assert [int(item["attention_mask"].sum()) for item in padded] == [3, 7, 5, 9]
    assert np.array_equal(padded[0]["input_ids"][:, :3], items[0]["input_ids"])


def test_a_tool_s_file_has_integers_and_answers_alike(items, tmp_path):
    fp32, folder = write_onnx_folder(tmp_path / "fp32"), tmp_path / "made"
    folder.mkdir()
    before = sorted(path.name for path in fp32.iterdir())
    quantize_statically("onnxruntime", Path(sys.executable), fp32, items, folder)
    operators = [node.op_type for node in onnx.load(folder / "model.onnx").graph.node]
    assert "QuantizeLinear" in operators
    exact, rounded = (
        onnxruntime.InferenceSession(path / "model.onnx").run(None, items[0])[0] for path in (fp32, folder)
    )
    assert 0 < np.abs(exact - rounded).max() < 0.1 * np.abs(exact).max()
    assert (folder / "config.json").is_file()
    assert sorted(path.name for path in fp32.iterdir()) == before


def test_a_tool_that_fails_is_told_by_its_last_line(items, tmp_path):
    fp32 = write_onnx_folder(tmp_path / "fp32")
    (fp32 / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError) as caught:
        quantize_statically("onnxruntime", Path(sys.executable), fp32, items, tmp_path / "made")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"onnxruntime cannot quantize {fp32 / 'model.onnx'}: ")
    with raises(UserError):
        quantize_statically("olive", Path("no/python"), fp32, items, tmp_path / "made")


def test_a_tool_that_does_not_end_is_ended(items, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_onnx_folder(tmp_path / "fp32")
    endless = tmp_path / "endless"
    endless.write_text("#!/bin/sh\nexec sleep 60\n")
    endless.chmod(0o755)
    with raises(UserError):
        quantize_statically("nncf-accuracy", endless, Path("fp32"), items, tmp_path / "made", most_minutes=0.001)


def test_who_has_no_environment_is_a_line_with_the_reason(items, tmp_path, monkeypatch):
    monkeypatch.setattr("compare_static.calibration_items", lambda *asked: items)
    fp32 = write_onnx_folder(tmp_path / "fp32")
    given = {"olive": tmp_path / "none"}
    made, missing = make_files("m", "text-classification", fp32, tmp_path / "made", given, ["optimum"])
    assert list(made) == ["onnxruntime quantize_static"]
    assert made.keys() | missing.keys() == {peer.name for peer in STATIC_PEERS}
    check_message(missing["NNCF"])
    check_message(missing["Olive"])
    check_message(missing["Optimum"])


def test_a_tool_that_failed_is_not_waited_for_again(items, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("compare_static.calibration_items", lambda *asked: items)
    write_onnx_folder(tmp_path / "fp32")
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho run >> $RUNS\necho It is broken.\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("RUNS", str(tmp_path / "runs.txt"))
    asked = ("m", "text-classification", Path("fp32"), Path("made"), {"olive": tool})
    first, second = make_files(*asked), make_files(*asked)
    assert first == second
    assert first[1]["Olive"] == "olive cannot quantize fp32/model.onnx: It is broken."
    assert (tmp_path / "runs.txt").read_text() == "run\n"
    Path("made/olive-failed.txt").unlink()
    make_files(*asked)
    assert (tmp_path / "runs.txt").read_text() == "run\nrun\n"


def test_files_of_nncf_run_in_openvino_alone():
    ours = {"fp32": Path("fp32"), "int8-static": Path("static")}
    made = {peer.name: Path(peer.tool) for peer in STATIC_PEERS}
    in_openvino = entries_of("openvino", "m", ours, made, Path("python"))
    in_onnxruntime = entries_of("onnx", "m", ours, made, Path("python"))
    assert [entry.name for entry in in_openvino[:3]] == ["NNCF", "fp32", "int8-static"]
    assert {entry.contender.runtime for entry in in_openvino} == {"openvino"}
    assert in_onnxruntime[0].contender == in_openvino[0].contender
    assert {entry.contender.runtime for entry in in_onnxruntime[1:]} == {"onnx"}
    left_out = {entry.name for entry in in_openvino} - {entry.name for entry in in_onnxruntime}
    assert left_out == {"NNCF with accuracy control"}


def test_other_answers_are_counted():
    exact = np.array([[3.0, 1.0], [1.0, 2.0], [0.0, 5.0]])
    other = np.array([[3.0, 1.0], [2.0, 1.0], [0.0, 5.0]])
    compared = compare_answers(exact, other, classifies=True)
    assert compared == {
        "cosine_min": pytest.approx(0.8),
        "cosine_mean": pytest.approx(2.8 / 3),
        "other_answers": 1,
    }
    assert "other_answers" not in compare_answers(exact, other, classifies=False)


def facts(speedup, quality, ours=False):
    case = {"p50_ms": 10 / speedup, "speedup": speedup, "interval": [speedup, speedup], "samples_ms": [[1.0], [1.0]]}
    return {"ours": ours, "size_mb": 23.0, "quality": quality, "cases": {"1x128": case}}


def test_the_page_tells_who_lost_and_who_is_missing():
    quality = {"cosine_min": 0.94, "cosine_mean": 0.99}
    ours = {"cosine_min": 0.993, "cosine_mean": 0.998}
    record = {
        "model": "m",
        "random_weights": False,
        "threads": 2,
        "cpu": {"model": "A CPU", "flags": []},
        "calibrated_on": 132,
        "judged_on": 301,
        "runtimes": {
            "onnx": {"NNCF": facts(1, quality), "Olive": {"ours": False, "size_mb": 9, "cases": {}, "failed": "why"}},
            "openvino": {"NNCF": facts(1, quality), "int8-static": facts(0.9, ours, ours=True)},
        },
        "missing": {"AMD Quark": "cannot"},
        "versions": {"onnxruntime": "1"},
    }
    page = render_page([record], "It was busy.")
    assert "disturbed them alike. It was busy.\n" in page
    assert "`int8-static` are 0.9930 / 0.9980, those of NNCF's file 0.9400 / 0.9900. Its speed is 0.90" in page
    assert "| OpenVINO | **int8-static** | 0.9930 | 0.9980 | 23.0 | 0.90 (0.90–0.90), 11.1 ms |" in page
    assert "- AMD Quark: cannot" in page
    assert "- Olive in onnxruntime: why" in page
    assert "| onnxruntime | NNCF" not in page
    assert "other answers |" not in page


def test_the_page_has_what_was_measured_before(tmp_path):
    for model in ("another", *reversed(MODELS)):
        write_json(tmp_path / f"{model}.json", {"model": model, "runtimes": {}})
    write_json(tmp_path / "unrelated.json", {})
    assert [record["model"] for record in measured_so_far(tmp_path)] == [*MODELS, "another"]
    with raises(UserError):
        main(["--models", "--output", str(tmp_path / "none"), "--table", str(tmp_path / "page.md")])


def test_every_environment_has_its_lock():
    locks = Path(__file__).parents[3] / "envs"
    for name in static_peers.ENVIRONMENTS:
        assert (locks / ("exporters" if name == "optimum" else "peers") / f"{name}.txt").is_file()
