"""Tiny models whose answers hang on something that their folders say beside the weights: heads, prompts, similarities.

``KINDS`` has a function for each, which saves the model to a folder.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from architectures import ENCODERS, all_cases, save_cross_encoder, save_sentence_transformer, save_text_model
from new_architectures import save_image_writer

TONES = {"0": "glad", "1": "sad", "2": "angry", "3": "calm"}
SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"
INFERENCE = {"0": "entailment", "1": "neutral", "2": "contradiction"}


def change_json(file: Path, **values: Any) -> None:
    """Set keys of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def save_case(folder: Path, name: str) -> None:
    """Save a case of ``architectures`` as it is."""
    (case,) = [case for case in all_cases() if case.name == name]
    case.save(folder)


def save_head(folder: Path, labels: dict[str, str], problem_type: str | None = None, bias: float = 0.0) -> None:
    """Save a BERT that classifies texts with these labels."""
    import torch
    from transformers import AutoModelForSequenceClassification

    config_class, sizes = ENCODERS["bert"]
    save_text_model(folder, config_class, "AutoModelForSequenceClassification", sizes | {"num_labels": len(labels)})
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.classifier.bias += bias
    model.save_pretrained(folder)
    change_json(folder / "config.json", id2label=labels, label2id={}, problem_type=problem_type)


def save_reranker(folder: Path, activation: str, version: int) -> None:
    """Save a cross-encoder whose scores are made by a function of torch, as sentence-transformers 4 or 6 keeps it."""
    save_cross_encoder(folder)
    if version >= 6:
        change_json(folder / "config_sentence_transformers.json", activation_fn=activation)
        return
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (folder / name).unlink(missing_ok=True)
    change_json(folder / "config.json", sentence_transformers={"activation_fn": activation})


def save_embedder(folder: Path, **settings: Any) -> None:
    """Save a sentence-transformer with settings of ``encode``."""
    save_sentence_transformer(folder, "mean", dense=False)
    change_json(folder / "config_sentence_transformers.json", **settings)


def save_chat_model(folder: Path) -> None:
    """Save a decoder with a chat template."""
    from transformers import AutoTokenizer

    save_case(folder, "llama text-generation")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }} : {{ m['content'] | trim }} ! {% endfor %}we : "
    tokenizer.save_pretrained(folder)


def save_translator(folder: Path) -> None:
    """Save an encoder-decoder whose texts begin with the token of a language."""
    save_case(folder, "m2m_100 text2text-generation")
    change_json(folder / "generation_config.json", forced_bos_token_id=40)


def save_image_tagger(folder: Path) -> None:
    """Save a vision transformer with labels that do not exclude each other."""
    save_case(folder, "vit image-classification")
    change_json(folder / "config.json", problem_type="multi_label_classification")


