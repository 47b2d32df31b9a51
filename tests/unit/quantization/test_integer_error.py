import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from onnxproof.quantization.integer_error import ExactProduct, choose_zero_point, integer_product_error, round_rows
from onnxproof.quantization.weights import quantize_columns

ROWS = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-100, 100, width=16))


def test_rows_use_the_whole_range_of_their_own():
    rows = np.array([[12.7, -6.35, 0.1], [0.0127, 0, 0], [0, 0, 0]], dtype=np.float32)

    rounded = round_rows(rows, 128)

    np.testing.assert_allclose(rounded, [[12.7, -6.4, 0.1], [0.0127, 0, 0], [0, 0, 0]], rtol=1e-5)


@given(ROWS, st.sampled_from([8, 64, 128, 200]))
def test_no_value_is_clipped(rows, zero_point):
    above = 255 - zero_point
    step = np.maximum(rows.max(axis=1), -rows.min(axis=1) * above / zero_point).clip(0) / above

    error = np.abs(round_rows(rows, zero_point) - rows)

    assert (error <= step[:, None] * (0.5 + 1e-4) + 1e-6).all()


@pytest.mark.parametrize(
    ("rows", "zero_point"),
    [([[-1, 1], [2, -2]], 128), ([[0, 5], [7, 1]], 8), ([[-9, 0], [-3, -1]], 247), ([[1, -0.5], [2, -1]], 88)],
)
def test_the_zero_point_follows_the_sign_of_the_rows(rows, zero_point):
    assert choose_zero_point(np.array(rows, dtype=np.float32)) == zero_point


def test_smoothing_an_outlier_channel_lowers_the_error():
    rng = np.random.default_rng(0)
    rows, weight = rng.normal(size=(64, 32)).astype(np.float32), rng.normal(size=(32, 16)).astype(np.float32)
    rows[:, 3] *= 100
    scales = np.ones(32, dtype=np.float32)
    plain = integer_product_error(rows, weight, scales, "full")
    scales[3] = 10
    assert integer_product_error(rows, weight, scales, "full") < plain / 3


def test_nothing_to_lose_is_no_error():
    zeros = np.zeros((2, 2), dtype=np.float32)
    assert integer_product_error(zeros, zeros, np.ones(2, dtype=np.float32), "full") == 0


def test_the_error_is_that_of_the_integers_and_leaves_its_arguments_as_they_are():
    rng = np.random.default_rng(1)
    rows, weight = rng.normal(size=(20, 6)).astype(np.float32), rng.normal(size=(6, 5)).astype(np.float32)
    scales = np.array([1, 2, 0.5, 1.25, 1, 4], dtype=np.float32)
    before = [values.copy() for values in (rows, weight, scales)]
    exact = ExactProduct(rows, weight)

    measured = [integer_product_error(rows, weight, scales, "pair_safe", exact) for _ in range(2)]

    integers, steps = quantize_columns(weight * scales[:, None], "pair_safe")
    smoothed = rows / scales
    product = round_rows(smoothed, choose_zero_point(smoothed)) @ integers.astype(np.float32) * steps
    expected = float(np.square(product - rows @ weight).sum()) / float(np.square(rows @ weight).sum())
    assert measured == [expected, expected]
    for now, then in zip((rows, weight, scales), before, strict=True):
        np.testing.assert_array_equal(now, then)
    np.testing.assert_array_equal(exact.values, rows @ weight)
