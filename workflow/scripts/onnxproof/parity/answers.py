"""What a user of a task reads from a model's outputs, and how far two models' answers are apart.

No torch: the same functions judge a variant against PyTorch and a quantized model against its float original.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.cli import UserError, first_line
from onnxproof.inputs.model_inputs import DECODER_TOKENS, LIKELIHOODS, MASKED_POSITIONS, TOKENS, ModelInputs
from onnxproof.parity.metrics import (
    all_finite,
    as_rows,
    classification_metrics,
    cosine_similarity,
    detection_metrics,
    embedding_metrics,
    field_metrics,
    finite,
    log_probabilities,
    map_metrics,
    next_token_metrics,
    order_agreement,
    perplexity_metrics,
    span_metrics,
    token_metrics,
    value_metrics,
)
from onnxproof.tasks.registry import GENERATING_TASKS, HEADS, MULTI_LABEL, PARTS, REGRESSION, SIMILARITIES, TASKS

if TYPE_CHECKING:
    from onnxproof.graph.sessions import Session
    from onnxproof.records.reference import Invariance

Array = NDArray[Any]
#: One array an input.
Answers = Sequence[Array]
#: Output names → one array an input.
Outputs = Mapping[str, Sequence[Array]]
Metrics = dict[str, float | None]

#: Of the answers in batches, those of one batch and so many more are looked at first; a cosine from here on is that of
#: rounding.
FIRST_BATCHES = 8
ROUNDING_COSINE = 1 - 1e-6

_JUDGED = TASKS | PARTS | HEADS


def tell_nobody(count: int) -> None:
    """Take the number of inputs that were run, and do nothing."""


def run_items(
    session: "Session",
    inputs: ModelInputs,
    task: str,
    batch_size: int = 1,
    tell: Callable[[int], None] = tell_nobody,
) -> dict[str, list[Array]]:
    """Run all inputs through an onnxruntime session, alone or in batches; return the task's outputs, one array an item.

    Rows of padding are left out. Outputs that the graph lacks are left out too. After each run, ``tell`` is given the
    number of its inputs.
    """
    found: dict[int, dict[str, Array]] = {}
    for indices in batches_of(session, inputs, task, batch_size):
        found |= run_batch(session, inputs, task, indices)
        tell(len(indices))
    return by_output(found, range(len(found)))


def batches_of(session: "Session", inputs: ModelInputs, task: str, batch_size: int) -> list[list[int]]:
    """Return the numbers of the inputs that share a batch, of at most so many inputs or what the task allows."""
    graph_inputs = [value.name for value in session.get_inputs()]
    return inputs.batches(_JUDGED[task].fit_batch(batch_size), graph_inputs)


def batches_of_one_shape(
    session: "Session", inputs: ModelInputs, task: str, batch_size: int, indices: Sequence[int]
) -> list[list[int]]:
    """Return some inputs in batches that need no padding, of at most so many inputs or what the task allows."""
    graph_inputs = [value.name for value in session.get_inputs()]
    return inputs.batches_of_one_shape(_JUDGED[task].fit_batch(batch_size), graph_inputs, indices)


def run_batch(
    session: "Session", inputs: ModelInputs, task: str, indices: Sequence[int]
) -> dict[int, dict[str, Array]]:
    """Run some inputs together through an onnxruntime session; return the task's outputs by the input's number."""
    graph_inputs = [value.name for value in session.get_inputs()]
    names = [value.name for value in session.get_outputs() if value.name in _JUDGED[task].outputs]
    values = dict(zip(names, _run(session, names, inputs.feed(indices, graph_inputs)), strict=True))
    return {index: outputs_of_item(task, values, inputs, row, index) for row, index in enumerate(indices)}


def _run(session: "Session", names: list[str], feed: Mapping[str, Array]) -> Sequence[Array]:
    try:
        return list(session.run(names, feed))
    except Exception as error:  # onnxruntime's own exceptions share no other base
        shapes = ", ".join(f"{name} {values.shape}" for name, values in feed.items())
        raise UserError(f"onnxruntime cannot run the graph on {shapes}: {first_line(error)}") from error


def outputs_of_item(
    task: str, outputs: Mapping[str, Array], inputs: ModelInputs, row: int, index: int
) -> dict[str, Array]:
    """Return what one row of a batch's outputs says about an item: its tokens' rows only, or those of masked tokens.

    Where the item is a text to go on with, ``LIKELIHOODS`` is with them: log-likelihoods in nats, float32 (tokens,), of
    the tokens after the first place whose next token is guessed.
    """
    item = inputs.items[index]
    found: dict[str, Array] = {}
    for name, output in outputs.items():
        if task == "image-features":  # of one image, a row a token
            found[name] = output.reshape(-1, output.shape[-1])
            continue
        if name not in _JUDGED[task].per_token or not {TOKENS, DECODER_TOKENS} & item.keys():
            found[name] = np.asarray(output[row])
            continue
        tokens = inputs.tokens_of(output, row, index)
        positions = item.get(MASKED_POSITIONS)
        found[name] = tokens if positions is None else np.asarray(tokens[positions])
        if task in GENERATING_TASKS and positions is not None:
            found[LIKELIHOODS] = _likelihoods(tokens[positions[0] :], inputs.text_of(index)[positions[0] :])
    return found


def _likelihoods(logits: Array, tokens: Array) -> Array:
    """Return the log-likelihoods, float32 (tokens - 1,), of all tokens but the first, by (tokens, vocabulary) logits.

    In float32: the vocabulary may have hundreds of thousands of tokens.
    """
    before, following = logits[:-1], tokens[1:]
    highest = before.max(axis=-1, initial=-np.inf, keepdims=True)
    with np.errstate(invalid="ignore"):  # of infinite logits: what comes out is NaN, which no gate lets pass
        totals = np.log(np.exp(before - highest).sum(axis=-1)) + highest[:, 0]
    return np.asarray(before[np.arange(len(following)), following] - totals)


def align_queries(task: str, expected: Outputs, actual: Outputs) -> Outputs:
    """Return a detector's outputs with each input's queries in the order of the expected ones.

    Other tasks' outputs are returned as they are. The queries of a detector are a set: one that selects its own puts
    them in the order of near ties. Each expected query is set beside the one nearest to it in labels and box.
    """
    if task != "object-detection":
        return actual
    aligned: dict[str, list[Array]] = {name: [] for name in actual}
    for index in range(len(next(iter(actual.values())))):
        left, right = (np.hstack([outputs[name][index] for name in actual]) for outputs in (expected, actual))
        nearest = np.array([np.abs(right - query).max(axis=1).argmin() for query in left])
        for name, arrays in actual.items():
            aligned[name].append(arrays[index][nearest])
    return aligned


def read_answers(task: str, outputs: Outputs, labels: int) -> list[Array]:
    """Return what a user of the task reads, one (rows, features) array an input.

    Args:
        task: the task's name, or what its head makes of it, see ``heads.judged_as``.
        outputs: what ``run_items`` gave.
        labels: number of the model's labels, see ``count_labels``; a detector with one more has a "nothing here".

    - Embeddings: one row, the whole input's embedding. A plain encoder gives vectors of tokens, frames or places;
      their mean stands for the whole.
    - Classification: one row of logits; of zero-shot classification, one logit a candidate.
    - Tokens, frames of speech, masked tokens, next tokens, pixels: one row of logits each.
    - Text recognition: the logarithms of the characters' likelihoods, a row a place along the line.
    - Question answering: the logits of the first and of the last token of the answer, (2, tokens).
    - Detection: a row a query, log-odds of the labels and the box.
    - Depth: one row a line of the picture.
    """
    reader = _KINDS[task].read
    columns = [outputs[name] for name in _JUDGED[task].outputs if name in outputs]
    return [reader([column[index] for column in columns], labels) for index in range(len(columns[0]))]


def measure_answers(task: str, expected: Answers, actual: Answers) -> Metrics:
    """Return the metrics of a task for the answers of two models."""
    return _KINDS[task].measure(expected, actual)


def measure_likelihoods(expected: Outputs, actual: Outputs) -> Metrics:
    """Return the metrics of how likely the inputs' own texts are; none where the task is not to go on with texts."""
    return perplexity_metrics(expected[LIKELIHOODS], actual[LIKELIHOODS]) if LIKELIHOODS in expected else {}


