"""Inferring the task from a snapshot's own files."""

import json
from pathlib import Path

import pytest

from messages import raises
from onnxproof.checkpoint.inference import choose_task
from onnxproof.cli import UserError


def snapshot(folder, architecture, modules=()):
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    if modules:
        place = "sentence_transformers.models"
        entries = [{"name": str(i), "path": "", "type": f"{place}.{kind}"} for i, kind in enumerate(modules)]
        (folder / "modules.json").write_text(json.dumps(entries))
    return folder


@pytest.mark.parametrize(
    ("architecture", "modules", "task"),
    [
        ("BertModel", ["Transformer", "Pooling"], "sentence-similarity"),
        ("BertModel", [], "feature-extraction"),
        ("BertForMaskedLM", [], "feature-extraction"),
        ("XLMRobertaForSequenceClassification", [], "text-classification"),
    ],
)
def test_the_task_follows_from_the_files(tmp_path, architecture, modules, task):
    assert choose_task("m", snapshot(tmp_path, architecture, modules), None) == task


def test_a_cross_encoder_classifies_though_it_has_modules(tmp_path):
    folder = snapshot(tmp_path, "BertForSequenceClassification", modules=["Transformer"])
    (folder / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
    (folder / "sentence_bert_config.json").write_text('{"transformer_task": "sequence-classification"}')
    assert choose_task("m", folder, None) == "text-classification"
    snapshot(tmp_path, "BertForSequenceClassification", modules=["Transformer", "Pooling"])
    (folder / "sentence_bert_config.json").unlink()
    (folder / "config_sentence_transformers.json").write_text('{"model_type": "SentenceTransformer"}')
    assert choose_task("m", folder, None) == "sentence-similarity"


def test_a_classifier_can_be_asked_for_features(tmp_path):
    folder = snapshot(tmp_path, "BertForSequenceClassification")
    assert choose_task("m", folder, "feature-extraction") == "feature-extraction"


def test_an_encoder_cannot_classify(tmp_path):
    with raises(UserError):
        choose_task("m", snapshot(tmp_path, "BertModel"), "text-classification")


@pytest.mark.parametrize("architecture", ["SpeechT5ForTextToSpeech", "ViTForImageClassification", "T5EncoderStack"])
def test_other_architectures_are_refused_by_name(tmp_path, architecture):
    with raises(UserError):
        choose_task("m", snapshot(tmp_path, architecture), None)


def write_config(folder, **config):
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("config", "task"),
    [
        ({"model_type": "deberta-v2", "architectures": ["DebertaV2ForTokenClassification"]}, "token-classification"),
        ({"model_type": "bert", "architectures": ["BertForQuestionAnswering"]}, "question-answering"),
        ({"model_type": "bert", "architectures": ["BertForMultipleChoice"]}, "multiple-choice"),
        ({"model_type": "qwen3", "architectures": ["Qwen3ForSequenceClassification"]}, "text-classification"),
        (
            {"model_type": "bart", "architectures": ["BartForSequenceClassification"], "is_encoder_decoder": True},
            "text-classification",
        ),
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "text-generation"),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "text-generation"),
        ({"model_type": "llama", "architectures": ["LlamaModel"]}, "feature-extraction"),
        (
            {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
            "text2text-generation",
        ),
        (
            {"model_type": "marian", "architectures": ["MarianMTModel"], "is_encoder_decoder": True},
            "text2text-generation",
        ),
        ({"model_type": "vit", "architectures": ["ViTForImageClassification"]}, "image-classification"),
        ({"model_type": "dinov2", "architectures": ["Dinov2Model"]}, "image-feature-extraction"),
        ({"model_type": "detr", "architectures": ["DetrForObjectDetection"]}, "object-detection"),
        ({"model_type": "segformer", "architectures": ["SegformerForSemanticSegmentation"]}, "semantic-segmentation"),
        ({"model_type": "dpt", "architectures": ["DPTForDepthEstimation"]}, "depth-estimation"),
        ({"model_type": "clip", "architectures": ["CLIPModel"]}, "zero-shot-image-classification"),
        ({"model_type": "wav2vec2", "architectures": ["Wav2Vec2ForCTC"]}, "automatic-speech-recognition"),
        ({"model_type": "wav2vec2", "architectures": ["Wav2Vec2ForSequenceClassification"]}, "audio-classification"),
        ({"model_type": "hubert", "architectures": ["HubertModel"]}, "feature-extraction"),
    ],
)
def test_heads_of_text_image_and_sound_are_told_apart(tmp_path, config, task):
    (tmp_path / "tokenizer.json").write_text("{}")  # without one, Marian's texts are cut by Python alone
    assert choose_task("m", write_config(tmp_path, **config), None) == task


