"""What models of a type take and are called: questions to the tables of what transformers and Optimum know."""

from onnxproof.records.checkpoint import ModelConfig
from onnxproof.tasks.architectures import SERVED, TAKES
from onnxproof.tasks.exportable import EXPORTABLE
from onnxproof.tasks.registry import TASKS


def is_open_detector(config: ModelConfig) -> bool:
    """Tell from its ``config.json`` whether a model finds objects that are named by texts beside the image."""
    return config.get("model_type") in SERVED["zero-shot-object-detection"]


def exporter_task(task: str, model_type: str | None) -> str:
    """Return what Optimum's exporter calls a task, for models of a type."""
    names = TASKS[task].optimum
    return next((name for name in names if model_type in EXPORTABLE.get(name, ())), names[0])


def model_takes(model_type: str | None) -> str:
    """Return what models of a type take: "text", "image", "image+texts", "image+prompt", "sound", or "other"."""
    return next((kind for kind, types in TAKES.items() if model_type in types), "text")
