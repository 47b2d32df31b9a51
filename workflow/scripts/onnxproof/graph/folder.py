"""The folder that holds one ONNX variant: what is in it and the manifest beside it."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import onnx

from onnxproof.checkpoint.untrusted import shortened, stays_inside
from onnxproof.cli import UserError
from onnxproof.files import Files, describe_files
from onnxproof.graph.files import GRAPH_FILES, MODEL_FILE, decoder_file, graph_files, separate_graphs
from onnxproof.graph.single_file import read_without_weights
from onnxproof.records.common import Versions
from onnxproof.records.variant import (
    ExportedGraph,
    ExportedModel,
    GraphDescription,
    OptimizationSettings,
    QuantizationSettings,
    Settings,
    SettingsOfGraphs,
    SeveralGraphs,
    VariantRecord,
)
from onnxproof.vocabulary import MICROSOFT

#: Operators of onnxruntime that stand for several of ONNX: none of them shows that nothing was fused.
FUSED_OPERATORS = frozenset(
    {
        "Attention",
        "BiasGelu",
        "BiasSplitGelu",
        "EmbedLayerNormalization",
        "FastGelu",
        "FusedMatMul",
        "Gelu",
        "GroupQueryAttention",
        "MultiHeadAttention",
        "PackedAttention",
        "QAttention",
        "QuickGelu",
        "RotaryEmbedding",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    }
)


def model_bytes(folder: Path) -> int:
    """Return the bytes of the graphs and, where they have them, of the files with their weights.

    A merged decoder is left out: whoever loads it needs no other decoder.
    """
    return sum(path.stat().st_size for name in separate_graphs(folder) for path in folder.glob(f"{name}*"))


def nodes_of(graph: onnx.GraphProto) -> Iterable[onnx.NodeProto]:
    """Yield every node of a graph and of its subgraphs (bodies of If, Loop, Scan)."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes_of(attribute.g)
            for subgraph in attribute.graphs:
                yield from nodes_of(subgraph)


def count_operators(model: onnx.ModelProto) -> dict[str, int]:
    """Return how often each operator occurs, most frequent first: silent non-fusion shows here."""
    counts = Counter(node.op_type for node in nodes_of(model.graph))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def fused_operators(model: onnx.ModelProto) -> dict[str, int]:
    """Return how often each fused operator of onnxruntime's own occurs in a graph; ONNX has a Gelu too.

    onnxruntime has its SimplifiedLayerNormalization in ONNX's domain.
    """
    found = Counter(
        node.op_type
        for node in nodes_of(model.graph)
        if node.domain == MICROSOFT or node.op_type == "SimplifiedLayerNormalization"
    )
    return {name: found[name] for name in sorted(found) if name in FUSED_OPERATORS}


def check_external_data(graph: onnx.ModelProto, folder: Path, name: str = MODEL_FILE) -> None:
    """Refuse a graph whose weights are to be read from anywhere but plain files in its own folder.

    Raises:
        UserError: a location is absolute, leaves the folder, or names a link or nothing.
    """
    for tensor in all_tensors(graph.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        path = folder / location
        if not stays_inside(location) or path.is_symlink() or not path.is_file():
            raise UserError(
                f"{folder / name}: the weights of {shortened(tensor.name)} are said to be in "
                f"{shortened(location)}, which is no file of this folder; delete the folder and run again"
            )


def all_tensors(graph: onnx.GraphProto) -> Iterable[onnx.TensorProto]:
    """Yield every constant of a graph and of its subgraphs: initializers and nodes' attributes."""
    yield from graph.initializer
    for node in nodes_of(graph):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for subgraph in (attribute.g, *attribute.graphs):
                yield from subgraph.initializer


def settings_of_graphs(
    settings: dict[str, OptimizationSettings] | dict[str, QuantizationSettings],
) -> OptimizationSettings | QuantizationSettings | SettingsOfGraphs:
    """Return the ``settings`` of a manifest from those of each graph: the one's own, or all under ``graphs``."""
    return settings[MODEL_FILE] if list(settings) == [MODEL_FILE] else {"graphs": settings}


def proven_sha256(files: Files) -> str:
    """Return what names the graphs of a manifest's ``files``: the sha256 of the one, or that of all of them listed."""
    graphs = [name for name in GRAPH_FILES if name in files]
    if graphs == [MODEL_FILE]:
        return files[MODEL_FILE]["sha256"]
    listed = "".join(f"{files[name]['sha256']}  {name}\n" for name in graphs)
    return hashlib.sha256(listed.encode()).hexdigest()


def describe_variant(
    model: str,
    variant: str,
    task: str,
    folder: Path,
    settings: Settings,
    versions: Versions,
    exported: ExportedModel | None = None,
) -> VariantRecord:
    """Return the record of an ONNX folder; ``exported`` is what transformers' ``ExportedModel`` is to know of it."""
    described = {name: _describe_graph(folder, name) for name in graph_files(folder)}
    together = next(iter(described.values()))
    each: SeveralGraphs = {}
    traced: ExportedGraph = {"exported_model": exported} if exported else {}
    if len(described) > 1:
        separate = [described[name] for name in separate_graphs(folder)]
        together = {
            **together,
            "opset": {domain: version for graph in described.values() for domain, version in graph["opset"].items()},
            "outputs": described[decoder_file(described)]["outputs"],
            "operators": _sum_counts(graph["operators"] for graph in separate),
            "fused": _sum_counts(graph["fused"] for graph in separate),
        }
        each = {"graphs": described}
    return {
        "model": model,
        "variant": variant,
        "task": task,
        **together,
        **each,
        "settings": settings,
        "files": describe_files(folder),
        "versions": versions,
        **traced,
    }


def _sum_counts(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Return the sums of several counts of operators, most frequent first."""
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def _describe_graph(folder: Path, name: str) -> GraphDescription:
    graph = read_without_weights(folder / name)
    check_external_data(graph, folder, name)
    return {
        "opset": {entry.domain or "ai.onnx": entry.version for entry in graph.opset_import},
        "ir_version": graph.ir_version,
        "inputs": [value.name for value in graph.graph.input],
        "outputs": [value.name for value in graph.graph.output],
        "operators": count_operators(graph),
        "fused": fused_operators(graph),
    }
