"""What verify_release says of two models' answers is what the gate says: its own code, held against the gate's."""

import numpy as np
import pytest

import verify_release
from onnxproof.tasks.answers import measure_answers, read_answers

LABELS = 4


def questions(rng, tokens=12):
    return {name: rng.normal(size=tokens).astype(np.float32) for name in ("start_logits", "end_logits")}


def detections(rng, labels, queries=30):
    boxes = rng.uniform(0.2, 0.6, size=(queries, 4))
    return {"logits": rng.normal(size=(queries, labels)).astype(np.float32), "pred_boxes": boxes.astype(np.float32)}


def shaken(outputs, rng, scale):
    return {
        name: values + rng.normal(scale=scale, size=values.shape).astype(np.float32) for name, values in outputs.items()
    }


@pytest.mark.parametrize(
    ("task", "make"),
    [
        ("question-answering", questions),
        ("object-detection", lambda rng: detections(rng, LABELS)),
        ("object-detection", lambda rng: detections(rng, LABELS + 1)),
        ("zero-shot-object-detection", lambda rng: detections(rng, 8)),
    ],
)
def test_agreement_is_the_gates(task, make):
    rng = np.random.default_rng(0)
    expected = [make(rng) for _ in range(20)]
    actual = [shaken(outputs, rng, 0.5 if task == "question-answering" else 0.05) for outputs in expected]
    metric, agreement = verify_release.PAIRED[task]
    found = np.mean([agreement(left, right, LABELS) for left, right in zip(expected, actual, strict=True)])

    columns = [{name: [item[name] for item in items] for name in items[0]} for items in (expected, actual)]
    gate = measure_answers(task, *(read_answers(task, outputs, LABELS) for outputs in columns))[metric]
    assert found == pytest.approx(gate)
    assert 0.1 < found < 0.95
    assert np.mean([agreement(item, item, LABELS) for item in expected]) == 1


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("audio-frame-classification", "logits"),
        ("automatic-speech-recognition", "logits"),
        ("text-recognition", "last_hidden_state"),
        ("token-classification", "logits"),
    ],
)
def test_agreement_of_places_is_the_gates(task, name):
    rng = np.random.default_rng(0)
    expected = rng.random(size=(5, 30, LABELS)).astype(np.float32)
    actual = np.clip(expected + rng.normal(scale=0.1, size=expected.shape), 1e-6, None).astype(np.float32)
    read, output, compare = verify_release.TASKS[task]
    assert output == name
    rows = [np.concatenate([read({name: item}, name) for item in items]) for items in (expected, actual)]
    found = compare(*rows)

    columns = [{name: list(items)} for items in (expected, actual)]
    gate = measure_answers(task, *(read_answers(task, outputs, LABELS) for outputs in columns))
    assert 0.5 < found["token_agreement"] < 0.95
    for metric in ("token_agreement", "mean_kl"):
        assert found[metric] == pytest.approx(gate[metric])
