"""A recipe: which passes run, in which order, with which parameters. Plain data that JSON can hold.

Example::

    [{"pass": "embedding_rows"}, {"pass": "dynamic_matmul", "weight_range": "pair_safe", "exclude": []}]
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx

from onnxproof.cli import UserError
from onnxproof.quantization.activations import Feeds
from onnxproof.quantization.passes.block_weights import quantize_block_weights
from onnxproof.quantization.passes.cache_in_place import keep_cache_in_place
from onnxproof.quantization.passes.center_channels import center_channels
from onnxproof.quantization.passes.dynamic_matmul import quantize_dynamic_matmul
from onnxproof.quantization.passes.embedding_blocks import quantize_embedding_blocks
from onnxproof.quantization.passes.embedding_rows import quantize_embedding_rows
from onnxproof.quantization.passes.half import halve, soften_masks
from onnxproof.quantization.passes.outlier_channels import keep_outlier_channels
from onnxproof.quantization.passes.per_token import quantize_per_token
from onnxproof.quantization.passes.smooth import smooth_activations
from onnxproof.quantization.passes.split_bias_gelu import split_bias_gelu
from onnxproof.quantization.passes.static_matmul import quantize_static_matmul
from onnxproof.quantization.passes.tied_tables import share_tied_tables

Recipe = Sequence[Mapping[str, Any]]

#: Passes that need the model alone, by their names in a recipe. A pass edits the model in place; its keyword
#: arguments are its parameters.
PLAIN_PASSES: dict[str, Callable[..., None]] = {
    "cache_in_place": keep_cache_in_place,
    "embedding_blocks": quantize_embedding_blocks,
    "embedding_rows": quantize_embedding_rows,
    "halve": halve,
    "share_tied_tables": share_tied_tables,
    "soften_masks": soften_masks,
    "split_bias_gelu": split_bias_gelu,
}

#: Passes that also run the model on calibration inputs, their second argument.
CALIBRATED_PASSES: dict[str, Callable[..., None]] = {
    "block_weights": quantize_block_weights,
    "center_channels": center_channels,
    "dynamic_matmul": quantize_dynamic_matmul,
    "outlier_channels": keep_outlier_channels,
    "per_token": quantize_per_token,
    "smooth": smooth_activations,
    "static_matmul": quantize_static_matmul,
}

PASSES = PLAIN_PASSES | CALIBRATED_PASSES


class RecipeError(UserError):
    """A recipe names a pass, a parameter or a value that does not exist."""


def apply_recipe(model: onnx.ModelProto, recipe: Recipe, calibration: Sequence[Feeds] = ()) -> onnx.ModelProto:
    """Return a quantized copy of ``model``: the recipe's passes applied in order.

    The same model, recipe and calibration inputs give the same bytes when serialized with ``deterministic=True``.

    Raises:
        RecipeError: a pass, a parameter or a parameter's value is unknown; or a pass needs calibration inputs and
            there are none.
    """
    check_recipe(recipe)
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    for position, step in enumerate(recipe):
        name = step["pass"]
        parameters = {key: value for key, value in step.items() if key != "pass"}
        try:
            if name in PLAIN_PASSES:
                PLAIN_PASSES[name](quantized, **parameters)
            else:
                CALIBRATED_PASSES[name](quantized, calibration, **parameters)
        except ValueError as error:
            raise RecipeError(f"recipe step {position + 1} ({name}): {error}") from error
    return quantized


def check_recipe(recipe: Recipe) -> None:
    """Check the names of passes and parameters.

    Raises:
        RecipeError: the first unknown name, with the names allowed there.
    """
    for position, step in enumerate(recipe):
        where = f"recipe step {position + 1}"
        name = step.get("pass")
        if name not in PASSES:
            raise RecipeError(f"{where}: unknown pass {name!r}; known passes: {', '.join(sorted(PASSES))}")
        allowed = _parameters_of(PASSES[name])
        for key in step:
            if key != "pass" and key not in allowed:
                known = ", ".join(allowed) or "none"
                raise RecipeError(f"{where}: pass '{name}' has no parameter '{key}'; its parameters: {known}")


def _parameters_of(function: Callable[..., None]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
