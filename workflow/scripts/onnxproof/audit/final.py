"""Final answers to raw inputs, as a user of a repository gets them: by its tokenizer, graph, labels and pooling."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.audit.alignment import AlignedSession
from onnxproof.audit.tokenizing import open_tokenizer
from onnxproof.checkpoint.reading import Checkpoint
from onnxproof.checkpoint.tokenizer_files import TOKENIZER_FILE
from onnxproof.inputs.final_answers import USES, FinalAnswers
from onnxproof.inputs.model_inputs import MASK, TOKENS
from onnxproof.parity.final_answers import Metrics, measure
from onnxproof.tasks.heads import SIGMOID, SOFTMAX

Array = NDArray[Any]


def measure_final(
    session: AlignedSession,
    repository: Checkpoint,
    final: FinalAnswers | None,
    most_tokens: int | None,
    width: int | None = None,
) -> Metrics | None:
    """Return how far the answers to raw inputs, each alone, are from those of the original's public interface.

    Args:
        session: the graph.
        repository: the files beside it.
        final: what was recorded of the original; None where nothing was.
        most_tokens: after how many texts are cut: the original's number, because another one is a finding of its own.
        width: how many values of a vector are kept; None for all.

    Returns:
        The metrics of the use; None where the use has no raw texts, the repository no tokenizer, or the graph not the
        output that the use reads.
    """
    if final is None or repository.folder is None or USES[final.use].gives not in _READINGS:
        return None
    output, reading = _READINGS[USES[final.use].gives](final, repository)
    path = repository.folder / repository.beside_config(TOKENIZER_FILE)
    if not path.is_file() or output not in {value.name for value in session.get_outputs()}:
        return None
    tokenizer = open_tokenizer(path, most_tokens)
    names = [value.name for value in session.get_inputs()]
    answers = []
    for value in final.inputs:
        encoding = tokenizer.encode_batch([_as_text(final, value)])[0]
        made = {TOKENS: encoding.ids, MASK: encoding.attention_mask, "token_type_ids": encoding.type_ids}
        feed = {name: np.array([made[name]], dtype=np.int64) for name in names if name in made}
        (values,) = session.run([output], feed)
        answers.append(reading(values[0][:width] if output == "sentence_embedding" else values[0]))
    return measure(final.use, str(final.settings.get("activation", "")), final.answers, answers)


def _as_text(final: FinalAnswers, value: Any) -> Any:
    """Return a raw input as the tokenizer takes it, with the prompt that comes before it."""
    prompts = final.settings.get("prompts", {})
    if isinstance(value, dict):
        return prompts[value["prompt"]] + value["text"]
    if isinstance(value, str):
        return prompts.get(final.settings.get("default_prompt", ""), "") + value
    return tuple(value) if value[1] else value[0]  # transformers reads a pair with an empty second text as one text


def _probabilities(logits: Array, activation: str) -> Array:
    if activation == SOFTMAX:
        odds = np.exp(logits - logits.max())
        return np.asarray(odds / odds.sum())
    return 1 / (1 + np.exp(-logits)) if activation == SIGMOID else logits


def _read_labels(final: FinalAnswers, repository: Checkpoint) -> tuple[str, Callable[[Array], Any]]:
    labels = (repository.config.get("id2label") if repository.has("config.json") else None) or {}
    activation = str(final.settings.get("activation", ""))

    def read(logits: Array) -> dict[str, float]:
        scores = _probabilities(logits.astype(np.float64), activation)
        return {labels.get(str(number), f"LABEL_{number}"): float(score) for number, score in enumerate(scores)}

    return "logits", read


def _read_scores(final: FinalAnswers, repository: Checkpoint) -> tuple[str, Callable[[Array], Any]]:
    activation = str(final.settings.get("activation", ""))
    return "logits", lambda logits: float(_probabilities(logits.astype(np.float64), activation)[0])


def _read_vectors(final: FinalAnswers, repository: Checkpoint) -> tuple[str, Callable[[Array], Any]]:
    return "sentence_embedding", np.asarray


def _read_token_vectors(final: FinalAnswers, repository: Checkpoint) -> tuple[str, Callable[[Array], Any]]:
    return "last_hidden_state", np.asarray


_READINGS = {
    "labels": _read_labels,
    "scores": _read_scores,
    "vectors": _read_vectors,
    "token vectors": _read_token_vectors,
}
