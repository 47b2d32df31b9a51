"""How far a program's final answers to raw inputs are from the original's."""

from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.graph.generation import matched_share
from onnxproof.inputs.final_answers import USES
from onnxproof.parity.metrics import (
    DETECTIONS,
    LEAST_OVERLAP,
    box_overlap,
    compare_output,
    field_metrics,
    finite,
    order_agreement,
    value_metrics,
)
from onnxproof.tasks.heads import NONE

if TYPE_CHECKING:
    from onnxproof.records.answers import Detection, Segments, Span, Tag, Written

Array = NDArray[Any]
Metrics = dict[str, float | None]

#: An answer to a question has at most so many tokens, as the pipeline of transformers 4 had it.
LONGEST_ANSWER = 15


def likeliest_span(start: Array, end: Array, is_context: Array) -> tuple[int, int, float]:
    """Return the first and the last token of the likeliest answer, and its probability.

    Args:
        start: logits of the first token, shape (tokens,).
        end: logits of the last token, shape (tokens,).
        is_context: which tokens are the context's, bool (tokens,). The first token of all, which stands for "there is
            no answer", takes part in the probabilities alone.
    """
    allowed = is_context.copy()
    allowed[0] = True
    probabilities = []
    for logits in (start, end):
        shifted = np.where(allowed, logits.astype(np.float64), -np.inf)
        odds = np.exp(shifted - shifted.max())
        probabilities.append(np.where(is_context, odds / odds.sum(), 0.0))
    products = np.triu(np.outer(*probabilities))
    products = np.tril(products, LONGEST_ANSWER - 1)
    first, last = divmod(int(products.argmax()), len(start))
    return first, last, float(products[first, last])


def measure(use: str, activation: str, expected: Sequence[Any], actual: Sequence[Any]) -> Metrics:
    """Return how far final answers are from the original's, by the names of the gate's metrics.

    Args:
        use: a key of ``USES``.
        activation: what makes a classification head's answers, see ``tasks.heads``.
        expected: the original's answers.
        actual: a program's, one for each.
    """
    return _MEASURES[USES[use].gives](activation, expected, actual)


def _measure_vectors(activation: str, expected: Sequence[Array], actual: Sequence[Array]) -> Metrics:
    if not _of_same_shapes(expected, actual):
        return {"cosine_min": None, "max_relative_diff": None}
    compared = compare_output(expected, [np.asarray(vector) for vector in actual])
    return {metric: compared[metric] for metric in ("cosine_min", "max_relative_diff")}


def _measure_token_vectors(activation: str, expected: Sequence[Array], actual: Sequence[Array]) -> Metrics:
    """Compare the mean vectors by their direction, and the tokens' value by value."""
    compared = _measure_vectors(activation, expected, actual)
    if not _of_same_shapes(expected, actual):
        return compared  # other tokens
    means = _measure_vectors(activation, *([rows.mean(axis=0) for rows in answers] for answers in (expected, actual)))
    return compared | {"cosine_min": means["cosine_min"]}


def _of_same_shapes(expected: Sequence[Array], actual: Sequence[Array]) -> bool:
    return all(left.shape == np.shape(right) for left, right in zip(expected, actual, strict=True))


def _measure_labels(
    activation: str, expected: Sequence[Mapping[str, float]], actual: Sequence[Mapping[str, float]]
) -> Metrics:
    names = list(expected[0])
    if any(answer.keys() != expected[0].keys() for answer in actual):
        return {"top1_agreement": None, "max_probability_diff": None}
    left, right = (np.array([[answer[name] for name in names] for answer in answers]) for answers in (expected, actual))
    if activation == NONE:
        return value_metrics(left, right)
    return {
        "top1_agreement": float((left.argmax(axis=1) == right.argmax(axis=1)).mean()),
        "label_agreement": float(((left >= 0.5) == (right >= 0.5)).mean()),
        "max_probability_diff": finite(np.abs(left - right).max()),
    }


def _measure_scores(activation: str, expected: Sequence[float], actual: Sequence[float]) -> Metrics:
    left, right = (np.array(scores, dtype=np.float64).reshape(-1, 1) for scores in (expected, actual))
    if activation == NONE:
        return value_metrics(left, right)
    return {
        "max_probability_diff": finite(np.abs(left - right).max()),
        "order_agreement": order_agreement(left[:, 0], right[:, 0]),
    }


def _measure_tags(activation: str, expected: "Sequence[Sequence[Tag]]", actual: "Sequence[Sequence[Tag]]") -> Metrics:
    """Compare the labels of the characters that either names, and the probabilities of the tags that are the same."""
    same, count, differences = 0, 0, [0.0]
    for left, right in zip(expected, actual, strict=True):
        spans = [{(tag["start"], tag["end"]): tag for tag in tags} for tags in (left, right)]
        for place in spans[0].keys() | spans[1].keys():
            tags = [span.get(place) for span in spans]
            count += place[1] - place[0]
            if tags[0] and tags[1] and tags[0]["entity"] == tags[1]["entity"]:
                same += place[1] - place[0]
                differences.append(abs(tags[0]["score"] - tags[1]["score"]))
    return {
        "token_agreement": same / count if count else 1.0,
        "max_probability_diff": finite(float(np.max(differences))),
    }


