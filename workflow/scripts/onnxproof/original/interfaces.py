"""A public interface of an original: what is asked about raw inputs, and how transformers' pipelines are made."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from onnxproof.original.model import Original
from onnxproof.tasks.model_types import model_takes


@dataclass(frozen=True)
class Interface:
    """A public interface of the original: its name, how it is asked, and what a card must know of how it was asked."""

    name: str
    ask: Callable[[Any], Any]  #: takes one raw input, and answers as ``FinalAnswers`` has it
    settings: dict[str, Any] = field(default_factory=dict)


def make_pipeline(task: str, original: Original, **options: Any) -> Any:
    """Return transformers' pipeline for a task, with the loaded network and its processor.

    Args:
        task: what transformers calls it.
        original: the loaded model.
        options: further arguments of ``transformers.pipeline``.
    """
    import transformers

    make: Any = transformers.pipeline
    if isinstance(original.processor, tuple):
        options["tokenizer"], options["image_processor"] = original.processor
    else:
        takes = model_takes(original.config.get("model_type"))
        kind = {"image": "image_processor", "sound": "feature_extractor"}.get(takes, "tokenizer")
        options[kind] = original.processor
    return make(task, model=original.network, device="cpu", **options)
