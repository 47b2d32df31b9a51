"""Configurations of older models that transformers 5 reads without an error, and computes another model from."""

from onnxproof.cli import UserError
from onnxproof.records.checkpoint import ModelConfig

#: Model types whose published models have this scaling. Those found to differ are Llama and Qwen2.
TRAINED_WITH_LONGROPE = frozenset({"phi3", "phimoe"})


def check_config(model: str, config: ModelConfig, place: str = "") -> None:
    """Refuse a configuration with which transformers 5 computes another model than the one that was trained.

    Args:
        model: the model's name, for messages.
        config: the content of ``config.json``.
        place: where in the file the configuration stands, for messages.

    Raises:
        UserError: names the key, its value and what to do.
    """
    positions = config.get("position_embedding_type")
    if isinstance(positions, str) and positions.startswith("relative"):
        raise UserError(
            f"{model}: config.json: '{place}position_embedding_type' is '{positions}', which transformers 5 ignores: "
            "it would add absolute positions instead; take a model with absolute positions"
        )
    scaling = config.get("rope_scaling")
    kind = (scaling.get("rope_type") or scaling.get("type")) if isinstance(scaling, dict) else None
    if kind == "longrope" and config.get("model_type") not in TRAINED_WITH_LONGROPE and _saved_by_4(config):
        raise UserError(
            f"{model}: config.json: '{place}rope_scaling' has the type 'longrope', which transformers 4 and 5 compute "
            f"differently for models of the type '{config.get('model_type')}'; save the model with transformers 5"
        )
    if config.get("model_type") == "mt5" and config.get("tie_word_embeddings") and _saved_by_4(config):
        raise UserError(
            f"{model}: config.json: '{place}tie_word_embeddings' is true, for which transformers 4 scales the "
            "decoder's vectors and transformers 5 does not; take an mT5 that was trained with false, as the published "
            "ones are"
        )
    for key, value in config.items():
        if isinstance(value, dict):
            check_config(model, value, f"{place}{key}.")


def _saved_by_4(config: ModelConfig) -> bool:
    """Tell whether a configuration names an older version, or none."""
    return int(str(config.get("transformers_version") or "4").split(".", 1)[0]) < 5
