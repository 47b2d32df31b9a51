import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from messages import raises
from onnxproof.quantization.weights import pair_sums, quantize_columns


def test_full_range_integers():
    weight = np.array([[1.27, 0], [-0.635, 0], [0.01, 0]], dtype=np.float32)

    integers, scale = quantize_columns(weight, "full")

    np.testing.assert_array_equal(integers, [[127, 0], [-64, 0], [1, 0]])
    np.testing.assert_allclose(scale, [0.01, 1], rtol=1e-6)


def test_reduced_range_holds_seven_bits():
    integers, scale = quantize_columns(np.array([[6.3], [-6.3]], dtype=np.float32), "reduced")

    np.testing.assert_array_equal(integers, [[63], [-63]])
    np.testing.assert_allclose(scale, [0.1], rtol=1e-6)


def test_pair_safe_widens_the_step_only_where_a_pair_needs_it():
    weight = np.array([[1.27, 1.27, 1.27], [1.27, -1.27, 0], [0, 0, 1.27]], dtype=np.float32)

    integers, scale = quantize_columns(weight, "pair_safe")

    np.testing.assert_array_equal(integers, [[64, 127, 127], [64, -127, 0], [0, 0, 127]])
    np.testing.assert_allclose(scale, [0.02, 0.01, 0.01], rtol=1e-6)


def test_columns_of_subnormal_weights_become_zero():
    weight = np.array([[1.359e-42, 1], [1.359e-42, 0]], dtype=np.float32)

    integers, scale = quantize_columns(weight, "pair_safe")

    np.testing.assert_array_equal(integers, [[0, 127], [0, 0]])
    np.testing.assert_allclose(scale, [np.finfo(np.float32).tiny, 1 / 127], rtol=1e-6)


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(-9, 9, width=32)))
def test_pair_safe_never_overflows_sixteen_bits_and_errs_by_half_a_step(weight):
    integers, scale = quantize_columns(weight, "pair_safe")
    positive, negative = pair_sums(integers)

    assert 255 * positive.max() <= 32767
    assert 255 * negative.min() >= -32768
    error = np.abs(integers * scale.astype(np.float64) - weight)
    assert (error <= scale * 0.5 * (1 + 1e-5) + 1e-30).all()


def test_an_unknown_range_is_refused():
    with raises(ValueError):
        quantize_columns(np.ones((2, 2), dtype=np.float32), "wide")


def test_an_odd_row_counts_alone():
    weight = np.array([[1, -2], [3, 4], [-5, 6]], dtype=np.int8)

    positive, negative = pair_sums(weight)

    np.testing.assert_array_equal(positive, [[4, 4], [0, 6]])
    np.testing.assert_array_equal(negative, [[0, -2], [-5, 0]])
    np.testing.assert_array_equal(weight, [[1, -2], [3, 4], [-5, 6]])
