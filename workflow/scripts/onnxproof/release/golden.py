"""The golden inputs of a release: a few of the recorded ones, so that a release can be verified without PyTorch.

Written when a release is made, and read where it is verified, with NumPy alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.files import read_json, write_json
from onnxproof.inputs.final_answers import from_json
from onnxproof.inputs.model_inputs import PIXELS, TOKENS, ModelInputs, Reference, pack, unpack
from onnxproof.inputs.prompts import prompt_limit
from onnxproof.tasks.registry import GENERATING_TASKS

if TYPE_CHECKING:
    from onnxproof.records.reference import ReferenceRecord
    from onnxproof.records.release import GoldenCounts, GoldenRecord, GoldenReference

GOLDEN_FILE = "golden.npz"
GOLDEN_FACTS_FILE = "golden.json"
#: What a release tells of how its model was evaluated on labelled data, see ``release/quality.py``.
QUALITY_FILE = "evaluation.json"

#: The groups of arrays in the file, before a dot in their names.
INPUT, OUTPUT, SHARED, FINAL = "input", "output", "shared", "final"

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


def write_golden(reference: "Reference[ReferenceRecord]", target: Path) -> "GoldenCounts":
    """Write the golden inputs, their texts, and PyTorch's answers to ``target``.

    The inputs that PyTorch generated text for are among them, with what it generated. Images and sounds, and the
    answers to the largest inputs, are left out where they would take too much. The token ids of texts never are, so
    that truncation is verified in any case.

    Args:
        reference: everything that was recorded.
        target: the release.

    Returns:
        How many inputs were written, and how many of them with answers.
    """
    items, task = reference.inputs.items, reference.manifest["task"]
    indices = choose_golden([sum(values.size for values in item.values()) for item in items])
    indices += [index for index in reference.generated if index not in indices]
    if TOKENS not in items[0] or PIXELS in items[0]:  # images and sounds take far more than token ids
        indices = sorted(indices, key=lambda index: index not in reference.generated)
        indices = indices[: count_within([_bytes_of(items[index]) for index in indices], GOLDEN_BYTES)]
    outputs = [{name: reference.outputs[name][index] for name in reference.outputs} for index in indices]
    answered = count_within([_bytes_of(output) for output in outputs], GOLDEN_BYTES)
    groups = {
        INPUT: pack([items[index] for index in indices]),
        OUTPUT: pack(outputs[:answered]),
        SHARED: reference.inputs.shared,
    }
    arrays: dict[str, Any] = {f"{group}.{name}": values for group in groups for name, values in groups[group].items()}
    recorded = reference.manifest
    facts: GoldenRecord = {
        "manifest": {
            "task": recorded["task"],
            "judged_as": recorded["judged_as"],
            "label_count": recorded["label_count"],
            "padding": recorded["padding"],
        }
    }
    if reference.final is not None:
        kept = reference.final.chosen(range(count_within(reference.final.sizes(), GOLDEN_BYTES)))
        facts["final"], own = kept.as_json()
        arrays |= {f"{FINAL}.{name}": values for name, values in own.items()}
    np.savez_compressed(target / GOLDEN_FILE, **arrays)
    if reference.generated:
        written = reference.generated.items()
        facts["generated"] = {str(indices.index(index)): tokens for index, tokens in written if index in indices}
    if task in TEXT_BY_TEXT and reference.texts:
        limit = reference.manifest["inputs"]["max_tokens"]
        facts["texts"] = [reference.texts[index] for index in indices]
        facts["max_tokens"] = prompt_limit(limit) if task in GENERATING_TASKS else limit
    write_json(target / GOLDEN_FACTS_FILE, facts)
    return {"count": len(indices), "answered": answered}


def read_golden(folder: Path) -> "Reference[GoldenReference]":
    """Return the golden inputs and answers of a release, as ``write_golden`` wrote them.

    ``texts`` are those that the release's tokenizer must turn into the recorded ids: a text, or a pair as a tuple;
    empty where a tokenizer alone does not make the inputs. The manifest then has the ``max_tokens`` to cut them to.

    Raises:
        UserError: ``golden.json`` is missing or holds no JSON.
        OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error: a file is missing, cut short or altered.
    """
    facts: GoldenRecord = read_json(folder / GOLDEN_FACTS_FILE)
    groups: dict[str, dict[str, Array]] = {INPUT: {}, OUTPUT: {}, SHARED: {}, FINAL: {}}
    with np.load(folder / GOLDEN_FILE) as arrays:
        for key in arrays.files:
            group, _, name = key.partition(".")
            groups[group][name] = arrays[key]
    outputs, padding = unpack(groups[OUTPUT]), facts["manifest"]["padding"]
    return Reference(
        manifest={**facts["manifest"], "max_tokens": facts.get("max_tokens")},
        inputs=ModelInputs(unpack(groups[INPUT]), groups[SHARED], padding["side"], padding["values"]),
        outputs={name: [item[name] for item in outputs] for name in outputs[0]},
        generated={int(index): tokens for index, tokens in facts.get("generated", {}).items()},
        texts=[text if isinstance(text, str) else tuple(text) for text in facts.get("texts", [])],
        final=from_json(facts["final"], groups[FINAL]) if "final" in facts else None,
    )


def _bytes_of(item: Mapping[str, Array]) -> int:
    return sum(values.nbytes for values in item.values())
