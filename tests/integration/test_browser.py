"""The variants in transformers.js: in Node, and in headless Chromium on WebAssembly and on WebGPU."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import measure_browser
import quantize
import release
from chain import THRESHOLDS, run_chain
from kinds import save_case, save_embedder
from onnxproof.config.resolve import resolve_models
from onnxproof.inputs.texts import CALIBRATION_TEXTS
from onnxproof.parity.browser import DEVICES, Browser, BrowserError, Node, find_chromium
from onnxproof.records.browser import read_browser
from onnxproof.release import golden
from onnxproof.vocabulary import MADE_OF
from tiny_models import save_classifier

CHROMIUM = find_chromium()
PROGRAMS = {Browser: CHROMIUM, Node: shutil.which("node")}
SEARCHED = ("uint8", "int8-invariant", "int8-static", "w8", "q4")
VARIANTS = ("fp32", "int8", *SEARCHED)
TARGETS = resolve_models({"models": {"m": {"source": {"path": "."}}}})["m"]["quantization"]["targets"]
TEXTS = ["good", "not very good but the price is fine"]
#: Kinds of models → how they are saved.
KINDS = {
    "embedder": save_embedder,
    "classifier": save_classifier,
    "image classifier": lambda folder: save_case(folder, "vit image-classification"),
    "generator": lambda folder: save_case(folder, "gpt2 text-generation"),
    "speech recognizer": lambda folder: save_case(folder, "wav2vec2 automatic-speech-recognition"),
}
#: How far a browser's answers may be from the CPU's, both measured as the gate measures them.
METRIC, TOLERANCE = "cosine_min", 1e-4
#: The same for ``w8`` in Node, whose products round activations to int8 there. onnxruntime-web has no such kernel.
ROUNDED_IN_NODE = 1e-3

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian: chromium)"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_browser_gives_the_answers_that_the_cpu_gives(kind, tmp_path, node_modules, monkeypatch):
    monkeypatch.setattr(golden, "choose_golden", lambda sizes: sorted({0, len(sizes) - 1}))
    source, results, texts = tmp_path / "source", tmp_path / "results", tmp_path / "texts.txt"
    source.mkdir()
    KINDS[kind](source)
    texts.write_text("\n".join(TEXTS))
    onnx_folder = results / "onnx"
    on_cpu = {
        manifest["variant"]: parity for manifest, parity in run_chain("m", source, results, texts, TARGETS["int8"])
    }
    for variant in SEARCHED:
        graph, made = (
            (onnx_folder / name, onnx_folder / f"{name}.json") for name in (MADE_OF.get(variant, "optimized"), variant)
        )
        quantize.quantize("m", variant, *graph, TARGETS[variant], CALIBRATION_TEXTS, *made)

    record = measure_browser.measure("m", results, VARIANTS, 4, PROGRAMS, node_modules)

    assert [(run["variant"], run["device"]) for run in record["runs"]] == [
        (variant, device) for variant in VARIANTS for device in DEVICES
    ]
    for run in record["runs"]:
        told = (kind, run["variant"], run["device"], run["error"])
        assert run["error"] is None, told
        (name, output), *_ = run["answers"]["outputs"].items()
        if run["variant"] == "fp32":
            assert output["max_relative_diff"] < 1e-4, told
            assert run["answers"]["task_metrics"].get("greedy_token_match", 1.0) == 1.0, told
        if run["variant"] in on_cpu and record["inputs"]["count"] == on_cpu[run["variant"]]["inputs"]["count"]:
            expected = on_cpu[run["variant"]]["outputs"][name][METRIC]
            assert output[METRIC] == pytest.approx(expected, abs=TOLERANCE), told
    by_variant = {
        (run["variant"], run["device"]): next(iter(run["answers"]["outputs"].values())) for run in record["runs"]
    }
    for variant in VARIANTS:
        in_node, on_wasm, on_webgpu = (by_variant[variant, device][METRIC] for device in DEVICES)
        assert on_wasm == pytest.approx(on_webgpu, abs=TOLERANCE), (kind, variant)
        rounding = ROUNDED_IN_NODE if variant == "w8" else TOLERANCE
        assert in_node == pytest.approx(on_wasm, abs=rounding), (kind, variant)


def with_gathered_blocks(model: onnx.ModelProto) -> None:
    """Let a graph read its first embedding table by GatherBlockQuantized, which WebAssembly does not have."""
    gather = next(node for node in model.graph.node if node.op_type == "Gather" and "word" in node.input[0])
    table = next(tensor for tensor in model.graph.initializer if tensor.name == gather.input[0])
    values = numpy_helper.to_array(table)
    scales = np.maximum(np.abs(values).max(axis=1, keepdims=True), 1e-6) / 7
    integers = np.clip(np.round(values / scales), -8, 7).astype(np.int8)
    stored = helper.make_tensor("table_q4", TensorProto.INT4, values.shape, integers.ravel())
    model.graph.initializer.extend([stored, numpy_helper.from_array(scales.astype(np.float32), "table_scales")])
    index = list(model.graph.node).index(gather)
    attributes = {"gather_axis": 0, "quantize_axis": 1, "block_size": values.shape[1]}
    model.graph.node[index].CopyFrom(
        helper.make_node(
            "GatherBlockQuantized",
            ["table_q4", gather.input[1], "table_scales"],
            list(gather.output),
            domain="com.microsoft",
            **attributes,
        )
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    next(entry for entry in model.opset_import if not entry.domain).version = 21


def test_a_file_that_a_browser_does_not_load_is_not_announced(finished, tmp_path, node_modules):
    results = tmp_path / "results" / "sentences"
    shutil.copytree(finished.folder / "results" / "sentences", results)
    arguments = ["--model", "sentences", "--results", str(results), "--variants", "fp32", "int8"]
    output = results / "parity" / "browser.json"
    measured = [*arguments, "--node-modules", str(node_modules), "--batch-size", "4", "--output", str(output)]
    measure_browser.main(measured)
    thresholds = {variant: THRESHOLDS["fp32"] | {"cosine_min": 0.9} for variant in ("fp32", "int8")}
    thresholds["int8"] = {"cosine_min": 0.9}
    released = [*arguments, "--thresholds", json.dumps(thresholds), "--browser"]
    released += ["--output-dir", str(results / "release"), "--manifest", str(results / "release.json")]

    release.main(released)

    config = json.loads((results / "release" / "config.json").read_text())
    assert config["transformers.js_config"]["device_config"] == {
        "cpu": {"dtype": "q8"},
        "wasm": {"dtype": "q8"},
        "webgpu": {"dtype": "fp32"},
    }
    assert "## In Node and in the browser" in (results / "release" / "README.md").read_text()
    manifest = json.loads((results / "release" / "manifest.json").read_text())
    assert manifest["browser"]["not_announced"] == []

    record = read_browser(output)
    for run in record["runs"]:
        if (run["variant"], run["device"]) == ("int8", "wasm"):
            run.pop("answers")
            run.update(loads=False, error=error_of_gathered_blocks(results / "onnx" / "fp32", tmp_path, node_modules))
    output.write_text(json.dumps(record))
    release.main(released)

    config = json.loads((results / "release" / "config.json").read_text())
    assert config["transformers.js_config"]["device_config"] == {
        "cpu": {"dtype": "q8"},
        "wasm": {"dtype": "fp32"},
        "webgpu": {"dtype": "fp32"},
    }
    (line,) = [
        line
        for line in (results / "release" / "README.md").read_text().splitlines()
        if "is not announced for WebAssembly" in line
    ]
    assert line.startswith("- `onnx/model_quantized.onnx` is not announced for WebAssembly. There it does not load: ")
    assert "GatherBlockQuantized" in line


def error_of_gathered_blocks(source: Path, scratch: Path, node_modules: Path) -> str:
    """Return what stops a graph with GatherBlockQuantized from being loaded on WebAssembly."""
    folder = scratch / "gathered"
    folder.mkdir()
    model = onnx.load(source / "model.onnx")
    with_gathered_blocks(model)
    onnx.save(model, folder / "model.onnx")
    with Browser(CHROMIUM, node_modules, folder) as browser, pytest.raises(BrowserError) as error:
        browser.open_variant("wasm")
    return str(error.value).splitlines()[0]
