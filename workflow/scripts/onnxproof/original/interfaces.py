"""A public interface of an original: what is asked about raw inputs, and how transformers' pipelines are made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxproof.checkpoint.snapshot import VOCABULARIES
from onnxproof.cli import first_line
from onnxproof.original.model import Original, local_options
from onnxproof.records.reference import FinalSettings
from onnxproof.tasks.model_types import model_takes


@dataclass(frozen=True)
class Interface:
    """A public interface of the original: its name, how it is asked, and what a card must know of how it was asked."""

    name: str
    ask: Callable[[Any], Any]  #: takes one raw input, and answers as ``FinalAnswers`` has it
    settings: FinalSettings = field(default_factory=FinalSettings)
    #: Takes many raw inputs at once, where that is faster; the answers are those of ``ask``, up to rounding.
    ask_all: Callable[[Sequence[Any]], list[Any]] | None = None


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


def load_or_tell(model: str, what: str, load: Callable[[], Any]) -> Any | None:
    """Return what ``load`` returns; None, and a printed line that names ``what``, where it raises anything."""
    try:
        return load()
    except Exception as error:  # whatever a folder lacks: a file, a token, a setting, a package
        reason = first_line(error)
    print(f"{model}: it has no {what} ({reason}), so its card shows its graphs alone", flush=True)
    return None


def load_own_tokenizer(model: str, snapshot: Path) -> Any | None:
    """Return the tokenizer of the text that a model writes about images or sounds; None, and a line, without one.

    A vocabulary is looked for first: some tokenizers load without one, and then know no words.
    """

    def load() -> Any:
        from transformers import AutoTokenizer

        if not any((snapshot / name).is_file() for group in VOCABULARIES for name in group):
            raise FileNotFoundError("there is no vocabulary")
        return AutoTokenizer.from_pretrained(snapshot, **local_options(snapshot))

    return load_or_tell(model, "tokenizer for its text", load)


def cleans_text(tokenizer: Any) -> bool:
    """Tell whether transformers 5 takes away spaces before punctuation in what a tokenizer decodes.

    Of byte-pair encodings it leaves them, whatever ``clean_up_tokenization_spaces`` says, where version 4 follows that.
    """
    kind = type(getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)).__name__
    forced = getattr(tokenizer, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", False)
    return bool(tokenizer.clean_up_tokenization_spaces and (kind != "BPE" or forced))
