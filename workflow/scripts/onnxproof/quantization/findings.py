"""What the search for a recipe finds out about a float model, and another variant's search would find out again.

Passes look their choices up here before they run the model. ``int8`` and ``int8-invariant`` prepare a model in the same
way and round its weights alike; only the products differ. So the search of the one writes down what it has found, and
the search of the other starts with that. Whatever is looked up has a digest of all that it was chosen by: what is
known of another model, or by other parameters, is not found.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxproof.cli import UserError, first_line
from onnxproof.files import sha256_of, write_bytes
from onnxproof.graph.external_data import digest_of_model
from onnxproof.quantization.weights import QuantizedWeight, count_bytes

#: By the name of a tensor or a node: scales of its channels, or the channels that stay in float.
Choice = dict[str, NDArray[Any]]
#: Rounded weights are remembered up to so many bytes.
REMEMBERED_BYTES = 1 << 27

#: The one entry of the metadata: of several, safetensors would not keep the order.
_FACTS = "search"


@dataclass(frozen=True)
class RoundedFile:
    """A quantized graph that holds weights which were rounded with compensation, of the nodes with these names.

    ``read`` returns the weights of a quantized model, by the names of the nodes.
    """

    path: Path
    names: frozenset[str]
    read: Callable[[onnx.ModelProto], dict[str, QuantizedWeight]]


class Findings:
    """Choices of passes by their keys, see ``key_of``, and the weights that were rounded last."""

    def __init__(
        self, choices: dict[str, Choice] | None = None, files: Mapping[str, RoundedFile] | None = None
    ) -> None:
        """Start with what is known already: nothing, or what ``read_findings`` has read."""
        self.choices = choices or {}
        self._files = dict(files or {})
        self._rounded: tuple[str, dict[str, QuantizedWeight]] = ("", {})

    def choose(self, key: str, choose: Callable[[], Choice]) -> Choice:
        """Return what is known by this key; else what ``choose`` returns, which is known from then on."""
        if key not in self.choices:
            self.choices[key] = choose()
        return self.choices[key]

    def rounded(self, key: str) -> dict[str, QuantizedWeight]:
        """Return the weights known by this key, by the names of their nodes."""
        if key != self._rounded[0] and key in self._files:
            file = self._files[key]
            weights = file.read(onnx.load(file.path))
            self._rounded = key, {name: weights[name] for name in file.names}
        return self._rounded[1] if key == self._rounded[0] else {}

    def remember_rounded(self, key: str, weights: dict[str, QuantizedWeight]) -> None:
        """Keep rounded weights in place of those of another key, unless they take too much memory."""
        together = self.rounded(key) | weights
        if sum(map(count_bytes, together.values())) <= REMEMBERED_BYTES:
            self._rounded = key, together

    def found_in(self, weights: Mapping[str, QuantizedWeight]) -> dict[str, list[str]]:
        """Return which of these weights are the rounded ones that are remembered: their names, by the key."""
        key, remembered = self._rounded
        names = [name for name in weights if name in remembered and _are_equal(weights[name], remembered[name])]
        return {key: names} if names else {}


def key_of(model: onnx.ModelProto, **asked: Any) -> str:
    """Return what a choice is looked up by: a digest of the model, and of all else that the choice depends on."""
    digest = hashlib.sha256(digest_of_model(model).encode())
    digest.update(json.dumps(asked, sort_keys=True).encode())
    return digest.hexdigest()


def write_findings(path: Path, origin: str, choices: Mapping[str, Choice], rounded: Mapping[Path, Any]) -> None:
    """Write what was found, as safetensors.

    Args:
        path: the file.
        origin: a digest of what the search was about: the float model, the calibration inputs, the libraries.
        choices: by their keys.
        rounded: what ``Findings.found_in`` returns of each quantized graph, by its file.
    """
    from safetensors.numpy import save

    arrays = {f"{key}/{name}": values for key, choice in choices.items() for name, values in choice.items()}
    files = [
        {"file": file.name, "sha256": sha256_of(file), "key": key, "names": names}
        for file, found in rounded.items()
        if file.is_file()
        for key, names in found.items()
    ]
    keys = sorted(choices)  # a choice may be to leave all as it is
    facts = {"origin": origin, "keys": keys, "rounded": files}
    write_bytes(path, save(arrays, {_FACTS: json.dumps(facts)}))


def read_findings(
    path: Path,
    folder: Path,
    origin: str,
    read: Callable[[onnx.ModelProto], dict[str, QuantizedWeight]],
) -> Findings:
    """Return what ``write_findings`` wrote of a search with this ``origin``; nothing where it is another's.

    Args:
        path: the file.
        folder: the quantized model that the search made. A graph that has been changed since then is left out.
        origin: see there.
        read: returns the rounded weights of such a graph, by the names of their nodes.

    Raises:
        UserError: the file is no such one, or it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if not path.is_file():
            raise ValueError("there is no such file")
        with safe_open(path, framework="numpy") as stored:
            metadata = stored.metadata() or {}
            if _FACTS not in metadata:
                raise ValueError("nothing that a search has found out is in it")
            facts = json.loads(metadata[_FACTS])
            if facts["origin"] != origin:
                return Findings()
            choices: dict[str, Choice] = {key: {} for key in facts["keys"]}
            for place in stored.keys():  # noqa: SIM118 - not a mapping
                key, name = place.split("/", 1)
                choices[key][name] = stored.get_tensor(place)
        files = {
            entry["key"]: RoundedFile(folder / entry["file"], frozenset(entry["names"]), read)
            for entry in facts["rounded"]
            if _has_digest(folder / entry["file"], entry["sha256"])
        }
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(
            f"{path}: {first_line(error)}; delete what is left of this file, and the workflow makes it again"
        ) from error
    return Findings(choices, files)


def _has_digest(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256


def _are_equal(left: QuantizedWeight, right: QuantizedWeight) -> bool:
    return np.array_equal(left[0], right[0]) and np.array_equal(left[1], right[1])
