"""Drawn images and synthesized sounds."""

import numpy as np

from onnxproof.inputs.synthetic import IMAGE_SHAPES, draw_images, synthesize_sounds


def test_the_same_seed_draws_the_same_images():
    first, again, other = (draw_images(6, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(left, right) for left, right in zip(first, again, strict=True))
    assert not any(np.array_equal(left, right) for left, right in zip(first, other, strict=True))
    assert [image.shape for image in first] == [(*shape, 3) for shape in IMAGE_SHAPES * 2]
    assert all(image.dtype == np.uint8 for image in first)


def test_images_have_contrast_edges_and_colour():
    for image in draw_images(12, seed=3):
        assert image.std() > 10
        assert np.abs(np.diff(image.astype(int), axis=1)).max() > 40
        assert np.abs(image[..., 0].astype(int) - image[..., 2]).mean() > 5


def test_the_same_seed_synthesizes_the_same_sounds():
    first, again = (synthesize_sounds(4, 8000, 5) for _ in range(2))
    assert all(np.array_equal(left, right) for left, right in zip(first, again, strict=True))
    assert [len(sound) for sound in first] == [8000, 8000, 12800, 12800]
    for sound in first:
        assert sound.dtype == np.float32
        assert 0.5 < np.abs(sound).max() <= 1
        spectrum = np.abs(np.fft.rfft(sound))
        assert (spectrum > spectrum.max() / 100).mean() > 0.01  # more than one tone