def test_masked_tokens_are_filled_on_request(tmp_path):
    folder = write_config(tmp_path, model_type="bert", architectures=["BertForMaskedLM"])
    assert choose_task("m", folder, "fill-mask") == "fill-mask"


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "whisper", "architectures": ["WhisperModel"], "is_encoder_decoder": True},
        {"model_type": "t5", "architectures": ["T5Model"], "is_encoder_decoder": True},
    ],
)
def test_encoder_decoders_without_a_head_are_refused(tmp_path, config):
    with raises(UserError):
        choose_task("m", write_config(tmp_path, **config), None)


@pytest.mark.parametrize(
    ("model_type", "architecture", "task"),
    [
        ("whisper", "WhisperForConditionalGeneration", "speech-to-text"),
        ("whisper", "WhisperForAudioClassification", "audio-classification"),
        ("vision-encoder-decoder", "VisionEncoderDecoderModel", "image-to-text"),
        ("encoder-decoder", "EncoderDecoderModel", "text2text-generation"),
        ("owlvit", "OwlViTForObjectDetection", "zero-shot-object-detection"),
        ("maskformer", "MaskFormerForInstanceSegmentation", "image-segmentation"),
    ],
)
def test_the_same_head_means_what_the_model_takes(tmp_path, model_type, architecture, task):
    config = {"model_type": model_type, "architectures": [architecture], "is_encoder_decoder": "-to-" in task}
    assert choose_task("m", write_config(tmp_path, **config), None) == task


def test_a_task_may_be_asked_for_by_the_exporters_name(tmp_path):
    whisper = {"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"]}
    folder = write_config(tmp_path, is_encoder_decoder=True, **whisper)
    assert choose_task("m", folder, "automatic-speech-recognition") == "speech-to-text"
    folder = write_config(tmp_path, model_type="wav2vec2", architectures=["Wav2Vec2ForCTC"])
    assert choose_task("m", folder, "automatic-speech-recognition") == "automatic-speech-recognition"


def test_without_architectures_the_task_must_be_said(tmp_path):
    folder = write_config(tmp_path, model_type="bert")
    with raises(UserError):
        choose_task("m", folder, None)
    assert choose_task("m", folder, "token-classification") == "token-classification"


def test_a_type_without_a_task_is_refused_with_advice(tmp_path):
    folder = write_config(tmp_path, model_type="vits", architectures=["VitsModel"])
    with raises(UserError):
        choose_task("m", folder, None)


def test_a_head_that_is_not_served_says_what_the_type_is_supported_for(tmp_path):
    folder = write_config(tmp_path, model_type="bert", architectures=["BertForNextSentencePrediction"])
    with raises(UserError):
        choose_task("m", folder, None)


def test_the_tables_of_tasks_agree():
    from onnxproof.parity import answers
    from onnxproof.tasks.registry import HEADS, PARTS, TASKS
    from onnxproof.vocabulary import SUPPORTED_TASKS

    assert tuple(TASKS) == SUPPORTED_TASKS
    assert set(TASKS) | set(PARTS) | set(HEADS) == set(answers._KINDS)


def test_the_list_of_model_types_is_that_of_the_installed_transformers(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "tools"))
    import list_architectures

    assert list_architectures.TARGET.read_text(encoding="utf-8") == list_architectures.module_text()
