"""What one search hands on to another: found again for the same model and parameters, and for no other."""

import numpy as np
import onnx
import pytest

from graphs import attention_model, linear_model
from messages import raises
from onnxproof.cli import UserError
from onnxproof.quantization.activations import Calibration, findings_of
from onnxproof.quantization.findings import Findings, key_of, read_findings, write_findings
from onnxproof.quantization.passes.dynamic_matmul import quantize_dynamic_matmul, read_rounded_weights
from onnxproof.quantization.passes.outlier_channels import keep_outlier_channels
from onnxproof.quantization.passes.per_token import quantize_per_token
from onnxproof.quantization.passes.smooth import smooth_activations

WIDTH = 12


def linear(seed=0):
    return linear_model(np.random.default_rng(seed).normal(size=(WIDTH, 7)).astype(np.float32))


def inputs(findings=None):
    """Rows with one channel that is much larger than the others."""
    values = np.random.default_rng(1).normal(size=(40, WIDTH)).astype(np.float32)
    values[:, 3] *= 50
    return Calibration([{"x": row[np.newaxis]} for row in values], findings)


class NeverRun(Calibration):
    """Calibration inputs that no model may be run on."""

    def __iter__(self):
        raise AssertionError("a model is run")


def serialized(model):
    return model.SerializeToString(deterministic=True)


PASSES = [
    (smooth_activations, {}),
    (smooth_activations, {"fixed_scales": True}),
    (smooth_activations, {"strength": 0.5}),
    (keep_outlier_channels, {"most": 1}),
    (keep_outlier_channels, {"ratio": 1e9}),
    (quantize_dynamic_matmul, {"rounding": "compensated"}),
]


@pytest.mark.parametrize(("run_pass", "parameters"), PASSES)
def test_a_pass_that_knows_what_it_would_choose_runs_no_model_and_does_the_same(tmp_path, run_pass, parameters):
    first, calibration = linear(), inputs()
    run_pass(first, calibration, **parameters)
    file = tmp_path / "model.onnx"
    onnx.save(first, file)
    found = calibration.findings
    write_findings(tmp_path / "found", "origin", found.choices, {file: found.found_in(read_rounded_weights(first))})
    for findings in (found, read_findings(tmp_path / "found", tmp_path, "origin", read_rounded_weights)):
        second = linear()
        run_pass(second, NeverRun(inputs(), findings), **parameters)
        assert serialized(second) == serialized(first)


@pytest.mark.parametrize(("run_pass", "parameters"), PASSES)
def test_nothing_is_known_of_another_model_and_by_other_parameters(run_pass, parameters):
    calibration = inputs()
    run_pass(linear(), calibration, **parameters)
    with pytest.raises(AssertionError, match="a model is run"):
        run_pass(linear(seed=5), NeverRun(inputs(), calibration.findings), **parameters)
    other = {
        smooth_activations: {"weight_range": "full"},
        keep_outlier_channels: {"ratio": 2.0},
        quantize_dynamic_matmul: {"rounding": "compensated", "weight_range": "full"},
    }
    with pytest.raises(AssertionError, match="a model is run"):
        run_pass(linear(), NeverRun(inputs(), calibration.findings), **other[run_pass])


def attention():
    rng = np.random.default_rng(2)
    weight, bias = rng.normal(size=(8, 24)).astype(np.float32), rng.normal(size=24).astype(np.float32)
    feeds = {"x": rng.normal(size=(1, 5, 8)).astype(np.float32), "mask_index": np.ones((1, 5), dtype=np.int32)}
    return attention_model(rng, weight=weight, bias=bias), [feeds]


@pytest.mark.parametrize("quantizing", [quantize_dynamic_matmul, quantize_per_token])
def test_rounded_weights_serve_both_kinds_of_products(quantizing):
    model, feeds = attention()
    first, calibration = attention()[0], Calibration(feeds)
    quantize_dynamic_matmul(first, calibration, rounding="compensated")
    known = read_rounded_weights(first)
    assert calibration.findings.found_in(known) == {key_of(model, weight_range="pair_safe"): list(known)}
    alone, helped = attention()[0], attention()[0]
    quantizing(alone, Calibration(feeds), rounding="compensated")
    quantizing(helped, Calibration(feeds, calibration.findings), rounding="compensated")
    assert serialized(helped) == serialized(alone)


def write_some(folder):
    """A quantized model and what was found out on the way to it."""
    model, calibration = linear(), inputs()
    quantize_dynamic_matmul(model, calibration, rounding="compensated")
    file, found = folder / "model.onnx", calibration.findings
    onnx.save(model, file)
    write_findings(folder / "found", "origin", found.choices, {file: found.found_in(read_rounded_weights(model))})
    return key_of(linear(), weight_range="pair_safe")


def test_the_same_findings_are_the_same_bytes(tmp_path):
    contents = set()
    for number in range(8):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_some(folder)
        contents.add((folder / "found").read_bytes())
    assert len(contents) == 1


def test_weights_are_read_of_the_very_file_that_was_written(tmp_path):
    key = write_some(tmp_path)
    assert read_findings(tmp_path / "found", tmp_path, "origin", read_rounded_weights).rounded(key)
    assert not read_findings(tmp_path / "found", tmp_path, "another", read_rounded_weights).rounded(key)
    onnx.save(linear(), tmp_path / "model.onnx")
    assert not read_findings(tmp_path / "found", tmp_path, "origin", read_rounded_weights).rounded(key)
    (tmp_path / "model.onnx").unlink()
    assert not read_findings(tmp_path / "found", tmp_path, "origin", read_rounded_weights).rounded(key)


def test_weights_that_were_not_rounded_with_compensation_are_not_handed_on():
    model, calibration = linear(), inputs()
    quantize_dynamic_matmul(linear(), calibration, rounding="compensated")
    quantize_dynamic_matmul(model, rounding="nearest")
    assert calibration.findings.found_in(read_rounded_weights(model)) == {}


def test_weights_that_take_too_much_memory_are_rounded_anew(monkeypatch):
    monkeypatch.setattr("onnxproof.quantization.findings.REMEMBERED_BYTES", 10)
    calibration = inputs()
    quantize_dynamic_matmul(linear(), calibration, rounding="compensated")
    assert calibration.findings.rounded(key_of(linear(), weight_range="pair_safe")) == {}


def test_nothing_is_known_of_plain_inputs():
    assert findings_of([{"x": np.ones(3)}]).choices == Findings().choices == {}


@pytest.mark.parametrize("damage", ["cut", "other", "absent"])
def test_a_file_that_is_none_is_an_error(tmp_path, damage):
    write_some(tmp_path)
    path = tmp_path / "found"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "other":
        path.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    else:
        path.unlink()
    with raises(UserError):
        read_findings(path, tmp_path, "origin", read_rounded_weights)
