"""The golden inputs of a release: a few of the recorded ones, so that a release can be verified without PyTorch.

``verify_release.py`` reads what is written here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.files import read_json, write_json
from onnxproof.inputs import DECODER_TOKENS, PIXELS, TOKENS, pack
from onnxproof.reference import TEXTS_FILE, Reference
from onnxproof.tasks import TASKS
from onnxproof.tasks.material import prompt_limit
from onnxproof.tasks.registry import GENERATING_TASKS

GOLDEN_FILE = "golden.npz"
GOLDEN_FACTS_FILE = "golden.json"

#: How many inputs a release carries, and how many bytes these, and PyTorch's answers to them, may take each.
GOLDEN_COUNT = 32
GOLDEN_BYTES = 2_000_000

#: Tasks whose every input is one recorded text, or pair, as it is: a tokenizer alone must give the recorded ids.
TEXT_BY_TEXT = (GENERATING_TASKS - {"image-text-to-text"}) | {
    "feature-extraction",
    "sentence-similarity",
    "text-classification",
    "token-classification",
    "question-answering",
}

Array = NDArray[Any]


def choose_golden(sizes: Sequence[int], count: int = GOLDEN_COUNT) -> list[int]:
    """Return the indices of at most ``count`` inputs, evenly spread over the sizes, smallest to largest."""
    by_size = np.argsort(sizes, kind="stable")
    places = np.linspace(0, len(sizes) - 1, min(count, len(sizes))).round().astype(int)
    return [int(index) for index in by_size[places]]


def count_within(sizes: list[int], most_bytes: int) -> int:
    """Return how many of the first sizes fit into ``most_bytes`` together; at least one."""
    return max(1, int(np.searchsorted(np.cumsum(sizes), most_bytes, side="right")))


def write_golden(reference: Reference, folder: Path, target: Path) -> dict[str, Any]:
    """Write the golden inputs, their texts, and PyTorch's answers to ``target``.

    The inputs that PyTorch generated text for are among them, with what it generated. Images and sounds, and the
    answers to the largest inputs, are left out where they would take too much. The token ids of texts never are, so
    that truncation is verified in any case.

    Args:
        reference: everything that was recorded.
        folder: where it was recorded, for its texts.
        target: the release.

    Returns:
        ``{count, answered}``: the inputs, and those with answers.
    """
    items, task = reference.inputs.items, TASKS[reference.manifest["task"]]
    indices = choose_golden([sum(values.size for values in item.values()) for item in items])
    indices += [index for index in reference.generated if index not in indices]
    if TOKENS not in items[0] or PIXELS in items[0]:  # images and sounds take far more than token ids
        indices = sorted(indices, key=lambda index: index not in reference.generated)
        indices = indices[: count_within([_bytes_of(items[index]) for index in indices], GOLDEN_BYTES)]
    outputs = [{name: reference.outputs[name][index] for name in reference.outputs} for index in indices]
    answered = count_within([_bytes_of(output) for output in outputs], GOLDEN_BYTES)
    arrays: dict[str, Any] = {
        f"input.{name}": values for name, values in pack([items[index] for index in indices]).items()
    }
    arrays |= {f"output.{name}": values for name, values in pack(outputs[:answered]).items()}
    arrays |= {f"shared.{name}": values for name, values in reference.inputs.shared.items()}
    np.savez_compressed(target / GOLDEN_FILE, **arrays)
    facts = {
        "answered": answered,
        "per_token": [
            name for name in task.per_token if name in reference.outputs and {TOKENS, DECODER_TOKENS} & items[0].keys()
        ],
        "padding": reference.manifest["padding"],
        "label_count": reference.manifest["label_count"],
    }
    if reference.generated:
        kept = reference.generated.items()
        facts["generated"] = {str(indices.index(index)): tokens for index, tokens in kept if index in indices}
    if task.name in TEXT_BY_TEXT and (folder / TEXTS_FILE).is_file():
        texts, limit = read_json(folder / TEXTS_FILE), reference.manifest["inputs"]["max_tokens"]
        facts |= {
            "texts": [texts[index] for index in indices],
            "max_tokens": prompt_limit(limit) if task.name in GENERATING_TASKS else limit,
        }
    write_json(target / GOLDEN_FACTS_FILE, facts)
    return {"count": len(indices), "answered": answered}


def _bytes_of(item: Mapping[str, Array]) -> int:
    return sum(values.nbytes for values in item.values())
