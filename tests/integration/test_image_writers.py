"""Models that write about images, through the workflow, and what transformers.js generates with their releases."""

import json
import subprocess

import numpy as np
import pytest

import coverage_matrix
from card_programs import programs, run_program
from fitting import misfits
from new_architectures import new_cases
from onnxproof.inputs.reference import read_reference
from project import ROOT, make_project

CASES = {case.name: case for case in new_cases()}
MODELS = ("smolvlm", "qwen2_vl", "gemma3")
GRAPHS = ("vision_encoder", "embed_tokens", "decoder_model_merged")
IMAGE_INPUTS = ("pixel_values", "pixel_attention_mask", "image_grid_thw")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results of a finished run over models that write about images."""
    project = make_project(tmp_path_factory.mktemp("writers"))
    for model in MODELS:
        CASES[f"{model} image-text-to-text"].save(project.folder / "models" / model)
    limits = coverage_matrix.INT8_THRESHOLDS
    models = {
        model: {"source": {"path": f"models/{model}"}, "benchmark": {"pytorch": model == "qwen2_vl"}}
        for model in MODELS
    }
    project.configure(
        project.config
        | {"models": models, "variants": ["fp32", "int8"], "quantization": {"targets": {"int8": limits}}}
        | {"parity": project.config["parity"] | {"thresholds": {"int8": limits}}}
    )
    run = project.snakemake()
    assert run.returncode == 0, run.stdout
    return project.folder / "results"


def test_every_file_is_what_its_schema_says(results):
    assert misfits(results) == []


@pytest.mark.parametrize("model", MODELS)
def test_every_variant_generates_what_pytorch_does_and_is_timed(results, model):
    for variant, least in (("fp32", 1.0), ("int8", 0.1)):
        parity = json.loads((results / model / f"parity/{variant}.json").read_text())
        assert parity["task"] == "image-text-to-text"
        assert parity["task_metrics"]["greedy_token_match"] >= least
        benchmark = json.loads((results / model / f"benchmark/{variant}.json").read_text())
        assert {(case["batch"], case["sequence"]) for case in benchmark["cases"]} == {(1, 8), (2, 8)}


@pytest.mark.parametrize("model", MODELS)
def test_every_graph_is_quantized_by_itself_and_released_by_the_name_that_transformers_js_reads(results, model):
    for variant, suffix in (("fp32", ""), ("int8", "_quantized")):
        manifest = json.loads((results / model / f"onnx/{variant}.json").read_text())
        assert list(manifest["graphs"]) == [f"{graph}.onnx" for graph in GRAPHS]
        for graph in GRAPHS:
            made = (results / model / f"onnx/{variant}/{graph}.onnx").read_bytes()
            assert (results / model / f"release/onnx/{graph}{suffix}.onnx").read_bytes() == made
    sizes = [
        (results / model / f"release/onnx/embed_tokens{suffix}.onnx").stat().st_size for suffix in ("", "_quantized")
    ]
    assert sizes[1] < sizes[0] / 3
    verified = json.loads((results / model / "verified.json").read_text())
    checked = {(check["subject"], check["what"]) for check in verified["checks"] if check["verdict"] == "pass"}
    assert ("onnx/decoder_model_merged_quantized.onnx", "greedy_token_match") in checked


def test_the_example_of_the_card_runs_as_it_stands(results, monkeypatch):
    release = results / "smolvlm/release"
    monkeypatch.setenv("PYTHONPATH", str(release))  # where the program would stand
    [code] = programs(release, "python")
    tokens = run_program(code, release, ["outputs"], None)["outputs"]["tokens"]
    assert len(tokens) == 32
    assert "Optimum" not in (release / "README.md").read_text()


#: Gemma 3 is none of them: transformers.js does not tell its decoder which tokens are an image's.
@pytest.mark.parametrize("model", ["smolvlm", "qwen2_vl"])
def test_transformers_js_generates_pytorchs_tokens(results, tmp_path, node_modules, model):
    reference = read_reference(results / model / "reference", results / model / "reference.json")
    prompts = []
    for index in list(reference.generated)[:3]:
        feed = reference.inputs.feed([index], ["input_ids", "attention_mask", *IMAGE_INPUTS])
        tensors = {
            name: {"type": str(values.dtype), "dims": values.shape, "data": values.astype(float).ravel().tolist()}
            for name, values in feed.items()
        }
        prompts.append({"feed": tensors, "count": len(reference.generated[index])})
    asked = tmp_path / "prompts.json"
    asked.write_text(json.dumps(prompts))
    script = node_modules.parent / "image_writer_answers.mjs"
    script.write_text((ROOT / "tests/support/image_writer_answers.mjs").read_text())
    command = ["node", script, results / model / "release", asked]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stderr
    expected = list(reference.generated.values())[:3]
    np.testing.assert_array_equal(json.loads(process.stdout.splitlines()[-1]), expected)
