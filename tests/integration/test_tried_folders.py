"""Folders that no other test saves: modules of sentence-transformers, and models that have no answer themselves.

What is expected comes from the original's own public interface, outside the pipeline.
"""

import json

import numpy as np
import pytest

from architectures import ENCODERS, randomize, save_text_model
from kinds import save_case
from outcomes import TOLERANCE, answers_of_graph, answers_of_original, difference, run_steps

WIDTH = 64

#: Modules behind the transformer, as functions of the classes of sentence-transformers and of the tokenizer's size.
MODULES = {
    "a convolution": lambda kinds, words: [
        kinds.CNN(WIDTH, out_channels=16, kernel_sizes=[1, 3]),
        kinds.Pooling(32, pooling_mode="mean"),
    ],
    "weights of words": lambda kinds, words: [
        kinds.WordWeights([f"[unused{number}]" for number in range(words)], {"[unused9]": 0.5}, 0.25),
        kinds.Pooling(WIDTH, pooling_mode="weightedmean"),
    ],
    "weighted layers": lambda kinds, words: [
        kinds.WeightedLayerPooling(WIDTH, num_hidden_layers=2, layer_start=1),
        kinds.Pooling(WIDTH, pooling_mode="mean"),
    ],
    "two kinds of pooling, LayerNorm, Dropout": lambda kinds, words: [
        kinds.Pooling(WIDTH, pooling_mode=("cls", "max")),
        kinds.LayerNorm(2 * WIDTH),
        kinds.Dropout(0.3),
    ],
    "Dense with a residual": lambda kinds, words: [
        kinds.Pooling(WIDTH, pooling_mode="mean"),
        kinds.Dense(WIDTH, 32, activation_function=_activation("GELU"), use_residual=True),
    ],
}


def _activation(name):
    import torch

    return getattr(torch.nn, name)()


@pytest.mark.slow
@pytest.mark.parametrize("modules", MODULES)
def test_modules_of_sentence_transformers_are_exported_as_they_compute(modules, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as kinds

    config_class, sizes = ENCODERS["bert"]
    options = {"output_hidden_states": True} if modules == "weighted layers" else {}
    save_text_model(tmp_path / "encoder", config_class, "AutoModel", sizes | options)
    first = kinds.Transformer(str(tmp_path / "encoder"), max_seq_length=48)
    rest = [randomize(module) for module in MODULES[modules](kinds, len(first.tokenizer))]
    SentenceTransformer(modules=[first, *rest], device="cpu").save(str(tmp_path / "model"))

    outcome = run_steps("m", tmp_path / "model", tmp_path / "out")

    assert outcome.refused is None
    expected = answers_of_original(tmp_path / "model", outcome.task)
    assert difference(expected, answers_of_graph(outcome), outcome.task) <= TOLERANCE


@pytest.mark.slow
def test_a_model_that_answers_nan_is_refused_in_a_line(tmp_path):
    from safetensors.numpy import load_file, save_file

    save_case(tmp_path / "model", "bert text-classification")
    weights = load_file(tmp_path / "model/model.safetensors")
    weights["classifier.bias"] = np.full_like(weights["classifier.bias"], np.nan)
    save_file(weights, tmp_path / "model/model.safetensors", metadata={"format": "pt"})

    outcome = run_steps("m", tmp_path / "model", tmp_path / "out")

    assert outcome.refused is not None
    assert outcome.refused.startswith("m: ")
    assert "no numbers (logits)" in outcome.refused
    assert "\n" not in outcome.refused


@pytest.mark.slow
def test_images_of_another_size_than_the_model_takes_are_refused_in_a_line(tmp_path):
    save_case(tmp_path / "model", "vit image-classification")
    settings = tmp_path / "model/preprocessor_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"size": {"height": 48, "width": 48}}))

    outcome = run_steps("m", tmp_path / "model", tmp_path / "out")

    assert outcome.refused is not None
    assert outcome.refused.startswith("m: ")
    assert "48" in outcome.refused
    assert "\n" not in outcome.refused
