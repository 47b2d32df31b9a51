"""Optimum's exporter, in its own environment, against the answers of transformers 5."""

import json

import numpy as np
import onnx
import pytest

from architectures import TEXT_SIZES, randomize
from messages import raises
from onnxproof.cli import UserError
from onnxproof.original.exporters import optimum
from onnxproof.original.exporters.optimum import export_with_optimum, find_interpreter
from tiny_models import write_tokenizer

TOLERANCE = 1e-4
TOKENS = np.array([[2, 40, 41, 42, 43, 3], [2, 50, 51, 3, 0, 0]], dtype=np.int64)
MASK = (TOKENS != 0).astype(np.int64)


@pytest.fixture(scope="module", autouse=True)
def environment():
    try:
        return find_interpreter("any")
    except UserError as error:
        pytest.skip(str(error))


def save(folder, config_class, model_class, **options):
    """Save a tiny model with transformers 5; return its answers to the tokens."""
    import torch
    import transformers

    config = getattr(transformers, config_class)(**TEXT_SIZES | {"vocab_size": write_tokenizer(folder)} | options)
    torch.manual_seed(0)
    model = randomize(getattr(transformers, model_class)(config))
    model.save_pretrained(folder)
    inputs = {"input_ids": torch.from_numpy(TOKENS), "attention_mask": torch.from_numpy(MASK)}
    if config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"][:, :3]
    with torch.inference_mode():
        return model(**inputs)


def run(graph, **inputs):
    """Return the first output of a graph; inputs that are not given are an empty cache, or positions or types."""
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    feed = {}
    for value in session.get_inputs():
        if value.name in inputs:
            feed[value.name] = inputs[value.name]
        elif value.name.startswith("past_key_values"):
            shape = [size if isinstance(size, int) else 0 for size in value.shape[1:]]
            feed[value.name] = np.zeros([len(TOKENS), *shape], dtype=np.float32)
        elif value.name == "position_ids":
            feed[value.name] = np.broadcast_to(np.arange(TOKENS.shape[1]), TOKENS.shape).copy()
        else:
            feed[value.name] = np.zeros_like(TOKENS)
    return session.run(None, feed)[0]


def difference(expected, actual):
    """Return the largest difference over the largest value, where there is no padding."""
    expected = expected.numpy()
    mask = MASK[:, : expected.shape[1], None]
    return np.abs((expected - actual) * mask).max() / np.abs(expected).max()


@pytest.fixture
def folders(tmp_path):
    source, exported = tmp_path / "source", tmp_path / "onnx"
    exported.mkdir()
    return source, exported


def test_a_bert(folders):
    source, exported = folders
    expected = save(source, "BertConfig", "BertModel").last_hidden_state
    versions = export_with_optimum("bert", source, "feature-extraction", exported)
    assert versions["transformers"].startswith("4.57.")
    assert {"optimum", "optimum-onnx", "torch"} <= set(versions)
    actual = run(exported / "model.onnx", input_ids=TOKENS, attention_mask=MASK)
    assert difference(expected, actual) < TOLERANCE


@pytest.mark.slow
def test_a_fused_bert_hides_whatever_its_mask_hides(folders, tmp_path):
    """Padding on the left, and gaps; whole, or in parts."""
    import optimize
    from onnxproof.quantization.recipe import apply_recipe
    from onnxproof.quantization.search.candidates import QUANTIZE

    source, exported = folders
    save(source, "BertConfig", "BertModel")
    export_with_optimum("bert", source, "feature-extraction", exported)
    optimize.optimize_basic(onnx.load(exported / "model.onnx"), tmp_path / "basic.onnx")
    feed = {"input_ids": TOKENS, "attention_mask": np.array([[0, 0, 1, 1, 1, 1], [1, 0, 1, 1, 0, 1]])}
    expected = run(exported / "model.onnx", **feed)

    fused = optimize.fuse_transformer(onnx.load(tmp_path / "basic.onnx"), {})
    np.testing.assert_allclose(run(fused.SerializeToString(), **feed), expected, atol=1e-5)

    # Its mask becomes a bias of the scores here.
    texts = [{"input_ids": TOKENS, "attention_mask": MASK, "token_type_ids": np.zeros_like(TOKENS)}]
    quantized = apply_recipe(fused, [QUANTIZE["int8-invariant"]], texts)
    assert "MultiHeadAttention" in [node.op_type for node in quantized.graph.node]
    np.testing.assert_allclose(run(quantized.SerializeToString(), **feed), expected, atol=0.1)


