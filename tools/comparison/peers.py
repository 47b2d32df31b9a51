"""What public tools make of an fp32 ONNX folder: each function writes an int8 ``model.onnx``, given their defaults.

``source`` is written to: give each its own copy.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from onnxproof.checkpoint.sentence_modules import settle_modules
from onnxproof.cli import UserError
from onnxproof.graph.files import MODEL_FILE
from onnxproof.original.exporters.optimum import exporter_environment, find_interpreter, run_printing

SCRIPT = Path(__file__).with_name("optimum_quantize.py")


def quantize_with_onnxruntime(source: Path, folder: Path) -> None:
    """Write what ``onnxruntime.quantization.quantize_dynamic`` makes with its defaults."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(source / MODEL_FILE, folder / MODEL_FILE)


def quantize_with_optimum(preset: str, per_channel: bool) -> Callable[[Path, Path], None]:
    """Return a function that writes what Optimum's ``ORTQuantizer`` makes with one of its presets."""
    return partial(_quantize_elsewhere, ("optimum", preset, "per-channel" if per_channel else "per-tensor"))


def quantize_with_sentence_transformers(preset: str) -> Callable[[Path, Path], None]:
    """Return a function that writes what sentence-transformers' quantization makes with one of its presets."""
    return partial(_quantize_elsewhere, ("sentence-transformers", preset))


def _quantize_elsewhere(words: tuple[str, ...], source: Path, folder: Path) -> None:
    """Run a tool in the environment of Optimum, which these tools need beside an older transformers.

    Raises:
        UserError: there is no such environment, or the tool fails; the message holds its last line.
    """
    settle_modules(source)  # for the older sentence-transformers there
    command = [str(find_interpreter("the comparison")), str(SCRIPT), *words, str(source), str(folder)]
    status, last = run_printing(command, exporter_environment())
    if status:
        raise UserError(f"{words[0]} {words[1]} cannot quantize {source}: {last[:300]}")
