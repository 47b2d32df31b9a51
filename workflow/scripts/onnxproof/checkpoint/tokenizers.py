"""Tokenizers and processors that cannot be the ones a model was made with. Standard library only."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from onnxproof.checkpoint.problem import ProblemError
from onnxproof.checkpoint.reading import PROCESSOR_CONFIGS, TOKENIZER, TOKENIZER_CONFIG, Checkpoint
from onnxproof.checkpoint.text_limits import text_settings
from onnxproof.checkpoint.tokenizer_files import NAMED_TOKENS
from onnxproof.checkpoint.untrusted import shortened
from onnxproof.tasks.model_types import model_takes

SIDES = ("left", "right")
#: A parsed vocabulary takes some ten times its file's size in memory. Jobs with little of it leave larger files to
#: those that load the tokenizer anyway.
LARGEST_LEAN_BYTES = 1_000_000
#: Classes of which transformers 5 reads a SentencePiece vocabulary otherwise, where there is no ``tokenizer.json``.
MISREAD_WITHOUT_FILE = frozenset(
    {
        "AlbertTokenizer",
        "BigBirdTokenizer",
        "DebertaV2Tokenizer",
        "GemmaTokenizer",
        "LlamaTokenizer",
        "MBart50Tokenizer",
        "MBartTokenizer",
        "NllbTokenizer",
        "PegasusTokenizer",
        "RemBertTokenizer",
        "XLNetTokenizer",
    }
)
#: SentencePiece vocabularies, by the names that the classes above give them.
SENTENCEPIECE_FILES = ("spiece.model", "sentencepiece.bpe.model", "sentencepiece.model", "spm.model", "tokenizer.model")
#: Classes that transformers 5 runs in Python alone: without a ``tokenizer.json`` no other program cuts texts as they
#: do. A test holds them against the installed version.
PYTHON_ONLY = frozenset(
    {
        "BartphoTokenizer",
        "BertGenerationTokenizer",
        "BertJapaneseTokenizer",
        "BertweetTokenizer",
        "BioGptTokenizer",
        "BlenderbotSmallTokenizer",
        "ByT5Tokenizer",
        "CTRLTokenizer",
        "CanineTokenizer",
        "ClvpTokenizer",
        "CpmAntTokenizer",
        "CpmTokenizer",
        "DiaTokenizer",
        "EsmTokenizer",
        "FSMTTokenizer",
        "FlaubertTokenizer",
        "GPTNeoXJapaneseTokenizer",
        "GPTSw3Tokenizer",
        "M2M100Tokenizer",
        "MarianTokenizer",
        "MgpstrTokenizer",
        "MyT5Tokenizer",
        "PLBartTokenizer",
        "PerceiverTokenizer",
        "PhobertTokenizer",
        "ProphetNetTokenizer",
        "RagTokenizer",
        "RoCBertTokenizer",
        "SiglipTokenizer",
        "Speech2TextTokenizer",
        "SpeechT5Tokenizer",
        "TapasTokenizer",
        "VitsTokenizer",
        "Wav2Vec2CTCTokenizer",
        "Wav2Vec2PhonemeCTCTokenizer",
        "XLMTokenizer",
    }
)
#: The class that transformers takes for a model type, where no file names one and it is in one of the sets above.
CLASSES_OF_TYPES = {
    "albert": "AlbertTokenizer",
    "bert-generation": "BertGenerationTokenizer",
    "big_bird": "BigBirdTokenizer",
    "biogpt": "BioGptTokenizer",
    "blenderbot-small": "BlenderbotSmallTokenizer",
    "canine": "CanineTokenizer",
    "cpmant": "CpmAntTokenizer",
    "ctrl": "CTRLTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "esm": "EsmTokenizer",
    "flaubert": "FlaubertTokenizer",
    "fsmt": "FSMTTokenizer",
    "gemma": "GemmaTokenizer",
    "gemma2": "GemmaTokenizer",
    "gemma3_text": "GemmaTokenizer",
    "gemma3n_text": "GemmaTokenizer",
    "gpt_neox_japanese": "GPTNeoXJapaneseTokenizer",
    "m2m_100": "M2M100Tokenizer",
    "marian": "MarianTokenizer",
    "mbart": "MBartTokenizer",
    "nllb-moe": "NllbTokenizer",
    "pegasus": "PegasusTokenizer",
    "plbart": "PLBartTokenizer",
    "prophetnet": "ProphetNetTokenizer",
    "recurrent_gemma": "GemmaTokenizer",
    "rembert": "RemBertTokenizer",
    "roc_bert": "RoCBertTokenizer",
    "siglip": "SiglipTokenizer",
    "t5gemma": "GemmaTokenizer",
    "xlm": "XLMTokenizer",
    "xlnet": "XLNetTokenizer",
    "yoso": "AlbertTokenizer",
    "zaya": "GemmaTokenizer",
}
#: A key that only transformers 5 writes to ``tokenizer_config.json``. What it wrote, it reads as it was.
SAVED_BY_5 = "backend"
#: Parts of ``tokenizer.json`` that every text goes through.
TOKENIZER_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder", "model", "added_tokens")


def check_tokenizer(checkpoint: Checkpoint) -> None:
    """Refuse settings of a tokenizer that it cannot have, and tokens that the model has no vector for."""
    if checkpoint.has_own_code:
        return
    _check_tokenizer_config(checkpoint)
    _check_special_tokens(checkpoint)
    if model_takes(checkpoint.config.get("model_type")) in ("text", "image+texts", "image+prompt"):
        _check_class(checkpoint)
        _check_rows(checkpoint)


def _check_tokenizer_config(checkpoint: Checkpoint) -> None:
    file, config = checkpoint.beside_config(TOKENIZER_CONFIG), checkpoint.tokenizer_config
    for key in ("padding_side", "truncation_side"):
        if config.get(key) not in (None, *SIDES):
            raise ProblemError(f"{file}: '{key}' is {shortened(config[key])}, must be 'left' or 'right'")
    longest = config.get("model_max_length")
    if longest is not None and (isinstance(longest, bool) or not isinstance(longest, int | float) or longest < 1):
        raise ProblemError(f"{file}: 'model_max_length' is {shortened(longest)}, must be a number of at least 1")
    names = config.get("model_input_names")
    if names is not None and not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise ProblemError(f"{file}: 'model_input_names' is {shortened(names)}, must be a list of names")
    if isinstance(names, list) and "input_ids" not in names and _is_of_texts(checkpoint):
        raise ProblemError(f"{file}: 'model_input_names' is {shortened(names)}, must name 'input_ids'")
    for key in ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_bos_token", "add_eos_token"):
        if not isinstance(config.get(key), bool | None):
            raise ProblemError(f"{file}: '{key}' is {shortened(config[key])}, must be true or false")
    named = config.get("tokenizer_class")
    if not isinstance(named, str | None):
        raise ProblemError(f"{file}: 'tokenizer_class' is {shortened(named)}, must be the name of a class")


def _is_of_texts(checkpoint: Checkpoint) -> bool:
    return model_takes(checkpoint.config.get("model_type")) == "text"


def _check_class(checkpoint: Checkpoint) -> None:
    """Refuse a folder without ``tokenizer.json`` of which no other program can be given the tokenizer."""
    if checkpoint.has(checkpoint.beside_config(TOKENIZER)):
        return
    config = checkpoint.tokenizer_config
    beside = [file.rpartition("/")[2] for file in checkpoint.names if file.rpartition("/")[0] == checkpoint.place[:-1]]
    if not config and not any(file.startswith("vocab.") or file.endswith((".model", ".spm")) for file in beside):
        return  # there is no tokenizer at all, which is told elsewhere
    name = str(config.get("tokenizer_class") or CLASSES_OF_TYPES.get(str(checkpoint.config.get("model_type")), ""))
    name = name.removesuffix("Fast")
    if name in PYTHON_ONLY:
        raise ProblemError(
            f"there is no {TOKENIZER}, and transformers runs {name} in Python alone, so that no other program could "
            f"cut texts as the model needs them: take a model with a {TOKENIZER}"
        )
    if SAVED_BY_5 not in config and (problem := misread_vocabulary(beside, name)):
        raise ProblemError(problem)


def misread_vocabulary(names: Collection[str], class_name: str) -> str | None:
    """Return why transformers 5 cannot cut texts with a folder's SentencePiece vocabulary; None where it can.

    Args:
        names: the names of the files beside ``config.json``, among which there is no ``tokenizer.json``.
        class_name: the tokenizer's class, without "Fast".
    """
    vocabulary = next((file for file in SENTENCEPIECE_FILES if file in names), None)
    if vocabulary is None or class_name not in MISREAD_WITHOUT_FILE:
        return None
    return (
        f"{vocabulary}: transformers 5 does not cut texts with this vocabulary as {class_name} of transformers "
        "4 did; put the tokenizer.json beside it that transformers 4 writes: "
        "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
    )


def _check_special_tokens(checkpoint: Checkpoint) -> None:
    for name, config in ((TOKENIZER_CONFIG, checkpoint.tokenizer_config), ("special_tokens_map.json", None)):
        settings = checkpoint.special_tokens if config is None else config
        for key in NAMED_TOKENS:
            if key in settings and settings[key] is not None and token_text(settings[key]) is None:
                raise ProblemError(
                    f"{checkpoint.beside_config(name)}: '{key}' is {shortened(settings[key])}, must be a text, or an "
                    "object with its 'content'"
                )


def token_text(token: Any) -> str | None:
    """Return the text of a special token, as a file has it: a text, or an object; None for anything else."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def token_numbers(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of each token of a ``tokenizer.json``; empty where the file has none of its forms."""
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    numbers: dict[str, int] = {}
    if isinstance(vocabulary, dict):
        numbers = {token: number for token, number in vocabulary.items() if type(number) is int}
    elif isinstance(vocabulary, list):
        numbers = {
            str(entry[0]): number for number, entry in enumerate(vocabulary) if isinstance(entry, list) and entry
        }
    for entry in tokenizer.get("added_tokens") or ():
        if isinstance(entry, dict) and type(entry.get("id")) is int:
            numbers[str(entry.get("content"))] = entry["id"]
    return numbers


