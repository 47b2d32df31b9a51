"""The comparison with other runtimes and the cost of the pipeline, run for real on tiny models."""

import json
import subprocess
import sys

import numpy as np
import pytest

import compare_pipelines
import compare_quantizers
import compare_runtimes
from comparison.models import save_grown
from messages import raises
from onnx_folder import write_onnx_folder
from onnxproof.benchmark.timing import Case, Effort
from onnxproof.cli import UserError
from onnxproof.original.model import load_original


@pytest.mark.slow
def test_a_comparison_from_files_to_page(finished, tmp_path):
    output, table = tmp_path / "measured", tmp_path / "docs" / "runtimes.md"
    arguments = ["--results", str(finished.folder / "results"), "--output", str(output), "--models", "sentences"]
    arguments += ["--quick", "--threads", "1", "--rounds", "3", "--only", "int8"]
    compare_runtimes.main([*arguments, "--cases", "1x16"])
    compare_runtimes.main([*arguments, "--cases", "traffic", "--table", str(table)])
    record = json.loads((output / "sentences.json").read_text())
    contenders = record["contenders"]
    assert {"onnxruntime fp32", "PyTorch eager", "int8", "int8-invariant", "int8, no memory arena"} <= contenders.keys()
    assert "torch.compile" not in contenders
    assert [name for name in contenders if name.startswith("Optimum int8")]
    for facts in contenders.values():
        assert "failed" not in facts
        assert list(facts["cases"]) == ["1x16", "traffic"]
        assert facts["cases"]["1x16"]["share_of_peak"] > 0
        assert "share_of_peak" not in facts["cases"]["traffic"]
        assert facts["peak_rss_mb"] > 0
    assert contenders["onnxruntime fp32"]["quality"]["cosine_min"] > 0.99999
    assert contenders["onnxruntime fp32"]["cases"]["1x16"]["speedup"] == 1
    assert set(record["peak_giga_operations_per_s"]) == {"float", "integer"}
    assert "**int8**" in table.read_text()


def test_many_contenders_are_timed_in_one_run(tmp_path, monkeypatch):
    fp32 = write_onnx_folder(tmp_path / "fp32")
    monkeypatch.setattr(compare_quantizers, "CASES", (Case(1, 8), Case(2, 8)))
    effort = Effort(warmup=1, rounds=3, iterations=2, seconds_per_case=60, seed=0)
    speed = compare_quantizers.measure_speed("tiny", {"fp32": fp32, "a": fp32, "b": fp32}, 1, effort)
    assert list(speed) == ["fp32", "a", "b"]
    for cases in speed.values():
        assert list(cases) == ["1x8_t1", "2x8_t1"]
        assert all(np.shape(case["samples_ms"]) == (3, 2) for case in cases.values())
    assert speed["fp32"]["1x8_t1"]["speedup_vs_fp32"] == 1


def test_a_contender_that_nobody_is_called(tmp_path):
    entries = compare_runtimes.settings_entries("m", tmp_path)
    with raises(UserError):
        compare_runtimes.choose_entries(entries, ["onxx"], quick=True)


def test_the_cost_of_processes_is_theirs_and_their_children_s():
    block = "import time; block = b'x' * 150_000_000; time.sleep(0.6)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {block!r}])"
    with compare_pipelines.Cost() as cost:
        subprocess.run([sys.executable, "-c", child], check=True)
    assert cost.wall_s > 0.6
    assert 0 < cost.cpu_s < cost.wall_s * 4
    assert 150 < cost.peak_mb < 1000


def test_a_failing_command_is_one_clear_error(tmp_path):
    with raises(UserError):
        compare_pipelines.run([sys.executable, "-c", "print('some words'); raise SystemExit(3)"], tmp_path, 1)


def test_a_larger_model_of_the_same_kind(tiny_models, tmp_path):
    save_grown(tiny_models / "sentences", tmp_path / "larger", layers=1, hidden=128)
    model = load_original("larger", tmp_path / "larger", "sentence-similarity")
    inputs = model.make_inputs(["good"])
    assert model.run(inputs, [0])[0]["sentence_embedding"].shape == (128,)


@pytest.mark.slow
def test_both_chains_are_measured(tiny_models, tmp_path):
    figures, table = tmp_path / "figures.json", tmp_path / "docs" / "pipeline-cost.md"
    arguments = ["--snapshot", str(tiny_models / "stars"), "--json", str(figures), "--models", "1", "--shapes"]
    compare_pipelines.main([*arguments, "--chains", "public", "--table", str(table)])
    (row,) = json.loads(figures.read_text())
    assert (row["chain"], row["models"]) == ("public", 1)
    assert row["wall_s"] > 1
    assert row["peak_mb"] > 200
    ours = row | {"chain": "ours", "wall_s": row["wall_s"] / 2}
    assert "| 0 | 1 | ours / public | 0.50 | 1.00 | 1.00 |" in compare_pipelines.render_table([ours, row])
