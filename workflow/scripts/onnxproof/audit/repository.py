"""Which ONNX models a repository has, what their names promise, and which model they were made from."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from onnxproof.checkpoint.layout import needed_files
from onnxproof.checkpoint.reading import CONFIG, TOKENIZER
from onnxproof.checkpoint.untrusted import stays_inside
from onnxproof.cli import UserError
from onnxproof.graph.files import DECODER_FILE, DECODER_WITH_PAST_FILE, ENCODER_FILE, MERGED_FILE, MODEL_FILE
from onnxproof.records.audit import Finding, Severity

CARD = "README.md"
#: What names say of a precision, in words between separators: the longest match first.
WORDS = {
    "q4f16": ("q4f16", "int4f16"),
    "q4": ("q4", "int4", "4bit", "bnb4", "uint4"),
    "uint8": ("uint8", "quint8"),
    "int8": ("int8", "qint8", "q8", "quantized", "quant", "8bit"),
    "fp16": ("fp16", "float16", "half", "o4"),
    "bf16": ("bf16", "bfloat16"),
    "fp32": ("fp32", "float32"),
}
PROMISES = {word: precision for precision, words in WORDS.items() for word in words}
#: The graphs of an encoder-decoder, without ``.onnx``: the longest name first, for one begins with another.
PARTS = tuple(name.removesuffix(".onnx") for name in (DECODER_WITH_PAST_FILE, MERGED_FILE, DECODER_FILE, ENCODER_FILE))
#: The same in names of other tools: ``tiny_decoder_fp32``, ``whisper-encoder``, ``decoder_with_past``.
PART_WORD = re.compile(r"(?:^|[^a-z])(encoder|decoder)(?:_model)?(?:_(with_past|merged)(?:_model)?)?(?![a-z])")
ORDER = (MODEL_FILE, ENCODER_FILE, DECODER_FILE, DECODER_WITH_PAST_FILE, MERGED_FILE)
#: Files beside graphs that hold weights: as Optimum, onnxruntime, onnxscript and onnxruntime-genai name them.
WEIGHT_ENDINGS = (".onnx_data", ".onnx.data", ".data", ".weights", ".bin", ".pb")
#: What onnxruntime-genai keeps beside a graph.
SMALL_ENDINGS = (".json", ".txt", ".model", ".jinja")
#: Files that tell where a repository keeps what belongs to its graphs.
SETTINGS = (CONFIG, TOKENIZER)


@dataclass(frozen=True)
class OnnxModel:
    """One ONNX model of a repository: paths relative to it, by the names that ``graph.files`` has for the graphs."""

    graphs: dict[str, str]

    @property
    def name(self) -> str:
        """The path of its graph, the first of several."""
        return next(iter(self.graphs.values()))


def finding(severity: Severity, kind: str, message: str) -> Finding:
    """Return a finding as it is recorded."""
    return {"severity": severity, "kind": kind, "message": message}


def onnx_models(names: Iterable[str]) -> list[OnnxModel]:
    """Return the ONNX models among a repository's paths, sorted; the graphs of an encoder-decoder are one model.

    Graphs belong together if they are in one folder and their names differ in nothing but the part:
    ``encoder_model_fp16.onnx`` and ``decoder_model_fp16.onnx``, or ``tiny_encoder.onnx`` and ``tiny_decoder.onnx``. Of
    graphs that are called ``model.onnx``, the folders count: ``encoder/model.onnx`` and ``decoder/model.onnx``.
    """
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name in sorted(names):
        path = PurePosixPath(name)
        if path.suffix != ".onnx" or path.name.startswith("."):
            continue
        key, part = _part_of(path) or (("", name), MODEL_FILE)
        if part in found.get(key, {}):  # x_decoder.onnx beside x_decoder_model.onnx: one of them belongs to nothing
            key, part = ("", name), MODEL_FILE
        found.setdefault(key, {})[part] = name
    models = []
    for graphs in found.values():
        if any(map(has_optimums_name, graphs.values())) or _is_whole(graphs):
            models.append(OnnxModel({part: graphs[part] for part in ORDER if part in graphs}))
        else:  # whatever else is called an encoder, such as one of CLIP's
            models += [OnnxModel({MODEL_FILE: name}) for name in graphs.values()]
    return sorted(models, key=lambda model: model.name)


def has_optimums_name(name: str) -> bool:
    """Tell whether a path is named as Optimum names a graph of an encoder-decoder."""
    return PurePosixPath(name).stem.startswith(PARTS)


def _part_of(path: PurePosixPath) -> tuple[tuple[str, str], str] | None:
    """Return what the graphs of one encoder-decoder have in common, and which of them a path is; None for others."""
    folder, stem = path.parent, path.stem
    part = next((part for part in PARTS if stem.startswith(part)), None)
    if part is not None:
        return (str(folder), stem.removeprefix(part)), f"{part}.onnx"
    if path.name == MODEL_FILE:
        folder, stem = folder.parent, f"{folder.name}/"
    found = PART_WORD.search(stem)
    if found is None:
        return None
    which = ENCODER_FILE
    if found[1] == "decoder":
        which = {"with_past": DECODER_WITH_PAST_FILE, "merged": MERGED_FILE}.get(found[2] or "", DECODER_FILE)
    return (str(folder), f"{stem[: found.start(1)]}*{stem[found.end() :]}"), which


def _is_whole(graphs: dict[str, str]) -> bool:
    return ENCODER_FILE in graphs and (DECODER_FILE in graphs or MERGED_FILE in graphs)


def promised_precision(name: str) -> str | None:
    """Return the precision that a path promises: its file's name before its folders', the nearest folder first.

    ``onnx/model_fp16.onnx`` promises fp16, ``cpu-int4-rtn-block-32/model.onnx`` q4, ``onnx/model.onnx`` nothing.
    """
    path = PurePosixPath(name)
    for part in (path.stem, *(parent.name for parent in path.parents)):
        words = re.split(r"[^a-z0-9]+", part.lower())
        for word in reversed(words):
            if word in PROMISES:
                return PROMISES[word]
    return None


def read_card(folder: Path) -> dict[str, Any]:
    """Return the metadata of a repository's card; empty where there is none that can be read."""
    path = folder / CARD
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---\n"):
        return {}
    try:
        metadata = yaml.safe_load(text[4:].split("\n---", 1)[0])
    except yaml.YAMLError:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def base_model_of(name: str, card: dict[str, Any]) -> str | None:
    """Return the one model that a card names as its base; None where it names none.

    Raises:
        UserError: it names several, as cards of merged models do.
    """
    named = card.get("base_model")
    several = [each for each in (named if isinstance(named, list) else [named]) if isinstance(each, str) and each]
    if len(several) > 1:
        raise UserError(
            f"{name}: {CARD}: 'base_model' names {len(several)} models ({', '.join(several[:3])}), and one is "
            "expected: name the original with --original"
        )
    return several[0] if several else None


def has_own_weights(names: Iterable[str]) -> bool:
    """Tell whether a repository has the weights of an original beside its ONNX files."""
    return any(PurePosixPath(name).suffix in (".safetensors", ".bin") for name in needed_files(names))


def audited_files(names: Iterable[str]) -> list[str]:
    """Return which of a repository's paths an audit needs, sorted: those of a model, graphs, and what lies beside them.

    In the folder of a graph, these are files of weights, and the small files that onnxruntime-genai keeps there.
    """
    names = [name for name in names if stays_inside(name)]
    folders = {PurePosixPath(name).parent for name in names if name.endswith(".onnx")}
    beside = {
        name
        for name in names
        if PurePosixPath(name).parent in folders
        and name.endswith((".onnx", *WEIGHT_ENDINGS, *SMALL_ENDINGS))
        and not PurePosixPath(name).name.startswith("pytorch_model")
    }
    return sorted({*needed_files(names), *beside})


def folder_of_settings(folder: Path, models: Iterable[OnnxModel]) -> Path:
    """Return the folder with the tokenizer and ``config.json``: the top one, or else the first graph's that has one."""
    places = [folder, *((folder / model.name).parent for model in models)]
    return next((place for place in places if any((place / name).is_file() for name in SETTINGS)), folder)
