"""What the outputs of a classification head mean: which function turns them into the answer, and how that is judged.

The rules are those of transformers' pipelines, and of ``CrossEncoder`` for rerankers.
"""

from collections.abc import Mapping
from typing import Any

from onnxproof.cli import UserError
from onnxproof.tasks.registry import MULTI_LABEL, REGRESSION, SIMILARITIES

#: Functions that turn logits into the answer. "none" leaves them as they are.
SOFTMAX, SIGMOID, NONE = "softmax", "sigmoid", "none"

#: Tasks whose pipelines read ``problem_type``.
CLASSIFYING_TASKS = frozenset({"text-classification", "image-classification", "audio-classification"})
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")

#: Where a cross-encoder's configuration names its function, and what the named ones are called here.
OLD_ACTIVATION_KEY = "sbert_ce_default_activation_function"
ACTIVATIONS = {"Sigmoid": SIGMOID, "Identity": NONE}


def judged_as(task: str, config: Mapping[str, Any], similarity: str | None = None) -> str:
    """Return what a model's answers are read and measured as: its task, or what ``problem_type`` makes of it.

    Args:
        task: one of ``TASKS``.
        config: the content of ``config.json``.
        similarity: of a sentence-transformer, the similarity that its settings name; None for the cosine.
    """
    if task == "sentence-similarity":
        return SIMILARITIES.get(str(similarity), task)
    if task not in CLASSIFYING_TASKS or is_cross_encoder(task, config):
        return task
    problem = config.get("problem_type")
    return {"multi_label_classification": MULTI_LABEL, "regression": REGRESSION}.get(str(problem), task)


def activation_of(task: str, config: Mapping[str, Any]) -> str:
    """Return the function that turns a classification head's logits into its answer.

    A cross-encoder's is what its ``CrossEncoder`` has; this is what its ``config.json`` says.

    Args:
        task: one of ``CLASSIFYING_TASKS``.
        config: the content of ``config.json``, which ``check_head`` let pass.
    """
    if is_cross_encoder(task, config):
        name = _named_activation(config)
        return ACTIVATIONS[name.rsplit(".", 1)[-1]] if name else SIGMOID
    kind = judged_as(task, config)
    if kind == REGRESSION:
        return NONE
    if kind == MULTI_LABEL or (count_labels(config) == 1 and task != "audio-classification"):
        return SIGMOID
    return SOFTMAX


def is_cross_encoder(task: str, config: Mapping[str, Any]) -> bool:
    """Tell whether a model gives one score to a pair of texts: a reranker, which ``CrossEncoder`` loads."""
    return task == "text-classification" and count_labels(config) == 1 and takes_pairs(config)


def check_head(model: str, config: Mapping[str, Any]) -> None:
    """Refuse a head whose outputs would not be read as the model's authors meant.

    Raises:
        UserError: ``problem_type`` is none that transformers knows, two labels have one name, or a cross-encoder's
            function is not supported.
    """
    problem = config.get("problem_type")
    if problem is not None and problem not in PROBLEM_TYPES:
        raise UserError(
            f"{model}: config.json: 'problem_type' is {problem!r}, which transformers does not know; it must be one "
            f"of: {', '.join(PROBLEM_TYPES)}, or null"
        )
    labels = [str(label) for label in (config.get("id2label") or {}).values()]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise UserError(
            f"{model}: config.json: 'id2label' gives the name {twice[0]!r} to several labels, so that an answer does "
            "not tell which one is meant: give each label a name of its own"
        )
    name = _named_activation(config)
    if name and name.rsplit(".", 1)[-1] not in ACTIVATIONS:
        raise UserError(
            f"{model}: config.json: the cross-encoder's activation function is {name!r}, which the programs of a "
            f"release cannot apply; supported: torch.nn.{', torch.nn.'.join(ACTIVATIONS)}"
        )


def takes_pairs(config: Mapping[str, Any]) -> bool:
    """Tell whether a sequence classifier judges pairs of texts: a reranker, or natural-language inference.

    A cross-encoder has the mark that sentence-transformers leaves, or one logit that is not said to be the value of a
    regression; inference has a label "entailment".
    """
    labels = {str(label).lower() for label in (config.get("id2label") or {}).values()}
    marked = "sentence_transformers" in config or OLD_ACTIVATION_KEY in config
    scores = count_labels(config) == 1 and config.get("problem_type") != "regression"
    return marked or scores or "entailment" in labels


def count_labels(config: Mapping[str, Any]) -> int:
    """Return the number of classes of a model's head, as transformers reads it: two where nothing is said."""
    return len(config.get("id2label") or ()) or int(config.get("num_labels") or 2)


def _named_activation(config: Mapping[str, Any]) -> str | None:
    settings = config.get("sentence_transformers")
    named = settings.get("activation_fn") if isinstance(settings, dict) else None
    named = named or config.get(OLD_ACTIVATION_KEY)
    return str(named) if named else None
