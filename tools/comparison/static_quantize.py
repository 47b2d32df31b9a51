"""Quantize an ONNX file with fixed scales by a public tool: run by the interpreter that has the tool, alone.

Usage: static_quantize.py TOOL SOURCE CALIBRATION FOLDER. TOOL is a key of TOOLS. SOURCE is a folder with the float
``model.onnx``; some tools write to it, so give each run its own copy. FOLDER gets ``model.onnx``, or ``model.xml`` from
NNCF. CALIBRATION holds each input's items, flat and end to end, and their shapes, as
``onnxproof.inputs.model_inputs.pack`` writes them. Every tool gets the settings that its documentation names for
transformers on a CPU; where that leaves it open: scales per channel for weights, unsigned activations, QDQ.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

MODEL_FILE = "model.onnx"
OPENVINO_FILE = "model.xml"
#: How far the mean cosine to the float answers may fall with NNCF's accuracy control: the target of our search.
MOST_DROP = 0.001
MOST_ITERATIONS, RANKED_ON = 5, 32

Feed = dict[str, np.ndarray]


def read_items(path: Path) -> list[Feed]:
    """Return the calibration inputs, each with its batch axis."""
    from safetensors.numpy import load_file

    packed = load_file(path)
    columns = {}
    for name in (name for name in packed if not name.endswith(".shapes")):
        shapes = packed[f"{name}.shapes"]
        parts = np.split(packed[name], np.cumsum(shapes.prod(axis=1))[:-1])
        columns[name] = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def pad(items: list[Feed]) -> list[Feed]:
    """Return the items with zeros at the end of what differs in size: tokens of padding, which the mask hides."""
    shapes = {name: np.max([item[name].shape for item in items], axis=0) for name in items[0]}
    return [
        {
            name: np.pad(value, [(0, most - size) for most, size in zip(shapes[name], value.shape, strict=True)])
            for name, value in item.items()
        }
        for item in items
    ]


class Reader:
    """Calibration inputs one after another, as onnxruntime and the tools that follow it ask for them."""

    def __init__(self, items: list[Feed]) -> None:
        """Begin with the first item."""
        self.items = items
        self.rewind()

    def rewind(self) -> None:
        """Begin anew."""
        self.rest = iter(self.items)

    def get_next(self) -> Feed | None:
        """Return the next item, None behind the last one."""
        return next(self.rest, None)

    def __iter__(self) -> Iterator[Feed]:
        """Return all items; Neural Compressor asks for them in this way."""
        return iter(self.items)


def nncf(source: Path, items: list[Feed], folder: Path) -> None:
    """Write NNCF's post-training quantization, with its settings for transformers."""
    import nncf
    import openvino

    quantized = nncf.quantize(
        openvino.Core().read_model(source / MODEL_FILE),
        nncf.Dataset(items),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(items),
    )
    openvino.save_model(quantized, folder / OPENVINO_FILE, compress_to_fp16=False)


def nncf_with_accuracy_control(source: Path, items: list[Feed], folder: Path) -> None:
    """Write NNCF's quantization whose most harmful parts stay in float, until the mean cosine is within MOST_DROP.

    The metric is the cosine between the last output and that of the float model, on the calibration inputs. It ends
    after MOST_ITERATIONS all the same, each of which may rank all parts again, on RANKED_ON inputs.
    """
    import nncf
    import openvino

    model = openvino.Core().read_model(source / MODEL_FILE)
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    exact = [compiled(item)[compiled.outputs[-1]].ravel() for item in items]
    numbered = [{"item": item, "number": number} for number, item in enumerate(items)]

    def validate(candidate: Any, asked: Any) -> tuple[float, list[float]]:
        cosines = []
        for entry in asked:
            answer, wanted = candidate(entry["item"])[candidate.outputs[-1]].ravel(), exact[entry["number"]]
            cosines.append(float(answer @ wanted / (np.linalg.norm(answer) * np.linalg.norm(wanted))))
        return float(np.mean(cosines)), cosines

    quantized = nncf.quantize_with_accuracy_control(
        model,
        calibration_dataset=nncf.Dataset(items),
        validation_dataset=nncf.Dataset(numbered, lambda entry: entry["item"]),
        validation_fn=validate,
        max_drop=MOST_DROP,
        drop_type=nncf.DropType.ABSOLUTE,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(items),
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
            max_num_iterations=MOST_ITERATIONS, ranking_subset_size=RANKED_ON
        ),
    )
    openvino.save_model(quantized, folder / OPENVINO_FILE, compress_to_fp16=False)


