"""Files that are known by their digests: one of them under another model's name is that other model.

A model is known by the largest of its files, which holds its weights: graphs of one architecture may be the same bytes
for many models, where the weights are in a file of their own.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from onnxproof.audit.repository import WEIGHT_ENDINGS, finding
from onnxproof.cli import UserError
from onnxproof.files import Files, read_json, read_manifest
from onnxproof.records.audit import AuditedFile
from onnxproof.records.source import Place, read_source

SOURCE_RECORD = "source.json"
DIGEST = re.compile(r"[0-9a-f]{64}")


class Known(NamedTuple):
    """What a file is: in words, and the model that it was made from, where that is known."""

    name: str
    original: str | None


def read_known(paths: Iterable[Path]) -> dict[str, list[Known]]:
    """Return what files are, by the sha256 of each, from records and from lists of digests.

    Args:
        paths: each an ``audit.json``, the record of a variant (``results/NAME/onnx/VARIANT.json``), or an object that
            says for each sha256 what it is.

    Raises:
        UserError: a file is missing, or is none of these.
    """
    found: dict[str, list[Known]] = {}
    for path in paths:
        content = read_json(path)
        content = content if isinstance(content, dict) else {}
        if {"repository", "original"} <= content.keys():
            told = _of_audit(path, content)
        elif {"model", "variant"} <= content.keys():
            told = _of_variant(path)
        elif content and all(DIGEST.fullmatch(key) and isinstance(name, str) for key, name in content.items()):
            told = [(digest, Known(name, None)) for digest, name in content.items()]
        else:
            raise UserError(
                f"--known is {path}, which is no audit.json, no record of a variant (results/NAME/onnx/VARIANT.json), "
                "and no object with a name for each sha256 in lower case"
            )
        for digest, known in told:
            found.setdefault(digest, []).append(known)
    return found


def identity_of(place: Place) -> str:
    """Return what tells a model from another, whatever its revision or version: a name, or a folder's whole path."""
    if place["kind"] == "hub":
        return place["repo"]
    if place["kind"] == "package":
        return f"{place['package']}/{place.get('package_path', '')}"
    return str(Path(place["path"]).resolve())


def largest_of(files: Files) -> tuple[str, str]:
    """Return the path and the sha256 of the largest file."""
    name = max(files, key=lambda each: files[each]["size"])
    return name, files[name]["sha256"]


def _of_audit(path: Path, content: dict[str, Any]) -> list[tuple[str, Known]]:
    try:
        original = identity_of(content["original"])
        return [
            (largest_of(file["files"])[1], Known(f"{file['name']} of {content['name']}", original))
            for file in content["files"]
            if file["files"]
        ]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: no whole audit.json ({error!r}): delete it, or audit that repository again") from None


def _of_variant(path: Path) -> list[tuple[str, Known]]:
    record = read_manifest(path, "files")
    source = path.parents[1] / SOURCE_RECORD
    original = identity_of(read_source(source)) if source.is_file() else None
    files = {name: entry for name, entry in record["files"].items() if name.endswith((".onnx", *WEIGHT_ENDINGS))}
    known = Known(f"{record['variant']} of this project's {record['model']}", original)
    return [(largest_of(files)[1], known)] if files else []


def look_up(files: Iterable[AuditedFile], original: Place, known: Mapping[str, list[Known]]) -> None:
    """Add to the findings of each file which file of another model it is, byte for byte.

    Where its answers are the original's, that is a note: one model has two names. Otherwise the file is wrong.
    """
    own = identity_of(original)
    for file in files:
        if not file["files"]:
            continue
        name, digest = largest_of(file["files"])
        others = [each for each in known.get(digest, []) if each.original != own]
        if not others:
            continue
        is_sound = file["verdict"] == "sound"
        told = f"{name} is, byte for byte, {others[0].name}"
        made_from = f", made from {others[0].original}" if others[0].original else ""
        file["findings"].append(finding("note" if is_sound else "wrong", "other-model", f"{told}{made_from}."))
        if not is_sound:
            file["verdict"] = "wrong"