def _check_rows(checkpoint: Checkpoint) -> None:
    """Refuse tokens whose number is beyond the rows of the model's table of vectors."""
    config = checkpoint.config
    rows = text_settings(config).get("vocab_size", config.get("vocab_size"))
    if type(rows) is not int or not checkpoint.has(checkpoint.beside_config(TOKENIZER)):
        return
    file = checkpoint.beside_config(TOKENIZER)
    if checkpoint.lean and checkpoint.size(file) > LARGEST_LEAN_BYTES:
        return
    tokenizer = checkpoint.tokenizer
    for part in TOKENIZER_PARTS:
        value = tokenizer.get(part)
        if value is not None and not isinstance(value, list if part == "added_tokens" else dict):
            raise ProblemError(f"{file}: '{part}' is {shortened(value)}, which no tokenizer has")
    numbers = token_numbers(tokenizer)
    beyond = {token: number for token, number in numbers.items() if number >= rows}
    if beyond and not beyond.keys() <= _never_used(checkpoint):
        token = max(beyond, key=beyond.__getitem__)
        raise ProblemError(
            f"{file} has {len(beyond)} tokens beyond 'vocab_size' of config.json, {rows}, such as {shortened(token)} "
            f"with the number {beyond[token]}: the model has no vector for them; take the tokenizer that it was "
            "trained with, or save the model after resize_token_embeddings"
        )
    following = max(numbers.values(), default=-1) + 1
    settings = checkpoint.special_tokens | checkpoint.tokenizer_config
    named = {key: token_text(settings.get(key)) for key in NAMED_TOKENS}
    new = {text: key for key, text in named.items() if text is not None and text not in numbers}
    if numbers and new and following + len(new) > rows:
        text, key = next(iter(new.items()))
        raise ProblemError(
            f"{checkpoint.beside_config(TOKENIZER_CONFIG)}: '{key}' is {shortened(text)}, which is not in {file}; as a "
            f"new token it would have the number {following}, and config.json has a 'vocab_size' of {rows}"
        )


