"""A folder with a small classifier as a graph, for what times one."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

VOCAB_SIZE, WIDTH, LABELS, POSITIONS = 120, 16, 3, 40
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
CONFIG = {"model_type": "bert", "vocab_size": VOCAB_SIZE, "max_position_embeddings": POSITIONS}


def write_onnx_folder(folder: Path, inputs: Sequence[str] = INPUTS) -> Path:
    """Write a small classifier over mean token embeddings: logits of shape (batch, LABELS)."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    weights = {
        "table": generator.normal(size=(VOCAB_SIZE, WIDTH)).astype(np.float32),
        "head": generator.normal(size=(WIDTH, LABELS)).astype(np.float32),
        "axes": np.array([1]),
        "last": np.array([2]),
    }
    nodes = [helper.make_node("Gather", ["table", inputs[0]], ["embedded"])]
    hidden = "embedded"
    for name in inputs[1:]:
        nodes += [
            helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", [f"{name}_float", "last"], [f"{name}_column"]),
            helper.make_node("Add", [hidden, f"{name}_column"], [f"with_{name}"]),
        ]
        hidden = f"with_{name}"
    nodes += [
        helper.make_node("ReduceMean", [hidden, "axes"], ["pooled"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "head"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in inputs],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", LABELS])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder
