"""What the schema tells about a configuration: its defaults, and its errors put into words.

A schema library speaks of instances and subschemas; a user wants the key, the value seen, what is allowed,
and where a misplaced key belongs.
"""

import difflib
import functools
import itertools
import math
import operator
import re
import reprlib
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from onnxproof.places import SCHEMAS

SCHEMA_PATH = SCHEMAS / "config.schema.yaml"

NAME_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


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


def seen(value: Any) -> str:
    """Return a short, one-line form of a value, spelled as in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 80
    return short.repr(value)


def dotted(path: Iterable[Any]) -> str:
    """Return ``models.X.variants[0]`` for a path of keys and list positions."""
    text = ""
    for step in path:
        is_position = _is_integer(None, step) and text != "models"  # below models, 123 is a name
        text = f"{text}[{step}]" if is_position else below(text, step)
    return text or "the configuration"


def below(label: str, key: Any) -> str:
    """Return the dotted path of a key below the place that ``label`` names; an empty label is the top."""
    return f"{label}.{key_label(key)}" if label else key_label(key)


def key_label(key: Any) -> str:
    """Return a key as written where that is plain, else its short form in quotes."""
    return key if isinstance(key, str) and NAME_PATTERN.fullmatch(key) else seen(key)


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


def schema_problems(config: Any) -> Iterator[str]:
    """Yield a sentence for each way in which a loaded configuration breaks the schema.

    How a source's keys combine, and which names and revisions are allowed, is left to `onnxproof.config.resolve`.
    """
    config = _with_null_name_as_text(config)
    errors = _validator().iter_errors(config)
    for error in sorted(errors, key=functools.partial(_model_rank, _ranks(config))):
        sentences = SENTENCES.get(error.validator)
        if sentences:
            yield from sentences(error)


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
    path = list(error.absolute_path)[:2]
    return ranks[path[1]] if path[:1] == ["models"] and len(path) == 2 and ranks else -1


def _type_sentences(error: Any) -> Iterator[str]:
    allowed = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
    value, hint = error.instance, ""
    if "string" in allowed and not isinstance(value, (dict, list, type(None))):
        hint = ": put it in quotes"
    elif "array" in allowed and isinstance(value, (str, int, float)):
        hint = f", such as [{value}]" if _is_integer(None, value) else ""
    elif isinstance(value, str) and {"integer", "number"} & set(allowed) and _is_number_text(value):
        hint = ": YAML reads it as text, so leave out quotes and write a power of ten as 1.0e-4"
    words = " or ".join(TYPE_WORDS[name] for name in allowed)
    yield f"{dotted(error.absolute_path)} is {seen(value)}, must be {words}{hint}"


def _is_number_text(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _enum_sentences(error: Any) -> Iterator[str]:
    known = ["null" if value is None else value for value in error.validator_value]
    label, value = dotted(error.absolute_path), error.instance
    yield f"{label} is {seen(value)}, must be one of: {', '.join(known)}.{did_you_mean(value, known)}"


def _unknown_key_sentences(error: Any) -> Iterator[str]:
    path = list(error.absolute_path)
    known = error.schema["properties"]
    for key, value in error.instance.items():
        if key not in known:
            label = below(dotted(path) if path else "", key)
            hint = (
                did_you_mean(key, known, least_similarity=0.9)
                or _belongs_elsewhere(key, path)
                or did_you_mean(key, known)
            )
            yield f"{label} (seen: {seen(value)}) is an unknown key.{hint} Allowed here: {', '.join(known)}"


def _range_sentences(error: Any) -> Iterator[str]:
    lowest, highest = error.schema.get("minimum"), error.schema.get("maximum")
    allowed = f"at least {lowest}" if highest is None else f"between {lowest} and {highest}"
    yield f"{dotted(error.absolute_path)} is {seen(error.instance)}, must be {allowed}"


def _empty_sentences(error: Any) -> Iterator[str]:
    entry = "one model" if error.validator == "minProperties" else "one entry"
    what = "empty text" if error.validator == "minLength" else f"empty, must hold at least {entry}"
    yield f"{dotted(error.absolute_path)} is {what}"


def _duplicate_sentences(error: Any) -> Iterator[str]:
    entries = error.instance
    repeated = next(entry for index, entry in enumerate(entries) if entry in entries[:index])
    yield f"{dotted(error.absolute_path)} is {seen(entries)}, which lists {seen(repeated)} twice"


def _missing_sentences(error: Any) -> Iterator[str]:
    for key in error.validator_value:
        if key not in error.instance:
            meaning = error.schema["properties"][key]["description"]
            yield f"{dotted([*error.absolute_path, key])} is missing: {meaning}"


def _no_models_sentences(error: Any) -> Iterator[str]:
    yield f"models is missing: {error.schema['properties']['models']['description']}"


#: By JSON Schema keyword. Those left out (oneOf, pattern, propertyNames) are told by `onnxproof.config.resolve`,
#: which sees a source and the list of names as a whole.
SENTENCES = {
    "type": _type_sentences,
    "enum": _enum_sentences,
    "additionalProperties": _unknown_key_sentences,
    "minimum": _range_sentences,
    "maximum": _range_sentences,
    "minItems": _empty_sentences,
    "minProperties": _empty_sentences,
    "minLength": _empty_sentences,
    "uniqueItems": _duplicate_sentences,
    "required": _missing_sentences,
    "anyOf": _no_models_sentences,
}


@functools.cache
def _homes() -> dict[str, list[tuple[str, ...]]]:
    """Return for each key the places where it is known; a model's name is written ``NAME``."""
    homes: dict[str, list[tuple[str, ...]]] = {}
    _collect_homes(config_schema(), (), homes)
    return homes


def _collect_homes(schema: dict[str, Any], path: tuple[str, ...], homes: dict[str, Any]) -> None:
    schema = dereferenced(schema)
    for key, part in schema.get("properties", {}).items():
        homes.setdefault(key, []).append(path)
        _collect_homes(part, (*path, key), homes)
    if isinstance(schema.get("additionalProperties"), dict):
        _collect_homes(schema["additionalProperties"], (*path, "NAME"), homes)


def _belongs_elsewhere(key: Any, path: list[Any]) -> str:
    """Return a sentence where the key is known at another level: the nearest place, or all that tie."""
    homes = _homes().get(key, []) if isinstance(key, str) else []
    name = path[1] if path[:1] == ["models"] and len(path) > 1 else "NAME"
    places = [tuple(name if step == "NAME" else step for step in home) for home in homes]
    distances = [(-_shared_steps(path, place), len(place)) for place in places]
    nearest = [
        dotted(place) if place else "the top level"
        for place, distance in zip(places, distances, strict=True)
        if distance == min(distances)
    ]
    return f" It belongs in {' or '.join(nearest)}." if nearest else ""


def _shared_steps(path: Iterable[Any], other: Iterable[Any]) -> int:
    """Return how many leading steps two paths share."""
    return sum(1 for _ in itertools.takewhile(operator.truth, map(operator.eq, path, other)))
