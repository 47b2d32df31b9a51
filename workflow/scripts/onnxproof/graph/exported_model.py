"""What transformers 5 needs to load a release: ``export.json``, for ``transformers.exporters.ExportedModel``.

The form is that of transformers 5.24, schema 1. ``ExportedModel.from_pretrained`` opens the graph that the file names
in onnxruntime, feeds it by the names of its inputs, and answers with the network's own class of outputs.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxproof.files import write_json, write_text
from onnxproof.records.common import Versions
from onnxproof.records.variant import ExportedModel

EXPORT_FILE = "export.json"
SCHEMA_VERSION = 1
#: What torch writes for one tensor in the structure of a network's inputs or outputs.
TENSOR: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
PYTREE_VERSION = 1


def describe_traced(
    architecture: str, inputs: Mapping[str, tuple[str, list[int]]], outputs: Sequence[str], answered: type
) -> ExportedModel:
    """Return what is to be known of a traced graph.

    Args:
        architecture: the network's class.
        inputs: for each input its dtype, such as "int64", and the shape that was traced.
        outputs: the graph's outputs, in order.
        answered: the class that the network answers with. Clients get one of transformers' own; a dict otherwise.
    """
    from_transformers = answered.__module__.partition(".")[0] == "transformers"
    return {
        "architecture": architecture,
        "inputs": {
            name: {"rank": len(shape), "shape": shape, "dtype": dtype} for name, (dtype, shape) in inputs.items()
        },
        "outputs": {
            "class": f"{answered.__module__}.{answered.__qualname__}" if from_transformers else "builtins.dict",
            "names": list(outputs),
        },
    }


def write_export_file(description: ExportedModel, versions: Versions, file: str, folder: Path) -> None:
    """Write ``export.json`` to a folder, and what else ``ExportedModel.from_pretrained`` insists on.

    Args:
        description: as ``describe_traced`` returns it.
        versions: those of the libraries that the graph was exported with, by name.
        file: the graph, relative to the folder. It exists.
        folder: where a release is put together; it holds the model's ``config.json``.
    """
    inputs, outputs = description["inputs"], description["outputs"]
    metadata = {
        "architecture": description["architecture"],
        "packages": {name: version for name, version in versions.items() if name != "python"},
        "export_config": {"export_format": "onnx"},
        "export_dtype": "float32",
        "export_device": "cpu",
        "kwargs": inputs,
        "in_spec": _dumps(_node("builtins.tuple", None, [_node("builtins.tuple", None, []), _mapping(list(inputs))])),
        "out_spec": _dumps(_mapping(outputs["names"], outputs["class"])),
        "in_constants": {},
        "out_constants": [],
    }
    component = {"file": file, "metadata": metadata}
    write_json(
        folder / EXPORT_FILE,
        {"schema_version": SCHEMA_VERSION, "export_format": "onnx", "components": {"model": component}},
    )
    # It must exist, wherever the weights are: from_pretrained looks for it before it opens the graph.
    placeholder = "This file holds no weights. transformers' ExportedModel looks for a file of this name.\n"
    write_text(folder / f"{file}.data", placeholder)


def _mapping(names: list[str], kind: str = "builtins.dict") -> dict[str, Any]:
    return _node(kind, names, [TENSOR] * len(names))


def _node(kind: str, context: list[str] | None, children: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": kind, "context": json.dumps(context), "children_spec": children}


def _dumps(spec: dict[str, Any]) -> str:
    """Return a structure as ``torch.utils._pytree.treespec_dumps`` writes it."""
    return json.dumps([PYTREE_VERSION, spec])
