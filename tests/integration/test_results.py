"""What a finished run leaves behind is what the layout promises."""

import json
import re

import onnx
import onnxruntime
import pandas
import pytest

from fitting import misfits
from onnxproof.config.checks import check_config
from onnxproof.config.resolve import resolve_models
from onnxproof.files import describe_files

MODELS = {"stars.v1": "text-classification", "sentences": "sentence-similarity"}
VARIANTS = ("fp32", "optimized", "int8")
INVARIANT = "results/sentences/onnx/int8-invariant"


def read(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize("model", MODELS)
def test_every_promised_path_is_there(finished, model):
    results = finished.folder / "results" / model
    wanted = ["source/config.json", "source.json", "reference", "reference.json", "release/config.json"]
    wanted += ["release/tokenizer.json", "release/README.md", "release/manifest.json", "release.json"]
    wanted += ["release/onnx/model.onnx", "release/onnx/model_quantized.onnx", "release/verify_release.py"]
    wanted += ["release/SHA256SUMS", "release/golden.npz", "release/golden.json", "verified.json"]
    wanted += ["release/verify.html"]
    for variant in VARIANTS:
        wanted += [f"onnx/{variant}/model.onnx", f"onnx/{variant}.json", f"parity/{variant}.json"]
        wanted += [f"parity/{variant}.ok", f"benchmark/{variant}.json"]
    assert [path for path in wanted if not (results / path).exists()] == []
    quantized, copy = (results / "release/onnx" / name for name in ("model_quantized.onnx", "model_int8.onnx"))
    assert copy.read_bytes() == quantized.read_bytes()
    assert (results / "benchmark" / "pytorch.json").exists() == (model == "stars.v1")
    for rule in ("download", "export", "optimize", "record_reference", "release"):
        assert (finished.folder / "results" / "logs" / rule / f"{model}.log").exists()
    assert (finished.folder / "results" / "logs" / "quantize" / f"{model}.int8.log").exists()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("manifest", "folder"),
    [("source.json", "source"), ("reference.json", "reference"), ("release.json", "release")]
    + [(f"onnx/{variant}.json", f"onnx/{variant}") for variant in VARIANTS],
)
def test_manifests_describe_their_folders(finished, model, manifest, folder):
    results = finished.folder / "results" / model
    assert read(results / manifest)["files"] == describe_files(results / folder)


def test_every_file_is_what_its_schema_says(finished):
    assert misfits(finished.folder / "results") == []


@pytest.mark.parametrize("model", MODELS)
def test_parity_files_have_the_promised_fields(finished, model):
    for variant in VARIANTS:
        parity = read(finished.folder / "results" / model / "parity" / f"{variant}.json")
        assert (parity["model"], parity["variant"], parity["task"]) == (model, variant, MODELS[model])
        assert parity["reference"] == "pytorch"
        assert parity["inputs"]["count"] == 8
        for output in parity["outputs"].values():
            assert {"shape", "dtype", "max_abs_diff", "mean_abs_diff", "cosine_min", "cosine_mean"} <= output.keys()
        assert {"max_abs_diff", "cosine_min"} <= parity["batch_invariance"].keys()
        assert parity["versions"]["onnxruntime"] == onnxruntime.__version__
    metrics = {
        "text-classification": {"top1_agreement", "max_probability_diff", "mean_kl"},
        "sentence-similarity": {"cosine_min", "cosine_mean", "rank_overlap"},
    }
    assert parity["task_metrics"].keys() == metrics[MODELS[model]]


@pytest.mark.parametrize("model", MODELS)
def test_fp32_and_optimized_equal_pytorch(finished, model):
    for variant in ("fp32", "optimized"):
        parity = read(finished.folder / "results" / model / "parity" / f"{variant}.json")
        assert max(output["max_abs_diff"] for output in parity["outputs"].values()) < 1e-4
        assert min(output["cosine_min"] for output in parity["outputs"].values()) > 0.99999


def test_sentence_transformers_are_fused_too(finished):
    manifest = read(finished.folder / "results/sentences/onnx/optimized.json")
    operators = manifest["operators"]
    assert operators["Attention"] == 2
    assert "SkipLayerNormalization" not in operators  # taken apart again
    made = {name: count for name, count in manifest["settings"]["rewrites"].items() if count}
    assert made == {"LpNormalization": 1, "Attention": 2, "SkipLayerNormalization": 4}
    assert operators["LpNormalization"] == 1


