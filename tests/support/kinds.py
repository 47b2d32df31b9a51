"""Tiny models whose answers hang on something that their folders say beside the weights: heads, prompts, similarities.

``KINDS`` has a function for each, which saves the model to a folder.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from architectures import (
    ENCODERS,
    SPEECH_SIZES,
    all_cases,
    save_cross_encoder,
    save_listener,
    save_network,
    save_sentence_transformer,
    save_text_model,
)
from new_architectures import save_image_writer
from tiny_models import write_tokenizer

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


def save_lower_cased(folder: Path) -> None:
    """Save a sentence-transformer that lower-cases texts, though its tokenizer does not."""
    save_embedder(folder)
    change_json(folder / "sentence_bert_config.json", do_lower_case=True)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"] = None
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def save_chooser(folder: Path) -> None:
    """Save a BERT that is sure which of the choices it takes."""
    import torch
    from transformers import AutoModelForMultipleChoice

    save_case(folder, "bert multiple-choice")
    model = AutoModelForMultipleChoice.from_pretrained(folder)
    with torch.no_grad():
        model.classifier.weight *= 200
    model.save_pretrained(folder)


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


def save_with_rules(folder: Path, name: str, **rules: Any) -> None:
    """Save a case of ``architectures`` with rules of which token may follow."""
    save_case(folder, name)
    change_json(folder / "generation_config.json", **rules)


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
    """Save a case that writes about images and ends texts at many tokens."""
    save_case(folder, name)
    change_json(folder / "tokenizer_config.json", clean_up_tokenization_spaces=True)
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


#: What a model of speech can write: its blank first, and a token of several letters.
SPEECH_VOCABULARY = ["<pad>", "<s>", "</s>", "<unk>", "|", *"etaonihsrdlu'", "th"]


def save_speech_vocabulary(folder: Path) -> int:
    """Write the vocabulary of a tokenizer that merges repeated letters; return the number of its tokens."""
    from transformers import Wav2Vec2CTCTokenizer

    file = folder / "vocab.json"
    file.write_text(json.dumps({token: number for number, token in enumerate(SPEECH_VOCABULARY)}))
    Wav2Vec2CTCTokenizer(str(file)).save_pretrained(folder)
    return len(SPEECH_VOCABULARY)


def save_transcriber(folder: Path) -> None:
    """Save a model that writes a letter a frame, with its tokenizer."""
    folder.mkdir(parents=True)
    words = save_speech_vocabulary(folder)
    save_listener(folder, "Wav2Vec2Config", "AutoModelForCTC", {"vocab_size": words, "pad_token_id": 0})


#: The tokens of Whisper's that are no text, the last of which begins the timestamps, of which there are none.
WHISPER_TOKENS = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>"]
WHISPER_TOKENS += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]


def save_whisper_model(folder: Path, **settings: Any) -> None:
    """Save a Whisper that hears one second, finds the language itself and writes letters.

    Args:
        folder: where to.
        settings: further ones of ``generation_config.json``.
    """
    from tokenizers import AddedToken
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperTokenizer

    letters = {letter: number for number, letter in enumerate([*"etaonihsrdlucmwfgypbvk", "\u0120", "\u0120."])}
    tokenizer = WhisperTokenizer(vocab=letters, merges=[])
    tokenizer.add_tokens([AddedToken(token, special=True) for token in WHISPER_TOKENS])
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=16, chunk_length=2).save_pretrained(folder)
    numbers = {token: tokenizer.convert_tokens_to_ids(token) for token in WHISPER_TOKENS}
    end = numbers["<|endoftext|>"]
    sizes = SPEECH_SIZES | {"vocab_size": len(tokenizer), "num_mel_bins": 16, "max_source_positions": 100}
    sizes |= {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end}
    sizes |= {"decoder_start_token_id": numbers["<|startoftranscript|>"]}
    sizes |= {"suppress_tokens": [], "begin_suppress_tokens": []}
    save_network(folder, "WhisperForConditionalGeneration", WhisperConfig(**sizes))
    own = {
        "_from_model_config": False,  # else transformers reads no settings that are Whisper's own
        "is_multilingual": True,
        "lang_to_id": {token: numbers[token] for token in ("<|en|>", "<|de|>")},
        "task_to_id": {task: numbers[f"<|{task}|>"] for task in ("translate", "transcribe")},
        "forced_decoder_ids": [[1, None], [2, numbers["<|transcribe|>"]]],
        "no_timestamps_token_id": numbers["<|notimestamps|>"],
        "suppress_tokens": [3, 7, *(numbers[token] for token in WHISPER_TOKENS[1:])],
        "begin_suppress_tokens": [letters["\u0120"], end],
    }
    change_json(folder / "generation_config.json", **own | settings)


def save_moonshine_model(folder: Path) -> None:
    """Save a Moonshine with a tokenizer and a token that every text begins with."""
    save_case(folder, "moonshine speech-to-text")
    write_tokenizer(folder)
    change_json(folder / "generation_config.json", forced_bos_token_id=40)


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
    "lower-cased": save_lower_cased,
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
    "choices": save_chooser,
    "chat": save_chat_model,
    "translator": save_translator,
    "ruled-writer": partial(
        save_with_rules,
        name="llama text-generation",
        repetition_penalty=1.3,
        no_repeat_ngram_size=2,
        min_new_tokens=10,
        bad_words_ids=[[40], [41, 42], [2]],
        suppress_tokens=[43, 44],
        begin_suppress_tokens=[45, 46],
        forced_eos_token_id=[7, 3],
    ),
    "ruled-translator": partial(
        save_with_rules,
        name="bart text2text-generation",
        encoder_no_repeat_ngram_size=1,
        no_repeat_ngram_size=3,
        min_length=12,
        begin_suppress_tokens=[45, 46],
        forced_bos_token_id=40,
        forced_eos_token_id=3,
        num_beams=4,
    ),
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
    "frames": partial(save_case, name="wav2vec2 audio-frame-classification"),
    "speakers": partial(save_case, name="wav2vec2 audio-xvector"),
    "sound-features": partial(save_case, name="hubert feature-extraction"),
    "transcripts": save_transcriber,
    "speech": save_whisper_model,
    "forced-speech": save_moonshine_model,
}
#: Tasks that must be asked for.
TASKS = {"masks": "fill-mask"}
