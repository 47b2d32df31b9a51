"""Quantize an ONNX file with NNCF's post-training quantization: run by the interpreter that has it, alone.

Usage: nncf_quantize.py model.onnx calibration.safetensors model.xml. The calibration file holds each input's items,
flat and end to end, and their shapes, as ``onnxproof.inputs.model_inputs.pack`` writes them.
"""

import sys

import numpy as np


def read_items(path: str) -> list[dict[str, np.ndarray]]:
    """Return the calibration inputs, each with its batch axis."""
    from safetensors.numpy import load_file

    packed = load_file(path)
    columns = {}
    for name in (name for name in packed if not name.endswith(".shapes")):
        shapes = packed[f"{name}.shapes"]
        parts = np.split(packed[name], np.cumsum(shapes.prod(axis=1))[:-1])
        columns[name] = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def main(model: str, calibration: str, output: str) -> None:
    """Quantize with the settings that NNCF documents for transformers."""
    import nncf
    import openvino

    items = read_items(calibration)
    quantized = nncf.quantize(
        openvino.Core().read_model(model),
        nncf.Dataset(items),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(items),
    )
    openvino.save_model(quantized, output, compress_to_fp16=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