@pytest.mark.parametrize("model", MODELS)
def test_int8_quantizes_all_constant_products(finished, model):
    results = finished.folder / "results" / model / "onnx"
    operators = read(results / "int8.json")["operators"]
    assert operators["QAttention"] == 2
    assert operators["MatMulInteger"] >= 6  # in both layers: attention output, intermediate, output
    graph = onnx.load(results / "int8/model.onnx").graph
    constants = {tensor.name for tensor in graph.initializer}
    in_float = [node.name for node in graph.node if node.op_type == "MatMul" and constants & set(node.input)]
    assert [name for name in in_float if not name.endswith("_outlier_product")] == []


@pytest.mark.parametrize("model", MODELS)
def test_the_manifest_tells_the_recipe_and_every_rung_tried(finished, model):
    settings = read(finished.folder / "results" / model / "onnx/int8.json")["settings"]
    assert settings["search"]["reached"] is True
    assert settings["search"]["targets"]["cosine_min"] == 0.9
    assert settings["search"]["rungs"][-1]["recipe"] == settings["recipe"]
    for rung in settings["search"]["rungs"]:
        assert {"recipe", "metrics", "size_ratio", "speedup", "missed", "distance"} == rung.keys()
    assert settings["search"]["rungs"][-1]["speedup"] > 0
    assert settings["portability"]["may_saturate"] == []


def test_int8_invariant_gives_the_same_answer_in_any_batch(finished):
    parity = read(finished.folder / "results/sentences/parity/int8-invariant.json")
    assert parity["batch_invariance"]["cosine_min"] > 0.99999
    assert (finished.folder / INVARIANT / "model.onnx").is_file()
    assert (finished.folder / "results/sentences/release/onnx/model_quantized_invariant.onnx").is_file()
    assert read(finished.folder / f"{INVARIANT}.json")["settings"]["recipe"][-1]["pass"] == "per_token"


@pytest.mark.parametrize("model", MODELS)
def test_benchmark_files_have_the_promised_fields(finished, model):
    folder = finished.folder / "results" / model / "benchmark"
    for path in folder.glob("*.json"):
        benchmark = read(path)
        assert (benchmark["model"], benchmark["variant"]) == (model, path.stem)
        assert benchmark["intra_op_threads"] == 1
        assert benchmark["load_ms"] > 0
        assert benchmark["peak_rss_mb"] > 0
        assert benchmark["size_mb"] > 0
        assert {"model", "flags"} <= benchmark["cpu"].keys()
        assert [(case["batch"], case["sequence"]) for case in benchmark["cases"]] == [(1, 8), (2, 8)]
        for case in benchmark["cases"]:
            assert 0 < case["p50_ms"] <= case["p90_ms"] <= case["p99_ms"]
            assert case["items_per_s"] == pytest.approx(1000 * case["batch"] / case["p50_ms"])
            assert case["iterations"] == 4
            assert ("speedup_vs_fp32" in case) == (path.stem != "fp32")


@pytest.mark.parametrize("model", MODELS)
def test_what_the_expensive_steps_took_is_recorded(finished, model):
    results = finished.folder / "results" / model
    variants = [path.stem for path in (results / "onnx").glob("*.json")]
    steps = {"export", "optimize", "record_reference", "release"} | {f"measure_parity.{name}" for name in variants}
    steps |= {f"quantize.{name}" for name in variants if name.startswith("int8")}
    records = {path.stem: pandas.read_csv(path, sep="\t") for path in (results / "cost").glob("*.tsv")}
    assert records.keys() == steps
    for record in records.values():
        assert len(record) == 1
        assert record["s"][0] > 0
        assert {"max_rss", "cpu_time"} <= set(record)
    assert float(records["export"]["max_rss"][0]) > 100


def test_the_summary_has_a_row_for_each_model_and_variant(finished):
    table = pandas.read_csv(finished.folder / "results" / "summary.csv")
    assert len(table) == 8
    assert not table.duplicated(["model", "variant"]).any()
    assert set(table.model) == set(MODELS)


def test_releases_hold_no_marks_of_snakemake_but_its_own(finished):
    marks = (finished.folder / "results").glob("*/release/**/.snakemake_timestamp")
    assert [mark.parent.name for mark in marks] == ["release", "release"]


