"""A model's configuration files in the spelling of transformers 4.57, which Optimum's exporter needs.

transformers 5 renamed what its configurations say. The older version ignores a name that it does not know, without a
word, and exports another model: a RoPE model with a base of 10,000, whatever the file says. So each configuration is
rewritten here, and what cannot be said in the older spelling is refused. Then the two versions' views of the model are
compared, key by key (``unread_keys``).

Standard library only: both environments import this module.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxproof.checkpoint.sentence_modules import classic_modules, lift_transformer
from onnxproof.checkpoint.tokenizer_files import older_tokenizer_config
from onnxproof.checkpoint.untrusted import shortened
from onnxproof.cli import UserError
from onnxproof.files import read_json, write_json
from onnxproof.records.checkpoint import ModelConfig, PreprocessorConfig

#: Weights, which the older version reads as they are: they are linked, not copied.
WEIGHT_SUFFIXES = (".safetensors", ".bin")

#: Model types whose 4.57 class has two RoPE bases: the keys of the base of full and of sliding attention.
TWO_BASES = {
    "gemma3_text": ("rope_theta", "rope_local_base_freq"),
    "gemma3n_text": ("rope_theta", "rope_local_base_freq"),
    "modernbert": ("global_rope_theta", "local_rope_theta"),
    "modernbert-decoder": ("global_rope_theta", "local_rope_theta"),
}
#: Model types whose 4.57 class has other names for RoPE's base and for the rotated share of a head.
OTHER_ROPE_NAMES = {
    "gpt_neox": ("rotary_emb_base", "rotary_pct"),
    "gpt_neox_japanese": ("rotary_emb_base", "rotary_pct"),
}
#: New names of keys whose values mean the same: model type → new → old.
RENAMED = {"qwen3_moe": {"num_local_experts": "num_experts"}}
#: Model types of which ``tie_word_embeddings`` of 4.57 says whether the decoder's vectors are scaled before the head;
#: transformers 5 never scales mT5's.
SCALED_BY_TYING = ("t5", "mt5", "umt5", "longt5", "pop2piano")

#: Endings of the names of a head's bias, of which 4.57 has only one.
OWN_BIASES = ("predictions.decoder.bias", "lm_head.decoder.bias")

#: Keys that change no output of the model.
HARMLESS = frozenset(
    {
        "_name_or_path",
        "_attn_implementation",
        "architectures",
        "attn_implementation",
        "down_ops",  # LeViT works it out from its other keys
        "dtype",
        "id2label",
        "is_local",
        "label2id",
        "num_labels",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "return_dict",
        "router_aux_loss_coef",
        "tokenizer_class",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
#: Keys that both versions work out from others, and that only transformers 5 keeps: model type → keys.
WORKED_OUT = {"d_fine": frozenset({"head_dim"})}

#: How a program is to run the model, and no part of it. Before 5.3, transformers could be led by such a key to load
#: code from another repository (CVE-2026-4372).
INTERNAL, NOT_A_MODELS = "_", ("attn_implementation", "experts_implementation")


@dataclass(frozen=True)
class Accepted:
    """What a configuration class of 4.57 knows: its keys, and the same of each configuration inside it.

    Known are the keys that it takes and those that it works out. Others it keeps, and nothing reads them.
    """

    keys: frozenset[str]
    parts: Mapping[str, "Accepted"] = field(default_factory=dict)


def translate_config(model: str, config: ModelConfig) -> ModelConfig:
    """Return a ``config.json``, and every configuration inside it, in the spelling of 4.57.

    Args:
        model: the model's name, for messages.
        config: the content of a ``config.json`` that either version wrote; it is left as it is.

    Raises:
        UserError: RoPE or the kinds of layers are described in a way that 4.57 has no words for.
    """
    said = {key: value for key, value in config.items() if not key.startswith(INTERNAL) and key not in NOT_A_MODELS}
    older = {key: translate_config(model, value) if isinstance(value, dict) else value for key, value in said.items()}
    model_type = config.get("model_type")
    for new, old in RENAMED.get(str(model_type), {}).items():
        if new in older:
            older[old] = older.pop(new)
    if isinstance(config.get("rope_parameters"), dict):
        del older["rope_parameters"]
        older |= _translate_rope(model, str(model_type), config["rope_parameters"])
    if model_type == "modernbert" and isinstance(config.get("layer_types"), list):
        del older["layer_types"]
        older["global_attn_every_n_layers"] = _global_every(model, config["layer_types"])
    if model_type in SCALED_BY_TYING and "scale_decoder_outputs" in config:
        older["tie_word_embeddings"] = bool(older.pop("scale_decoder_outputs"))
    if model_type == "mt5":
        older["tie_word_embeddings"] = False
    return older


def _translate_rope(model: str, model_type: str, parameters: ModelConfig) -> ModelConfig:
    """Return the keys of 4.57 that say what ``rope_parameters`` says, for one kind of layer or for two."""
    by_layer = {kind: value for kind, value in parameters.items() if isinstance(value, dict)}
    if not by_layer:
        return _rope_of_one_kind(model_type, parameters)
    if model_type in TWO_BASES and set(by_layer) <= {"full_attention", "sliding_attention"}:
        keys = dict(zip(("full_attention", "sliding_attention"), TWO_BASES[model_type], strict=True))
        older: ModelConfig = {}
        for kind, value in by_layer.items():
            said = _rope_of_one_kind("", value)
            scales = said.pop("rope_scaling")
            if kind == "full_attention" and keys[kind] == "rope_theta":
                older["rope_scaling"] = scales
            elif scales is not None:
                raise _no_words(model, f"rope_parameters.{kind}", value)
            theta = said.pop("rope_theta", None)
            if said:
                raise _no_words(model, f"rope_parameters.{kind}", value)
            if theta is not None:
                older[keys[kind]] = theta
        return older
    first, *others = by_layer.values()
    if all(other == first for other in others):
        return _rope_of_one_kind(model_type, first)
    raise _no_words(model, "rope_parameters", parameters)


def _rope_of_one_kind(model_type: str, parameters: ModelConfig) -> ModelConfig:
    """Return base, rotated share and scaling; the scaling is None for plain RoPE."""
    rest = dict(parameters)
    base, share = OTHER_ROPE_NAMES.get(model_type, ("rope_theta", "partial_rotary_factor"))
    older: ModelConfig = {}
    if (theta := rest.pop("rope_theta", None)) is not None:
        older[base] = theta
    if (factor := rest.pop("partial_rotary_factor", None)) is not None:
        older[share] = factor
    is_plain = rest.get("rope_type", rest.get("type", "default")) == "default"
    return older | {"rope_scaling": None if is_plain else rest}


def _global_every(model: str, layer_types: list[str]) -> int:
    """Return n of ModernBERT's older rule: layers 0, n, 2n … see the whole text, the others a window."""
    whole = [number for number, kind in enumerate(layer_types) if kind == "full_attention"]
    every = whole[1] if len(whole) > 1 else max(1, len(layer_types))
    if whole != list(range(0, len(layer_types), every)):
        raise _no_words(model, "layer_types", layer_types)
    return every


