"""The modules of a sentence-transformer, named where every version of the library finds them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnxproof.files import read_json, write_json

MODULES_FILE = "modules.json"
#: sentence-transformers 2 has its modules here. 5 and 6 moved them, each to another place, and still find them here.
CLASSIC_PLACE = "sentence_transformers.models"
CLASSIC_MODULES = frozenset(
    {"CNN", "Dense", "Dropout", "LSTM", "LayerNorm", "Normalize", "Pooling", "Transformer", "WeightedLayerPooling"}
)


def classic_modules(modules: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a ``modules.json`` that versions 2 to 6 read; modules of other places stay where they are."""
    classic = []
    for module in modules:
        place, _, name = str(module.get("type")).rpartition(".")
        is_known = place.startswith("sentence_transformers.") and name in CLASSIC_MODULES
        classic.append(module | {"type": f"{CLASSIC_PLACE}.{name}"} if is_known else module)
    return classic


def settle_modules(folder: Path) -> dict[str, str]:
    """Have the ``modules.json`` of a release name its modules as ``classic_modules`` does, in place.

    Returns:
        ``{file: what was changed}``, empty where nothing was.
    """
    file = folder / MODULES_FILE
    saved = read_json(file) if file.is_file() else []
    classic = classic_modules(saved)
    if classic == saved:
        return {}
    write_json(file, classic)
    return {MODULES_FILE: "names modules where sentence-transformers 2 to 6 find them"}
