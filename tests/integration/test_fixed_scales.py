"""Fixed scales through the whole chain: plain operators, answers that no batch changes, exact integers on every CPU.

Each form is taken whole by the provider that it is for, as far as the provider's documentation tells.
"""

import json

import onnx
import pytest

from onnxproof.graph.providers import judge_graph, read_provider
from project import LOOSE, make_tiny_project

#: Which provider each form is for, and the file in a release.
FORMS = {
    "int8-static": ("webnn", "model_int8_static.onnx"),
    "int8-symmetric": ("tensorrt", "model_int8_symmetric.onnx"),
    "w8a16": ("qnn", "model_w8a16.onnx"),
}
EXACT = LOOSE | {"batch_cosine_min": 0.99999}


@pytest.mark.slow
def test_a_release_with_fixed_scales_is_made_of_the_plain_graph(tmp_path, tiny_models):
    project = make_tiny_project(tmp_path, tiny_models)
    models = {"stars": {"source": {"path": "models/stars"}, "variants": ["fp32", *FORMS]}}
    limits = dict.fromkeys(FORMS, EXACT)
    parity = project.config["parity"] | {"thresholds": limits}
    project.configure(project.config | {"models": models, "quantization": {"targets": limits}, "parity": parity})
    project.configure(project.config | {"release": {"targets": [provider for provider, _ in FORMS.values()]}})
    project.config["release"]["fixed_shapes"] = {"w8a16": [[2, 64]]}
    project.configure(project.config)

    run = project.snakemake("results/stars/verified.json")

    assert run.returncode == 0, run.stdout
    results = tmp_path / "results/stars"
    assert not (results / "onnx/optimized").exists()
    made = onnx.load(results / "release/onnx/model_int8_static.onnx")
    assert {node.domain for node in made.graph.node} <= {"", "ai.onnx"}
    operators = [node.op_type for node in made.graph.node]
    assert operators.count("QuantizeLinear") > 2
    assert "DynamicQuantizeLinear" not in operators
    settings = json.loads((results / "onnx/int8-static.json").read_text())["settings"]
    assert settings["portability"]["integer_products"] == operators.count("DequantizeLinear") - operators.count(
        "QuantizeLinear"
    )
    assert settings["portability"]["may_saturate"] == settings["portability"]["tried_here"]["wrong"] == []
    manifest = json.loads((results / "release/manifest.json").read_text())
    for variant, (provider, file) in FORMS.items():
        parity = json.loads((results / f"parity/{variant}.json").read_text())
        assert parity["batch_invariance"]["cosine_min"] > 0.99999
        judged = judge_graph(onnx.load(results / "release/onnx" / file), read_provider(provider))
        assert list(map(str, judged.refused)) == []
        assert manifest["targets"][f"onnx/{file}"][provider]["refused"] == []
        if variant == "w8a16":
            check_fixed_shapes(results, manifest)
        # The file computes with integers: without them it would be taken whole too.
        assert judged.nodes > len(operators) / 2


def check_fixed_shapes(results, manifest):
    """The form with fixed shapes is taken whole as it is, and was verified too."""
    [one] = manifest["variants"]["w8a16"]["fixed"]
    assert one["file"] == "onnx/model_w8a16_2x64.onnx"
    assert 0 < one["fitting"] <= manifest["reference"]["inputs"]["count"]
    verdict = manifest["targets"][one["file"]]["qnn"]
    assert verdict["refused"] == verdict["not_fixed"] == []
    inputs = onnx.load(results / "release" / one["file"]).graph.input
    assert {tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim) for value in inputs} == {(2, 64)}
    verified = json.loads((results / "verified.json").read_text())
    checks = [check for check in verified["checks"] if check["subject"] == one["file"]]
    assert {check["verdict"] for check in checks} == {"pass"}
    assert "batch_cosine_min" in {check["what"] for check in checks}
    assert one["file"] in (results / "release/README.md").read_text()
