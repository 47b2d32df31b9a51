"""The dtypes of transformers.js, in Node: each loads all graphs of a model, and the weights beside them."""

import json
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxproof.files import describe_files, write_json
from onnxproof.release.announcement import announce_dtypes
from project import ROOT
from records import make_parity, make_variant
from release import announce_weight_files, copied_files, copy_proven_model, released_files

GRAPHS = ("encoder_model", "decoder_model_merged")
#: What each variant multiplies by, so that its answers tell it from others.
FACTORS = {"fp32": 1, "fp16": 2, "int8": 3, "uint8": 4, "q4": 5, "q4f16": 6}


def save_graph(path: Path, factor: int) -> None:
    """Save ``y = x * weights`` with its weights in a file beside it."""
    weights = numpy_helper.from_array(np.full(4, factor, dtype=np.float32), "weights")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    node = helper.make_node("Mul", ["x", "weights"], ["y"])
    graph = helper.make_graph([node], "graph", values[:1], values[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}_data", size_threshold=0)


@pytest.fixture
def release(tmp_path) -> Path:
    """The graphs of an encoder-decoder in every dtype, released, and its ``config.json``."""
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "t5", "architectures": ["T5Model"]}))
    for variant, factor in FACTORS.items():
        made = tmp_path / "onnx" / variant
        made.mkdir(parents=True)
        for graph in GRAPHS:
            save_graph(made / f"{graph}.onnx", factor)
        files = describe_files(made)
        sums = {name: entry["sha256"] for name, entry in files.items()}
        first = "encoder_model.onnx"
        write_json(tmp_path / "onnx" / f"{variant}.json", make_variant(files=files))
        judged = make_parity(model_sha256=sums.pop(first), weights_sha256=sums)
        write_json(tmp_path / "parity" / f"{variant}.json", judged)
    shipped = released_files(list(FACTORS))
    for variant, path in [*shipped.items(), *copied_files(shipped).items()]:
        copy_proven_model(variant, tmp_path, folder / path)
    announce_weight_files(folder)
    announce_dtypes(folder, {"cpu": "uint8"})
    return folder


@pytest.mark.slow
def test_a_dtype_is_for_all_graphs_and_loads_the_weights_beside_them(release, node_modules):
    script = node_modules.parent / "dtypes_in_node.mjs"
    script.write_text((ROOT / "tests/support/dtypes_in_node.mjs").read_text())
    dtypes = {"fp32": 1, "fp16": 2, "q8": 3, "int8": 3, "uint8": 4, "q4": 5, "q4f16": 6}

    run = subprocess.run(
        ["node", script, release, "none", "auto", *dtypes], capture_output=True, text=True, timeout=100, check=False
    )

    assert run.returncode == 0, run.stderr[-2000:]
    told = json.loads(run.stdout)
    assert set(told["available"]) == set(dtypes)
    expected = {"none": ("uint8", 4), "auto": ("uint8", 4)} | {dtype: (dtype, of) for dtype, of in dtypes.items()}
    for asked, (dtype, factor) in expected.items():
        assert told["taken"][asked] == {key: [dtype, factor] for key in ("model", "decoder_model_merged")}, asked
