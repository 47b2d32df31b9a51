"""Weights by blocks: what is stored is what onnxruntime multiplies with, and the searched scales earn their keep."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from graphs import FLOAT, build, run
from messages import raises
from onnxproof.quantization.blocks import BlockFormat, product_error, quantize_to_blocks

FORMATS = [
    BlockFormat(bits, size, zero_points) for bits in (4, 8) for size in (16, 32) for zero_points in (False, True)
]


def multiplied(x, weight):
    """Return ``x @ weight`` as onnxruntime computes it from the packed blocks."""
    integers, scales, zero_points = weight.packed()
    constants = {"w": integers, "s": scales} | ({} if zero_points is None else {"z": zero_points})
    inputs, outputs = weight.integers.shape
    node = helper.make_node(
        "MatMulNBits",
        ["x", *constants],
        ["y"],
        domain="com.microsoft",
        K=inputs,
        N=outputs,
        bits=weight.format.bits,
        block_size=weight.format.size,
    )
    spec = (FLOAT, ["rows", None])
    return run(build([node], {"x": spec}, {"y": spec}, constants), {"x": x})[0]


def correlated(rng, rows, width):
    """Return activations whose channels correlate, and their mean products."""
    x = (rng.normal(size=(rows, width)) @ (rng.normal(size=(width, width)) / 4 + np.eye(width))).astype(np.float32)
    return x, x.astype(np.float64).T @ x / rows


@pytest.mark.parametrize("width", [64, 40, 7])
@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_onnxruntime_multiplies_with_the_weights_that_the_integers_stand_for(format, width):
    rng = np.random.default_rng(width)
    x = rng.normal(size=(5, width)).astype(np.float32)
    weight = quantize_to_blocks(rng.normal(size=(width, 6)).astype(np.float32), format)
    np.testing.assert_allclose(multiplied(x, weight), x @ weight.dequantized(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_no_weight_is_further_off_than_the_plain_way_would_put_it(format):
    """The plain way: one scale that fits the block's range, and the nearest step."""
    rng = np.random.default_rng(3)
    values = rng.standard_t(3, size=(64, 30)).astype(np.float32)
    blocks = values.reshape(-1, format.size, 30)
    if format.zero_points:
        low, high = np.minimum(blocks.min(axis=1), 0), np.maximum(blocks.max(axis=1), 0)
        scale = ((high - low) / format.highest)[:, None]
        zero = np.rint(-low[:, None] / scale)
    else:
        scale = (np.abs(blocks).max(axis=1) / (format.middle - 1))[:, None]
        zero = np.full_like(scale, format.middle)
    plain = ((np.clip(np.rint(blocks / scale) + zero, 0, format.highest) - zero) * scale).reshape(values.shape)
    searched = quantize_to_blocks(values, format).dequantized()
    errors = [((way - values) ** 2).reshape(-1, format.size, 30).sum(axis=1) for way in (searched, plain)]
    assert (errors[0] <= errors[1] * (1 + 1e-5)).all()
    assert errors[0].sum() < (0.97 if format.bits == 4 else 1) * errors[1].sum()


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_compensation_halves_the_error_of_a_product_of_correlated_activations(format):
    rng = np.random.default_rng(5)
    _, correlations = correlated(rng, 500, 64)
    weight = rng.normal(size=(64, 20)).astype(np.float32)
    nearest = product_error(weight, quantize_to_blocks(weight, format), correlations)
    compensated = product_error(weight, quantize_to_blocks(weight, format, correlations, compensate=True), correlations)
    assert compensated < 0.75 * nearest


def test_compensation_is_left_where_the_nearest_steps_are_better():
    """One token seen in one direction tells nothing of the others; the choice is by the error of the product."""
    rng = np.random.default_rng(6)
    weight = rng.normal(size=(32, 4)).astype(np.float32)
    for correlations in (np.eye(32), np.ones((32, 32)), np.zeros((32, 32))):
        kept = quantize_to_blocks(weight, FORMATS[0], correlations, compensate=True)
        nearest = quantize_to_blocks(weight, FORMATS[0], correlations)
        assert product_error(weight, kept, correlations) <= product_error(weight, nearest, correlations)


@given(st.floats(-38, 37), st.sampled_from(FORMATS), st.integers(0, 2**16))
def test_any_magnitude_gives_finite_weights_of_about_the_same_size(exponent, format, seed):
    values = (np.random.default_rng(seed).normal(size=(20, 3)) * 10.0**exponent).astype(np.float32)
    values[:, 0] = 0
    quantized = quantize_to_blocks(values, format).dequantized()
    assert np.isfinite(quantized).all()
    largest = np.abs(values).max()
    assert np.abs(quantized - values).max() <= largest / (format.middle - 1) + 1e-38
    assert (quantized[:, 0] == 0).all()


def test_formats_that_have_no_kernel_are_refused():
    with raises(ValueError):
        BlockFormat(3, 32)
    with raises(ValueError):
        BlockFormat(4, 48)
