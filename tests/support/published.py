"""Repositories as others publish them: files of public tools, and the same files damaged.

A maker writes one repository for one model, a damage changes a repository in place. Nothing of onnxproof makes a file.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
CARD = "---\nlicense: apache-2.0\n---\n"


def write_support(model: Path, folder: Path) -> None:
    """Copy what a publisher puts beside the graphs: configuration, tokenizer, modules, and a card with a licence."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors", "README.md", "training_report.json"))
    (folder / "README.md").write_text(CARD)


# What public tools make of a model


def export(
    model: Path,
    path: Path,
    names: tuple[str, ...] = INPUTS,
    output: str = "",
    pooled: str | None = None,
    frozen: tuple[str, ...] = (),
    opset: int = 17,
    ignores: tuple[str, ...] = (),
) -> None:
    """Export a BERT with ``torch.onnx.export``.

    Args:
        model: a folder of transformers or sentence-transformers.
        path: the file to write.
        names: what the inputs are called: token ids, mask, token types.
        output: what the output is called; by default ``logits`` or ``last_hidden_state``.
        pooled: "mean" or "cls", and there is an output ``sentence_embedding`` too.
        frozen: axes, "batch" or "sequence", that stay as they were traced.
        opset: the version of operators.
        ignores: inputs that the network is given ones, or zeros, in place of.
    """
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    classifies = "SequenceClassification" in str(AutoConfig.from_pretrained(model).architectures)
    kind = AutoModelForSequenceClassification if classifies else AutoModel
    network = kind.from_pretrained(model, attn_implementation="eager").eval()

    class Traced(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, ids, mask, types):
            seen = torch.ones_like(mask) + 0 * mask if "attention_mask" in ignores else mask
            kinds = torch.ones_like(types) + 0 * types if "token_type_ids" in ignores else types
            answer = self.network(input_ids=ids, attention_mask=seen, token_type_ids=kinds)[0]
            if pooled is None:
                return answer
            column = mask.unsqueeze(-1).float()
            vectors = (answer * column).sum(1) / column.sum(1) if pooled == "mean" else answer[:, 0]
            return answer, torch.nn.functional.normalize(vectors, dim=1)

    outputs = [output or ("logits" if classifies else "last_hidden_state")]
    outputs += ["sentence_embedding"] if pooled else []
    axes = {
        name: {axis: word for axis, word in ((0, "batch"), (1, "sequence")) if word not in frozen} for name in names
    }
    shown = {name: {0: "batch"} for name in outputs if "batch" not in frozen}
    batch = 1 if "batch" in frozen else 2
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        Traced(),
        (
            torch.full((batch, 9), 7),
            torch.ones((batch, 9), dtype=torch.int64),
            torch.zeros((batch, 9), dtype=torch.int64),
        ),
        str(path),
        input_names=list(names),
        output_names=outputs,
        dynamic_axes=axes | shown,
        opset_version=opset,
        dynamo=False,
    )


def quantize_dynamic(source: Path, target: Path, **options) -> None:
    """Write what onnxruntime's dynamic quantization makes of a file."""
    from onnxruntime.quantization import quantize_dynamic as quantize

    target.parent.mkdir(parents=True, exist_ok=True)
    quantize(source, target, **options)


def to_float16(source: Path, target: Path, keep_io_types: bool = False) -> None:
    """Write what onnxruntime's converter makes of a file."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=keep_io_types), target)


def to_four_bits(source: Path, target: Path, block_size: int = 32) -> None:
    """Write what onnxruntime's quantizer of weights to 4 bits makes of a file."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(source), block_size=block_size, is_symmetric=True)
    quantizer.process()
    onnx.save(quantizer.model.model, target)


def optimize(source: Path, target: Path, heads: int, width: int) -> None:
    """Write what onnxruntime's optimizer for BERT makes of a file."""
    from onnxruntime.transformers.optimizer import optimize_model

    optimize_model(str(source), "bert", heads, width).save_model_to_file(str(target))


def save_with_data(source: Path, target: Path) -> None:
    """Write a file with its weights in another beside it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    model = onnx.load(source)
    onnx.save(model, target, save_as_external_data=True, location=f"{target.name}_data", size_threshold=0)


def renamed(source: Path, target: Path, names: dict[str, str]) -> None:
    """Write a file with other names of its inputs and outputs."""
    model = onnx.load(source)
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    onnx.save(model, target)


def with_int32_inputs(source: Path, target: Path) -> None:
    """Write a file whose inputs are int32, as Windows ML's are."""
    model = onnx.load(source)
    casts = []
    for value in model.graph.input:
        value.type.tensor_type.elem_type = TensorProto.INT32
        casts.append(helper.make_node("Cast", [value.name], [f"{value.name}_long"], to=TensorProto.INT64))
        for node in model.graph.node:
            node.input[:] = [f"{name}_long" if name == value.name else name for name in node.input]
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, target)