def _measure_frames(activation: str, expected: Sequence[Array], actual: Sequence[Array]) -> Metrics:
    """Compare the decisions on each label in each frame, and their probabilities, (frames, labels)."""
    if not _of_same_shapes(expected, actual):
        return {"label_agreement": None, "max_probability_diff": None}
    left, right = (np.concatenate([np.ravel(answer) for answer in answers]) for answers in (expected, actual))
    return {
        "label_agreement": float(((left >= 0.5) == (right >= 0.5)).mean()),
        "max_probability_diff": finite(float(np.abs(left - right).max())),
    }


def _measure_guesses(activation: str, expected: Sequence[Any], actual: Sequence[Any]) -> Metrics:
    """Compare the likeliest word and the probabilities; an answer is ``{word: probability}``, the likeliest word first.

    A word that only one of them names is at most as likely as the other's last word, so the difference is at least
    what it is more likely than that.
    """
    firsts = [next(iter(left)) == next(iter(right), None) for left, right in zip(expected, actual, strict=True)]
    differences = [0.0]
    for left, right in zip(expected, actual, strict=True):
        differences += [abs(left[word] - right[word]) for word in left.keys() & right.keys()]
        for named, others in ((left, right), (right, left)):
            last = min(others.values(), default=0.0)
            differences += [max(named[word] - last, 0.0) for word in named.keys() - others.keys()]
    return {"top1_agreement": float(np.mean(firsts)), "max_probability_diff": finite(float(np.max(differences)))}


def _measure_odds(activation: str, expected: Sequence[Sequence[float]], actual: Sequence[Sequence[float]]) -> Metrics:
    """Compare the likeliest choice and the probabilities; an answer has one for each choice of its own input."""
    if any(len(left) != len(right) for left, right in zip(expected, actual, strict=True)):
        return {"top1_agreement": None, "max_probability_diff": None}
    pairs = [(np.array(left), np.array(right)) for left, right in zip(expected, actual, strict=True)]
    return {
        "top1_agreement": float(np.mean([left.argmax() == right.argmax() for left, right in pairs])),
        "max_probability_diff": finite(float(np.max([np.abs(left - right).max() for left, right in pairs]))),
    }


def _measure_spans(activation: str, expected: "Sequence[Span]", actual: "Sequence[Span]") -> Metrics:
    same = [left["answer"] == right["answer"] for left, right in zip(expected, actual, strict=True)]
    return {"span_agreement": float(np.mean(same))}


def _measure_tokens(activation: str, expected: Sequence[Sequence[int]], actual: Sequence[Sequence[int]]) -> Metrics:
    """Return the mean share of the original's tokens that come before the first difference.

    A text that ends before the original's differs where it ends. What a longer one has beyond it does not count.
    """
    shares = [
        matched_share(list(left), (list(right) + [-1] * len(left))[: len(left)])
        for left, right in zip(expected, actual, strict=True)
        if len(left)
    ]
    return {"greedy_token_match": float(np.mean(shares)) if shares else 1.0}


def _measure_written_texts(activation: str, expected: Sequence[str], actual: Sequence[str]) -> Metrics:
    """Return the mean share of the original's characters that come before the first difference, as of tokens."""
    return _measure_tokens(activation, *([list(map(ord, text)) for text in texts] for texts in (expected, actual)))


def _measure_transcripts(activation: str, expected: Sequence[str], actual: Sequence[str]) -> Metrics:
    """Return the share of characters that two texts have in common, in the same order, of those of the longer one.

    A character stands for the frames of a sound that were given its label.
    """
    same, count = 0, 0
    for left, right in zip(expected, actual, strict=True):
        matcher = SequenceMatcher(None, left, right, autojunk=False)
        same += sum(block.size for block in matcher.get_matching_blocks())
        count += max(len(left), len(right))
    return {"token_agreement": same / count if count else 1.0}


def _measure_written(activation: str, expected: "Sequence[Written]", actual: "Sequence[Written]") -> Metrics:
    """Compare tokens. The same tokens with another text count as none of them."""
    pairs = list(zip(expected, actual, strict=True))
    made = [[] if _misread(left, right) else right["tokens"] for left, right in pairs]
    return _measure_tokens(activation, [left["tokens"] for left in expected], made)


def _misread(expected: "Written", actual: "Written") -> bool:
    return list(expected["tokens"]) == list(actual["tokens"]) and expected["text"] != actual["text"]


