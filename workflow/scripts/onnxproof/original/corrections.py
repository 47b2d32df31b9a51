"""Where transformers 5 misreads a folder that transformers 4 saved, without an error: corrected, or refused.

Each point was found by asking both versions, see tools/second_witness.py, and is written for transformers 5.24.

- A tokenizer class of transformers 5 builds normalizer, pre-tokenizer and special-token template anew, and takes little
  more than the vocabulary from ``tokenizer.json``. Version 4 used that file, with a few of its parts set from
  ``tokenizer_config.json``; so do all clients of a release. ``correct_tokenizer`` puts the file's parts back.
- Some classes no longer give types of tokens: pairs of texts look like one text to ALBERT, RemBERT, Nyströmformer.
- A head of BERT's kind whose word vectors are not shared has two biases in transformers 5, one of them from nowhere.
- Relative positions of BERT's kind, and scaling in mT5, are gone: see ``checkpoint.misread_configs``.

The functions take parsed files and return plain data, but for ``correct_tokenizer``, which changes a tokenizer.
"""

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from onnxproof.checkpoint.tokenizers import SAVED_BY_5, misread_vocabulary
from onnxproof.cli import UserError
from onnxproof.files import read_json
from onnxproof.records.checkpoint import TokenizerConfig, TokenizerFile

#: Classes whose ``BertNormalizer`` follows ``tokenizer_config.json``, whatever ``tokenizer.json`` says.
NORMALIZED_BY_CONFIG = frozenset(
    {
        "BertTokenizer",
        "ConvBertTokenizer",
        "DPRContextEncoderTokenizer",
        "DPRQuestionEncoderTokenizer",
        "DPRReaderTokenizer",
        "DistilBertTokenizer",
        "ElectraTokenizer",
        "FunnelTokenizer",
        "LayoutLMTokenizer",
        "LxmertTokenizer",
        "MobileBertTokenizer",
        "SqueezeBertTokenizer",
    }
)
#: Classes whose special tokens around a text follow ``tokenizer_config.json``: what ``add_bos_token`` is by default.
TEMPLATE_BY_CONFIG = {
    "CodeLlamaTokenizer": True,
    "CohereTokenizer": True,
    "GPTNeoXTokenizer": False,
    "GemmaTokenizer": True,
    "LlamaTokenizer": True,
}
#: Classes whose special tokens depend on a language or a task that is chosen when they are used.
TEMPLATE_BY_CHOICE = frozenset(
    {"MBart50Tokenizer", "MBartTokenizer", "NllbTokenizer", "SeamlessM4TTokenizer", "WhisperTokenizer"}
)
#: Classes that gave types of tokens in 4.57. Without a name, so did the general one.
WITH_TYPES = frozenset(
    {
        "AlbertTokenizer",
        "BertTokenizer",
        "ConvBertTokenizer",
        "DebertaTokenizer",
        "DebertaV2Tokenizer",
        "ElectraTokenizer",
        "FNetTokenizer",
        "FunnelTokenizer",
        "LayoutLMTokenizer",
        "LxmertTokenizer",
        "MobileBertTokenizer",
        "PreTrainedTokenizer",
        "RemBertTokenizer",
        "RoFormerTokenizer",
        "SplinterTokenizer",
        "SqueezeBertTokenizer",
        "XLNetTokenizer",
    }
)
TYPES = "token_type_ids"

#: Endings of the bias of a head that transformers 5 took apart from its twin.
OWN_BIAS = ".decoder.bias"


def biases_to_copy(missing: Iterable[str], present: Collection[str]) -> dict[str, str]:
    """Return which parameters take the values of which others, for heads of BERT's kind that 4.x saved.

    There, ``decoder.bias`` and ``bias`` of a head are one parameter, saved as ``bias``.

    Args:
        missing: names of the parameters that transformers 5 found no weights for.
        present: names of all parameters of the model.
    """
    twins = {name: f"{name.removesuffix(OWN_BIAS)}.bias" for name in missing if name.endswith(OWN_BIAS)}
    missing_too = set(missing)
    return {name: twin for name, twin in twins.items() if twin in present and twin not in missing_too}


def correct_biases(network: Any, missing: Iterable[str]) -> list[str]:
    """Copy the biases that ``biases_to_copy`` names, in place; return the names that are not missing any more."""
    parameters = dict(network.named_parameters())
    copied = biases_to_copy(missing, parameters)
    for name, twin in copied.items():
        parameters[name].data.copy_(parameters[twin].data)
    return sorted(copied)


