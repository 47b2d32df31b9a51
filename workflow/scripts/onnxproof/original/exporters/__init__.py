"""The exporters to ONNX, behind one interface: a snapshot and a task in, a folder of graphs out.

``transformers`` is the exporter of transformers 5, on torch.export. ``optimum`` is Optimum's, which needs transformers
4.57 and so runs in an environment of its own. ``auto`` takes the first, and the second where the first cannot export a
model. Whoever wrote a graph, it is held to what transformers 5 answers.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxproof.checkpoint.reading import Checkpoint
from onnxproof.checkpoint.tokenizer_files import TOKENIZER_FILE
from onnxproof.cli import UserError
from onnxproof.files import versions_of
from onnxproof.original.exporters.optimum import export_with_optimum
from onnxproof.original.exporters.transformers import ATTENTION, write_graphs
from onnxproof.original.loading import one_line
from onnxproof.original.model import load_original
from onnxproof.original.used_tokenizer import save_used_tokenizer, tokenizer_of
from onnxproof.records.common import Versions
from onnxproof.records.variant import ExportedModel

EXPORTERS = ("auto", "transformers", "optimum")
#: Tasks for which Optimum's exporter makes none of the graphs that are served.
NOT_OPTIMUMS = frozenset({"image-text-to-text"})


@dataclass(frozen=True)
class Export:
    """How a graph was made: by which exporter, with which versions, and why the first one did not make it.

    ``attention`` is the implementation of attention that was traced, where the exporter lets it be chosen.
    ``description`` is what transformers' ``ExportedModel`` is to know of it, see ``exported_model.describe_traced``.
    """

    exporter: str
    versions: Versions
    attention: str | None = None
    reason: str | None = None
    description: ExportedModel | None = None


def export_graphs(model: str, snapshot: Path, task: str, exporter: str, folder: Path) -> Export:
    """Write the graphs of a snapshot for a task to ``folder``, which exists and is empty.

    Args:
        model: the model's name, for messages.
        snapshot: its folder.
        task: one of ``TASKS``.
        exporter: one of ``EXPORTERS``.
        folder: where the graphs go, and how the reference's tokenizer cuts texts, see ``save_used_tokenizer``.

    Raises:
        UserError: the exporter cannot export the model; with ``auto``, neither can.
    """
    reason = None
    if exporter == "optimum" and task in NOT_OPTIMUMS:
        raise UserError(f"{model}: Optimum's exporter does not serve {task}: use transformers' own exporter")
    original = load_original(model, snapshot, task, attention=ATTENTION)
    tokenizer = tokenizer_of(original.processor)
    if exporter != "optimum":
        try:
            with one_line(model, "transformers' exporter cannot export it"):
                description = write_graphs(original, folder)
        except UserError as error:
            reason = str(error).removeprefix(f"{model}: ")
            if exporter == "transformers" or task in NOT_OPTIMUMS:
                raise UserError(f"{model}: {reason}") from error
            print(f"{model}: {reason}; Optimum's exporter is tried", flush=True)
            _empty(folder)
        else:
            _save_tokenizer(tokenizer, snapshot, folder)
            versions = versions_of("transformers", "torch", "onnxscript", "onnx", "sentence-transformers")
            return Export("transformers", versions, ATTENTION, description=description)
    del original
    try:
        versions = export_with_optimum(model, snapshot, task, folder)
    except UserError as error:
        raise UserError(f"{model}: {reason}; with Optimum's exporter: {error}" if reason else str(error)) from error
    _save_tokenizer(tokenizer, snapshot, folder)
    return Export("optimum", versions, reason=reason)


def _save_tokenizer(tokenizer: Any | None, snapshot: Path, folder: Path) -> None:
    """Leave the reference's tokenizer, where the model has one."""
    if tokenizer is not None:
        place = (snapshot / Checkpoint(snapshot).beside_config(TOKENIZER_FILE)).parent
        save_used_tokenizer(tokenizer, place, folder)


def _empty(folder: Path) -> None:
    """Remove what a failed export left."""
    for path in folder.iterdir():
        path.unlink()
