"""What the schema tells about a configuration: its defaults, and its errors as problems.

A schema library speaks of instances and subschemas; a user wants the key, the value seen, what is allowed,
and where a misplaced key belongs.
"""

import difflib
import functools
import itertools
import math
import operator
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from onnxproof.config.problem import KeyPath, Problem, dotted, seen
from onnxproof.places import SCHEMAS
from onnxproof.vocabulary import VARIANTS

SCHEMA_PATH = SCHEMAS / "config.schema.yaml"


@functools.cache
def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration; shared, so never change it."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where there is one, is faster
    schema: dict[str, Any] = yaml.load(SCHEMA_PATH.read_text(encoding="utf-8"), Loader=loader)
    return schema


def dereferenced(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with a ``$ref`` to one of ``$defs`` replaced by what it names; keys beside it win."""
    if "$ref" not in schema:
        return schema
    target: dict[str, Any] = config_schema()["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    return target | schema


def did_you_mean(value: Any, known: Iterable[str], least_similarity: float = 0.6) -> str:
    """Return a question where a known word is near (1.0 is the same word), else an empty text."""
    near = difflib.get_close_matches(value.lower(), known, 1, least_similarity) if isinstance(value, str) else []
    return f" Did you mean '{near[0]}'?" if near else ""


TYPE_WORDS = {
    "object": "a mapping (key: value)",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a finite number",
    "boolean": "true or false",
    "null": "null",
}


@functools.cache
def _validator() -> Any:
    """Return a validator stricter than JSON Schema's: 8.0 is no integer, NaN and infinity are no numbers."""
    import jsonschema  # a quarter of a second: only the checks need it

    checker = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"integer": _is_integer, "number": _is_finite_number}
    )
    extend: Any = jsonschema.validators.extend
    return extend(jsonschema.Draft202012Validator, type_checker=checker)(config_schema())


