"""What public tools make of an fp32 ONNX folder: each function writes an int8 ``model.onnx``, given their defaults.

Optimum and sentence-transformers write to ``source``: give each its own copy.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from onnxproof.checkpoint.sentence_modules import settle_modules
from onnxproof.cli import UserError
from onnxproof.graph.files import MODEL_FILE
from onnxproof.original.exporters.optimum import exporter_environment, find_interpreter, run_printing

SCRIPT = Path(__file__).with_name("optimum_quantize.py")
OLIVE_SCRIPT = Path(__file__).with_name("olive_passes.py")


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


def run_olive(python: Path, source: Path, folder: Path, passes: Mapping[str, str]) -> None:
    """Write what passes of Olive make of ``model.onnx`` in ``source``, a folder each, by the names of the folders.

    Args:
        python: of the environment with Olive.
        source: an fp32 ONNX folder, which is left as it is.
        folder: gets the folders.
        passes: the type of each pass, with its defaults.

    Raises:
        UserError: Olive fails; the message holds its last line.
    """
    named = [f"{name}={kind}" for name, kind in passes.items()]
    command = [str(python), str(OLIVE_SCRIPT), str(source / MODEL_FILE), str(folder), *named]
    status, last = run_printing(command, exporter_environment())
    if status:
        raise UserError(f"Olive cannot quantize {source}: {last[:300]}")
