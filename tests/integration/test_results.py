"""What a finished run leaves behind is what the layout promises."""

import json

import numpy as np
import onnx
import onnxruntime
import pandas
import pytest

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
    wanted += ["release/onnx/model.onnx", "release/onnx/model_quantized.onnx"]
    for variant in VARIANTS:
        wanted += [f"onnx/{variant}/model.onnx", f"onnx/{variant}.json", f"parity/{variant}.json"]
        wanted += [f"parity/{variant}.ok", f"benchmark/{variant}.json"]
    assert [path for path in wanted if not (results / path).exists()] == []
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
    operators = read(finished.folder / "results/sentences/onnx/optimized.json")["operators"]
    assert operators["Attention"] == 2
    assert operators["SkipLayerNormalization"] == 4
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
        assert rung["speedup"] > 0
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


def test_the_summary_has_a_row_for_each_model_and_variant(finished):
    table = pandas.read_csv(finished.folder / "results" / "summary.csv")
    assert len(table) == 8
    assert not table.duplicated(["model", "variant"]).any()
    assert set(table.model) == set(MODELS)


def test_releases_hold_no_marks_of_snakemake_but_its_own(finished):
    marks = (finished.folder / "results").glob("*/release/**/.snakemake_timestamp")
    assert [mark.parent.name for mark in marks] == ["release", "release"]


@pytest.mark.parametrize("model", MODELS)
def test_the_tables_of_the_model_card_are_whole(finished, model):
    card = (finished.folder / "results" / model / "release/README.md").read_text()
    tables = [block.splitlines() for block in card.split("\n\n") if block.startswith("|")]
    files = len(read(finished.folder / "results" / model / "release.json")["variants"])
    assert [len(table) for table in tables] == [2 + files, 2 + 2 * files]  # two cases a file
    for table in tables:
        assert {row.count("|") for row in table} == {table[0].count("|")}


@pytest.fixture
def sentences() -> list[str]:
    return ["the battery is really bad", "i love it"]


def test_the_release_of_a_classifier_loads_in_optimum(finished, sentences):
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    release = finished.folder / "results/stars.v1/release"
    inputs = AutoTokenizer.from_pretrained(release)(sentences, padding=True, return_tensors="pt")
    expected = AutoModelForSequenceClassification.from_pretrained(finished.folder / "models/stars")(**inputs).logits
    for name, tolerance in (("model.onnx", 1e-4), ("model_quantized.onnx", 1.0)):
        model = ORTModelForSequenceClassification.from_pretrained(release, subfolder="onnx", file_name=name)
        assert np.abs((model(**inputs).logits - expected).detach().numpy()).max() < tolerance


def test_the_release_of_a_sentence_transformer_loads_in_sentence_transformers(finished, sentences):
    from sentence_transformers import SentenceTransformer

    release = str(finished.folder / "results/sentences/release")
    expected = SentenceTransformer(str(finished.folder / "models/sentences"), device="cpu").encode(sentences)
    for name, cosine in (("onnx/model.onnx", 0.99999), ("onnx/model_quantized.onnx", 0.9)):
        model = SentenceTransformer(release, backend="onnx", model_kwargs={"file_name": name})
        assert model.max_seq_length == 48
        assert (model.encode(sentences) * expected).sum(axis=1).min() > cosine


def test_the_release_needs_only_onnxruntime_and_tokenizers(finished, sentences):
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

    release = finished.folder / "results/sentences/release"
    tokenizer = Tokenizer.from_file(str(release / "tokenizer.json"))
    tokenizer.enable_padding()
    encodings = tokenizer.encode_batch(sentences)
    session = onnxruntime.InferenceSession(release / "onnx/model.onnx")
    feed = {
        "input_ids": np.array([encoding.ids for encoding in encodings]),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings]),
    }
    (embeddings,) = session.run(["sentence_embedding"], feed)
    expected = SentenceTransformer(str(finished.folder / "models/sentences"), device="cpu").encode(sentences)
    assert embeddings == pytest.approx(expected, abs=1e-5)