def _is_integer(_checker: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite_number(checker: Any, value: Any) -> bool:
    return _is_integer(checker, value) or (isinstance(value, float) and math.isfinite(value))


def schema_problems(config: Any) -> Iterator[Problem]:
    """Yield each way in which a loaded configuration breaks the schema, the global settings first, then each model.

    How a source's keys combine, and which names and revisions are allowed, is left to `onnxproof.config.checks`.
    """
    config = _with_null_name_as_text(config)
    errors = _validator().iter_errors(config)
    for error in sorted(errors, key=functools.partial(_model_rank, _ranks(config))):
        problems = PROBLEMS.get(error.validator)
        if problems:
            yield from problems(error)


def _with_null_name_as_text(config: Any) -> Any:
    """Return the configuration with a model named null as 'null': the validator drops None from its paths."""
    if not isinstance(config, dict) or not isinstance(config.get("models"), dict):
        return config
    models = {"null" if name is None else name: settings for name, settings in config["models"].items()}
    return config | {"models": models}


def _ranks(config: Any) -> dict[Any, int]:
    """Return the position of each model: the validator meets them in no steady order."""
    models = config.get("models") if isinstance(config, dict) else None
    return {name: rank for rank, name in enumerate(models)} if isinstance(models, dict) else {}


def _model_rank(ranks: dict[Any, int], error: Any) -> int:
    """Return the position of the model that an error is about; -1 for the global settings."""
    path = _path(error)[:2]
    return ranks[path[1]] if path[:1] == ("models",) and len(path) == 2 and ranks else -1


def _type_problems(error: Any) -> Iterator[Problem]:
    allowed = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
    value, hint = error.instance, ""
    if "string" in allowed and not isinstance(value, (dict, list, type(None))):
        hint = ": put it in quotes"
    elif "array" in allowed and isinstance(value, (str, int, float)):
        hint = f", such as [{value}]" if _is_integer(None, value) else ""
    elif isinstance(value, str) and {"integer", "number"} & set(allowed) and _is_number_text(value):
        hint = ": YAML reads it as text, so leave out quotes and write a power of ten as 1.0e-4"
    words = " or ".join(TYPE_WORDS[name] for name in allowed)
    yield Problem(_path(error), f"must be {words}{hint}", value)


def _path(error: Any) -> KeyPath:
    return tuple(error.absolute_path)


def _is_number_text(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _enum_problems(error: Any) -> Iterator[Problem]:
    known = ["null" if value is None else value for value in error.validator_value]
    hint = did_you_mean(error.instance, known)
    yield Problem(_path(error), f"must be one of: {', '.join(known)}.{hint}", error.instance)


def _unknown_key_problems(error: Any) -> Iterator[Problem]:
    path = _path(error)
    known = error.schema["properties"]
    for key, value in error.instance.items():
        if key not in known:
            hint = (
                did_you_mean(key, known, least_similarity=0.9)
                or _belongs_elsewhere(key, path)
                or did_you_mean(key, known)
            )
            step = key if isinstance(key, str) else seen(key)  # a number is a key here, not a position
            yield Problem(
                (*path, step), f"(seen: {seen(value)}) is an unknown key.{hint} Allowed here: {', '.join(known)}"
            )


def _range_problems(error: Any) -> Iterator[Problem]:
    lowest, highest = error.schema.get("minimum"), error.schema.get("maximum")
    allowed = f"at least {lowest}" if highest is None else f"between {lowest} and {highest}"
    yield Problem(_path(error), f"must be {allowed}", error.instance)


def _empty_problems(error: Any) -> Iterator[Problem]:
    entry = "one model" if error.validator == "minProperties" else "one entry"
    what = "empty text" if error.validator == "minLength" else f"empty, must hold at least {entry}"
    yield Problem(_path(error), f"is {what}")


def _duplicate_problems(error: Any) -> Iterator[Problem]:
    entries = error.instance
    repeated = next(entry for index, entry in enumerate(entries) if entry in entries[:index])
    yield Problem(_path(error), f"which lists {seen(repeated)} twice", entries)


def _missing_problems(error: Any) -> Iterator[Problem]:
    for key in error.validator_value:
        if key not in error.instance:
            meaning = error.schema["properties"][key]["description"]
            yield Problem((*_path(error), key), f"is missing: {meaning}")


def _no_models_problems(error: Any) -> Iterator[Problem]:
    yield Problem(("models",), f"is missing: {error.schema['properties']['models']['description']}")


#: By JSON Schema keyword. Those left out (oneOf, pattern, propertyNames) are told by `onnxproof.config.checks`,
#: which sees a source and the list of names as a whole.
PROBLEMS = {
    "type": _type_problems,
    "enum": _enum_problems,
    "additionalProperties": _unknown_key_problems,
    "minimum": _range_problems,
    "maximum": _range_problems,
    "minItems": _empty_problems,
    "minProperties": _empty_problems,
    "minLength": _empty_problems,
    "uniqueItems": _duplicate_problems,
    "required": _missing_problems,
    "anyOf": _no_models_problems,
}


@functools.cache
def _homes() -> dict[str, list[tuple[str, ...]]]:
    """Return for each key the places where it is known: a model's name is ``NAME``, a variant's ``VARIANT``.

    An audit's is ``AUDIT``.
    """
    homes: dict[str, list[tuple[str, ...]]] = {}
    _collect_homes(config_schema(), (), homes)
    return homes


def _collect_homes(schema: dict[str, Any], path: tuple[str, ...], homes: dict[str, Any]) -> None:
    schema = dereferenced(schema)
    for key, part in schema.get("properties", {}).items():
        known = homes.setdefault(key, [])
        if path not in known:
            known.append(path)
        _collect_homes(part, (*path, "VARIANT" if key in VARIANTS else key), homes)
    if isinstance(schema.get("additionalProperties"), dict):
        _collect_homes(schema["additionalProperties"], (*path, "AUDIT" if "NAME" in path else "NAME"), homes)


def _belongs_elsewhere(key: Any, path: KeyPath) -> str:
    """Return a sentence where the key is known at another level: the nearest place, or all that tie."""
    homes = _homes().get(key, []) if isinstance(key, str) else []
    name = path[1] if path[:1] == ("models",) and len(path) > 1 else "NAME"
    places = [tuple(name if step == "NAME" else step for step in home) for home in homes]
    # Between models and the keys of one stands a name, which is no step: a model's own key is as near as a section's.
    depths = [sum(step != "NAME" for step in home) for home in homes]
    distances = [(-_shared_steps(path, place), depth) for place, depth in zip(places, depths, strict=True)]
    nearest = [
        dotted(place) if place else "the top level"
        for place, distance in zip(places, distances, strict=True)
        if distance == min(distances)
    ]
    return f" It belongs in {' or '.join(nearest)}." if nearest else ""


def _shared_steps(path: Iterable[Any], other: Iterable[Any]) -> int:
    """Return how many leading steps two paths share."""
    return sum(1 for _ in itertools.takewhile(operator.truth, map(operator.eq, path, other)))
