"""The comparison with other runtimes and the cost of the pipeline, run for real on tiny models."""

import json
import subprocess
import sys

import pytest

import bench
import bench_pipeline
from onnxproof.bench.models import save_grown
from onnxproof.cli import UserError
from onnxproof.original.model import load_original


@pytest.mark.slow
def test_a_comparison_from_files_to_page(finished, tmp_path):
    output, table = tmp_path / "bench", tmp_path / "docs" / "benchmark.md"
    arguments = ["--results", str(finished.folder / "results"), "--output", str(output), "--models", "sentences"]
    arguments += ["--quick", "--threads", "1", "--rounds", "3", "--only", "int8"]
    bench.main([*arguments, "--cases", "1x16"])
    bench.main([*arguments, "--cases", "traffic", "--table", str(table)])
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


def test_a_contender_that_nobody_is_called(tmp_path):
    entries = bench.settings_entries("m", tmp_path)
    with pytest.raises(UserError, match=r"--only onxx: no contender's name holds it; they are: int8, idle threads"):
        bench.choose_entries(entries, ["onxx"], quick=True)


def test_the_cost_of_processes_is_theirs_and_their_children_s():
    block = "import time; block = b'x' * 150_000_000; time.sleep(0.6)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {block!r}])"
    with bench_pipeline.Cost() as cost:
        subprocess.run([sys.executable, "-c", child], check=True)
    assert cost.wall_s > 0.6
    assert 0 < cost.cpu_s < cost.wall_s * 4
    assert 150 < cost.peak_rss_mb < 1000


def test_a_failing_command_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match=r"(?s)-c .*: ended with status 3:\nsome words"):
        bench_pipeline.run([sys.executable, "-c", "print('some words'); raise SystemExit(3)"], tmp_path, 1)


def test_a_larger_model_of_the_same_kind(tiny_models, tmp_path):
    save_grown(tiny_models / "sentences", tmp_path / "larger", layers=1, hidden=128)
    model = load_original("larger", tmp_path / "larger", "sentence-similarity")
    inputs = model.make_inputs(["good"])
    assert model.run(inputs, [0])[0]["sentence_embedding"].shape == (128,)


@pytest.mark.slow
def test_both_chains_are_measured(tiny_models, tmp_path):
    figures, table = tmp_path / "figures.json", tmp_path / "docs" / "bench-pipeline.md"
    arguments = ["--snapshot", str(tiny_models / "stars"), "--json", str(figures), "--models", "1", "--shapes"]
    bench_pipeline.main([*arguments, "--chains", "public", "--table", str(table)])
    (row,) = json.loads(figures.read_text())
    assert (row["chain"], row["models"]) == ("public", 1)
    assert row["wall_s"] > 1
    assert row["peak_rss_mb"] > 200
    ours = row | {"chain": "ours", "wall_s": row["wall_s"] / 2}
    assert "| 0 | 1 | ours / public | 0.50 | 1.00 | 1.00 |" in bench_pipeline.render_table([ours, row])
