"""Graphs of tiny models as both exporters write them: transformers' own, and PyTorch's older one by TorchScript."""

import inspect
from pathlib import Path
from typing import Any

import onnx

BATCH, LENGTH = 2, 12


def example_inputs(model: Any) -> dict[str, Any]:
    """Random inputs of a model, two of them; the second text or sound has padding."""
    import torch

    names = inspect.signature(model.forward).parameters
    generator = torch.Generator().manual_seed(0)
    if "pixel_values" in names and "input_ids" not in names:
        size = model.config.image_size
        return {"pixel_values": torch.rand(BATCH, model.config.num_channels, size, size, generator=generator)}
    if "input_values" in names:
        inputs = {"input_values": torch.randn(BATCH, 4000, generator=generator)}
        inputs["attention_mask"] = torch.ones(BATCH, 4000, dtype=torch.long)
        inputs["attention_mask"][1, 2500:] = 0
        return inputs
    shape = (BATCH, LENGTH)
    inputs = {"input_ids": torch.randint(5, 90, shape, generator=generator)}
    inputs["attention_mask"] = torch.ones(shape, dtype=torch.long)
    inputs["attention_mask"][1, 7:] = 0
    if "token_type_ids" in names and getattr(model.config, "type_vocab_size", 0):
        inputs["token_type_ids"] = torch.zeros(shape, dtype=torch.long)
    return inputs


def export_model(model: Any, path: Path) -> onnx.ModelProto:
    """Export with transformers' exporter to a file and return the graph: attention in plain operators, free lengths."""
    from transformers.exporters import OnnxConfig, OnnxExporter

    from onnxproof.original.exporters.tracing import share_equal_weights

    model.set_attn_implementation("eager")
    model.eval()
    inputs = example_inputs(model)
    free = {name: _free_dimensions(values) for name, values in inputs.items()}
    config = OnnxConfig(dynamic_shapes=free, opset_version=20)
    program, _ = OnnxExporter().export_program(model, inputs, config=config)
    share_equal_weights(program.graph)
    program.ir_version = 10
    OnnxExporter.save_program(program, path)
    return onnx.load(path)


def export_by_torchscript(model: Any, path: Path) -> onnx.ModelProto:
    """Export with PyTorch's older exporter to a file and return the graph."""
    import torch

    model.eval()
    inputs = example_inputs(model)
    torch.onnx.export(
        model,
        (),
        str(path),
        kwargs=inputs | {"return_dict": False},
        dynamo=False,
        opset_version=18,
        input_names=list(inputs),
        output_names=["last_hidden_state"],
        dynamic_axes={name: {0: "batch", 1: "sequence"} for name in [*inputs, "last_hidden_state"]},
    )
    return onnx.load(path)


def _free_dimensions(values: Any) -> dict[int, Any]:
    from torch.export import Dim

    return {0: Dim.DYNAMIC} if values.ndim > 2 else {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