@pytest.mark.parametrize("model", MODELS)
def test_the_model_card_is_one_of_the_hubs(finished, model):
    from huggingface_hub import ModelCard

    card = ModelCard.load(finished.folder / "results" / model / "release/README.md")
    assert card.data.pipeline_tag == MODELS[model]
    assert "onnx" in card.data.tags
    tables = [block.splitlines() for block in card.text.split("\n\n") if block.startswith("|")]
    quantized = [
        name for name in read(finished.folder / "results" / model / "release.json")["variants"] if name[:4] == "int8"
    ]
    assert len(tables) == 5 + len(quantized)  # files, equality, fastest, speed, provenance; portability of each
    for table in tables:
        assert len(table) > 2
        assert {row.count("|") for row in table} == {table[0].count("|")}


@pytest.mark.parametrize("model", MODELS)
def test_the_release_manifest_says_where_everything_comes_from(finished, model):
    results = finished.folder / "results" / model
    manifest = read(results / "release/manifest.json")
    described = describe_files(results / "release")
    assert manifest["files"] == {
        name: entry for name, entry in described.items() if name not in ("manifest.json", "SHA256SUMS")
    }
    assert manifest["inputs"]["source"] == describe_files(results / "source")
    assert manifest["inputs"]["reference"] == describe_files(results / "reference")
    for variant, facts in manifest["variants"].items():
        assert facts["sha256"] == described[facts["file"]]["sha256"]
        assert manifest["inputs"]["onnx"][variant] == describe_files(results / "onnx" / variant)
        assert facts["gate"]["passed"]
        assert facts["versions"]["onnx"] == onnx.__version__
        assert facts["benchmark"]["cpu"]["model"]
    assert {choice["purpose"] for choice in manifest["recommended"]} <= {"latency", "throughput"}
    assert manifest["recommended"][0]["in_float"]
    for choice in manifest["recommended"]:
        assert choice["file"] == manifest["variants"][choice["variant"]]["file"]
        assert {"intra_op_threads", "execution_mode", "spinning", "memory_arena"} <= choice["session"].keys()
    check_config(manifest["reproduce"]["config"], finished.folder)
    again, settings = (resolve_models(config)[model] for config in (manifest["reproduce"]["config"], finished.config))
    assert (again["source"], again["variants"]) == (settings["source"], settings["variants"])
    for variant in settings["variants"]:
        assert again["parity"]["thresholds"][variant] == settings["parity"]["thresholds"][variant]
    assert any("snakemake" in command for command in manifest["reproduce"]["commands"])
    sums = dict(reversed(line.split("  ")) for line in (results / "release/SHA256SUMS").read_text().splitlines())
    assert sums == {name: entry["sha256"] for name, entry in described.items() if name != "SHA256SUMS"}


def test_snakemakes_own_report_has_captions_categories_and_labels_and_needs_no_network(finished, tmp_path):
    page = tmp_path / "report.html"
    run = finished.snakemake("--report", str(page))
    assert run.returncode == 0, run.stdout
    html = page.read_text()
    for words in ("Summary", "Parity", "Speed", "Releases", "Every transformer of"):
        assert words in html
    assert "How far int8 of sentences is from PyTorch" in html
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=.http", html)


def test_what_is_measured_on_a_gpu_is_told_by_variant(finished, monkeypatch, capsys):
    """With the CPU in the place of the GPU, which the machine of the tests need not have."""
    import on_gpu
    from onnxproof.graph.sessions import open_session

    model = finished.folder / "results" / "stars.v1"
    assert on_gpu.main([str(model), "--variants", "fp32"]) == 0
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert (
            capsys.readouterr().out == "onnxruntime has no CUDAExecutionProvider here: nothing was measured on a GPU\n"
        )
    for name, value in {"DEVICE": "cpu", "SHAPES": [(2, 8)], "ROUNDS": 1, "CALLS": 1}.items():
        monkeypatch.setattr(on_gpu, name, value)
    monkeypatch.setattr(on_gpu, "open_on_gpu", lambda path: open_session(path, 1))
    monkeypatch.setattr(on_gpu, "sees_gpu", lambda: False)
    assert on_gpu.main([str(model), "--variants", "fp32", "int8", "fp16"]) == 0
    fp32, int8, titles, line, *rows = capsys.readouterr().out.splitlines()
    assert fp32.startswith("fp32: {'top1_agreement': 1.0, ")
    assert int8.startswith("int8: {")
    assert (titles, line) == ("| ms | 2x8 |", "| --- | --- |")
    assert [row.split("|")[1].strip() for row in rows] == ["fp32", "int8"], "there is no fp16"
    assert all(float(row.split("|")[2]) > 0 for row in rows)
