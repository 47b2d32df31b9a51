"""Models that plain int8 ruins, because a few channels of their activations are far larger than the others."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from onnxproof.config.resolve import resolve_models
from onnxproof.files import read_json
from onnxproof.graph.external_data import weight_bytes
from onnxproof.inputs.calibration import calibration_inputs
from onnxproof.inputs.model_inputs import ModelInputs
from onnxproof.inputs.texts import read_texts
from onnxproof.quantization.recipe import apply_recipe
from onnxproof.quantization.search.candidates import PREPARATIONS, QUANTIZE
from onnxproof.quantization.search.judge import Judge
from onnxproof.quantization.search.ladder import find_recipe
from records import make_parity

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
STARS = ROOT / "examples/star-rating-tiny"
DEFAULTS = resolve_models({"models": {"any": {"source": {"path": "."}}}})["any"]
PLAIN = [*PREPARATIONS[0], QUANTIZE["int8"] | {"rounding": "nearest"}]
MULTILINGUAL_VOCABULARY = 105_879


def optimized_graph(network, task, folder):
    from onnxproof.original.exporters.optimum import export_with_optimum
    from optimize import optimize_graph

    network.save_pretrained(folder / "source")
    (folder / "onnx").mkdir()
    export_with_optimum("tiny", folder / "source", task, folder / "onnx")
    shutil.copy(STARS / "tokenizer.json", folder / "onnx")
    graph, settings = optimize_graph(folder / "onnx", task, read_json(folder / "source/config.json"), folder)
    assert settings["fused"]["Attention"]
    return graph


def recipe_for(graph, calibration, task, variant):
    targets = DEFAULTS["quantization"]["targets"][variant]
    return find_recipe(graph, calibration, targets, task=task, variant=variant, progress=lambda line: None)


def missed_by(metrics, variant):
    """Return the names of the gate's default limits that these metrics miss."""
    from onnxproof.parity.gate import judge

    parity = make_parity(
        variant,
        task_metrics={name: value for name, value in metrics.items() if name != "batch_cosine_min"},
        batch_invariance={"batch_size": 8, "max_abs_diff": 0.0, "cosine_min": metrics["batch_cosine_min"]},
    )
    return [
        verdict.metric for verdict in judge(parity, DEFAULTS["parity"]["thresholds"][variant]) if not verdict.passed
    ]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Twelve layers, a multilingual vocabulary, and two channels a hundred times larger than all others."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    network = BertModel(
        BertConfig(
            vocab_size=MULTILINGUAL_VOCABULARY,
            hidden_size=96,
            num_hidden_layers=12,
            num_attention_heads=3,
            intermediate_size=384,
            max_position_embeddings=64,
            initializer_range=0.2,
        )
    ).eval()
    outliers, gain = [3, 77], 100
    with torch.no_grad():
        network.embeddings.LayerNorm.weight[outliers] *= gain
        for layer in network.encoder.layer:
            heads = layer.attention.self
            for linear in (heads.query, heads.key, heads.value, layer.intermediate.dense):
                linear.weight[:, outliers] /= gain
        for layer in network.encoder.layer[:-1]:
            layer.attention.output.LayerNorm.weight[outliers] *= gain
            layer.output.LayerNorm.weight[outliers] *= gain
    return optimized_graph(network, "feature-extraction", tmp_path_factory.mktemp("encoder"))


def random_texts(count, seed):
    rng = np.random.default_rng(seed)
    texts = []
    for length in rng.integers(3, 40, count):
        shape = int(length)
        text = {
            "input_ids": rng.integers(0, MULTILINGUAL_VOCABULARY, shape),
            "attention_mask": np.ones(shape, dtype=np.int64),
            "token_type_ids": np.zeros(shape, dtype=np.int64),
        }
        texts.append(text)
    return ModelInputs(texts)


@pytest.mark.parametrize("variant", ["int8", "int8-invariant"])
def test_an_encoder_of_twelve_layers_passes_where_plain_int8_fails(encoder, variant):
    unseen = Judge(encoder, random_texts(100, seed=2), "feature-extraction")

    plain = unseen.measure(apply_recipe(encoder, PLAIN))
    found = recipe_for(encoder, random_texts(48, seed=1), "feature-extraction", variant)
    ours = unseen.measure(found.model)

    assert "cosine_mean" in missed_by(plain, "int8")
    assert missed_by(ours, variant) == []
    assert ours["cosine_min"] >= 0.995
    assert weight_bytes(found.model) <= 0.27 * weight_bytes(encoder)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The star rating example with four large value channels, undone by what reads them: the same function."""
    import torch
    from transformers import AutoModelForSequenceClassification

    network = AutoModelForSequenceClassification.from_pretrained(STARS).eval()
    outliers, gain = [1, 5, 17, 30], 3000
    with torch.no_grad():
        for layer in network.bert.encoder.layer:
            value, output = layer.attention.self.value, layer.attention.output.dense
            value.weight[outliers] *= gain
            value.bias[outliers] *= gain
            output.weight[:, outliers] /= gain
    return optimized_graph(network, "text-classification", tmp_path_factory.mktemp("classifier"))


def test_a_classifier_keeps_its_labels_where_plain_int8_flips_them(classifier, tmp_path):
    names = [value.name for value in classifier.graph.input]
    held_out = read_texts(ROOT / "examples/star-rating-heldout.jsonl")[:300]
    (tmp_path / "held_out.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in held_out))
    inputs = calibration_inputs(STARS, "text-classification", names, tmp_path / "held_out.jsonl")
    unseen = Judge(classifier, inputs, "text-classification")

    plain = unseen.measure(apply_recipe(classifier, PLAIN))
    inputs = calibration_inputs(STARS, "text-classification", names)
    found = recipe_for(classifier, inputs, "text-classification", "int8")
    ours = unseen.measure(found.model)

    assert plain["top1_agreement"] < 0.95
    assert ours["top1_agreement"] >= 0.99
    assert found.reached