def answer_distance(task: str, expected: Answers, actual: Answers) -> float:
    """Return one number that ranks models by how far their answers are from the expected ones; infinite if broken.

    The mean KL divergence of probabilities where there are some, the error of a regression's values, else one minus
    the mean cosine of all rows.
    """
    if not all_finite(*actual):
        return float("inf")
    measured = measure_answers(task, expected, actual)
    ranking = next((metric for metric in ("mean_kl", "next_token_kl", "value_nrmse") if metric in measured), None)
    if ranking is None:
        return 1 - float(row_cosines(expected, actual).mean())
    distance = measured[ranking]
    return float("inf") if distance is None else distance


def row_cosines(expected: Answers, actual: Answers) -> Array:
    """Return the cosine similarity, shape (all rows,), of every row of two models' answers."""
    return np.concatenate(
        [cosine_similarity(as_rows(left), as_rows(right)) for left, right in zip(expected, actual, strict=True)]
    )


def measure_neighbours(
    task: str,
    judged_as: str,
    labels: int,
    inputs: ModelInputs,
    batches: Sequence[Sequence[int]],
    alone: Callable[[Sequence[int]], Mapping[int, Mapping[str, Array]]],
    run: Callable[[Sequence[int]], Mapping[int, Mapping[str, Array]]],
) -> tuple[int, "Invariance"]:
    """Return how many inputs were run in padded batches, and what the neighbours there change in the answers.

    Where the first batches differ by no more than rounding, so do the others, for they have no more padding than the
    first ones; only where they do not is every input run.

    Args:
        task: the task's name.
        judged_as: what its head makes of it, see ``heads.judged_as``.
        labels: number of the model's labels.
        inputs: all inputs.
        batches: numbers of the inputs that share a batch.
        alone: returns the outputs of each of some inputs alone, by the input's number.
        run: returns the outputs of a batch, by the input's number.
    """
    first = _first_batches(inputs, batches)
    in_batch: dict[int, Mapping[str, Array]] = {}
    measured: Invariance = {"max_abs_diff": None, "cosine_min": None}
    for some in (first, [batch for batch in batches if batch not in first]):
        for indices in some:
            in_batch |= run(indices)
        expected, actual = (by_output(found, sorted(in_batch)) for found in (alone(sorted(in_batch)), in_batch))
        aligned = align_queries(task, expected, actual)
        measured = batch_invariance(*(read_answers(judged_as, outputs, labels) for outputs in (expected, aligned)))
        if (measured["cosine_min"] or 0) >= ROUNDING_COSINE:
            break
    return len(in_batch), measured


