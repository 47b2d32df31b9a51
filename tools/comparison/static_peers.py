"""Public tools that quantize with fixed scales: which there are, where each runs, and what each makes of our fp32 file.

All are calibrated on the calibration inputs of our own search.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxproof.cli import UserError
from onnxproof.graph.files import MODEL_FILE
from onnxproof.graph.support_files import copy_support_files
from onnxproof.inputs.calibration import MAX_TOKENS_OF_FIXED, calibration_inputs
from onnxproof.inputs.model_inputs import pack

SCRIPT = Path(__file__).with_name("static_quantize.py")
#: No tool asks the network for anything, or tells anybody that it ran.
SETTINGS = {"HF_HUB_OFFLINE": "1", "OLIVE_DISABLE_TELEMETRY": "1"}
#: The environment that has onnxruntime: the one that runs the comparison.
HERE = "here"


@dataclass(frozen=True)
class StaticPeer:
    """A tool: its ``name`` in the table, its key in ``static_quantize.TOOLS``, and the ``environment`` that has it.

    ``runtimes`` are those that its file runs in. A tool that ``searches`` compares answers to decide which parts stay
    in float; that takes minutes, and says nothing of random weights.
    """

    name: str
    tool: str
    environment: str
    runtimes: tuple[str, ...] = ("openvino", "onnx")
    searches: bool = False


STATIC_PEERS = (
    StaticPeer("NNCF", "nncf", "openvino", ("openvino",)),
    StaticPeer("NNCF with accuracy control", "nncf-accuracy", "openvino", ("openvino",), searches=True),
    StaticPeer("onnxruntime quantize_static", "onnxruntime", HERE),
    StaticPeer("Optimum", "optimum", "optimum"),
    StaticPeer("Olive", "olive", "olive"),
    StaticPeer("Neural Compressor", "neural-compressor", "neural-compressor"),
    StaticPeer("AMD Quark", "quark", "amd-quark"),
)
ENVIRONMENTS = tuple(dict.fromkeys(peer.environment for peer in STATIC_PEERS if peer.environment != HERE))


class ToolError(UserError):
    """A tool was run, and it failed or did not end in time."""


def calibration_items(source: Path, task: str, most: int | None = None) -> list[dict[str, Any]]:
    """Return our calibration inputs for an ONNX folder, each with a batch axis of 1; at most ``most`` of them."""
    import onnx

    names = [value.name for value in onnx.load(source / MODEL_FILE, load_external_data=False).graph.input]
    inputs = calibration_inputs(source, task, names, max_tokens=MAX_TOKENS_OF_FIXED)
    return [dict(inputs.feed([index], names)) for index in range(len(inputs.items))][:most]


def quantize_statically(
    tool: str,
    python: Path,
    source: Path,
    items: list[dict[str, Any]],
    folder: Path,
    *,
    most_minutes: float | None = None,
) -> None:
    """Write what a tool makes of the fp32 file in ``source``, calibrated on ``items``, with its support files.

    Args:
        tool: a key of ``static_quantize.TOOLS``.
        python: the interpreter that has the tool.
        source: an ONNX folder; it is copied, because some tools write beside their input.
        items: see ``calibration_items``.
        folder: gets ``model.onnx``, or ``model.xml`` from NNCF.
        most_minutes: a tool that needs more is ended; None waits for ever.

    Raises:
        UserError: the interpreter is missing.
        ToolError: the tool fails or does not end in time. Where it fails, the message holds its last line.
    """
    from safetensors.numpy import save_file

    python, folder = python.absolute(), folder.absolute()
    if not python.is_file():
        raise UserError(f"{tool}: {python}: no such file; name the Python of the environment that has this tool")
    with tempfile.TemporaryDirectory() as scratch:
        copy, calibration = Path(scratch) / "source", Path(scratch) / "calibration.safetensors"
        shutil.copytree(source, copy)
        save_file(pack(items), calibration)
        command = [str(python), "-P", str(SCRIPT), tool, str(copy), str(calibration), str(folder)]
        # In the scratch folder, because Quark leaves files where it runs.
        try:
            run = subprocess.run(
                command,
                cwd=scratch,
                env={**os.environ, **SETTINGS},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=None if most_minutes is None else 60 * most_minutes,
            )
        except subprocess.TimeoutExpired:
            raise ToolError(f"{tool} did not end in {most_minutes:g} minutes on {source / MODEL_FILE}") from None
    if run.returncode:
        lines = [line.strip() for line in (run.stdout + run.stderr).splitlines() if line.strip()]
        reason = lines[-1][:300] if lines else run.returncode
        raise ToolError(f"{tool} cannot quantize {source / MODEL_FILE}: {reason}")
    copy_support_files(source, folder)


def interpreter_of(peer: StaticPeer, given: dict[str, Path | None]) -> Path | None:
    """Return the Python that a tool runs with, out of those ``given`` for ENVIRONMENTS; None where none is given."""
    return Path(sys.executable) if peer.environment == HERE else given.get(peer.environment)
