"""int8-static through the whole chain: plain operators, answers that no batch changes, exact integers on every CPU."""

import json

import onnx
import pytest

from project import LOOSE, make_tiny_project

EXACT = LOOSE | {"batch_cosine_min": 0.99999}


@pytest.mark.slow
def test_a_release_with_fixed_scales_is_made_of_the_plain_graph(tmp_path, tiny_models):
    project = make_tiny_project(tmp_path, tiny_models)
    models = {"stars": {"source": {"path": "models/stars"}, "variants": ["fp32", "int8-static"]}}
    limits = {"int8-static": EXACT}
    parity = project.config["parity"] | {"thresholds": limits}
    project.configure(project.config | {"models": models, "quantization": {"targets": limits}, "parity": parity})

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
    parity = json.loads((results / "parity/int8-static.json").read_text())
    assert parity["batch_invariance"]["cosine_min"] > 0.99999