@pytest.mark.slow
def test_a_llama_with_a_base_of_500000(folders):
    """Transformers 4.57 ignores ``rope_parameters``, and would export a base of 10,000."""
    source, exported = folders
    rope = {"rope_type": "default", "rope_theta": 500_000.0}
    expected = save(source, "LlamaConfig", "LlamaForCausalLM", rope_parameters=rope, tie_word_embeddings=False).logits
    assert "rope_theta" not in json.loads((source / "config.json").read_text())
    export_with_optimum("llama", source, "text-generation", exported)
    actual = run(exported / "model.onnx", input_ids=TOKENS, attention_mask=MASK)
    assert difference(expected, actual) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("scaled", [True, False])
def test_a_t5(folders, scaled):
    """For 4.57, a head that nothing is scaled before has weights of its own; transformers 5 saves the shared ones."""
    source, exported = folders
    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "eos_token_id": 3}
    sizes |= {"decoder_start_token_id": 0, "tie_word_embeddings": scaled}
    expected = save(source, "T5Config", "T5ForConditionalGeneration", **sizes)
    export_with_optimum("t5", source, "text2text-generation", exported)
    encoded = run(exported / "encoder_model.onnx", input_ids=TOKENS, attention_mask=MASK)
    assert difference(expected.encoder_last_hidden_state, encoded) < TOLERANCE
    decoder = exported / "decoder_model.onnx"
    logits = run(decoder, input_ids=TOKENS[:, :3], encoder_hidden_states=encoded, encoder_attention_mask=MASK)
    assert difference(expected.logits, logits) < TOLERANCE


def test_what_the_older_version_cannot_be_told_is_refused(folders):
    source, exported = folders
    save(source, "GemmaConfig", "GemmaForCausalLM", head_dim=16, num_key_value_heads=2)
    file = source / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"use_bidirectional_attention": True}))
    with raises(UserError):
        export_with_optimum("gemma", source, "text-generation", exported)
    assert list(exported.iterdir()) == []


def test_missing_weights_are_refused(folders):
    from safetensors.numpy import load_file, save_file

    source, exported = folders
    save(source, "BertConfig", "BertModel")
    weights = load_file(source / "model.safetensors")
    del weights["encoder.layer.0.attention.self.query.weight"]
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    with raises(UserError):
        export_with_optimum("bert", source, "feature-extraction", exported)


def test_a_repository_with_code_of_its_own_never_enters(folders):
    source, exported = folders
    source.mkdir()
    source.with_name("source.json").write_text(json.dumps({"allow_remote_code": True}))
    with raises(UserError):
        export_with_optimum("any", source, "feature-extraction", exported)


def test_an_environment_that_cannot_be_made_is_told_in_one_line(folders, monkeypatch, tmp_path):
    source, exported = folders
    source.mkdir()
    (tmp_path / "project").mkdir()
    monkeypatch.delenv(optimum.INTERPRETER_VARIABLE, raising=False)
    monkeypatch.setattr(optimum, "PROJECT", tmp_path / "project")
    monkeypatch.setattr(optimum, "_ENVIRONMENT", tmp_path / "project/.venv-optimum")
    monkeypatch.setattr(optimum, "_COMPLETE", tmp_path / "project/.venv-optimum/done")
    with raises(UserError) as caught:
        export_with_optimum("any", source, "feature-extraction", exported)
    assert "\n" not in str(caught.value)
    (tmp_path / "project/Makefile").write_text("setup-optimum:\n\t@echo no network; exit 1\n")
    with raises(UserError):
        export_with_optimum("any", source, "feature-extraction", exported)


def test_a_wrong_interpreter_is_named(folders, monkeypatch):
    source, exported = folders
    source.mkdir()
    monkeypatch.setenv(optimum.INTERPRETER_VARIABLE, "/no/such/python")
    with raises(UserError):
        export_with_optimum("any", source, "feature-extraction", exported)
