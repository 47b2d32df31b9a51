"""Exported writers answer as PyTorch does: other lengths, padded batches, token by token with the cache."""

import functools

import numpy as np
import onnx
import pytest
import torch
import transformers

from messages import raises
from onnxproof.cli import UserError
from onnxproof.graph.encoder_decoder import open_variant
from onnxproof.graph.files import DECODER_FILE, DECODER_WITH_PAST_FILE, MERGED_FILE, MODEL_FILE
from onnxproof.graph.generation import empty_cache, generate_greedily
from onnxproof.graph.merged_decoder import merge_decoders
from onnxproof.graph.sessions import open_session
from onnxproof.inputs.prompts import PAST, PRESENT
from onnxproof.original.exporters import generation
from onnxproof.original.exporters.generation import Step, export_decoder, export_encoder_decoder

WORDS = 97
SIZES = {"vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
WRITTEN = 8

DECODERS = {
    "grouped queries": ("LlamaConfig", SIZES | {"rope_theta": 750_000.0}),
    "sliding window": ("MistralConfig", SIZES | {"sliding_window": 4}),
    "learned positions": ("GPT2Config", {"vocab_size": WORDS, "n_embd": 32, "n_layer": 1, "n_head": 4}),
}
BART = {"d_model": 32, "decoder_start_token_id": 2, "forced_eos_token_id": None}
for half in ("encoder", "decoder"):
    BART |= {f"{half}_layers": 1, f"{half}_attention_heads": 4, f"{half}_ffn_dim": 48}
ENCODER_DECODERS = {
    "bart": ("BartConfig", BART),
    "t5": ("T5Config", {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4}),
    "whisper": ("WhisperConfig", BART | {"num_mel_bins": 8, "max_source_positions": 20, "pad_token_id": 0}),
}
#: Exporting takes seconds: one kind is enough for the quick tests.
QUICK = "grouped queries"
DECODER_NAMES = [pytest.param(name, marks=() if name == QUICK else pytest.mark.slow) for name in DECODERS]


def make_network(config_class, options, auto_class):
    """Return a network with random weights that are large enough for every token to matter."""
    torch.manual_seed(0)
    config = getattr(transformers, config_class)(**{"vocab_size": WORDS} | options)
    network = getattr(transformers, auto_class).from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim == 2 and "positions" not in name:
                weight.normal_(std=weight.shape[1] ** -0.5 * (4 if "shared" in name or "embed" in name else 1))
    return network


@pytest.fixture(scope="module")
def exported_decoder(tmp_path_factory):
    @functools.cache
    def export(name):
        network = make_network(*DECODERS[name], "AutoModelForCausalLM")
        folder = tmp_path_factory.mktemp("decoder")
        export_decoder(network, folder)
        return network, folder / MODEL_FILE

    return export


@pytest.fixture(scope="module")
def exported_encoder_decoder(tmp_path_factory):
    @functools.cache
    def export(name):
        if name == "whisper":
            network = make_network(*ENCODER_DECODERS[name], "AutoModelForSpeechSeq2Seq")
            # Of one length, with a mask over its 8 frequency bands, as its own preprocessing gives it.
            sample = {"input_features": torch.randn(2, 8, 40), "attention_mask": torch.ones(2, 8, dtype=torch.long)}
            task = "speech-to-text"
        else:
            network = make_network(*ENCODER_DECODERS[name], "AutoModelForSeq2SeqLM")
            sample = {"input_ids": torch.randint(WORDS, (2, 12)), "attention_mask": torch.ones(2, 12, dtype=torch.long)}
            task = "text2text-generation"
        folder = tmp_path_factory.mktemp(name)
        export_encoder_decoder(network, task, sample, folder)
        merge_decoders(folder)
        return network, sample, folder

    return export


def relative_difference(expected, actual):
    return float(np.abs(expected - actual).max() / np.abs(expected).max())


@torch.inference_mode()
def continue_alone(network, tokens):
    """Return PyTorch's logits after each of one text's tokens, without padding or cache: float32 (tokens, words)."""
    return network(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].numpy()


@pytest.mark.parametrize("name", DECODER_NAMES)
def test_decoder_writes_a_padded_batch_as_pytorch_writes_each_text(exported_decoder, name):
    network, path = exported_decoder(name)
    session = open_session(path, 1)
    rng = np.random.default_rng(1)
    texts = [rng.integers(WORDS, size=length).tolist() for length in (11, 7, 2)]
    longest = max(map(len, texts))
    mask = np.array([[0] * (longest - len(text)) + [1] * len(text) for text in texts])
    fed = np.array([[0] * (longest - len(text)) + text for text in texts])
    cache = {
        key: np.repeat(value[None], len(texts), axis=0) for key, value in empty_cache(session.get_inputs()).items()
    }
    names = [value.name for value in session.get_outputs()]
    for _ in range(WRITTEN):
        positions = np.maximum(mask.cumsum(axis=1) - 1, 0)[:, -fed.shape[1] :]
        feed = {"input_ids": fed, "attention_mask": mask, "position_ids": positions} | cache
        outputs = dict(zip(names, session.run(names, feed), strict=True))
        expected = np.stack([continue_alone(network, text)[-1] for text in texts])
        assert relative_difference(expected, outputs["logits"][:, -1]) < 1e-4
        chosen = expected.argmax(axis=1)
        np.testing.assert_array_equal(outputs["logits"][:, -1].argmax(axis=1), chosen)
        for text, token in zip(texts, chosen, strict=True):
            text.append(int(token))
        cache = {key: outputs[PRESENT + key.removeprefix(PAST)] for key in cache}
        fed = chosen[:, None]
        mask = np.hstack([mask, np.ones((len(texts), 1), dtype=np.int64)])


@pytest.mark.parametrize("name", DECODER_NAMES)
def test_decoder_generates_the_tokens_of_pytorchs_own_cache(exported_decoder, name):
    network, path = exported_decoder(name)
    prompt = torch.arange(5, 14)[None]
    options = {"max_new_tokens": 16, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    network.generation_config = transformers.GenerationConfig(**options)
    expected = network.generate(prompt, attention_mask=torch.ones_like(prompt))[0, prompt.shape[1] :].tolist()
    session = open_session(path, 1)
    assert generate_greedily(session, prompt[0].numpy(), 16, use_cache=True) == expected
    assert generate_greedily(session, prompt[0].numpy(), 16, use_cache=False) == expected


def shapes(values):
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values
    }


def test_decoder_is_named_as_clients_read_it(exported_decoder):
    model = onnx.load(exported_decoder("grouped queries")[1])
    total = "past_sequence_length + sequence_length"
    past, present = ["batch_size", 2, "past_sequence_length", 8], ["batch_size", 2, total, 8]
    assert shapes(model.graph.input) == {
        "input_ids": ["batch_size", "sequence_length"],
        "attention_mask": ["batch_size", total],
        "position_ids": ["batch_size", "sequence_length"],
        "past_key_values.0.key": past,
        "past_key_values.0.value": past,
    }
    assert shapes(model.graph.output) == {
        "logits": ["batch_size", "sequence_length", WORDS],
        "present.0.key": present,
        "present.0.value": present,
    }
    assert "model.layers.0.self_attn.q_proj.weight" not in {value.name for value in model.graph.input}
    assert (model.opset_import[0].version, model.ir_version) == (20, 10)


def test_decoder_without_keys_and_values_is_refused_with_the_reason(tmp_path):
    config = transformers.MambaConfig(vocab_size=WORDS, hidden_size=16, num_hidden_layers=1, state_size=4)
    network = transformers.AutoModelForCausalLM.from_config(config).eval()
    with raises(UserError):
        export_decoder(network, tmp_path)


def test_graph_of_another_network_is_refused_with_the_output_and_the_difference(exported_decoder):
    network, path = exported_decoder("grouped queries")
    config_class, options = DECODERS["grouped queries"]
    other = make_network(config_class, options | {"rope_theta": 100.0}, "AutoModelForCausalLM")
    with torch.inference_mode():
        layers = generation.find_layers(network)
    generation.check_decoder(path, network, layers, [Step(2, 6, 2)])
    with raises(UserError):
        generation.check_decoder(path, other, layers, [Step(2, 6, 2)])


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_encoder_decoder_writes_what_pytorch_writes(exported_encoder_decoder, name):
    network, sample, folder = exported_encoder_decoder(name)
    if name == "whisper":
        inputs = {"input_features": sample["input_features"][1:].flip(-1)}
    else:
        tokens = torch.arange(20, 37)[None]
        inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    network.generation_config = transformers.GenerationConfig(**options, decoder_start_token_id=2)
    expected = transformers.GenerationMixin.generate(network, **inputs)[0, -12:].tolist()
    feed = {key: tensor.numpy() for key, tensor in inputs.items()} | {"decoder_input_ids": np.array([[2]])}
    session = open_variant(folder, 1)
    assert session.generate(feed, 12, use_cache=True) == expected
    assert session.generate(feed, 12, use_cache=False) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bart", "t5"])
def test_padding_does_not_change_what_a_text_is_answered(exported_encoder_decoder, name):
    network, _, folder = exported_encoder_decoder(name)
    texts = [list(range(10, 19)), list(range(40, 44)), list(range(60, 75))]
    longest = max(map(len, texts))
    written = np.array([[2, 5, 7, 11, 13]] * len(texts))
    feed = {
        "input_ids": np.array([text + [0] * (longest - len(text)) for text in texts]),
        "attention_mask": np.array([[1] * len(text) + [0] * (longest - len(text)) for text in texts]),
        "decoder_input_ids": written,
    }
    (actual,) = open_variant(folder, 1).run(["logits"], feed)
    for row, text in enumerate(texts):
        with torch.inference_mode():
            answers = network(
                input_ids=torch.tensor([text]), decoder_input_ids=torch.tensor(written[row : row + 1]), use_cache=False
            )
        assert relative_difference(answers.logits[0].numpy(), actual[row]) < 1e-4


@pytest.mark.slow
def test_encoder_decoder_is_named_as_clients_read_it(exported_encoder_decoder):
    folder = exported_encoder_decoder("bart")[2]
    first, following, merged = (
        onnx.load(folder / name) for name in (DECODER_FILE, DECODER_WITH_PAST_FILE, MERGED_FILE)
    )
    own = ["batch_size", 4, "past_decoder_sequence_length + decoder_sequence_length", 8]
    cross = ["batch_size", 4, "encoder_sequence_length", 8]
    cache = {
        f"0.{half}.{kind}": own if half == "decoder" else cross
        for half in ("decoder", "encoder")
        for kind in ("key", "value")
    }
    logits = {"logits": ["batch_size", "decoder_sequence_length", WORDS]}
    assert shapes(first.graph.output) == logits | {PRESENT + key: axes for key, axes in cache.items()}
    assert shapes(following.graph.output) == logits | {
        PRESENT + key: axes for key, axes in cache.items() if "decoder" in key
    }
    assert list(shapes(first.graph.input)) == ["encoder_attention_mask", "input_ids", "encoder_hidden_states"]
    assert list(shapes(following.graph.input)) == [
        "encoder_attention_mask",
        "input_ids",
        *(PAST + key for key in cache),
    ]
    assert list(shapes(merged.graph.output)) == list(shapes(first.graph.output))
    assert "use_cache_branch" in shapes(merged.graph.input)