def _never_used(checkpoint: Checkpoint) -> set[str]:
    """Return the special tokens that no input gets of itself: neither around a text, nor as padding, nor for a mask."""
    tokenizer, settings = checkpoint.tokenizer, checkpoint.special_tokens | checkpoint.tokenizer_config
    special = {str(entry.get("content")) for entry in tokenizer.get("added_tokens") or () if entry.get("special")}
    used = {token_text(settings.get(key)) for key in NAMED_TOKENS if key != "eos_token"}
    around = json.dumps(tokenizer.get("post_processor"))
    return {token for token in special - used if json.dumps(token) not in around}


#: Numbers of an image processor or a feature extractor, and the least that each may be.
LEAST_NUMBERS = {"sampling_rate": 1, "feature_size": 1, "num_mel_bins": 1, "hop_length": 1, "chunk_length": 1}
SWITCHES = ("do_resize", "do_rescale", "do_normalize", "do_center_crop", "do_convert_rgb", "do_pad")


def check_processors(checkpoint: Checkpoint) -> None:
    """Refuse settings of an image processor or a feature extractor that contradict each other, or the model."""
    name = next((name for name in reversed(PROCESSOR_CONFIGS) if checkpoint.has(f"{checkpoint.place}{name}")), None)
    takes = model_takes(checkpoint.config.get("model_type"))
    if name is None or takes == "text" or checkpoint.has_own_code:
        return
    file, settings = f"{checkpoint.place}{name}", checkpoint.processor
    for key in SWITCHES:
        if not isinstance(settings.get(key), bool | None):
            raise ProblemError(f"{file}: '{key}' is {shortened(settings[key])}, must be true or false")
    for key, least in LEAST_NUMBERS.items():
        value = settings.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value < least):
            raise ProblemError(f"{file}: '{key}' is {shortened(value)}, must be a number of at least {least}")
    if takes != "sound":
        _check_image_processor(file, settings, checkpoint.config)


