"""A model's folder, each of its files read once. Standard library only."""

import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from onnxproof.checkpoint.layout import WEIGHT_FORMATS
from onnxproof.checkpoint.problem import ProblemError
from onnxproof.checkpoint.untrusted import MOST_JSON_BYTES, read_safetensors_header, remote_code_of, stays_inside
from onnxproof.records.checkpoint import ModelConfig, PreprocessorConfig, TokenizerConfig, TokenizerFile

CONFIG = "config.json"
MODULES = "modules.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER = "tokenizer.json"
SPECIAL_TOKENS = "special_tokens_map.json"
GENERATION_CONFIG = "generation_config.json"
SENTENCE_CONFIG = "config_sentence_transformers.json"
#: Where sentence-transformers keeps what its Transformer module is made with: the first of these that is there.
TRANSFORMER_CONFIGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
#: The file of a module's settings, where it is not ``config.json``.
MODULE_CONFIG_NAMES = {"CNN": "cnn_config.json", "LSTM": "lstm_config.json", "Transformer": "", "MLMTransformer": ""}
PROCESSOR_CONFIGS = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Module:
    """One entry of ``modules.json``: the name of its class, where that is defined, its folder, and its settings."""

    kind: str
    type: str
    path: str
    config_file: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class SentenceSettings:
    """What ``encode()`` of sentence-transformers applies beside the modules.

    ``prompts`` maps names to texts that are put before an input; ``default_prompt_name`` is the one that is used where
    none is asked for. ``truncate_dim`` keeps the first values of a vector; None keeps all. ``similarity`` is one of
    cosine, dot, euclidean, manhattan. ``include_prompt`` is false where pooling leaves the prompt's tokens out.
    """

    prompts: Mapping[str, str]
    default_prompt_name: str | None
    truncate_dim: int | None
    similarity: str
    include_prompt: bool

    @property
    def default_prompt(self) -> str:
        """Return the text that is put before every input; empty where there is none."""
        return self.prompts[self.default_prompt_name] if self.default_prompt_name else ""


