"""Which task a model was made for, read from its own files: no weights, no torch."""

from pathlib import Path

from onnxproof.checkpoint.misread_configs import check_config
from onnxproof.checkpoint.problem import ProblemError
from onnxproof.checkpoint.reading import Checkpoint
from onnxproof.cli import UserError
from onnxproof.files import read_json
from onnxproof.records.checkpoint import ModelConfig
from onnxproof.tasks.architectures import SERVED
from onnxproof.tasks.heads import check_head, judged_as
from onnxproof.tasks.model_types import model_takes
from onnxproof.tasks.registry import TASKS

#: What is served of encoder-decoders: generation, and heads on the last hidden state, which need no cache.
ENCODER_DECODER_HEADS = (
    "ForConditionalGeneration",
    "MTModel",
    "EncoderDecoderModel",
    "ForSequenceClassification",
    "ForQuestionAnswering",
    "ForAudioClassification",
)


def read_transformer_config(snapshot: Path) -> ModelConfig:
    """Return a snapshot's ``config.json``: the transformer's own, where ``modules.json`` says that it lies in a folder.

    Raises:
        UserError: there is none, or it holds no JSON.
    """
    return config_of(Checkpoint(snapshot))


def config_of(checkpoint: Checkpoint) -> ModelConfig:
    """Return the transformer's ``config.json`` of a folder.

    Raises:
        UserError: there is none, or it holds no JSON.
    """
    try:
        return checkpoint.config
    except ProblemError as problem:
        raise UserError(f"{checkpoint.folder}: {problem}") from None


def transformer_folder(snapshot: Path) -> Path:
    """Return the folder of a snapshot in which its transformer lies: itself, or that of the first of its modules."""
    return Checkpoint(snapshot).transformer_folder


def tasks_of_config(config: ModelConfig, has_modules: bool = False) -> list[str]:
    """Return the tasks that a model can serve, the one it was made for first; empty when none is supported.

    Args:
        config: the content of its ``config.json``.
        has_modules: whether it has a ``modules.json``, which marks a sentence-transformers model.

    The class named by ``architectures`` tells: a classification head also has an encoder below it, an encoder has no
    head. Where it is missing, everything that transformers has for the model type is possible.
    """
    model_type = config.get("model_type")
    takes = model_takes(model_type)
    architectures = config.get("architectures") or []
    served = [task for task in TASKS.values() if takes in task.takes and _is_served(model_type, task.name)]
    if has_modules:
        possible = ["sentence-similarity", "feature-extraction"]
    elif not architectures and model_type:
        possible = [task.name for task in served if task.heads]
    else:
        possible = [task.name for task in served if _has_head(architectures, task.heads)]
        if config.get("is_encoder_decoder") and takes in ("text", "sound"):
            possible = possible if _has_head(architectures, ENCODER_DECODER_HEADS) else []
        elif possible:
            possible += [name for name in ("feature-extraction", "image-feature-extraction") if name not in possible]
    names = {task.name for task in served}
    return [name for name in possible if name in names]


def check_architecture(model: str, config: ModelConfig, has_modules: bool = False) -> None:
    """Refuse a model that no supported task can be served with, from its ``config.json`` alone.

    Raises:
        UserError: names the architecture and what to do; or a key that transformers 5 reads otherwise than the library
            that saved the model.
    """
    check_config(model, config)
    check_head(model, config)
    if tasks_of_config(config, has_modules):
        return
    model_type, architectures = config.get("model_type"), config.get("architectures")
    named = f"{model}: config.json names the architectures {architectures} (model_type '{model_type}'), which"
    served = sorted(name for name, types in SERVED.items() if model_type in types)
    if model_type and not served:
        raise UserError(
            f"{named} serve no supported task; take a model of a supported type, for example bert, roberta, "
            "distilbert, modernbert, vit, wav2vec2 or clip (all are in "
            "workflow/scripts/onnxproof/tasks/architectures.py)"
        )
    known = f" This model_type is supported for: {', '.join(served)}." if served else ""
    raise UserError(
        f"{named} serve none of the tasks supported so far: {', '.join(TASKS)}.{known} Take a model with a head for "
        "a supported task, or its bare encoder"
    )


def choose_task(model: str, snapshot: Path, requested: str | None) -> str:
    """Return the task to export: the requested one where the snapshot can serve it, else the inferred one.

    Raises:
        UserError: no supported task can be inferred, or the model cannot serve the requested one; or a file of it says
            what is not served, see ``checkpoint.refusals``.
    """
    from onnxproof.checkpoint.refusals import refusals  # which reads the tables of this package

    checkpoint = Checkpoint(snapshot)
    config = config_of(checkpoint)
    for refusal in refusals(checkpoint):
        raise UserError(f"{model}: {refusal}")
    embeds = checkpoint.kind == "SentenceTransformer"  # refusals lets no other kind of embedder pass
    possible = tasks_of_config(config, embeds)
    check_architecture(model, config, embeds)
    architectures = config.get("architectures")
    if requested is None:
        if not architectures and len(possible) > 1 and not embeds:
            raise UserError(
                f"{model}: config.json names no architectures, so the task is open; set models.{model}.task to one "
                f"of: {', '.join(possible)}"
            )
        return possible[0]
    if requested in possible:
        return requested
    # Two tasks that the exporter, and the Hub, have one name for: speech recognition frame by frame, or as a text.
    same = [name for name in possible if requested in TASKS[name].optimum]
    if not same:
        raise UserError(
            f"{model}: models.{model}.task is '{requested}', but its architectures {architectures} "
            f"serve only: {', '.join(possible)}"
        )
    return same[0]


def read_start_token(folder: Path) -> int:
    """Return the token that an encoder-decoder's own texts start with, from its configuration files.

    A model put together from an encoder and a decoder may leave it to the decoder's part of ``config.json``.
    """
    config = read_transformer_config(folder)
    generation = folder / "generation_config.json"
    parts = (config, read_json(generation) if generation.is_file() else {}, config.get("decoder") or {})
    for settings in (*parts, config.get("text_config") or {}):
        if isinstance(settings.get("decoder_start_token_id"), int):
            return int(settings["decoder_start_token_id"])
    tokens = (part.get(name) for part in parts for name in ("bos_token_id", "pad_token_id"))
    return next((int(token) for token in tokens if isinstance(token, int)), 0)


def judged_as_in(folder: Path, task: str) -> str:
    """Return what ``judged_as`` says of the model in a folder, a snapshot's or a variant's."""
    checkpoint = Checkpoint(folder)
    return judged_as(task, config_of(checkpoint), checkpoint.sentence_config.get("similarity_fn_name"))


def _has_head(architectures: list[str], heads: tuple[str, ...]) -> bool:
    return any(name.endswith(heads) for name in architectures)


def _is_served(model_type: str | None, task: str) -> bool:
    return model_type is None or model_type in SERVED[task]
