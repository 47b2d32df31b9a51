"""Which task a model was made for, read from its own files: no weights, no torch."""

from pathlib import Path
from typing import Any

from onnxproof.cli import UserError
from onnxproof.config import SUPPORTED_TASKS
from onnxproof.files import read_json


def tasks_of_snapshot(snapshot: Path) -> list[str]:
    """Return the tasks a snapshot can serve, the one it was made for first; empty when none is supported.

    ``modules.json`` marks a sentence-transformers model. Otherwise the class named by ``architectures`` in
    ``config.json`` tells: a classification head also has an encoder below it, an encoder has no head.
    """
    config: dict[str, Any] = read_json(snapshot / "config.json")
    architectures = config.get("architectures") or []
    if config.get("is_encoder_decoder") or any("CausalLM" in name for name in architectures):
        return []
    if (snapshot / "modules.json").is_file():
        return ["sentence-similarity", "feature-extraction"]
    if any(name.endswith("ForSequenceClassification") for name in architectures):
        return ["text-classification", "feature-extraction"]
    if any(name.endswith(("Model", "ForMaskedLM", "ForPreTraining")) for name in architectures):
        return ["feature-extraction"]
    return []


def choose_task(model: str, snapshot: Path, requested: str | None) -> str:
    """Return the task to export: the requested one where the snapshot can serve it, else the inferred one.

    Raises:
        UserError: no supported task can be inferred, or the model cannot serve the requested one.
    """
    possible = tasks_of_snapshot(snapshot)
    architectures = read_json(snapshot / "config.json").get("architectures")
    if not possible:
        raise UserError(
            f"{model}: config.json names the architectures {architectures}, which serve none of the tasks "
            f"supported so far: {', '.join(SUPPORTED_TASKS)}"
        )
    if requested is None:
        return possible[0]
    if requested not in possible:
        raise UserError(
            f"{model}: models.{model}.task is '{requested}', but its architectures {architectures} "
            f"serve only: {', '.join(possible)}"
        )
    return requested
