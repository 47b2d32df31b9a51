"""The gate: what passes, what does not, and that it cannot pass by proving nothing."""

import json

import pytest

import gate_parity
from messages import raises
from onnxproof.cli import UserError
from onnxproof.parity.gate import judge, limits_of_few
from onnxproof.vocabulary import METRICS
from records import make_output, make_parity, make_quantization, make_variant

PARITY = make_parity(
    "int8",
    model="mini",
    task="sentence-similarity",
    outputs={"sentence_embedding": make_output(max_abs_diff=0.01), "last_hidden_state": make_output(max_abs_diff=0.5)},
    task_metrics={"cosine_min": 0.98, "cosine_mean": 0.995, "rank_overlap": 0.9},
    batch_invariance={"batch_size": 8, "max_abs_diff": 0.02, "cosine_min": 0.96},
)


@pytest.mark.parametrize(
    ("metric", "allowed", "passes"),
    [
        ("cosine_min", 0.98, True),
        ("cosine_min", 0.981, False),
        ("max_abs_diff", 0.5, True),
        ("max_abs_diff", 0.49, False),
        ("batch_cosine_min", 0.96, True),
        ("batch_cosine_min", 0.97, False),
        ("batch_max_abs_diff", 0.01, False),
    ],
)
def test_each_bound_has_its_direction(metric, allowed, passes):
    (verdict,) = judge(PARITY, {metric: allowed})
    assert verdict.passed is passes


def with_own(own, measured, cosine):
    """Return what int8-static of a MobileBERT measures, where a batch changes PyTorch's own answers as told."""
    return PARITY | {
        "outputs": {"last_hidden_state": make_output(cosine_min=cosine)},
        "batch_invariance": {"batch_size": 4, "max_abs_diff": 0.18, "cosine_min": measured},
        "reference_batch_invariance": {"batch_size": 4, "inputs": 24, "max_abs_diff": 0.18, "cosine_min": own},
    }


@pytest.mark.parametrize(
    ("own", "measured", "cosine", "passes"),
    [
        (1.0, 0.99999, 0.9978, True),
        (1.0, 0.99998, 0.9978, False),  # PyTorch's answers are the same, and so are a variant's errors
        (0.99999, 0.999971, 0.5, True),
        (0.99999, 0.999969, 0.5, False),  # whatever its errors: they move its answers no further apart than PyTorch's
        (0.9972, 0.9966, 0.9978, True),
        (0.9972, 0.9972 - 0.00001 - 0.0028 - 1e-6, 0.9978, False),
        (0.9972, 0.9972 - 0.00001 - 2 * 0.001 + 1e-6, 0.999, True),
        (0.9972, 0.9972 - 0.00001 - 2 * 0.001 - 1e-6, 0.999, False),
        (0.9972, 0.9966, 1.0, False),
        (0.9972, 0.9971, None, False),
    ],
)
def test_a_variant_adds_its_errors_where_a_batch_changes_pytorch_s_answers(own, measured, cosine, passes):
    (verdict,) = judge(with_own(own, measured, cosine), {"batch_cosine_min": 0.99999})
    assert verdict.passed is passes


def test_what_could_not_be_measured_does_not_pass():
    parity = PARITY | {"task_metrics": {"cosine_min": None}}
    (verdict,) = judge(parity, {"cosine_min": -1.0})
    assert not verdict.passed
    assert "not finite" in str(verdict)
    outputs = {"a": make_output(max_abs_diff=0.1), "b": make_output(max_abs_diff=None)}
    (verdict,) = judge(PARITY | {"outputs": outputs}, {"max_abs_diff": 100.0})
    assert not verdict.passed


def test_thresholds_of_other_tasks_and_switched_off_ones_are_left_out():
    verdicts = judge(PARITY, {"cosine_min": 0.9, "top1_agreement": 1.0, "cosine_mean": None})
    assert [verdict.metric for verdict in verdicts] == ["cosine_min"]


def test_a_gate_without_an_applicable_threshold_is_an_error():
    with raises(UserError):
        judge(PARITY, {"top1_agreement": 0.9})


def test_a_missed_threshold_names_everything_and_writes_nothing(tmp_path):
    parity = tmp_path / "int8.json"
    parity.write_text(json.dumps(PARITY))
    passed = tmp_path / "int8.ok"
    with raises(UserError):
        gate_parity.main(["--parity", str(parity), "--thresholds", '{"cosine_mean": 0.999}', "--output", str(passed)])
    assert not passed.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["int8.json"]
    gate_parity.main(["--parity", str(parity), "--thresholds", '{"cosine_mean": 0.99}', "--output", str(passed)])
    assert "cosine_mean" in passed.read_text()


def test_the_recipes_tried_are_told_for_each_graph_of_a_model(tmp_path):
    def searched(metric):
        (rung,) = make_quantization()["search"]["rungs"]
        missed = rung | {"metrics": {metric: 0.5}, "missed": [metric], "distance": 5.0}
        return make_quantization(search={"targets": {metric: 0.9}, "reached": False, "rungs": [missed]})

    parity, manifest = tmp_path / "parity.json", tmp_path / "int8.json"
    parity.write_text(json.dumps(PARITY))
    graphs = {"encoder_model.onnx": searched("cosine_min"), "decoder_model.onnx": searched("next_token_agreement")}
    manifest.write_text(json.dumps(make_variant("int8", settings={"graphs": graphs})))
    with pytest.raises(UserError) as raised:
        gate_parity.gate(parity, {"cosine_mean": 0.999}, tmp_path / "int8.ok", manifest=manifest)
    lines = str(raised.value).splitlines()[-4:]
    assert lines[0] == "Recipes tried for encoder_model.onnx, on the calibration inputs:"
    assert lines[1].startswith("  1. embedding_rows + dynamic_matmul: cosine_min 0.50000")
    assert lines[2] == "Recipes tried for decoder_model.onnx, on the calibration inputs:"
    assert "misses next_token_agreement" in lines[3]


def test_a_few_inputs_are_held_to_whole_inputs_where_a_share_of_all_is_limited():
    limits = {"top1_agreement": 0.99, "cosine_min": 0.99, "rank_overlap": 0.9}
    assert limits_of_few(limits, 32) == {"top1_agreement": 31 / 32, "cosine_min": 0.99}
    assert limits_of_few({"top1_agreement": 1.0}, 32) == {"top1_agreement": 1.0}
    shares = {name for name, metric in METRICS.items() if metric.of_few == "whole inputs"}
    assert all(METRICS[name].bound == "at least" for name in shares)
