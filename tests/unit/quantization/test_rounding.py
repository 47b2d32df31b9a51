import numpy as np
import pytest

from graphs import constants_of, linear_model
from messages import raises
from onnxproof.graph.editor import GraphEditor
from onnxproof.quantization.passes.dynamic_matmul import quantize_dynamic_matmul
from onnxproof.quantization.rounding import (
    DAMPING,
    compensating,
    quantize_weights,
    record_correlations,
    round_columns,
    spread_of_errors,
)
from onnxproof.quantization.targets import find_targets
from onnxproof.quantization.weights import PAIR_MAX, WEIGHT_RANGES, pair_sums, quantize_columns


def correlated_rows(rows=400, inputs=130, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, 20)) @ rng.normal(size=(20, inputs))).astype(np.float32)


def random_weight(inputs=130, outputs=30, seed=1):
    return np.random.default_rng(seed).normal(size=(inputs, outputs)).astype(np.float32)


def product_error(x, weight, quantized):
    integers, scale = quantized
    return np.square(x @ (integers * scale) - x @ weight).mean()


@pytest.mark.parametrize("weight_range", WEIGHT_RANGES)
def test_the_product_is_much_closer_than_by_rounding_to_the_nearest(weight_range):
    x, weight = correlated_rows(), random_weight()
    spread = spread_of_errors(x.T.astype(np.float64) @ x / len(x))

    compensated = round_columns(weight, weight_range, spread)
    nearest = quantize_columns(weight, weight_range)

    np.testing.assert_array_equal(compensated[1], nearest[1])
    assert product_error(x, weight, compensated) < product_error(x, weight, nearest) / 5


def test_pairs_stay_safe_whatever_is_made_up_for():
    x = correlated_rows(inputs=131)
    weight = random_weight(inputs=131)
    integers, _ = round_columns(weight, "pair_safe", spread_of_errors(x.T.astype(np.float64) @ x / len(x)))
    positive, negative = pair_sums(integers)
    assert max(positive.max(), -negative.min()) <= PAIR_MAX


def test_inputs_that_do_not_correlate_are_rounded_to_the_nearest():
    weight = random_weight()
    integers, _ = round_columns(weight, "full", spread_of_errors(np.eye(len(weight))))
    np.testing.assert_array_equal(integers, quantize_columns(weight, "full")[0])


def test_each_row_makes_up_for_the_errors_of_all_rows_before_it():
    x, weight = correlated_rows(), random_weight().astype(np.float64)
    spread = spread_of_errors(x.T.astype(np.float64) @ x / len(x))
    one_by_one, in_blocks = weight.copy(), weight.copy()
    for row in range(len(weight)):
        one_by_one[row] -= np.rint(one_by_one[row])
        one_by_one[row + 1 :] -= np.outer(spread[row, row + 1 :] / spread[row, row], one_by_one[row])
    for start, stop in ((0, 1), (1, 64), (64, 130)):
        for row in compensating(in_blocks, spread, slice(start, stop)):
            in_blocks[row] -= np.rint(in_blocks[row])
    np.testing.assert_allclose(in_blocks, one_by_one, rtol=0, atol=1e-9)
    assert np.abs(one_by_one).max() <= 0.5


@pytest.mark.parametrize("size", [1, 63, 64, 65, 130, 259])
def test_the_spread_is_the_factor_of_the_inverse(size):
    x = np.random.default_rng(size).normal(size=(2 * size, size))
    correlations = x.T @ x / len(x)
    spread = spread_of_errors(correlations)
    damped = correlations + DAMPING * np.diag(correlations).mean() * np.eye(size)
    np.testing.assert_allclose(spread, np.linalg.cholesky(np.linalg.inv(damped)).T, rtol=1e-9, atol=1e-9)
    assert (np.tril(spread, -1) == 0).all()


def test_channels_that_are_always_zero_do_no_harm():
    integers, scale = round_columns(random_weight(), "full", spread_of_errors(np.zeros((130, 130))))
    assert np.isfinite(scale).all()
    assert np.abs(integers).max() == 127


@pytest.mark.parametrize("tokens_per_sum", [1, 101, 1000])
def test_correlations_are_means_over_all_tokens(monkeypatch, tokens_per_sum):
    monkeypatch.setattr("onnxproof.quantization.rounding.TOKENS_PER_SUM", tokens_per_sum)
    x = correlated_rows()
    model = linear_model(random_weight())
    [(tensor, correlations)] = record_correlations(model, [{"x": x[:100]}, {"x": x[100:]}], {"x": 130})
    assert tensor == "x"
    np.testing.assert_allclose(correlations, x.T.astype(np.float64) @ x / len(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("at_once", "in_files", "files", "runs"),
    [(1 << 24, 0, 0, 1), (1, 1 << 28, 9, 1), (1, 2 * 400 * 130, 9, 2), (1, 1 << 28, 1, 2)],
)
def test_the_model_is_run_once_for_what_memory_and_files_can_hold(monkeypatch, at_once, in_files, files, runs):
    monkeypatch.setattr("onnxproof.quantization.rounding.VALUES_PER_RUN", at_once)
    monkeypatch.setattr("onnxproof.quantization.rounding.VALUES_IN_FILES", in_files)
    monkeypatch.setattr("onnxproof.quantization.rounding.MOST_FILES", files)
    opened = []

    class Session:
        """Gives each tensor as it is fed."""

        def __init__(self, model, tensors):
            opened.append(list(tensors))

        def run(self, names, feed):
            return [feed[name] for name in names]

    monkeypatch.setattr("onnxproof.quantization.rounding.open_exposing", Session)
    tensors = {name: correlated_rows(seed=seed) for seed, name in enumerate("abcd")}
    calibration = [{name: x[part] for name, x in tensors.items()} for part in (slice(100), slice(100, 400))]
    found = list(record_correlations(linear_model(random_weight()), calibration, dict.fromkeys(tensors, 130)))
    assert [name for name, _ in found] == list(tensors)
    for name, correlations in found:
        x = tensors[name].astype(np.float64)
        np.testing.assert_array_equal(correlations, x.T @ x / len(x))
    assert len(opened) == runs, opened


def test_the_pass_stores_the_compensated_integers():
    x, weight = correlated_rows(), random_weight()
    model = linear_model(weight)
    [target] = find_targets(GraphEditor(model))
    expected = quantize_weights(model, [target], [{"x": x}], weight_range="pair_safe", rounding="compensated")

    quantize_dynamic_matmul(model, [{"x": x}], rounding="compensated")

    np.testing.assert_array_equal(constants_of(model)["w_int8"], expected["linear"][0])


def test_what_cannot_be_is_an_error():
    model = linear_model(random_weight())
    with raises(ValueError):
        quantize_dynamic_matmul(model, rounding="up")
    with raises(ValueError):
        quantize_dynamic_matmul(model, rounding="compensated")