def class_of_4(config: TokenizerConfig, loaded: str) -> str:
    """Return the tokenizer class that 4.57 took, without "Fast": the configured one, or the one that was loaded."""
    return str(config.get("tokenizer_class") or loaded).removesuffix("Fast")


def file_of_4(content: TokenizerFile, config: TokenizerConfig, name: str) -> TokenizerFile:
    """Return what 4.57 makes of a ``tokenizer.json``: the same, with what its class sets from the configuration.

    Args:
        content: the content of ``tokenizer.json``.
        config: the content of ``tokenizer_config.json``; empty where there is none.
        name: the tokenizer's class, see ``class_of_4``.
    """
    file = dict(content)
    normalizer, cutter = content.get("normalizer"), content.get("pre_tokenizer")
    if name in NORMALIZED_BY_CONFIG and normalizer and normalizer.get("type") == "BertNormalizer":
        file["normalizer"] = normalizer | {
            "lowercase": config.get("do_lower_case", True),
            "strip_accents": config.get("strip_accents"),
            "handle_chinese_chars": config.get("tokenize_chinese_chars", True),
        }
    if cutter and cutter.get("type") == "ByteLevel":
        file["pre_tokenizer"] = cutter | {"add_prefix_space": bool(config.get("add_prefix_space", False))}
    return file


def correct_tokenizer(model: str, folder: Path, tokenizer: Any, types: int) -> list[str]:
    """Have a tokenizer that transformers 5 loaded cut texts as 4.57 did, in place; return what was corrected.

    Args:
        model: the model's name, for messages.
        folder: the snapshot's folder with the tokenizer's files.
        tokenizer: what ``AutoTokenizer`` returned for it.
        types: how many types of tokens the model has, ``type_vocab_size``; 0 or 1 where it has none.

    Raises:
        UserError: there is no ``tokenizer.json``, and transformers 5 reads the vocabulary otherwise.
    """
    settings = folder / "tokenizer_config.json"
    config: TokenizerConfig = read_json(settings) if settings.is_file() else {}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if SAVED_BY_5 in config or backend is None:
        return []
    name = class_of_4(config, type(tokenizer).__name__)
    corrected = []
    if (folder / "tokenizer.json").is_file():
        corrected = _put_parts_back(folder, config, name, tokenizer)
    else:
        _check_vocabulary(model, folder, name)
    names = tokenizer.model_input_names
    if types > 1 and TYPES not in names and name in WITH_TYPES and "model_input_names" not in config:
        tokenizer.model_input_names = [names[0], TYPES, *names[1:]]
        corrected.append(TYPES)
    return corrected


def _put_parts_back(folder: Path, config: TokenizerConfig, name: str, tokenizer: Any) -> list[str]:
    """Give a tokenizer the parts of ``tokenizer.json`` that it has otherwise."""
    from tokenizers import Tokenizer

    backend = tokenizer.backend_tokenizer
    original = Tokenizer.from_str(json.dumps(file_of_4(read_json(folder / "tokenizer.json"), config, name)))
    before, wanted = json.loads(backend.to_str()), json.loads(original.to_str())
    parts = ["normalizer", "pre_tokenizer", "model"]
    if name not in TEMPLATE_BY_CONFIG and name not in TEMPLATE_BY_CHOICE:
        parts.append("post_processor")
    corrected = [part for part in parts if before.get(part) != wanted.get(part)]
    for part in corrected:
        setattr(backend, part, getattr(original, part))
    if name in TEMPLATE_BY_CONFIG:
        first = bool(config.get("add_bos_token", TEMPLATE_BY_CONFIG[name])) and tokenizer.bos_token is not None
        last = bool(config.get("add_eos_token", False)) and tokenizer.eos_token is not None
        if (tokenizer.add_bos_token, tokenizer.add_eos_token) != (first, last):
            tokenizer.add_bos_token, tokenizer.add_eos_token = first, last
            corrected.append("post_processor")
    return corrected


def _check_vocabulary(model: str, folder: Path, name: str) -> None:
    if problem := misread_vocabulary([path.name for path in folder.iterdir()], name):
        raise UserError(f"{model}: {problem}")