def answer_inputs(
    task: str,
    judged_as: str,
    labels: int,
    inputs: ModelInputs,
    batches: Sequence[Sequence[int]],
    batches_of_left: Callable[[Sequence[int]], Sequence[Sequence[int]]],
    run: Callable[[Sequence[int]], Mapping[int, Mapping[str, Array]]],
) -> tuple[dict[int, Mapping[str, Array]], int, "Invariance"]:
    """Return the outputs of all inputs without padding, by their numbers, and what ``measure_neighbours`` returns.

    An input is run alone where ``measure_neighbours`` asks for it. Where that shows that neighbours change nothing, a
    batch of one shape answers as each of its inputs alone does, in less time: the others are run in such batches.

    Args:
        task: see ``measure_neighbours``, as for ``judged_as``, ``labels``, ``inputs`` and ``batches``.
        batches_of_left: returns the batches of one shape of some inputs.
        run: returns the outputs of a batch, by the input's number.
    """
    found: dict[int, Mapping[str, Array]] = {}

    def run_alone(indices: Sequence[int]) -> dict[int, Mapping[str, Array]]:
        for index in indices:
            if index not in found:
                found.update(run([index]))
        return found

    batched, changed = measure_neighbours(task, judged_as, labels, inputs, batches, run_alone, run)
    for indices in batches_of_left([index for index in range(len(inputs.items)) if index not in found]):
        found |= run(indices)
    return found, batched, changed