class Checkpoint:
    """A model's files: parsed when first asked for, and kept.

    Args:
        folder: where the files are; None where only ``files`` are known.
        files: the content of small files by their path in the repository, in place of a folder.
        sizes: the bytes of every file of the repository by its path, before all of them were fetched.
        lean: whether large vocabularies are left unread, where there is little memory.
    """

    def __init__(
        self,
        folder: Path | None = None,
        files: Mapping[str, bytes] | None = None,
        sizes: Mapping[str, int] | None = None,
        lean: bool = False,
    ) -> None:
        """See the class."""
        self.folder = folder
        self.lean = lean
        self._files = files or {}
        self._sizes = sizes
        self._parsed: dict[str, Any] = {}

    # Files

    @cached_property
    def names(self) -> frozenset[str]:
        """The paths of all files, relative to the folder."""
        if self._sizes is not None:
            return frozenset(self._sizes)
        if self.folder is None:
            return frozenset(self._files)
        return frozenset(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())

    @property
    def is_listing(self) -> bool:
        """Tell whether only names and sizes of the weights are known."""
        return self.folder is None or self._sizes is not None

    def has(self, name: str) -> bool:
        """Tell whether there is a file of this path."""
        if self.folder is None or self._sizes is not None:
            return name in self.names
        return os.path.isfile(f"{self.folder}/{name}")  # noqa: PTH113 - asked forty times a model, of which a plan has many

    def size(self, name: str) -> int:
        """Return a file's size in bytes."""
        if self._sizes is not None:
            return self._sizes[name]
        return len(self._files[name]) if self.folder is None else (self.folder / name).stat().st_size

    def read(self, name: str) -> Any:
        """Return the content of a JSON file.

        Raises:
            ProblemError: there is none, it is larger than any configuration, or it holds no JSON.
        """
        if name not in self._parsed:
            self._parsed[name] = self._parse(name)
        return self._parsed[name]

    def _parse(self, name: str) -> Any:
        if not self.has(name):
            raise ProblemError(f"there is no {name}")
        try:
            if (size := self.size(name)) > MOST_JSON_BYTES:
                raise ProblemError(f"{name} has {size} bytes, more than any configuration needs")
            return json.loads(self._content(name).decode("utf-8"))
        except RecursionError:
            raise ProblemError(f"{name} cannot be read as JSON: nested too deeply") from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ProblemError(f"{name} cannot be read as JSON: {reason}") from None

    def _content(self, name: str) -> bytes:
        if name in self._files or self.folder is None:
            content = self._files.get(name)
        else:
            path = self.folder / name
            content = path.read_bytes() if path.is_file() else None
        if content is None:  # listed, and not taken
            raise ProblemError(f"{name} lies in a folder that is not taken: its name must begin with a number")
        return content

    def read_object(self, name: str) -> dict[str, Any]:
        """Return the JSON object that a file holds.

        Raises:
            ProblemError: see ``read``; or it holds another kind of value.
        """
        content = self.read(name)
        if not isinstance(content, dict):
            raise ProblemError(f"{name} must hold a JSON object, not {type(content).__name__}")
        return content

    def optional(self, name: str) -> dict[str, Any]:
        """Return the JSON object that a file holds; an empty one where there is no such file."""
        return self.read_object(name) if self.has(name) else {}

    # transformers

    @cached_property
    def place(self) -> str:
        """Where the transformer's files are, as a prefix: empty, or the folder of the first module and a slash."""
        modules = self.modules
        return f"{modules[0].path}/" if modules and modules[0].path else ""

    @property
    def transformer_folder(self) -> Path:
        """The folder with the transformer's ``config.json``."""
        assert self.folder is not None
        return self.folder / self.place

    @property
    def config(self) -> ModelConfig:
        """The transformer's ``config.json``."""
        return self.read_object(f"{self.place}{CONFIG}")

    def beside_config(self, name: str) -> str:
        """Return the path of a file of the transformer: beside its configuration, or else at the top."""
        return f"{self.place}{name}" if self.has(f"{self.place}{name}") else name

    @property
    def has_own_code(self) -> bool:
        """Tell whether the repository's own code says what its configuration or its tokenizer means."""
        return bool(remote_code_of(self.config) or remote_code_of(self.tokenizer_config))

    @property
    def tokenizer_config(self) -> TokenizerConfig:
        """The content of ``tokenizer_config.json``; empty where there is none."""
        return self.optional(self.beside_config(TOKENIZER_CONFIG))

    @property
    def special_tokens(self) -> dict[str, Any]:
        """The content of ``special_tokens_map.json``; empty where there is none."""
        return self.optional(self.beside_config(SPECIAL_TOKENS))

    @property
    def tokenizer(self) -> TokenizerFile:
        """The content of ``tokenizer.json``; empty where there is none."""
        return self.optional(self.beside_config(TOKENIZER))

    @property
    def generation_config(self) -> dict[str, Any]:
        """The content of ``generation_config.json``; empty where there is none."""
        return self.optional(f"{self.place}{GENERATION_CONFIG}")

    @property
    def processor(self) -> PreprocessorConfig:
        """The settings of the image processor or feature extractor; empty where there are none."""
        joined = self.optional(f"{self.place}processor_config.json")
        part = next((joined[name] for name in ("image_processor", "feature_extractor") if joined.get(name)), None)
        return part if isinstance(part, dict) else self.optional(f"{self.place}preprocessor_config.json")

    # sentence-transformers

    @cached_property
    def modules(self) -> list[Module]:
        """The modules of a sentence-transformers model, in turn; none where there is no ``modules.json``.

        Raises:
            ProblemError: the file does not list modules.
        """
        if not self.has(MODULES):
            return []
        entries = self.read(MODULES)
        if not isinstance(entries, list) or not entries or not all(map(_is_module, entries)):
            raise ProblemError(
                "modules.json must list the modules of sentence-transformers, each with a 'type' and a 'path' "
                "inside the folder"
            )
        return [self._module(entry) for entry in entries]

    def _module(self, entry: dict[str, Any]) -> Module:
        kind, path = entry["type"].rsplit(".", 1)[-1], entry["path"].rstrip("/")
        name = MODULE_CONFIG_NAMES.get(kind, CONFIG)
        file = f"{path}/{name}" if path and name else ""
        return Module(kind, entry["type"], path, file, self.optional(file) if file else {})

    @property
    def sentence_config(self) -> dict[str, Any]:
        """The content of ``config_sentence_transformers.json``; empty where there is none."""
        return self.optional(SENTENCE_CONFIG)

    @property
    def kind(self) -> str:
        """Which class of sentence-transformers saved the model, or "transformers" where none did.

        sentence-transformers takes a ``modules.json`` without this word for a SentenceTransformer.
        """
        if not self.has(MODULES):
            return "transformers"
        return str(self.sentence_config.get("model_type") or "SentenceTransformer")

    @cached_property
    def transformer_settings_file(self) -> str | None:
        """The path of the file that says what the Transformer module is made with; None where there is none."""
        return next((name for each in TRANSFORMER_CONFIGS if self.has(name := f"{self.place}{each}")), None)

    @property
    def transformer_settings(self) -> dict[str, Any]:
        """What the Transformer module is made with, such as ``max_seq_length``; empty where nothing is said."""
        return self.read_object(self.transformer_settings_file) if self.transformer_settings_file else {}

    @property
    def sentence_settings(self) -> SentenceSettings:
        """What ``encode()`` applies beside the modules; the library's defaults where nothing is said.

        ``refusals`` holds the values against what sentence-transformers knows.
        """
        saved = self.sentence_config
        prompts = {name: text or "" for name, text in (saved.get("prompts") or {}).items()}
        pooling = [module.config for module in self.modules if module.kind == "Pooling"]
        return SentenceSettings(
            {"query": "", "document": ""} | prompts,
            saved.get("default_prompt_name"),
            saved.get("truncate_dim"),
            str(saved.get("similarity_fn_name") or "cosine"),
            all(config.get("include_prompt", True) for config in pooling),
        )

    # Weights

    @cached_property
    def weight_files(self) -> list[str]:
        """The paths of the transformer's weights, as transformers would choose them; the parts of split ones."""
        for single, index, _ in WEIGHT_FORMATS:
            if self.has(self.place + single):
                return [self.place + single]
            if self.has(self.place + index):
                return [self.place + part for part in self.parts_of(self.place + index)]
        return []

    def parts_of(self, index: str) -> list[str]:
        """Return the files that an index of split weights names, sorted.

        Raises:
            ProblemError: the index is none.
        """
        weight_map = self.read_object(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ProblemError(f"{index} has no 'weight_map'")
        parts = weight_map.values()
        if not all(isinstance(part, str) and part == PurePosixPath(part).name and stays_inside(part) for part in parts):
            raise ProblemError(f"{index}: 'weight_map' must name files beside it")
        return sorted(set(parts))

    def tensors_in(self, names: Iterable[str]) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return type and shape of each tensor of some safetensors files, from their headers alone."""
        found: dict[str, tuple[str, tuple[int, ...]]] = {}
        for name in names:
            if self.folder is not None and not self.is_listing and name.endswith(".safetensors") and self.has(name):
                header = read_safetensors_header(self.folder / name)
                found |= {key: (str(entry["dtype"]), tuple(entry["shape"])) for key, entry in header.items()}
        return found

    @cached_property
    def tensors(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape of each of the transformer's weights by name; empty where there are no headers to read."""
        return self.tensors_in(self.weight_files)

    @property
    def weight_names(self) -> Collection[str]:
        """The names of the transformer's weights: from their headers, or from the index of split ones."""
        if self.tensors:
            return self.tensors.keys()
        for _, index, _ in WEIGHT_FORMATS:
            if self.has(self.place + index) and not self.has(self.place + index.removesuffix(".index.json")):
                weight_map = self.read_object(self.place + index).get("weight_map")
                return weight_map.keys() if isinstance(weight_map, dict) else ()
        return ()


def _is_module(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("type"), str)
        and isinstance(entry.get("path"), str)
        and stays_inside(entry["path"])
    )