def lay_out_as_olive(source: Path, folder: Path, model: Path) -> None:
    """Write a file as ``olive run`` leaves its output: weights in ``model.onnx.data``, and JSON about passes.

    Olive 0.13 writes neither ``config.json`` nor a tokenizer.
    """
    folder.mkdir(parents=True)
    path = folder / "model.onnx"
    onnx.save(onnx.load(source), path, save_as_external_data=True, location="model.onnx.data", size_threshold=1024)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    described = {"type": "onnxmodel", "config": {"model_path": str(path), "model_attributes": config}}
    made = {"parent_model_id": None, "model_id": "978167ad", "model_config_data": described, "metrics": None}
    (folder / "model_config.json").write_text(json.dumps(described, indent=4), encoding="utf-8")
    for name in ("footprint.json", "output_footprint.json"):
        (folder / name).write_text(json.dumps({"978167ad": made}), encoding="utf-8")
    (folder / "run_history.txt").write_text("[RunHistory(model_id='978167ad', parent_model_id=None)]")


# Damages


def changed(path: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    """Change a file in place."""
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)


def change_weight(path: Path, change: Callable[[np.ndarray], np.ndarray], shape: tuple[int, int] | None = None) -> None:
    """Change the largest float matrix of a file, or the first of a shape."""

    def apply(model: onnx.ModelProto) -> None:
        matrices = [
            tensor
            for tensor in model.graph.initializer
            if tensor.data_type == TensorProto.FLOAT
            and len(tensor.dims) == 2
            and (shape is None or tuple(tensor.dims) == shape)
        ]
        tensor = matrices[0] if shape else max(matrices, key=lambda each: int(np.prod(each.dims)))
        tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name))

    changed(path, apply)


def scale_integers(path: Path, factor: float) -> None:
    """Give the weights of an int8 file other scales than they were quantized with."""

    def apply(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.name.endswith("_scale"):
                values = numpy_helper.to_array(tensor) * np.float32(factor)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    changed(path, apply)


def put_nan(values: np.ndarray) -> np.ndarray:
    """Return a matrix with one value that is no number."""
    values[3, 1] = np.nan
    return values


def add_custom_operator(model: onnx.ModelProto) -> None:
    """Put an operator of an unknown domain behind the first output."""
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = [f"{name}_before" if name == output else name for name in node.output]
    model.graph.node.append(helper.make_node("Secret", [f"{output}_before"], [output], domain="com.example"))
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def move_to_opset(version: int, ir_version: int) -> Callable[[onnx.ModelProto], None]:
    """Return a change of what a file says of its versions."""

    def apply(model: onnx.ModelProto) -> None:
        model.ir_version = ir_version
        next(entry for entry in model.opset_import if not entry.domain).version = version

    return apply


def cut_short(path: Path, share: float = 0.5) -> None:
    """Leave the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def become_pointer(path: Path) -> None:
    """Put the text in a file's place that git has for it where large files were not fetched."""
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n")


def misstate_length(path: Path) -> None:
    """Let a graph say that its first tensor in a file of weights has fewer bytes than its shape needs."""
    model = onnx.load(path, load_external_data=False)
    tensor = next(each for each in model.graph.initializer if each.data_location == TensorProto.EXTERNAL)
    entry = next(each for each in tensor.external_data if each.key == "length")
    entry.value = str(int(entry.value) // 2)
    onnx.save(model, path)


def leave_folder(path: Path) -> None:
    """Let a graph read its weights from outside its folder."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../../weights" if entry.key == "location" else entry.value
    onnx.save(model, path)


def change_json(path: Path, change: Callable[[dict], object]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def stop_lower_casing(tokenizer: dict) -> None:
    """Let a tokenizer keep capital letters."""
    tokenizer["normalizer"]["lowercase"] = False


def swap_words(tokenizer: dict) -> None:
    """Let two words of a tokenizer have each other's numbers."""
    vocabulary = tokenizer["model"]["vocab"]
    for first, second in (("the", "a"), ("i", "it"), ("is", "was")):
        if first in vocabulary and second in vocabulary:
            vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]


def drop_special_tokens(tokenizer: dict) -> None:
    """Let a tokenizer put nothing around a text."""
    tokenizer["post_processor"] = None


def permute_labels(config: dict) -> None:
    """Give each label the name of the next."""
    names = list(config["id2label"].values())
    config["id2label"] = dict(zip(config["id2label"], names[1:] + names[:1], strict=True))


def drop_labels(config: dict) -> None:
    """Name no labels."""
    config.pop("id2label")
    config.pop("label2id")


def pool_by_cls(config: dict) -> None:
    """Let sentence-transformers take the first token's vector."""
    for key in [key for key in config if re.fullmatch("pooling_mode_.*", key)]:
        config[key] = key == "pooling_mode_cls_token"
    config["pooling_mode"] = "cls"