def onnxruntime(source: Path, items: list[Feed], folder: Path) -> None:
    """Write onnxruntime's ``quantize_static``, after its own preparation of the file."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = source / "prepared.onnx"
    quant_pre_process(source / MODEL_FILE, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        folder / MODEL_FILE,
        Reader(items),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )


def optimum(source: Path, items: list[Feed], folder: Path) -> None:
    """Write Optimum's static quantization, with its preset for CPUs with VNNI and ranges by minimum and maximum."""
    from onnxruntime.quantization import CalibrationMethod
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig, CalibrationConfig

    config = AutoQuantizationConfig.avx512_vnni(is_static=True, per_channel=True)
    quantizer = ORTQuantizer.from_pretrained(source, file_name=MODEL_FILE)
    ranges = quantizer.fit(
        dataset=[{name: value[0] for name, value in item.items()} for item in items],
        calibration_config=CalibrationConfig(
            dataset_name="calibration",
            dataset_config_name="",
            dataset_split="train",
            dataset_num_samples=len(items),
            method=CalibrationMethod.MinMax,
        ),
        onnx_augmented_model_name=str(source / "augmented.onnx"),
        operators_to_quantize=config.operators_to_quantize,
    )
    quantizer.quantize(save_dir=folder, quantization_config=config, calibration_tensors_range=ranges, file_suffix="")


def olive(source: Path, items: list[Feed], folder: Path) -> None:
    """Write the result of Olive's pass OnnxStaticQuantization, per channel and with unsigned activations."""
    from olive.data.registry import Registry
    from olive.workflows import run

    class Items:
        """The calibration inputs as a map-style dataset of pairs of an input and a label."""

        def __len__(self) -> int:
            return len(items)

        def __getitem__(self, position: int) -> tuple[Feed, int]:
            return items[position], 0

    def load(**_: Any) -> Items:
        return Items()

    def serve(dataset: Items, **_: Any) -> list[tuple[Feed, int]]:
        return [dataset[position] for position in range(len(dataset))]

    Registry.register_dataset("calibration_items")(load)
    Registry.register_dataloader("one_by_one")(serve)
    data = {
        "name": "calibration",
        "load_dataset_config": {"type": "calibration_items"},
        "pre_process_data_config": {"type": "skip_pre_process"},
        "dataloader_config": {"type": "one_by_one"},
    }
    quantize = {
        "type": "OnnxStaticQuantization",
        "data_config": "calibration",
        "per_channel": True,
        "activation_type": "uint8",
    }
    run(
        {
            "input_model": {"type": "OnnxModel", "model_path": str(source / MODEL_FILE)},
            "data_configs": [data],
            "passes": {"quantize": quantize},
            "output_dir": str(source / "olive"),
            "cache_dir": str(source / "cache"),
            "no_artifacts": True,
        }
    )
    [made] = (source / "olive").rglob("*.onnx")
    made.rename(folder / MODEL_FILE)


def neural_compressor(source: Path, items: list[Feed], folder: Path) -> None:
    """Write Neural Compressor's static quantization with SmoothQuant, its recipe for transformers.

    Its SmoothQuant takes texts of one length only.
    """
    from onnx_neural_compressor.quantization import QuantFormat, config, quantize

    settings = config.StaticQuantConfig(
        Reader(pad(items)),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        calibration_sampling_size=len(items),
        extra_options={"SmoothQuant": True, "SmoothQuantAlpha": 0.5},
        execution_provider="CPUExecutionProvider",
    )
    quantize(str(source / MODEL_FILE), str(folder / MODEL_FILE), settings)


def quark(source: Path, items: list[Feed], folder: Path) -> None:
    """Write AMD Quark's quantization with its preset U8S8_AAWS, which its documentation names for CPUs."""
    from quark.onnx import ModelQuantizer
    from quark.onnx.quantization.config import Config, get_default_config

    config = Config(global_quant_config=get_default_config("U8S8_AAWS"))
    ModelQuantizer(config).quantize_model(str(source / MODEL_FILE), str(folder / MODEL_FILE), Reader(items))


TOOLS: dict[str, Callable[[Path, list[Feed], Path], None]] = {
    "nncf": nncf,
    "nncf-accuracy": nncf_with_accuracy_control,
    "onnxruntime": onnxruntime,
    "optimum": optimum,
    "olive": olive,
    "neural-compressor": neural_compressor,
    "quark": quark,
}

if __name__ == "__main__":
    logging.getLogger().setLevel(logging.WARNING)
    TOOLS[sys.argv[1]](Path(sys.argv[2]), read_items(Path(sys.argv[3])), Path(sys.argv[4]))
