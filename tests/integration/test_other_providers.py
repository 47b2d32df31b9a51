"""A further execution provider through the whole chain: its answers are measured beside its times, and shown."""

import json

import pytest

from project import edited, make_tiny_project

#: In every build of onnxruntime, and no choice of a user: it takes no node of these models, which the CPU computes.
PROVIDER = "AzureExecutionProvider"


@pytest.mark.slow
def test_answers_with_a_further_provider_are_in_the_release(tmp_path, tiny_models):
    project = make_tiny_project(tmp_path, tiny_models)
    schema = tmp_path / "workflow/schemas/config.schema.yaml"
    text = schema.read_text()
    allowed = "            - CPUExecutionProvider\n"
    assert text.count(allowed) == 1
    schema.write_text(text.replace(allowed, f"{allowed}            - {PROVIDER}\n"))
    project.configure(edited(project.config, "benchmark", "providers", value=["CPUExecutionProvider", PROVIDER]))
    run = project.snakemake("results/stars/verified.json", "results/report.html")
    assert run.returncode == 0, run.stdout
    results = tmp_path / "results/stars"
    manifest = json.loads((results / "release/manifest.json").read_text())
    assert [(one["variant"], one["provider"], one["missed"]) for one in manifest["other_providers"]] == [
        ("fp32", PROVIDER, [])
    ]
    parity = json.loads((results / f"parity/{PROVIDER}/fp32.json").read_text())
    assert parity["provider"] == PROVIDER
    assert parity["task_metrics"] == manifest["other_providers"][0]["task_metrics"]
    on_the_cpu = json.loads((results / "parity/fp32.json").read_text())
    assert parity["task_metrics"] == on_the_cpu["task_metrics"]
    card = (results / "release/README.md").read_text()
    assert f"`onnx/model.onnx` with {PROVIDER}: " in card