def _measure_detections(
    activation: str, expected: "Sequence[Sequence[Detection]]", actual: "Sequence[Sequence[Detection]]"
) -> Metrics:
    """Return which share of the original's surest detections is found again, and how far their probabilities are."""
    shares, differences = [], [0.0]
    for left, right in zip(expected, actual, strict=True):
        surest = sorted(left, key=lambda found: -found["score"])[:DETECTIONS]
        near = box_overlap(_boxes_of(surest), _boxes_of(right)) >= LEAST_OVERLAP
        twins = [
            [other for other, is_near in zip(right, row, strict=True) if is_near and other["label"] == found["label"]]
            for found, row in zip(surest, near, strict=True)
        ]
        if surest:
            shares.append(sum(map(bool, twins)) / len(surest))
        for found, others in zip(surest, twins, strict=True):
            differences.append(min((abs(found["score"] - other["score"]) for other in others), default=0.0))
    return {
        "detection_agreement": float(np.mean(shares)) if shares else 1.0,
        "max_probability_diff": finite(float(np.max(differences))),
    }


def _boxes_of(detections: "Sequence[Detection]") -> Array:
    """Return boxes as centre and size, float64 (boxes, 4), widened by half a pixel: the pipeline cuts to whole ones."""
    corners = np.array([found["box"] for found in detections], dtype=np.float64).reshape(-1, 4)
    return np.hstack([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2] + 1])


def _measure_pixels(activation: str, expected: Sequence[Array], actual: Sequence[Array]) -> Metrics:
    if not _of_same_shapes(expected, actual):
        return {"pixel_agreement": None}
    same = np.concatenate([(left == right).ravel() for left, right in zip(expected, actual, strict=True)])
    return {"pixel_agreement": float(same.mean())}


def _measure_fields(activation: str, expected: Sequence[Array], actual: Sequence[Array]) -> Metrics:
    if not _of_same_shapes(expected, actual):
        return {"mean_relative_diff": None, "max_relative_diff": None}
    left, right = (np.concatenate([np.ravel(field) for field in fields]) for fields in (expected, actual))
    differences = np.abs(left.astype(np.float64) - right)
    return {
        "mean_relative_diff": finite(differences.mean() / max(float(np.abs(left).mean()), 1e-12)),
        "max_relative_diff": finite(differences.max() / max(1.0, float(np.abs(left).max()))),
    }


def _measure_segments(activation: str, expected: "Sequence[Segments]", actual: "Sequence[Segments]") -> Metrics:
    """Compare segments, and the labels of all pixels.

    One of the surest segments is found again where one of the same label overlaps it by half. A pixel has the label of
    its segment.
    """
    if not _of_same_shapes(*([answer["places"] for answer in answers] for answers in (expected, actual))):
        return {"detection_agreement": None, "pixel_agreement": None, "max_probability_diff": None}
    found, pixels, differences = [], [], [0.0]
    for left, right in zip(expected, actual, strict=True):
        places = [np.asarray(answer["places"]) for answer in (left, right)]
        pixels.append(_labels_of(left, places[0]) == _labels_of(right, places[1]))
        for segment in sorted(left["segments"], key=lambda segment: -segment["score"])[:DETECTIONS]:
            mask = places[0] == segment["id"]
            twins = [
                other
                for other in right["segments"]
                if other["label"] == segment["label"] and _overlap(mask, places[1] == other["id"]) >= LEAST_OVERLAP
            ]
            found.append(bool(twins))
            differences += [abs(segment["score"] - other["score"]) for other in twins]
    return {
        "detection_agreement": float(np.mean(found)) if found else 1.0,
        "pixel_agreement": float(np.concatenate([same.ravel() for same in pixels]).mean()),
        "max_probability_diff": finite(float(np.max(differences))),
    }


def _labels_of(answer: "Segments", places: Array) -> Array:
    """Return the label of every pixel, str (height, width), empty where no segment is."""
    labels = np.full(max([0, *(segment["id"] for segment in answer["segments"])]) + 1, "", dtype=object)
    for segment in answer["segments"]:
        labels[segment["id"]] = segment["label"]
    return np.asarray(labels[places])


def _overlap(first: Array, second: Array) -> float:
    """Return the intersection over union of two bool masks of one shape."""
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 0.0


def _measure_images(activation: str, expected: Sequence[Array], actual: Sequence[Array]) -> Metrics:
    """Compare images, uint8 (height, width, 3), as wholes: rounding may move a pixel by a step."""
    if not _of_same_shapes(expected, actual):
        return {"cosine_min": None, "cosine_mean": None, "mean_relative_diff": None}
    return field_metrics(*([np.asarray(image, dtype=np.float64) for image in images] for images in (expected, actual)))


_MEASURES: dict[str, Callable[[str, Sequence[Any], Sequence[Any]], Metrics]] = {
    "vectors": _measure_vectors,
    "token vectors": _measure_token_vectors,
    "labels": _measure_labels,
    "scores": _measure_scores,
    "tags": _measure_tags,
    "frames": _measure_frames,
    "guesses": _measure_guesses,
    "odds": _measure_odds,
    "spans": _measure_spans,
    "tokens": _measure_tokens,
    "transcripts": _measure_transcripts,
    "written texts": _measure_written_texts,
    "detections": _measure_detections,
    "pixels": _measure_pixels,
    "fields": _measure_fields,
    "segments": _measure_segments,
    "images": _measure_images,
    "written": _measure_written,
}
