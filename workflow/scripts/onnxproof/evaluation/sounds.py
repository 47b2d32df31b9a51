"""Sounds of a user's data, as a model's interface takes them."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from onnxproof.cli import UserError, first_line


def read_sound(file: Path, rate: int) -> Any:
    """Return a WAV file's samples at ``rate`` samples a second, float32 (samples,); several channels are averaged.

    Raises:
        UserError: the file is no WAV file, or a damaged one.
    """
    from scipy.io import wavfile
    from scipy.signal import resample_poly

    try:
        own_rate, samples = wavfile.read(file)
    except Exception as error:  # SciPy raises what its reader came upon
        raise UserError(f"{file}: cannot be read as a WAV file: {first_line(error)}") from None
    if samples.dtype.kind == "u":  # 8 bits, around 128
        samples = (samples.astype(np.float64) - 128) / 128
    elif samples.dtype.kind == "i":
        samples = samples.astype(np.float64) / np.iinfo(samples.dtype).max
    samples = samples.mean(axis=1) if samples.ndim == 2 else samples
    common = math.gcd(own_rate, rate)
    return np.asarray(resample_poly(samples, rate // common, own_rate // common), dtype=np.float32)