def by_output(found: Mapping[int, Mapping[str, Array]], indices: Sequence[int]) -> dict[str, list[Array]]:
    """Return the outputs of some inputs, by the output's name, from those by the input's number."""
    return {name: [found[index][name] for index in indices] for name in found[indices[0]]}


def _first_batches(inputs: ModelInputs, batches: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """Return the batch with the most padding, and ``FIRST_BATCHES`` of the others, spread evenly over their sizes.

    The largest quarter of the others is left out: the batch with the most padding has texts of all lengths, and those
    of one length show little of padding, at most of the cost.
    """
    sizes = [sum(values.size for values in item.values()) for item in inputs.items]

    def size(batch: Sequence[int]) -> int:
        return len(batch) * max(sizes[index] for index in batch)

    def padding(batch: Sequence[int]) -> int:
        return size(batch) - sum(sizes[index] for index in batch)

    padded = max(batches, key=padding)
    others = sorted((batch for batch in batches if batch is not padded), key=size)
    smaller = others[: max(FIRST_BATCHES, len(others) * 3 // 4)]
    places = dict.fromkeys(number * len(smaller) // FIRST_BATCHES for number in range(FIRST_BATCHES) if smaller)
    return [padded, *(smaller[place] for place in places)]


def batch_invariance(alone: Answers, in_batch: Answers) -> "Invariance":
    """Return what the neighbours in a batch change: the largest difference, and the lowest cosine of any row.

    One score has a sign but no direction, so a reranker's scores of all inputs count as one row.
    """
    if all(answer.size == 1 for answer in alone):
        alone, in_batch = ([np.concatenate(scores).reshape(1, -1)] for scores in (alone, in_batch))
    differences = [float(np.abs(left - right).max()) for left, right in zip(alone, in_batch, strict=True)]
    return {
        "max_abs_diff": finite(float(np.max(differences))),
        "cosine_min": finite(float(row_cosines(alone, in_batch).min())),
    }


@dataclass(frozen=True)
class _Kind:
    """How a task's answers are read from one input's outputs (and the number of labels), and compared."""

    read: Callable[[list[Array], int], Array]
    measure: Callable[[Answers, Answers], Metrics]


def _read_embedding(outputs: list[Array], labels: int) -> Array:
    vectors = outputs[-1]  # a sentence-transformer's embedding comes after its token vectors
    if vectors.ndim == 3:  # feature maps: channels, height, width
        vectors = vectors.reshape(len(vectors), -1).T
    return vectors.reshape(1, -1) if vectors.ndim == 1 else vectors.mean(axis=0, keepdims=True)


def _read_rows(outputs: list[Array], labels: int) -> Array:
    return as_rows(outputs[0])


def _read_span(outputs: list[Array], labels: int) -> Array:
    return np.stack(outputs)


def _read_likelihoods(outputs: list[Array], labels: int) -> Array:
    return np.log(as_rows(outputs[0]) + np.finfo(np.float32).tiny)


def _read_pixels(outputs: list[Array], labels: int) -> Array:
    return outputs[0].reshape(len(outputs[0]), -1).T


def _read_detections(outputs: list[Array], labels: int) -> Array:
    logits, boxes = outputs
    if logits.shape[1] > labels:  # the softmax over labels and "nothing here", as log-odds against the latter
        logits = logits[:, :labels] - logits[:, labels:].max(axis=1, keepdims=True)
    return np.hstack([logits, boxes])


def _read_open_detections(outputs: list[Array], labels: int) -> Array:
    return np.hstack(outputs)  # one label a candidate text, each with odds of its own


def _read_segments(outputs: list[Array], labels: int) -> Array:
    """Return log-odds of the labels at every pixel: each query's labels, weighted by its mask there.

    Source: B. Cheng et al., "Per-Pixel Classification is Not All You Need for Semantic Segmentation", 2021.
    """
    classes, masks = outputs
    likely = np.exp(log_probabilities(classes))[:, :-1]  # the last one is "nothing here"
    covered = 1 / (1 + np.exp(-masks.reshape(len(masks), -1).astype(np.float64)))
    return np.asarray(np.log(covered.T @ likely + np.finfo(np.float32).tiny))


def _measure_embeddings(expected: Answers, actual: Answers) -> Metrics:
    return embedding_metrics(np.concatenate(expected), np.concatenate(actual))


def _by_similarity(similarity: str) -> Callable[[Answers, Answers], Metrics]:
    """Return the measure of embeddings that their users compare by this similarity."""

    def measure(expected: Answers, actual: Answers) -> Metrics:
        return embedding_metrics(np.concatenate(expected), np.concatenate(actual), similarity)

    return measure


def _measure_classes(expected: Answers, actual: Answers) -> Metrics:
    left, right = np.concatenate(expected), np.concatenate(actual)
    metrics = classification_metrics(left, right)
    if left.shape[1] == 1:
        metrics["order_agreement"] = order_agreement(left[:, 0], right[:, 0])
    return metrics


def _measure_labels(expected: Answers, actual: Answers) -> Metrics:
    """Compare the labels of a multi-label head: each is a decision of its own, by a sigmoid."""
    metrics = classification_metrics(*(np.concatenate(logits).reshape(-1, 1) for logits in (expected, actual)))
    return {"label_agreement": metrics.pop("top1_agreement")} | metrics


def _measure_values(expected: Answers, actual: Answers) -> Metrics:
    return value_metrics(np.concatenate(expected), np.concatenate(actual))


def _measure_tokens(expected: Answers, actual: Answers) -> Metrics:
    return token_metrics(np.concatenate(expected), np.concatenate(actual))


_EMBEDDING = _Kind(_read_embedding, _measure_embeddings)
_CLASSES = _Kind(_read_rows, _measure_classes)
_TOKENS = _Kind(_read_rows, _measure_tokens)
_GUESSES = _Kind(_read_rows, next_token_metrics)

_KINDS: dict[str, _Kind] = {
    "feature-extraction": _EMBEDDING,
    "sentence-similarity": _EMBEDDING,
    "image-feature-extraction": _EMBEDDING,
    "text-classification": _CLASSES,
    "fill-mask": _CLASSES,
    "multiple-choice": _CLASSES,
    "image-classification": _CLASSES,
    "audio-classification": _CLASSES,
    "zero-shot-image-classification": _CLASSES,
    MULTI_LABEL: _Kind(_read_rows, _measure_labels),
    **{name: _Kind(_read_embedding, _by_similarity(similarity)) for similarity, name in SIMILARITIES.items()},
    REGRESSION: _Kind(_read_rows, _measure_values),
    "audio-xvector": _EMBEDDING,
    "text-generation": _GUESSES,
    "text2text-generation": _GUESSES,
    "speech-to-text": _GUESSES,
    "image-to-text": _GUESSES,
    "image-text-to-text": _GUESSES,
    "image-features": _EMBEDDING,
    "token-embeddings": _EMBEDDING,
    "token-classification": _TOKENS,
    "automatic-speech-recognition": _TOKENS,
    "audio-frame-classification": _TOKENS,
    "text-recognition": _Kind(_read_likelihoods, _measure_tokens),
    "question-answering": _Kind(_read_span, span_metrics),
    "object-detection": _Kind(_read_detections, detection_metrics),
    "zero-shot-object-detection": _Kind(_read_open_detections, detection_metrics),
    "semantic-segmentation": _Kind(_read_pixels, map_metrics),
    "image-segmentation": _Kind(_read_segments, map_metrics),
    "image-to-image": _Kind(_read_rows, field_metrics),
    "depth-estimation": _Kind(_read_rows, field_metrics),
}