def _no_words(model: str, key: str, value: Any) -> UserError:
    return UserError(
        f"{model}: config.json: '{key}' is {shortened(value)}, which transformers 4.57, and so Optimum's exporter, "
        "cannot be told: use transformers' own exporter"
    )


def complete_config(older: ModelConfig, resolved: ModelConfig, accepted: Accepted) -> ModelConfig:
    """Return a translated configuration with what transformers 5 filled in, so that no default of 4.57 applies.

    Args:
        older: a ``config.json``, translated.
        resolved: the same model's configuration as transformers 5 reads it, defaults included, translated.
        accepted: what 4.57 reads; nothing else is added.
    """
    added = {key: value for key, value in resolved.items() if key in accepted.keys and value is not None}
    added = {key: value for key, value in added.items() if key not in HARMLESS and not isinstance(value, dict)}
    parts = {
        name: complete_config(older[name], resolved[name], part)
        for name, part in accepted.parts.items()
        if isinstance(older.get(name), dict) and isinstance(resolved.get(name), dict)
    }
    said = {key: value for key, value in older.items() if value is not None or key not in added}
    scaling = {key: added[key] for key in ("rope_scaling",) if key in added}  # 4.x has several spellings of it
    return added | said | scaling | parts


def unread_keys(
    newer: ModelConfig, defaults: ModelConfig, older: ModelConfig, accepted: Accepted, place: str = ""
) -> Iterable[str]:
    """Yield what 4.57 does not read as transformers 5 does: ``key: value``, and the older value where there is one.

    Args:
        newer: the configuration as transformers 5 reads it, translated.
        defaults: that of a model of the same type of which nothing is said, translated. A key that is not in it means
            nothing to either version. One that only 4.57 does not know changes nothing where it has its default, for
            a default is what the model did before there was a key.
        older: the configuration as 4.57 reads the translated files.
        accepted: what 4.57's class reads.
    """
    ignored = HARMLESS | {"model_type"} | WORKED_OUT.get(str(newer.get("model_type")), frozenset())
    for key, value in newer.items():
        if key in ignored:
            continue
        if key in accepted.parts and isinstance(value, dict) and isinstance(older.get(key), dict):
            inner = defaults.get(key)
            inside = inner if isinstance(inner, dict) else {}
            yield from unread_keys(value, inside, older[key], accepted.parts[key], f"{place}{key}.")
        elif key in accepted.keys:
            if not _same(value, older.get(key)):
                yield f"{place}{key}: {shortened(value)} (there: {shortened(older.get(key))})"
        elif key in defaults and not _same(value, defaults[key]):
            yield f"{place}{key}: {shortened(value)} (there: no such key)"


def _same(newer: Any, older: Any) -> bool:
    """Tell whether two values mean the same: absent, off and empty do, as do a list and a tuple."""
    if isinstance(newer, dict) and isinstance(older, dict):
        return all(_same(newer.get(key), older.get(key)) for key in newer.keys() | older.keys())
    if isinstance(newer, list | tuple) and isinstance(older, list | tuple):
        return len(newer) == len(older) and all(map(_same, newer, older))
    return bool(newer == older) or (_is_empty(newer) and _is_empty(older))


