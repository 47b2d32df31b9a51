"""Let Optimum write text with the graphs of some folders: python optimum_generates.py INPUTS.npz

Runs where optimum-onnx is installed. Standard input is JSON: ``loader``, a class of Optimum; ``networks``, a folder and
the loader's options for each; ``start``, the first token of an encoder-decoder's text, or null; ``new_tokens``. The
inputs are arrays named ``{index}/{name}``. Standard output is JSON too: for each network whether it uses a cache,
whether its decoder is a merged one, and the ``tokens`` that it finds likeliest, by the index of the input.
"""

import json
import sys
from typing import Any

import numpy as np
import optimum.onnxruntime
import torch
from transformers import GenerationConfig, GenerationMixin


def generate(network: Any, items: dict[str, dict[str, torch.Tensor]], settings: GenerationConfig) -> dict[str, Any]:
    """Return what one network is and what it writes."""
    network.generation_config = settings
    tokens = {}
    for index, item in items.items():
        given = {name: item[name] for name in ("input_ids", "input_features", "pixel_values") if name in item}
        if "input_ids" in given:
            given["attention_mask"] = torch.ones_like(given["input_ids"])
        # Whisper's own way to generate cuts long sounds into pieces.
        made = GenerationMixin.generate(network, **given, use_cache=network.use_cache)
        tokens[index] = made[0, -settings.max_new_tokens :].tolist()
    merged = bool(getattr(getattr(network, "decoder", None), "is_merged", False))
    return {"use_cache": bool(network.use_cache), "merged": merged, "tokens": tokens}


if __name__ == "__main__":
    asked, items = json.load(sys.stdin), {}
    for key, values in np.load(sys.argv[1]).items():
        index, _, name = key.partition("/")
        items.setdefault(index, {})[name] = torch.from_numpy(values)[None]
    settings = GenerationConfig(
        max_new_tokens=asked["new_tokens"],
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        decoder_start_token_id=asked["start"],
    )
    load = getattr(optimum.onnxruntime, asked["loader"]).from_pretrained
    answers = [generate(load(folder, **options), items, settings) for folder, options in asked["networks"]]
    json.dump(answers, sys.stdout)