def _check_image_processor(file: str, settings: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    lengths = {}
    for key in ("image_mean", "image_std"):
        values = settings.get(key)
        if values is None:
            continue
        numbers = values if isinstance(values, list) else [values]
        if not numbers or not all(isinstance(number, int | float) for number in numbers):
            raise ProblemError(f"{file}: '{key}' is {shortened(values)}, must be a number a channel")
        if key == "image_std" and settings.get("do_normalize", True) and not all(number > 0 for number in numbers):
            raise ProblemError(f"{file}: 'image_std' is {shortened(values)}, must be above 0: pixels are divided by it")
        if isinstance(values, list):
            lengths[key] = len(values)
    channels = config.get("num_channels", (config.get("vision_config") or {}).get("num_channels"))
    for key, length in lengths.items():
        if type(channels) is int and length not in (1, channels):
            raise ProblemError(
                f"{file}: '{key}' has {length} values, and config.json a 'num_channels' of {channels}: they must agree"
            )
    if len(set(lengths.values())) > 1:
        raise ProblemError(f"{file}: 'image_mean' and 'image_std' have {lengths} values: they must agree")
    for key in ("size", "crop_size"):
        sides = settings.get(key)
        numbers = list(sides.values()) if isinstance(sides, dict) else sides if isinstance(sides, list) else [sides]
        if not all(number is None or (type(number) is int and number > 0) for number in numbers):
            raise ProblemError(f"{file}: '{key}' is {shortened(sides)}, must be positive numbers of pixels")
