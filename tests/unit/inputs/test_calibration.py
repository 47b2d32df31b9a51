"""Calibration inputs from an ONNX folder's own files, without torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from messages import raises
from onnxproof.checkpoint.tokenizer_files import find_mask_token
from onnxproof.cli import UserError
from onnxproof.inputs import calibration
from onnxproof.inputs.calibration import calibration_inputs
from onnxproof.inputs.model_inputs import MASKED_POSITIONS
from tiny_models import bert_config, write_tokenizer

TEXT = ["input_ids", "attention_mask", "token_type_ids"]


@pytest.fixture
def folder(tmp_path):
    write_tokenizer(tmp_path)
    write_config(tmp_path, model_type="bert", architectures=["BertModel"], max_position_embeddings=40, pad_token_id=0)
    return tmp_path


def write_config(folder, **config):
    (folder / "config.json").write_text(json.dumps(config))


def save_masked_model(folder):
    from transformers import BertForMaskedLM

    words = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    BertForMaskedLM(bert_config(len(words))).save_pretrained(folder)


def test_texts_fit_the_model(folder):
    inputs = calibration_inputs(folder, "feature-extraction", TEXT)
    assert max(len(item["input_ids"]) for item in inputs.items) == 40
    shorter = calibration_inputs(folder, "feature-extraction", TEXT, max_tokens=30)
    assert max(len(item["input_ids"]) for item in shorter.items) == 30
    (folder / "own.txt").write_text("good\nbad\n")
    assert len(calibration_inputs(folder, "feature-extraction", TEXT, folder / "own.txt").items) == 2


def test_questions_and_rerankers_get_pairs(folder):
    inputs = calibration_inputs(folder, "question-answering", TEXT)
    assert all(item["token_type_ids"].max() == 1 for item in inputs.items)
    write_config(folder, model_type="bert", id2label={"0": "LABEL_0"}, max_position_embeddings=40)
    inputs = calibration_inputs(folder, "text-classification", TEXT)
    assert all(item["token_type_ids"].max() == 1 for item in inputs.items)


def test_choices_have_an_axis_of_their_own(folder):
    inputs = calibration_inputs(folder, "multiple-choice", TEXT)
    assert {item["input_ids"].shape[0] for item in inputs.items} == {4}
    assert inputs.feed([0, 1], TEXT)["input_ids"].ndim == 3


def test_one_token_is_masked(folder):
    inputs = calibration_inputs(folder, "fill-mask", TEXT)
    mask = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]["[MASK]"]
    for item in inputs.items:
        assert item["input_ids"][item[MASKED_POSITIONS]].tolist() == [mask]


@pytest.fixture
def rename(folder):
    """A function that has the tokenizer's files name the mask otherwise."""

    def name_mask(config=None, token_map=None, words=(), is_special=True):
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        for key in ("mask_token", "added_tokens_decoder"):
            settings.pop(key, None)
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | (config or {})))
        (folder / "special_tokens_map.json").unlink(missing_ok=True)
        if token_map is not None:
            (folder / "special_tokens_map.json").write_text(json.dumps(token_map))
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary |= {word: len(vocabulary) + number for number, word in enumerate(words)}
        if not is_special:
            tokenizer["added_tokens"] = [entry for entry in tokenizer["added_tokens"] if entry["content"] != "[MASK]"]
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))

    return name_mask


