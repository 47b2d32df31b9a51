"""Whether the files of a finished run are what their schemas say."""

import json
import re
from functools import cache
from pathlib import Path

from jsonschema import Draft202012Validator, ValidationError

from write_schemas import FILES

DOCS = Path(__file__).parents[2] / "docs"
#: Files that a release adds, whose form is that of transformers or of onnxruntime-genai.
OF_LIBRARIES = ("release/export.json", "release/genai_config.json", "release/special_tokens_map.json")


@cache
def validators() -> dict[str, Draft202012Validator]:
    """Return the validator of each kind of file, by a regular expression of its path below ``results/{model}/``."""
    return {
        re.sub(r"\\{\w+\\}", "[^/]+", re.escape(file.path)): Draft202012Validator(
            json.loads((DOCS / file.schema).read_text())
        )
        for file in FILES
    }


def misfits(results: Path) -> list[str]:
    """Return what is wrong with the JSON files below ``results/``, a line each; one without a schema is wrong."""
    models = sorted(path.parent for path in results.glob("*/source.json"))
    return [line for model in models for path in sorted(model.rglob("*.json")) for line in misfits_of(path, model)]


def misfits_of(path: Path, model: Path) -> list[str]:
    """Return what is wrong with one file below ``results/{model}/``."""
    name = path.relative_to(model).as_posix()
    fitting = [validator for pattern, validator in validators().items() if re.fullmatch(pattern, name)]
    if not fitting:
        return [] if is_of_others(model, name) else [f"{model.name}/{name}: has no schema"]
    return [f"{model.name}/{name}: {describe(error)}" for error in fitting[0].iter_errors(json.loads(path.read_text()))]


def describe(error: ValidationError) -> str:
    """Return where a value misfits and why; of several types that it might have, the deepest reason."""
    while error.context:
        error = max(error.context, key=lambda inner: len(inner.absolute_path))
    return f"{error.json_path}: {error.message[:200]}"


def is_of_others(model: Path, name: str) -> bool:
    """Tell whether a file is a copy of the model's own, or has the form of a library."""
    in_variant = re.fullmatch(r"(source|onnx/[^/]+)/.*", name)
    in_release = name.startswith("release/") and (model / "onnx/fp32" / name.removeprefix("release/")).exists()
    return bool(in_variant or in_release or name in OF_LIBRARIES)
