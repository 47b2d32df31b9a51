"""verify_release judges the answers of every task, by the gate's own functions."""

from types import SimpleNamespace

import numpy as np
import pytest

import verify_release
from onnxproof.config.resolve import resolve_models
from onnxproof.inputs.model_inputs import ModelInputs, Reference
from onnxproof.parity.gate import judge
from onnxproof.parity.measure import Sessions, measure_sessions, runs_of_inputs
from onnxproof.release.golden import read_golden, write_golden
from onnxproof.tasks.registry import TASKS
from records import make_gate, make_manifest, make_parity, make_reference, make_released_variant

INPUTS, TOKENS, LABELS, QUERIES = 6, 4, 3, 12
THRESHOLDS = resolve_models({"models": {"m": {"source": {"path": "."}}}})["m"]["parity"]["thresholds"]["fp32"]

#: Output → the shape of one input's answer, where that is the same for all tasks.
SHAPES = {
    "last_hidden_state": (TOKENS, 6),
    "sentence_embedding": (6,),
    "start_logits": (TOKENS,),
    "end_logits": (TOKENS,),
    "pred_boxes": (QUERIES, 4),
    "class_queries_logits": (QUERIES, LABELS + 1),
    "masks_queries_logits": (QUERIES, 3, 3),
    "pred_masks": (QUERIES, 3, 3),
    "predicted_depth": (3, 3),
    "reconstruction": (3, 4, 4),
    "logits_per_image": (LABELS,),
    "embeddings": (6,),
}
#: Tasks of images and sounds with more than one row of logits an input → their shape.
LOGITS = {
    "automatic-speech-recognition": (TOKENS, 5),
    "audio-frame-classification": (TOKENS, LABELS),
    "semantic-segmentation": (LABELS, 3, 3),
    "object-detection": (QUERIES, LABELS + 1),
    "zero-shot-object-detection": (QUERIES, LABELS),
}
#: What a model of one kind has instead of another's outputs.
OF_OTHER_MODELS = {"image-segmentation": ("logits", "pred_masks")}


def shape_of(task, name):
    if name == "logits":
        return (TOKENS, 5) if name in TASKS[task].per_token else LOGITS.get(task, (LABELS,))
    return SHAPES[name]


def recorded(task):
    """A reference with random answers; the first value of each input is its number."""
    random = np.random.default_rng(0)
    names = [name for name in TASKS[task].outputs if name not in OF_OTHER_MODELS.get(task, ())]
    takes = TASKS[task].takes[0]
    tokens = {"input_ids": (TOKENS,), "attention_mask": (TOKENS,)}
    shapes = {"text": tokens, "image+prompt": tokens | {"pixel_values": (2, 2)}}.get(takes, {"pixel_values": (2, 2)})
    items = [
        {
            name: np.full(
                shape, index if name != "attention_mask" else 1, np.int64 if shape == (TOKENS,) else np.float32
            )
            for name, shape in shapes.items()
        }
        for index in range(INPUTS)
    ]
    return Reference(
        manifest=make_reference(task, label_count=LABELS),
        inputs=ModelInputs(items),
        outputs={name: [random.random(shape_of(task, name)).astype(np.float32) for _ in items] for name in names},
    )


class Session:
    """Stands for onnxruntime's session of a graph that answers with given outputs."""

    def __init__(self, reference, outputs):
        self.names, self.outputs = list(reference.inputs.items[0]), outputs

    def get_inputs(self):
        return [SimpleNamespace(name=name, shape=["batch"]) for name in self.names]

    def get_outputs(self):
        return [SimpleNamespace(name=name) for name in self.outputs]

    def run(self, names, feed):
        numbers = feed[self.names[0]].reshape(len(feed[self.names[0]]), -1)[:, 0].astype(int)
        return [np.stack([self.outputs[name][number] for number in numbers]) for name in names]


@pytest.fixture
def check(tmp_path, monkeypatch):
    """A function that verifies a release of a task: what PyTorch and the graph answer is given."""

    def run(reference, outputs):
        write_golden(reference, tmp_path)
        golden = read_golden(tmp_path)
        exact = measure_sessions("m", Sessions(Session(reference, reference.outputs)), reference, 4)
        invariance = exact.batch_invariance
        parity = make_parity(outputs=exact.outputs, task_metrics=exact.task_metrics, batch_invariance=invariance)
        limits = {verdict.metric: verdict.allowed for verdict in judge(parity, THRESHOLDS)}
        facts = make_released_variant(gate=make_gate(limits))
        facts["parity"]["batch_invariance"] = invariance
        manifest = make_manifest({"fp32": facts}, task=reference.manifest["task"])
        sessions = Sessions(Session(reference, outputs))
        monkeypatch.setattr(verify_release, "open_sessions", lambda *arguments: sessions)
        return verify_release.check_answers(tmp_path, manifest, golden, 1)

    return run


def failed(checks):
    return {check.what for check in checks if check.verdict == "FAIL"}


#: What the answers of each task are judged by, beside the outputs' values and batches.
READ_BY_USERS = {"cosine_min", "mean_relative_diff"} | {
    f"{what}_agreement" for what in ("top1", "token", "span", "next_token", "detection", "pixel")
}


@pytest.mark.parametrize("task", TASKS)
def test_the_answers_of_every_task_are_judged(task, check):
    reference = recorded(task)
    good = check(reference, reference.outputs)
    assert {each.verdict for each in good} == {"pass"}
    assert READ_BY_USERS & {each.what for each in good}

    others = {name: [*arrays[1:], arrays[0]] for name, arrays in reference.outputs.items()}
    assert failed(check(reference, others)) & READ_BY_USERS


@pytest.mark.parametrize("task", TASKS)
def test_one_answer_that_is_not_finite_fails_every_task(task, check):
    reference = recorded(task)
    broken = {name: [array.copy() for array in arrays] for name, arrays in reference.outputs.items()}
    for arrays in broken.values():
        arrays[1].flat[0] = np.nan
    checks = check(reference, broken)
    assert failed(checks) & READ_BY_USERS
    assert any("not finite" in each.seen for each in checks)


def test_a_release_without_a_limit_that_applies_fails(tmp_path, monkeypatch):
    reference = recorded("sentence-similarity")
    write_golden(reference, tmp_path)
    facts = {"file": "f", "gate": {"limits": [{"metric": "rank_overlap", "allowed": 0.9}]}}
    facts["parity"] = {"batch_invariance": {"batch_size": 4}}
    manifest = {"model": "m", "task": "sentence-similarity", "variants": {"fp32": facts}}
    sessions = Sessions(Session(reference, reference.outputs))
    monkeypatch.setattr(verify_release, "open_sessions", lambda *arguments: sessions)
    (check,) = verify_release.check_answers(tmp_path, manifest, read_golden(tmp_path), 1)
    assert check.verdict == "FAIL"
    assert "prove nothing" in check.seen


def test_a_metric_that_a_few_inputs_do_not_tell_is_skipped():
    check = verify_release.check_of("f", "rank_overlap", None)
    assert check.verdict == "skipped"


@pytest.mark.parametrize("is_merged", [False, True])
def test_every_run_of_an_input_is_told(is_merged):
    reference = recorded("text-classification")
    session = Session(reference, reference.outputs)
    sessions = Sessions(session, session if is_merged else None)
    told = []
    measure_sessions("m", sessions, reference, 4, told.append)
    assert sum(told) == INPUTS * runs_of_inputs(sessions)
    assert set(told) == {1, 4, INPUTS % 4} - {0}