def save_nested(folder: Path) -> None:
    """Save a sentence-transformer whose transformer lies in a folder of its own, named after it."""
    save_embedder(folder)
    place = folder / "0_BERT"
    place.mkdir()
    kept = {"modules.json", "config_sentence_transformers.json", "README.md"}
    for file in [file for file in folder.iterdir() if file.is_file() and file.name not in kept]:
        file.rename(place / file.name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = place.name
    (folder / "modules.json").write_text(json.dumps(modules))


def save_with_tokenizer(folder: Path, labels: dict[str, str], **settings: Any) -> None:
    """Save a classifier with no other settings of its tokenizer than these."""
    save_head(folder, labels)
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def save_without_padding(folder: Path) -> None:
    """Save a decoder with a classifier's head whose configuration names no padding token."""
    save_case(folder, "llama text-classification")
    change_json(folder / "config.json", pad_token_id=None)


def save_with_word_types(folder: Path) -> None:
    """Save a GPT-2 whose tokenizer gives types of tokens, which GPT-2 looks up among the words."""
    save_case(folder, "gpt2 text-classification")
    names = ["input_ids", "token_type_ids", "attention_mask"]
    change_json(folder / "tokenizer_config.json", model_input_names=names)


def save_with_processor(folder: Path, name: str, processor: str, side: int) -> None:
    """Save a case of ``architectures`` with an image processor of its own kind."""
    import transformers

    save_case(folder, name)
    size = {"height": side, "width": side}
    options = {} if "Owl" in processor else {"do_pad": False}
    getattr(transformers, processor)(size=size, **options).save_pretrained(folder)


def save_segmenter(folder: Path) -> None:
    """Save a MaskFormer that is sure enough of some of its segments for a pipeline to name them."""
    import torch
    from transformers import AutoModelForUniversalSegmentation

    save_with_processor(folder, "maskformer image-segmentation", "MaskFormerImageProcessorPil", 64)
    model = AutoModelForUniversalSegmentation.from_pretrained(folder)
    with torch.no_grad():
        model.class_predictor.weight *= 4
        model.class_predictor.bias *= 4
    model.save_pretrained(folder)


def save_captioner(folder: Path, name: str) -> None:
    """Save a case that writes about images, ends texts at many tokens, and has a tokenizer for transformers 4 too."""
    save_case(folder, name)
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer.pop("extra_special_tokens", None)
    tokenizer["clean_up_tokenization_spaces"] = True
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    change_json(folder / "generation_config.json", eos_token_id=[3, 17, 29, 41, 53, 67, 79, 83, 97, 101, 113, 127, 139])


CHAT = (
    "{% for message in messages %}{{ message['role'] }} : {% for part in message['content'] %}"
    "{{ MARK if part['type'] == 'image' else part['text'] }} {% endfor %}! {% endfor %}we : "
)


def save_image_reader(folder: Path, kind: str, tokens: dict[str, str], mark: str, chats: bool, **options: Any) -> None:
    """Save a model that writes about images with prompts, with a processor of its own.

    Args:
        folder: where to.
        kind: one of ``IMAGE_WRITERS``.
        tokens: what the tokenizer names beside its words, by the names of their roles; the first stands for an image.
        mark: what stands for an image in a chat.
        chats: whether it has a chat template.
        options: further arguments of the processor.
    """
    import transformers

    save_image_writer(folder, kind)
    names = ["input_ids", "attention_mask"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        folder, extra_special_tokens=tokens, model_input_names=names, model_max_length=256
    )
    image_processor = transformers.AutoImageProcessor.from_pretrained(folder)
    if chats:
        options["chat_template"] = CHAT.replace("MARK", repr(mark))
    processor = {"llava": "LlavaProcessor", "gemma3": "Gemma3Processor", "idefics3": "Idefics3Processor"}[kind]
    getattr(transformers, processor)(image_processor, tokenizer, **options).save_pretrained(folder)
    ends = [3, 17, 29, 41, 53, 67, 79, 83, 97, 101, 113, 127, 139, 151, 163, 179, 191]
    change_json(folder / "generation_config.json", eos_token_id=ends)


KINDS: dict[str, Callable[[Path], None]] = {
    "one-label": partial(save_head, labels=TONES),
    "multi-label": partial(save_head, labels=TONES, problem_type="multi_label_classification"),
    "regression": partial(save_head, labels={"0": "LABEL_0"}, problem_type="regression", bias=3.0),
    "inference": partial(save_head, labels=INFERENCE),
    "reranker": partial(save_reranker, activation=SIGMOID, version=6),
    "raw-reranker": partial(save_reranker, activation=IDENTITY, version=6),
    "older-raw-reranker": partial(save_reranker, activation=IDENTITY, version=4),
    "dense": partial(save_sentence_transformer, pooling="mean", dense=True),
    "dot": partial(save_embedder, similarity_fn_name="dot"),
    "prompts": partial(
        save_embedder,
        prompts={"query": "we would buy : ", "document": "this is it : "},
        default_prompt_name="document",
    ),
    "truncated": partial(save_embedder, truncate_dim=16),
    "nested": save_nested,
    "bare-tokenizer": partial(
        save_with_tokenizer,
        labels=TONES,
        tokenizer_class="BertTokenizer",
        do_lower_case=True,
        model_max_length=64,
    ),
    "untyped-pairs": partial(
        save_with_tokenizer,
        labels=INFERENCE,
        tokenizer_class="BertTokenizer",
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
    ),
    "cased": partial(
        save_with_tokenizer, labels=TONES, tokenizer_class="BertTokenizer", do_lower_case=False, model_max_length=64
    ),
    "without-padding": save_without_padding,
    "word-types": save_with_word_types,
    "tagger": partial(save_case, name="bert token-classification"),
    "questions": partial(save_case, name="bert question-answering"),
    "masks": partial(save_case, name="bert fill-mask"),
    "features": partial(save_case, name="bert feature-extraction"),
    "chat": save_chat_model,
    "translator": save_translator,
    "images": partial(save_case, name="vit image-classification"),
    "image-tags": save_image_tagger,
    "image-features": partial(save_case, name="dinov2 image-feature-extraction"),
    "candidates": partial(save_case, name="clip zero-shot"),
    "objects": partial(save_with_processor, name="yolos object-detection", processor="YolosImageProcessorPil", side=32),
    "segments": partial(
        save_with_processor, name="segformer semantic-segmentation", processor="SegformerImageProcessorPil", side=64
    ),
    "depths": partial(save_with_processor, name="glpn depth-estimation", processor="DPTImageProcessorPil", side=32),
    "captions": partial(save_captioner, name="vit and gpt2 image-to-text"),
    "captions-of-patches": partial(save_captioner, name="pix2struct image-to-text"),
    "image-prompts": partial(
        save_image_reader,
        kind="llava",
        tokens={"image_token": "<image>"},
        mark="<image>",
        chats=False,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ),
    "image-chat": partial(
        save_image_reader,
        kind="gemma3",
        tokens={"image_token": "<image>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
        mark="<start_of_image>",
        chats=True,
        image_seq_length=4,
    ),
    "image-tiles": partial(
        save_image_reader,
        kind="idefics3",
        tokens={"image_token": "<image>"},
        mark="<image>",
        chats=True,
        image_seq_len=4,
    ),
    "restored": partial(save_case, name="swin2sr image-to-image"),
    "panoptic": save_segmenter,
    "panoptic-detr": partial(
        save_with_processor, name="detr image-segmentation", processor="DetrImageProcessorPil", side=64
    ),
    "named-objects": partial(
        save_with_processor,
        name="owlvit zero-shot-object-detection",
        processor="OwlViTImageProcessorPil",
        side=64,
    ),
    "named-objects-in-squares": partial(
        save_with_processor, name="owlv2 zero-shot-object-detection", processor="Owlv2ImageProcessorPil", side=64
    ),
    "sounds": partial(save_case, name="wav2vec2 audio-classification"),
}
#: Tasks that must be asked for.
TASKS = {"masks": "fill-mask"}
