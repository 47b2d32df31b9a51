"""Each model's settings: its own laid over the global ones, and these over the defaults of the schema.

What a key means, may hold and defaults to: see ``workflow/schemas/config.schema.yaml``.
"""

import functools
from typing import Any

from onnxproof.config.schema import config_schema, dereferenced


def resolve_models(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each model's settings with global values and defaults filled in; no two share mutable state.

    A model's settings are those of the schema's ``model``: ``task`` is None where it is to be inferred, targets and
    thresholds switched off by null are absent, and ``allow_floating_revision`` is the value nearest to the model's
    revision.

    Args:
        config: a configuration that passed `check_config`.
    """
    given = {key: value for key, value in config.items() if key not in ("models", "models_from")}
    shared = merged(_model_defaults(), given)
    return {name: _resolved(shared, settings) for name, settings in config.get("models", {}).items()}


@functools.cache
def _model_defaults() -> dict[str, Any]:
    defaults: dict[str, Any] = _defaults_of(config_schema()["$defs"]["model"])
    del defaults["source"]
    return defaults


def _defaults_of(schema: dict[str, Any]) -> Any:
    """Return a schema's default: its own, or a mapping of its properties' defaults."""
    schema = dereferenced(schema)
    if "default" in schema:
        return schema["default"]
    return {
        key: _defaults_of(part)
        for key, part in schema.get("properties", {}).items()
        if _has_default(dereferenced(part))
    }


@functools.cache
def _evaluation_defaults() -> dict[str, Any]:
    properties = config_schema()["$defs"]["evaluation"]["properties"]
    return {key: part["default"] for key, part in properties.items() if "default" in part}


def _has_default(schema: dict[str, Any]) -> bool:
    return "default" in schema or schema.get("type") == "object"


def merged(base: Any, override: Any) -> Any:
    """Return ``override`` laid over ``base``: mappings merge, all else replaces; shares nothing."""
    if not isinstance(override, dict):
        return list(override) if isinstance(override, list) else override
    under = base if isinstance(base, dict) else {}
    nested = (dict, list)  # all else is taken as it is: with thousands of models, calls count
    kept = {
        key: merged(None, value) if isinstance(value, nested) else value
        for key, value in under.items()
        if key not in override
    }
    return kept | {
        key: merged(under.get(key), value) if isinstance(value, nested) else value for key, value in override.items()
    }


def _resolved(shared: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    model: dict[str, Any] = merged(shared, settings)
    nearest = model["source"].pop("allow_floating_revision", model["allow_floating_revision"])
    model["allow_floating_revision"] = nearest
    if model["evaluation"] is not None:
        model["evaluation"] = merged(_evaluation_defaults(), model["evaluation"])
    for limits_of in (model["quantization"]["targets"], model["parity"]["thresholds"]):
        for variant, limits in limits_of.items():
            limits_of[variant] = {metric: limit for metric, limit in limits.items() if limit is not None}
    return model
