"""The golden inputs of a release: a few of the recorded ones, so that a release can be verified without PyTorch.

``verify_release.py`` reads what is written here.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.files import read_json, write_json
from onnxproof.reference import PER_TOKEN, TEXTS_FILE, Reference

GOLDEN_FILE = "golden.npz"
GOLDEN_TEXTS_FILE = "golden.json"

#: How many inputs a release carries, and how many bytes PyTorch's answers to them may take.
GOLDEN_COUNT = 32
GOLDEN_BYTES = 2_000_000

Array = NDArray[Any]


def choose_golden(lengths: Array, count: int = GOLDEN_COUNT) -> list[int]:
    """Return the indices of at most ``count`` inputs, evenly spread over the lengths, shortest to longest."""
    by_length = np.argsort(lengths, kind="stable")
    places = np.linspace(0, len(lengths) - 1, min(count, len(lengths))).round().astype(int)
    return [int(index) for index in by_length[places]]


def count_within(sizes: list[int], most_bytes: int) -> int:
    """Return how many of the first sizes fit into ``most_bytes`` together; at least one."""
    return max(1, int(np.searchsorted(np.cumsum(sizes), most_bytes, side="right")))


def write_golden(reference: Reference, folder: Path, target: Path) -> dict[str, Any]:
    """Write the golden inputs, their texts, and PyTorch's answers to ``target``.

    The answers to the longest inputs are left out where they would take too much; their token ids never are, so that
    truncation is verified in any case.

    Args:
        reference: everything that was recorded.
        folder: where it was recorded, for its texts.
        target: the release.

    Returns:
        ``{count, answered, tokens}``: the inputs, those with answers, and all their tokens.
    """
    indices = choose_golden(reference.lengths)
    starts = np.cumsum(reference.lengths) - reference.lengths

    def tokens_of(values: Array, chosen: list[int]) -> Array:
        return np.concatenate([values[starts[index] : starts[index] + reference.lengths[index]] for index in chosen])

    def bytes_of(index: int) -> int:
        return sum(
            values[0].nbytes * (int(reference.lengths[index]) if name in PER_TOKEN else 1)
            for name, values in reference.outputs.items()
        )

    answered = count_within([bytes_of(index) for index in indices], GOLDEN_BYTES)
    arrays: dict[str, Any] = {"lengths": reference.lengths[indices]}
    arrays |= {f"input.{name}": tokens_of(values, indices) for name, values in reference.inputs.items()}
    for name, values in reference.outputs.items():
        chosen = indices[:answered]
        arrays[f"output.{name}"] = tokens_of(values, chosen) if name in PER_TOKEN else values[chosen]
    np.savez_compressed(target / GOLDEN_FILE, **arrays)
    texts = read_json(folder / TEXTS_FILE)
    facts = {
        "texts": [texts[index] for index in indices],
        "answered": answered,
        "per_token": sorted(PER_TOKEN & reference.outputs.keys()),
        "padding": reference.manifest["padding"],
        "max_tokens": reference.manifest["inputs"]["max_tokens"],
    }
    write_json(target / GOLDEN_TEXTS_FILE, facts)
    return {"count": len(indices), "answered": answered, "tokens": int(reference.lengths[indices].sum())}
