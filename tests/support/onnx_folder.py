"""Folders with a small classifier, or a decoder with a cache, as a graph, for what times them."""

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


def write_decoder_folder(folder: Path, positions: int = POSITIONS) -> Path:
    """Write a decoder whose next token is the sum of all tokens so far, modulo VOCAB_SIZE; its cache holds the tokens.

    It takes token ids and a mask, and its keys and values have shape (batch, 1, tokens, 1).
    """
    folder.mkdir(parents=True)
    constants = {
        "columns": np.array([1, 3]),
        "token_axis": np.array([2]),
        "size": np.array(VOCAB_SIZE, dtype=np.float32),
        "words": np.arange(VOCAB_SIZE, dtype=np.float32),
        "zero": np.zeros(1, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["numbers", "columns"], ["heads"]),
        *(
            helper.make_node("Concat", [f"past_key_values.0.{part}", "heads"], [f"present.0.{part}"], axis=2)
            for part in ("key", "value")
        ),
        helper.make_node("ReduceSum", ["present.0.key", "token_axis"], ["sum"], keepdims=0),
        helper.make_node("Mod", ["sum", "size"], ["next"], fmod=1),
        helper.make_node("Sub", ["words", "next"], ["distances"]),
        helper.make_node("Abs", ["distances"], ["apart"]),
        helper.make_node("Neg", ["apart"], ["last_logits"]),
        helper.make_node("Unsqueeze", ["numbers", "token_axis"], ["places"]),
        helper.make_node("Mul", ["places", "zero"], ["nothing"]),
        helper.make_node("Add", ["last_logits", "nothing"], ["logits"]),
    ]
    cache = ["{}.0.key", "{}.0.value"]
    graph = helper.make_graph(
        nodes,
        "decoder",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"]),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "total"]),
            *(
                helper.make_tensor_value_info(
                    name.format("past_key_values"), TensorProto.FLOAT, ["batch", 1, "past", 1]
                )
                for name in cache
            ),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", VOCAB_SIZE]),
            *(
                helper.make_tensor_value_info(name.format("present"), TensorProto.FLOAT, ["batch", 1, "total", 1])
                for name in cache
            ),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    config = {"model_type": "gpt2", "vocab_size": VOCAB_SIZE, "n_positions": positions}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
