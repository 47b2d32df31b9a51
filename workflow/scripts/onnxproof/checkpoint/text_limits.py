"""How many tokens a text model takes."""

from collections.abc import Mapping
from typing import Any

# Models that number their positions from pad_token_id + 1, and so hold fewer tokens than positions.
OFFSET_POSITION_MODELS = frozenset(
    {
        "camembert",
        "data2vec-text",
        "ibert",
        "longformer",
        "luke",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)

#: Other names that configurations have for the number of positions.
POSITION_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len")


def text_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a ``config.json`` says of a model's text part: in a part of its own, or, as in Qwen2-VL's, not."""
    part = config.get("text_config")
    return part if isinstance(part, Mapping) else config


def most_tokens(config: Mapping[str, Any]) -> int | None:
    """Return the longest text, in tokens, that a model with this ``config.json`` takes; None where it is open."""
    positions = next((config[key] for key in POSITION_KEYS if isinstance(config.get(key), int)), None)
    if positions is None or positions < 1:
        return None
    if config.get("model_type") in OFFSET_POSITION_MODELS:
        padding = 1 if config["model_type"] == "mpnet" else config.get("pad_token_id") or 0  # MPNet's is fixed
        positions -= padding + 1
    return int(positions)
