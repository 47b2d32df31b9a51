"""Quantize an ONNX folder with Optimum or sentence-transformers: run by the interpreter that has them, alone.

Usage: optimum_quantize.py optimum PRESET CHANNELS SOURCE FOLDER, where CHANNELS is "per-channel" or "per-tensor", or
optimum_quantize.py sentence-transformers PRESET SOURCE FOLDER. FOLDER gets the int8 ``model.onnx``. SOURCE is written
to: give each run its own copy.
"""

import sys
from collections.abc import Callable
from pathlib import Path

MODEL_FILE = "model.onnx"


def quantize_with_optimum(preset: str, channels: str, source: str, folder: str) -> None:
    """Write what Optimum's ``ORTQuantizer`` makes with one of its presets."""
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    config = getattr(AutoQuantizationConfig, preset)(is_static=False, per_channel=channels == "per-channel")
    quantizer = ORTQuantizer.from_pretrained(Path(source), file_name=MODEL_FILE)
    quantizer.quantize(save_dir=Path(folder), quantization_config=config, file_suffix="")


def quantize_with_sentence_transformers(preset: str, source: str, folder: str) -> None:
    """Write what sentence-transformers' quantization makes with one of its presets."""
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    model = SentenceTransformer(source, backend="onnx", device="cpu", model_kwargs={"file_name": MODEL_FILE})
    export_dynamic_quantized_onnx_model(model, preset, folder)
    [quantized] = Path(folder).rglob("*.onnx")
    quantized.rename(Path(folder) / MODEL_FILE)


TOOLS: dict[str, Callable[..., None]] = {
    "optimum": quantize_with_optimum,
    "sentence-transformers": quantize_with_sentence_transformers,
}

if __name__ == "__main__":
    TOOLS[sys.argv[1]](*sys.argv[2:])
