"""What public tools make of an fp32 ONNX folder: each function writes an int8 ``model.onnx``, given their defaults.

``source`` is written to: give each its own copy.
"""

from collections.abc import Callable
from pathlib import Path

from onnxproof.onnx_folder import MODEL_FILE


def quantize_with_onnxruntime(source: Path, folder: Path) -> None:
    """Write what ``onnxruntime.quantization.quantize_dynamic`` makes with its defaults."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(source / MODEL_FILE, folder / MODEL_FILE)


def quantize_with_optimum(preset: str, per_channel: bool) -> Callable[[Path, Path], None]:
    """Return a function that writes what Optimum's ``ORTQuantizer`` makes with one of its presets."""

    def quantize(source: Path, folder: Path) -> None:
        from optimum.onnxruntime import ORTQuantizer
        from optimum.onnxruntime.configuration import AutoQuantizationConfig

        config = getattr(AutoQuantizationConfig, preset)(is_static=False, per_channel=per_channel)
        quantizer = ORTQuantizer.from_pretrained(source, file_name=MODEL_FILE)
        quantizer.quantize(save_dir=folder, quantization_config=config, file_suffix="")

    return quantize


def quantize_with_sentence_transformers(preset: str) -> Callable[[Path, Path], None]:
    """Return a function that writes what sentence-transformers' quantization makes with one of its presets."""

    def quantize(source: Path, folder: Path) -> None:
        from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

        model = SentenceTransformer(str(source), backend="onnx", device="cpu", model_kwargs={"file_name": MODEL_FILE})
        export_dynamic_quantized_onnx_model(model, preset, str(folder))
        [quantized] = folder.rglob("*.onnx")
        quantized.rename(folder / MODEL_FILE)

    return quantize
