"""The table of OpenVINO is what the package itself has a conversion for."""

import json
import subprocess
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

from onnxproof.graph.providers import read_provider
from onnxproof.vocabulary import MICROSOFT

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-openvino/bin/python"
#: What OpenVINO's reader says of an operator that it does not know. Of one that it knows, it says what else is wrong.
ASKING = """
import json, pathlib, sys, openvino
core, refused = openvino.Core(), []
for path in pathlib.Path(sys.argv[1]).glob("*.onnx"):
    try:
        core.read_model(path)
    except Exception as error:
        if "No conversion rule found" in str(error):
            refused.append(path.stem)
print(json.dumps(refused))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="OpenVINO is not installed: make .venv-openvino/done"),
]


def test_the_table_lists_what_the_installed_package_converts(tmp_path):
    standard = {schema.name: schema for schema in onnx.defs.get_all_schemas() if not schema.deprecated}
    schemas = {("", name): schema for name, schema in standard.items() if not schema.domain}
    schemas |= {(MICROSOFT, each.name): each for each in get_all_operator_schema() if each.domain == MICROSOFT}
    for (domain, name), schema in schemas.items():
        version = 23 if domain else max(schema.since_version, 17)
        save_alone(tmp_path / f"{domain or 'ai.onnx'}:{name}.onnx", domain, schema, version)

    run = subprocess.run([PYTHON, "-c", ASKING, tmp_path], capture_output=True, text=True, timeout=120, check=False)

    assert run.returncode == 0, run.stderr
    refused = set(json.loads(run.stdout))
    asked = {path.stem for path in tmp_path.iterdir()}
    assert len(refused) > 50
    assert read_provider("openvino").operators == asked - refused


def save_alone(path: Path, domain: str, schema, version: int) -> None:
    """Save a graph of one node, which has all inputs and outputs that its operator may have, of any shape."""
    inputs = [f"in{number}" for number in range(max(1, len(schema.inputs)))]
    outputs = [f"out{number}" for number in range(max(1, len(schema.outputs)))]
    graph = helper.make_graph(
        [helper.make_node(schema.name, inputs, outputs, domain=domain)],
        "alone",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs],
        [helper.make_tensor_value_info(outputs[0], TensorProto.FLOAT, None)],
    )
    imports = [helper.make_opsetid("", version), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
