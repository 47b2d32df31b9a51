"""What a classification head means, read from config.json alone."""

import pytest

from messages import raises
from onnxproof.cli import UserError
from onnxproof.inputs.final_answers import PAIRS, TEXTS, use_of
from onnxproof.tasks.heads import activation_of, check_head, is_cross_encoder, judged_as

ONE = {"id2label": {"0": "LABEL_0"}}
SIX = {"id2label": {str(index): f"L{index}" for index in range(6)}}
INFERENCE = {"id2label": {"0": "entailment", "1": "neutral", "2": "contradiction"}}
IDENTITY = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}
TEXT = "text-classification"


@pytest.mark.parametrize(
    ("task", "config", "activation", "judged"),
    [
        (TEXT, SIX, "softmax", TEXT),
        (TEXT, SIX | {"problem_type": "single_label_classification"}, "softmax", TEXT),
        (TEXT, SIX | {"problem_type": "multi_label_classification"}, "sigmoid", "multi-label-classification"),
        (TEXT, ONE | {"problem_type": "regression"}, "none", "regression"),
        (TEXT, SIX | {"problem_type": "regression"}, "none", "regression"),
        (TEXT, ONE, "sigmoid", TEXT),
        (TEXT, ONE | IDENTITY, "none", TEXT),
        (TEXT, ONE | {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "none", TEXT),
        (TEXT, ONE | IDENTITY | {"problem_type": "regression"}, "none", TEXT),
        (TEXT, INFERENCE | IDENTITY, "softmax", TEXT),
        ("image-classification", SIX | {"problem_type": "multi_label_classification"}, "sigmoid", None),
        ("audio-classification", ONE, "softmax", "audio-classification"),
    ],
)
def test_the_function_of_a_head_and_how_it_is_judged(task, config, activation, judged):
    assert activation_of(task, config) == activation
    assert judged_as(task, config) == (judged or "multi-label-classification")


@pytest.mark.parametrize(
    ("config", "use", "takes"),
    [
        (SIX, TEXT, TEXTS),
        (INFERENCE, TEXT, PAIRS),
        (ONE, "reranking", PAIRS),
        (ONE | {"problem_type": "regression"}, TEXT, TEXTS),
        (ONE | {"problem_type": "regression"} | IDENTITY, "reranking", PAIRS),
    ],
)
def test_a_regression_reads_single_texts_and_a_reranker_pairs(config, use, takes):
    found = use_of(TEXT, config)
    assert (found.name, found.takes) == (use, takes)
    assert is_cross_encoder(TEXT, config) == (use == "reranking")


@pytest.mark.parametrize(
    ("similarity", "judged"), [(None, "sentence-similarity"), ("cosine", "sentence-similarity"), ("dot", None)]
)
def test_embeddings_are_judged_by_the_models_own_similarity(similarity, judged):
    assert judged_as("sentence-similarity", {}, similarity) == (judged or "sentence-similarity by dot")


@pytest.mark.parametrize(
    "config",
    [
        {"problem_type": "multi_label"},
        {"id2label": {"0": "good", "1": "bad", "2": "good"}},
        ONE | {"sentence_transformers": {"activation_fn": "torch.nn.Tanh"}},
    ],
)
def test_an_unknown_head_is_refused_by_one_line(config):
    with raises(UserError):
        check_head("m", config)
