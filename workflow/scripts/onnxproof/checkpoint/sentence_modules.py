"""The modules of a sentence-transformer, named where every version of the library finds them."""

import shutil
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


def lift_transformer(folder: Path) -> None:
    """Move the transformer's files from a folder of its own, such as ``0_Transformer``, to the top, in place.

    sentence-transformers 2 keeps them there, versions 3 to 6 at the top, and every version finds them at either place.
    Other clients look at the top alone. What is there of the same name is replaced: sentence-transformers reads none of
    it.
    """
    file = folder / MODULES_FILE
    modules = read_json(file) if file.is_file() else []
    place = modules[0].get("path") if modules else ""
    if not place:
        return
    for path in sorted((folder / place).rglob("*")):
        if not path.is_dir():
            target = folder / path.relative_to(folder / place)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    shutil.rmtree(folder / place)
    write_json(file, [modules[0] | {"path": ""}, *modules[1:]])


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
