"""The two decoders of an encoder-decoder as one graph, which holds once what both have: the form transformers.js reads.

One branch of an If starts a text, the other goes on from the cache; ``use_cache_branch``, bool (1,), chooses. The
branch that goes on gives no cache of the encoder's vectors back, as it stays the same: those outputs are empty there.
Names and meaning are those of Optimum's exporter, so that whatever loads its merged decoders loads these.
"""

import copy
import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnxproof.graph.external_data import load_model, read_tensor, save_model
from onnxproof.graph.files import DECODER_FILE, DECODER_WITH_PAST_FILE, MERGED_FILE
from onnxproof.graph.generation import USE_CACHE

#: Smaller constants stay in their branch: shapes and axes, which onnxruntime looks for there when it optimizes.
SMALLEST_SHARED = 1024


def merge_decoders(folder: Path) -> None:
    """Write the merged decoder of an ONNX folder beside its two decoders; nothing where there are not two."""
    if not (folder / DECODER_WITH_PAST_FILE).is_file():
        return
    with tempfile.TemporaryDirectory(dir=folder, prefix=".merge.") as scratch:
        decoders = [load_model(folder / file, Path(scratch)) for file in (DECODER_FILE, DECODER_WITH_PAST_FILE)]
        save_model(merge(*decoders), folder / MERGED_FILE)


def merge(no_past: onnx.ModelProto, with_past: onnx.ModelProto) -> onnx.ModelProto:
    """Return one model of a first decoder and of one with a cache, which are used up.

    Its inputs are those of both and ``use_cache_branch``, its outputs those of the first decoder.
    """
    outputs = copy.deepcopy(list(no_past.graph.output))
    names = [value.name for value in outputs]
    inputs = {value.name: value for model in (no_past, with_past) for value in model.graph.input}
    _answer_emptily(with_past, outputs)
    shared: dict[bytes, onnx.TensorProto] = {}
    otherwise, then = _as_branch(no_past, "no_past", shared), _as_branch(with_past, "with_past", shared)
    choice = helper.make_node("If", [USE_CACHE], names, "choose_branch", then_branch=then, else_branch=otherwise)
    flag = helper.make_tensor_value_info(USE_CACHE, onnx.TensorProto.BOOL, [1])
    graph = helper.make_graph([choice], "merged", [*inputs.values(), flag], outputs, list(shared.values()))
    domains = {entry.domain: entry.version for model in (with_past, no_past) for entry in model.opset_import}
    merged = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in domains.items()],
        ir_version=max(no_past.ir_version, with_past.ir_version),
        producer_name=no_past.producer_name,
    )
    properties = [{entry.key: entry.value for entry in model.metadata_props} for model in (with_past, no_past)]
    helper.set_model_props(merged, properties[0] | properties[1])  # of either, where its weights are
    return merged


def _answer_emptily(model: onnx.ModelProto, outputs: list[onnx.ValueInfoProto]) -> None:
    """Give a decoder all of these outputs, in this order: those it lacks are of no items, float32 (0, …)."""
    own = {value.name: value for value in model.graph.output}
    for value in outputs:
        if value.name not in own:
            sizes = [0, *(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:])]
            empty = helper.make_tensor(f"{value.name}_empty", onnx.TensorProto.FLOAT, sizes, [])
            model.graph.node.append(helper.make_node("Constant", [], [value.name], value.name, value=empty))
            own[value.name] = helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, sizes)
    del model.graph.output[:]
    model.graph.output.extend(own[value.name] for value in outputs)


def _as_branch(model: onnx.ModelProto, branch: str, shared: dict[bytes, onnx.TensorProto]) -> onnx.GraphProto:
    """Return a model's graph as a branch: its names are its own, its inputs and large constants those around it.

    ``shared`` holds the large constants so far, by the sha256 of what they are; this graph's new ones are added.
    """
    graph = model.graph
    names = {name: f"{branch}/{name}" for node in graph.node for name in node.output if name}
    kept = []
    for tensor in graph.initializer:
        name, tensor.name = tensor.name, f"{branch}/{tensor.name}"
        values = read_tensor(model, tensor)
        if values.nbytes < SMALLEST_SHARED:
            kept.append(tensor)
            names[name] = tensor.name
        else:
            names[name] = shared.setdefault(_digest(tensor, values), tensor).name
    _rename(graph, names)
    return helper.make_graph(list(graph.node), branch, [], list(graph.output), kept)


def _digest(tensor: onnx.TensorProto, values: NDArray[Any]) -> bytes:
    """Return the sha256 of a constant's type, shape and values."""
    digest = hashlib.sha256(f"{tensor.data_type} {list(tensor.dims)}".encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.digest()


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors throughout a graph and its subgraphs."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, names)
    for value in graph.output:
        value.name = names.get(value.name, value.name)