@pytest.mark.parametrize(
    ("config", "token_map"),
    [
        ({}, None),  # the class's own default
        ({"mask_token": {"__type": "AddedToken", "content": "[SEP]"}}, None),
        ({}, {"mask_token": "[SEP]"}),
        ({}, {"mask_token": {"content": "[SEP]"}}),
        ({"mask_token": "[SEP]"}, {"mask_token": "[CLS]"}),
        ({"mask_token": "[SEP]", "added_tokens_decoder": {}}, {"mask_token": "[CLS]"}),
    ],
)
def test_the_mask_is_the_one_that_transformers_finds(folder, rename, config, token_map):
    from transformers import AutoTokenizer

    rename(config, token_map, words=["None"])
    expected = AutoTokenizer.from_pretrained(folder)
    assert find_mask_token(folder) == expected.mask_token
    for item in calibration_inputs(folder, "fill-mask", TEXT).items:
        assert item["input_ids"][item[MASKED_POSITIONS]].tolist() == [expected.mask_token_id]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"mask_token": None},
        {"mask_token": "[NO]"},
    ],
)
def test_a_model_that_fills_masks_needs_one(folder, rename, config):
    rename(config, words=["None"], is_special=False)
    with raises(UserError):
        calibration_inputs(folder, "fill-mask", TEXT)
    assert calibration_inputs(folder, "feature-extraction", TEXT).items  # which needs none


@pytest.mark.slow
def test_an_original_without_a_mask_is_refused(folder, rename):
    from onnxproof.original.model import load_original

    rename({"tokenizer_class": "PreTrainedTokenizerFast"}, is_special=False)
    save_masked_model(folder)
    with raises(UserError):
        load_original("tiny", folder, "fill-mask")
    rename({"tokenizer_class": "PreTrainedTokenizerFast", "mask_token": "[NO]"})
    with raises(UserError):
        load_original("tiny", folder, "fill-mask")


def test_images_are_drawn_at_the_processors_size_and_normalized(tmp_path):
    write_config(tmp_path, model_type="vit")
    settings = {"size": {"height": 24, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings | {"do_normalize": True}))
    inputs = calibration_inputs(tmp_path, "image-classification", ["pixel_values"])
    pixels = np.stack([item["pixel_values"] for item in inputs.items])
    assert pixels.shape[1:] == (3, 24, 32)
    assert pixels.dtype == np.float32
    assert -1 <= pixels.min() < -0.5 < 0.5 < pixels.max() <= 1


def test_captions_are_shared_by_all_images(folder):
    write_config(
        folder, model_type="clip", text_config={"max_position_embeddings": 20}, vision_config={"image_size": 16}
    )
    names = ["input_ids", "attention_mask", "pixel_values"]
    feed = calibration_inputs(folder, "zero-shot-image-classification", names).feed([0, 1, 2], names)
    assert feed["input_ids"].shape[0] == 8
    assert feed["pixel_values"].shape == (3, 3, 16, 16)


def test_sounds_are_synthesized_at_the_extractors_rate(tmp_path):
    write_config(tmp_path, model_type="wav2vec2")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 4000}))
    inputs = calibration_inputs(tmp_path, "automatic-speech-recognition", ["input_values"])
    assert {len(item["input_values"]) for item in inputs.items} == {4000, 6400}
    assert inputs.is_alike
    assert all(abs(item["input_values"].std() - 1) < 0.01 for item in inputs.items)


def test_drawn_spectrograms_are_not_alike_to_real_ones(tmp_path):
    sizes = {"num_mel_bins": 16, "max_source_positions": 50}
    write_config(tmp_path, model_type="whisper", **sizes)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 16000, "feature_size": 16}))
    made = calibration_inputs(tmp_path, "audio-classification", ["input_features"])
    assert made.items[0]["input_features"].shape == (16, 100)
    assert not made.is_alike


def test_unknown_inputs_and_missing_tokenizers_are_told(folder):
    with raises(UserError):
        calibration_inputs(folder, "feature-extraction", [*TEXT, "bbox"])
    (folder / "tokenizer.json").unlink()
    with raises(UserError):
        calibration_inputs(folder, "feature-extraction", TEXT)


def test_calibration_and_answers_need_no_torch():
    script = "import sys, onnxproof.inputs.calibration, onnxproof.parity.answers; print('torch' in sys.modules)"
    scripts = Path(calibration.__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", script], cwd=scripts, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
