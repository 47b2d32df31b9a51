"""Score a variant's answers to labelled data beside the original's: the metric, the difference, and its interval.

This step only measures; ``gate_evaluation.py`` judges. So the evidence survives a verdict against it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxproof.cli import UserError, run_script
from onnxproof.evaluation.answers import AnswerFile, read_answers
from onnxproof.evaluation.metric import Metric
from onnxproof.evaluation.metrics import METRICS
from onnxproof.evaluation.metrics.multi_label import THRESHOLD
from onnxproof.evaluation.paired import compare
from onnxproof.files import versions_of, write_json
from onnxproof.records.evaluation import (
    ChangedInput,
    ClassQuality,
    EvaluatedOriginal,
    EvaluatedVariant,
    EvaluationRecord,
    read_evaluated_original,
    read_evaluated_variant,
)

#: How many of the inputs whose answers changed are shown.
MOST_CHANGED = 20


def shown_answer(kind: str, answer: Any, names: Sequence[str]) -> Any:
    """Return an answer as a reader knows it: the name of the likeliest label and its score, or the answer itself."""
    if kind == "classification":
        scores = np.asarray(answer["scores"])
        place = int(scores.argmax())
        return f"{names[place] if place < len(names) else place} {scores[place]:.3f}"
    if kind == "multi-label":
        return [name for name, score in zip(names, answer["scores"], strict=True) if score > THRESHOLD]
    if kind == "retrieval":
        return [name for name, _ in answer[:3]]
    if isinstance(answer, np.ndarray):
        return None
    return answer


def shown_label(kind: str, label: Any, names: Sequence[str]) -> Any:
    """Return a label as a reader knows it: its name, where it is a number."""
    if isinstance(label, np.ndarray):
        return None
    if kind == "classification" and label < len(names):
        return names[label]
    return [names[place] for place in label] if kind == "multi-label" else label


def sizes_of_change(kind: str, original: Sequence[Any], variant: Sequence[Any], scores: Any) -> Any:
    """Return how much each answer changed, (n,): of labels the largest difference of a score, else the score's."""
    if kind in ("classification", "multi-label"):
        pairs = zip(original, variant, strict=True)
        return np.array([np.abs(np.subtract(left["scores"], right["scores"])).max() for left, right in pairs])
    return np.zeros(len(original)) if scores is None else np.abs(scores[1] - scores[0])


def quality_of_classes(metric: Metric, labels: Sequence[Any], scores: Any, names: Sequence[str]) -> list[ClassQuality]:
    """Return the share of right answers for each label; empty for metrics that do not score an input 0 or 1."""
    if not metric.binary or "classification" not in metric.kinds or scores is None:
        return []
    of_label = np.asarray(labels)
    return [
        {
            "label": names[place] if place < len(names) else str(place),
            "inputs": int((of_label == place).sum()),
            "original": float(scores[0][of_label == place].mean()),
            "variant": float(scores[1][of_label == place].mean()),
        }
        for place in sorted(set(labels))
    ]


def score(
    original: EvaluatedOriginal,
    original_answers: Path,
    variant: EvaluatedVariant,
    variant_answers: Path,
    scores_file: Path,
) -> EvaluationRecord:
    """Compare the answers of a variant with the original's, write a line an input, and return the record.

    Raises:
        UserError: the answers are not to the same inputs, or the metric's library is missing.
    """
    rows, inputs, labels, before = read_answers(original_answers, "row", "input", "label", "answer")
    answered, after = read_answers(variant_answers, "row", "answer")
    if rows != answered:
        raise UserError(f"{variant_answers}: has {len(answered)} answers, and the original {len(rows)}; run again")
    metric, kind, names = METRICS[original["metric"]], original["kind"], original["labels"]
    try:
        compared = compare(metric, labels, before, after)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{variant['model']}: evaluation: the metric {metric.name} needs {error.name}, which "
            "`make setup-evaluation` installs"
        ) from None
    scores = compared.scores
    sizes = sizes_of_change(kind, before, after, scores)
    told = [
        {
            "label": shown_label(kind, label, names),
            "original": shown_answer(kind, left, names),
            "variant": shown_answer(kind, right, names),
            "score_change": float(scores[1][place] - scores[0][place]) if scores is not None else None,
        }
        for place, (label, left, right) in enumerate(zip(labels, before, after, strict=True))
    ]
    with AnswerFile(scores_file) as file:
        for place, row in enumerate(rows):
            own = {} if scores is None else {"score": scores[1][place], "original_score": scores[0][place]}
            file.write(row, **own, **{key: told[place][key] for key in ("label", "original", "variant")})
    changed = [place for place in range(len(rows)) if sizes[place] > 0]
    # An input that is right with one of the two alone comes first.
    changed.sort(key=lambda place: (-abs(told[place]["score_change"] or 0.0), -sizes[place]))
    most: list[ChangedInput] = [
        {"row": rows[place], "input": inputs[place], **told[place]}  # type: ignore[typeddict-item]
        for place in changed[:MOST_CHANGED]
    ]
    return {
        "model": variant["model"],
        "variant": variant["variant"],
        "model_sha256": variant["model_sha256"],
        "metric": metric.name,
        "title": metric.title,
        "higher_is_better": metric.higher_is_better,
        "library": metric.library,
        "data": original["data"],
        "original": compared.original,
        "value": compared.variant,
        "difference": compared.difference,
        "interval": [compared.low, compared.high],
        "method": compared.method,
        "changed": compared.changed,
        "affected": compared.affected,
        "gained": compared.gained,
        "lost": compared.lost,
        "most_changed": most,
        "classes": quality_of_classes(metric, labels, scores, names),
        "seconds": {"original": original["seconds"], "variant": variant["seconds"]},
        "versions": versions_of("numpy") | (versions_of(metric.library) if metric.library != "onnxproof" else {}),
    }


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--original", type=Path, required=True, help="the original's answers, .jsonl")
    parser.add_argument("--original-manifest", type=Path, required=True, help="their record")
    parser.add_argument("--variant", type=Path, required=True, help="the variant's answers, .jsonl")
    parser.add_argument("--variant-manifest", type=Path, required=True, help="their record")
    parser.add_argument("--scores", type=Path, required=True, help="file to write each input's scores to, .jsonl")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args(argv)
    record = score(
        read_evaluated_original(args.original_manifest),
        args.original,
        read_evaluated_variant(args.variant_manifest),
        args.variant,
        args.scores,
    )
    write_json(args.output, record)
    low, high = record["interval"]
    print(
        f"{record['model']} {record['variant']}: {record['metric']} {record['value']:.4g} against "
        f"{record['original']:.4g} of the original; difference {record['difference']:+.4g}, 95 % interval "
        f"{low:+.4g} to {high:+.4g}, {record['data']['inputs']} inputs",
        flush=True,
    )


if __name__ == "__main__":
    run_script(main)
