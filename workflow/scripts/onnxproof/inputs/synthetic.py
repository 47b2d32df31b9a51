"""Images and sounds made on the spot, the same for the same seed: no files, and no one's rights.

They need not look like photographs: a model is compared with itself, on edges, textures, gradients and colours, or on
tones, chirps, clicks and noise, that make its layers work over their whole range.
"""

import numpy as np
from numpy.typing import NDArray

#: Height and width of the drawn images, by turns: landscape, square, portrait.
IMAGE_SHAPES = ((240, 320), (256, 256), (320, 240))
#: Seconds of the synthesized sounds, by turns.
SOUND_SECONDS = (1.0, 1.0, 1.6, 1.6)


def draw_images(count: int, seed: int, shapes: tuple[tuple[int, int], ...] = IMAGE_SHAPES) -> list[NDArray[np.uint8]]:
    """Return ``count`` images, uint8 (height, width, 3), of the given shapes by turns."""
    generator = np.random.default_rng(seed)
    return [_draw_image(generator, *shapes[number % len(shapes)]) for number in range(count)]


def _draw_image(generator: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Draw a background, one to six shapes and a little noise."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    corners = generator.uniform(0, 255, (3, 3))
    image = corners[0] + (x[..., None] * (corners[1] - corners[0])) + (y[..., None] * (corners[2] - corners[0]))
    if generator.random() < 0.5:
        angle, period = generator.uniform(0, np.pi), generator.uniform(0.02, 0.2)
        stripes = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
        image += stripes[..., None] * generator.uniform(-60, 60, 3)
    for _ in range(generator.integers(1, 7)):
        image = np.where(_shape(generator, x, y)[..., None], generator.uniform(0, 255, 3), image)
    image += generator.normal(0, generator.uniform(0, 12), image.shape)
    return np.asarray(np.clip(image, 0, 255), dtype=np.uint8)


def _shape(generator: np.random.Generator, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return where one disc, ring, box or triangle of random place and size is."""
    left, top = x - generator.uniform(0.1, 0.9) * x.max(), y - generator.uniform(0.1, 0.9) * y.max()
    size = generator.uniform(0.05, 0.35)
    kind = generator.integers(4)
    if kind == 0:
        return np.asarray(np.hypot(left, top) < size)
    if kind == 1:
        return np.asarray(np.abs(np.hypot(left, top) - size) < size / 4)
    if kind == 2:
        return np.asarray((np.abs(left) < size) & (np.abs(top) < size * generator.uniform(0.3, 1)))
    return np.asarray((top > -size) & (top + 2 * np.abs(left) < size))


def synthesize_sounds(
    count: int, sampling_rate: int, seed: int, seconds: tuple[float, ...] = SOUND_SECONDS
) -> list[NDArray[np.float32]]:
    """Return ``count`` sounds, float32 (samples,) within [-1, 1], that last the given seconds by turns."""
    generator = np.random.default_rng(seed)
    return [
        _synthesize_sound(generator, round(seconds[number % len(seconds)] * sampling_rate), sampling_rate)
        for number in range(count)
    ]


def _synthesize_sound(generator: np.random.Generator, samples: int, rate: int) -> NDArray[np.float32]:
    """Mix a chirp, a few harmonic tones that come and go, clicks and noise."""
    time = np.arange(samples) / rate
    start, end = np.exp(generator.uniform(np.log(80), np.log(0.4 * rate), 2))
    sound = np.sin(2 * np.pi * (start * time + (end - start) * time**2 / (2 * time[-1]))) * generator.uniform(0.1, 1)
    for _ in range(generator.integers(1, 5)):
        pitch, middle, width = generator.uniform(80, 1000), generator.uniform(0, time[-1]), generator.uniform(0.03, 0.4)
        envelope = np.exp(-(((time - middle) / width) ** 2)) * generator.uniform(0.2, 1)
        sound += envelope * sum(np.sin(2 * np.pi * pitch * n * time) / n for n in range(1, 5))
    sound[generator.integers(0, samples, 5)] += generator.uniform(-2, 2, 5)
    sound += generator.normal(0, generator.uniform(0.001, 0.1), samples)
    return np.asarray(0.9 * sound / np.abs(sound).max(), dtype=np.float32)