def _is_empty(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, str | list | dict) and not value)


def translate_preprocessor(config: PreprocessorConfig) -> PreprocessorConfig:
    """Return a ``preprocessor_config.json`` that names the image processor's class as 4.57 does."""
    name = config.get("image_processor_type")
    if not isinstance(name, str):
        return dict(config)
    return config | {"image_processor_type": name.removesuffix("Pil").removesuffix("Fast")}


def write_older_copy(model: str, snapshot: Path, folder: Path) -> None:
    """Write a snapshot to an empty folder in the spelling of 4.57: configurations rewritten, weights linked.

    Raises:
        UserError: see ``translate_config``; or a file holds no JSON.
    """
    for path in sorted(snapshot.rglob("*")):
        if not path.is_file():
            continue
        target = folder / path.relative_to(snapshot)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in WEIGHT_SUFFIXES:
            target.symlink_to(path.resolve())
        else:
            shutil.copyfile(path, target)
    lift_transformer(folder)
    for path in sorted(folder.rglob("*.json")):
        content = read_json(path) if path.name in TRANSLATED else None
        if path.name == "config.json" and isinstance(content, dict) and "model_type" in content:
            write_json(path, translate_config(model, content))
        elif path.name == "tokenizer_config.json" and isinstance(content, dict):
            write_json(path, older_tokenizer_config(content))
        elif path.name == "preprocessor_config.json" and isinstance(content, dict):
            write_json(path, translate_preprocessor(content))
        elif path.name == "modules.json" and isinstance(content, list):
            write_json(path, classic_modules(content))
        elif path.name == "processor_config.json" and isinstance(content, dict):
            _split_processor(path, content)
    for weights in sorted(folder.rglob("*.safetensors")):
        _join_biases(weights)
    _add_tied_head(folder)


TRANSLATED = (
    *("config.json", "tokenizer_config.json", "preprocessor_config.json"),
    *("modules.json", "processor_config.json"),
)


def _split_processor(path: Path, content: PreprocessorConfig) -> None:
    """Write the part of a ``processor_config.json`` that 4.57 looks for in a file of its own, where there is none."""
    part = content.get("image_processor") or content.get("feature_extractor")
    target = path.with_name("preprocessor_config.json")
    if isinstance(part, dict) and not target.is_file():
        write_json(target, translate_preprocessor(part))


def _add_tied_head(folder: Path) -> None:
    """Give an unscaled T5 the head that it shares with its word vectors: 4.57 would draw one at random.

    For 4.57, ``tie_word_embeddings: false`` means both that nothing is scaled and that the head has weights of its own.
    """
    weights, config = folder / "model.safetensors", folder / "config.json"
    settings = read_json(config) if config.is_file() else {}
    if settings.get("model_type") not in SCALED_BY_TYING or settings.get("tie_word_embeddings") is not False:
        return
    if not weights.is_file():
        return
    start, header = read_header(weights)
    if "lm_head.weight" in header or "shared.weight" not in header:
        return
    table = header["shared.weight"]
    values = _read_values(weights, start, table)
    head = json.dumps({"lm_head.weight": table | {"data_offsets": [0, len(values)]}}).encode()
    head += b" " * (-len(head) % 8)
    parts = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    weights.rename(folder / parts[0])
    (folder / parts[1]).write_bytes(len(head).to_bytes(8, "little") + head + values)
    names = dict.fromkeys((name for name in header if name != "__metadata__"), parts[0])
    index = {"metadata": {}, "weight_map": names | {"lm_head.weight": parts[1]}}
    write_json(folder / "model.safetensors.index.json", index)


def _join_biases(weights: Path) -> None:
    """Write a head's only bias of transformers 5 over the one that 4.57 reads instead, in a copy of the weights.

    In 4.57, a head of BERT's kind has one bias under two names. In transformers 5 these are two tensors where the
    word vectors are not shared; both are saved, and ``decoder.bias`` is the one that is added.
    """
    start, header = read_header(weights)
    for name in [name for name in header if name.endswith(OWN_BIASES)]:
        twin = name.removesuffix("decoder.bias") + "bias"
        values = _read_values(weights, start, header[name])
        if twin not in header or _read_values(weights, start, header[twin]) == values:
            continue
        if weights.is_symlink():
            original = weights.resolve()
            weights.unlink()
            shutil.copyfile(original, weights)
        with weights.open("r+b") as stream:
            stream.seek(start + header[twin]["data_offsets"][0])
            stream.write(values)


def read_header(weights: Path) -> tuple[int, dict[str, Any]]:
    """Return where a safetensors file's values start, in bytes, and what its header says of each tensor."""
    with weights.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header: dict[str, Any] = json.loads(stream.read(length))
    return 8 + length, header


def _read_values(weights: Path, start: int, entry: Mapping[str, Any]) -> bytes:
    first, end = entry["data_offsets"]
    with weights.open("rb") as stream:
        stream.seek(start + first)
        return stream.read(end - first)
