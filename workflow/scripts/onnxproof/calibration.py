"""Model inputs made from the calibration texts, for recipes that look at activations.

They share no sentence with the evaluation texts, on which the gate judges what the recipe made.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.cli import UserError
from onnxproof.files import read_json
from onnxproof.texts import CALIBRATION_TEXTS, read_texts

#: Ranges of activations hardly change beyond this length, and time grows with it.
MAX_TOKENS = 128


def calibration_feeds(
    folder: Path, inputs: list[str], texts: Path = CALIBRATION_TEXTS
) -> list[dict[str, NDArray[Any]]]:
    """Return the calibration texts as model inputs, one text each, int64 (1, tokens).

    Args:
        folder: an ONNX folder, with ``tokenizer.json`` and ``config.json``.
        inputs: names of the graph's inputs.
        texts: a file of texts, see ``read_texts``.

    Raises:
        UserError: the texts cannot be read, the folder has no tokenizer, or the graph wants an input that no
            tokenizer makes.
    """
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError(f"{file}: no such file: quantization needs the model's tokenizer")
    positions = read_json(folder / "config.json").get("max_position_embeddings") or MAX_TOKENS
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(min(MAX_TOKENS, positions - 2))  # some count positions from 2
    feeds = []
    for text in read_texts(texts):
        encoding = tokenizer.encode(text)
        values = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        unknown = set(inputs) - values.keys()
        if unknown:
            raise UserError(f"{folder}: the graph wants {', '.join(sorted(unknown))}, which no text tokenizer makes")
        feeds.append({name: np.array([values[name]], dtype=np.int64) for name in inputs})
    return feeds
