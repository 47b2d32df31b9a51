"""``onnx/{variant}.json``: one ONNX form of a model, and how it was made."""

from pathlib import Path
from typing import Any, NotRequired, TypeAlias, TypedDict, final

from onnxproof.files import Files, read_manifest
from onnxproof.records.common import Limits, Metrics, Versions

#: One pass of a quantization recipe: its name under ``pass``, and its parameters by name.
Step: TypeAlias = dict[str, Any]


class GraphDescription(TypedDict):
    """What is in one graph."""

    opset: dict[str, int]
    """The version of each set of operators, by its domain; the default domain is ``ai.onnx``."""
    ir_version: int
    """Of the ONNX file."""
    inputs: list[str]
    """Names, in order."""
    outputs: list[str]
    """Names, in order."""
    operators: dict[str, int]
    """How often each operator occurs, most frequent first."""
    fused: dict[str, int]
    """How often each operator of onnxruntime's own occurs that stands for several of ONNX."""


class TracedInput(TypedDict):
    """An input of a traced graph."""

    rank: int
    """How many axes."""
    shape: list[int]
    """The shape that was traced."""
    dtype: str
    """As torch names it, such as ``int64``."""


#: The outputs of a traced graph: the class that the network answers with, and their names in order.
TracedOutputs = TypedDict("TracedOutputs", {"class": str, "names": list[str]})


class ExportedModel(TypedDict):
    """What transformers' ``ExportedModel`` is to know of a traced graph, see ``graph.exported_model``."""

    architecture: str
    """The network's class."""
    inputs: dict[str, TracedInput]
    """By name."""
    outputs: TracedOutputs
    """The class that the network answers with, and the names of the outputs in order."""


@final
class ExportSettings(TypedDict):
    """How fp32 was made."""

    exporter: str
    """``transformers`` or ``optimum``."""
    dtype: str
    """Of the weights."""
    attention: NotRequired[str]
    """The implementation of attention that transformers' exporter traced."""
    reason: NotRequired[str]
    """Why transformers' exporter did not make it."""


class OptimizationProof(TypedDict):
    """How an optimized graph was held against the exported one."""

    inputs: int
    """How many feeds were compared."""
    max_relative_diff: float
    """The largest difference over the largest value."""


@final
class OptimizationSettings(TypedDict):
    """How a graph was optimized."""

    rewrites: NotRequired[dict[str, int]]
    """How often each rewrite was made; absent where the graph is as it was exported."""
    method: str
    """What fused it, or ``unchanged``."""
    fused: dict[str, int]
    """As in ``GraphDescription``."""
    reason: NotRequired[str]
    """Why a further-reaching method was not used."""
    proof: NotRequired[OptimizationProof]
    """Absent where the graph is as it was exported."""


class TriedRecipe(TypedDict):
    """One recipe that the search tried on the calibration inputs."""

    recipe: list[Step]
    """Its passes in order."""
    metrics: Metrics
    """What was measured: without ``batch_cosine_min`` where another metric misses its target."""
    size_ratio: float
    """Its size over that of the float model."""
    speedup: float | None
    """The time of the float model over its own; None where it was not measured either."""
    missed: list[str]
    """The metrics beyond their targets."""
    distance: float | None
    """How far the worst metric is: 1 is at its target, 0 the float model's own answer, None not finite."""


class SearchEffort(TypedDict):
    """What the search of a large model is limited to."""

    inputs: int
    """Calibration inputs."""
    widest: int
    """The most inputs of a weight whose rounding is compensated."""
    float_nodes: list[int]
    """How many nodes the last recipes leave in float."""


class ToKeep(TypedDict):
    """What a recipe must keep on labelled inputs."""

    metric: str
    """The task's metric."""
    of_float: float
    """Its value for the float model."""
    of_recipe: float | None
    """Its value for the recipe that was taken; None where it is not finite."""
    not_worse_by: float
    """How much of it a recipe may lose."""


class Search(TypedDict):
    """How a recipe was found."""

    targets: Limits
    """What a recipe was to reach on the calibration inputs."""
    limited_to: NotRequired[SearchEffort]
    """Absent where the model is not a large one."""
    labelled: NotRequired[ToKeep]
    """What it was to keep on labelled inputs; absent where there were none."""
    left_out: NotRequired[dict[str, str]]
    """Passes that no recipe has because they do not fit the model, and why."""
    reached: bool
    """Whether the recipe reaches every target."""
    rungs: list[TriedRecipe]
    """What was tried, in order."""


class TriedHere(TypedDict):
    """What the CPU at hand made of the integer products that strain it most."""

    instruction_set: str | None
    """The kind of CPU; None where it is no known one."""
    products: int
    """How many were tried."""
    wrong: list[str]
    """The nodes whose integers came out wrong."""


class Portability(TypedDict):
    """On which CPUs a model computes the same integers, as its weights tell."""

    integer_products: int
    """How many nodes multiply by a constant int8 or uint8 weight."""
    instruction_sets: dict[str, str]
    """``exact`` or ``may saturate``, by the kind of CPU."""
    worst_pair_sum: int
    """The largest magnitude that two adjacent products can add up to."""
    pair_sum_limit: int
    """What int16 holds."""
    may_saturate: list[str]
    """The nodes that can exceed it."""


class TriedPortability(Portability):
    """On which CPUs a model computes the same integers, as its weights tell and as this CPU shows."""

    tried_here: TriedHere
    """What this CPU made of them."""


class LabelledCalibration(TypedDict):
    """The labelled inputs that a recipe was judged on beside the others; the gate on labelled data has the rest."""

    file: str
    """The name of the labelled data's file."""
    sha256: str
    """Of its bytes, in hex."""
    share: float
    """The share of its rows that was asked for, ``evaluation.search_share``."""
    rows: list[int]
    """Their numbers, from 1 on."""
    inputs: int
    """How many inputs they gave: of pairs both texts, of queries the documents too."""


class Calibration(TypedDict):
    """What inputs a recipe was judged on: texts with a checksum, or images or sounds with a seed."""

    texts: NotRequired[int]
    """How many texts."""
    sha256: NotRequired[str]
    """Of the file with the texts, in hex."""
    bundled: NotRequired[bool]
    """Whether the texts are those of this project."""
    images: NotRequired[int]
    """How many images, which are drawn."""
    sounds: NotRequired[int]
    """How many sounds, which are synthesized."""
    seed: NotRequired[int]
    """Of the images or sounds."""
    labelled: NotRequired[LabelledCalibration]
    """The labelled inputs beside them; absent where ``evaluation.search_share`` is not set."""


@final
class NodeBound(TypedDict):
    """What a node of a graph in float16 works with."""

    largest: float | None
    """A bound of it, on the calibration inputs; null where a value is infinite, as the logarithm of a distance of 0."""
    of: str
    """What the bound is of: values, a sum of squares, or a partial sum."""
    lost: str
    """What float16 would lose because it is too small; empty where nothing."""
    float32: bool
    """Whether the node computes in float32."""


@final
class Certificate(TypedDict):
    """Why a graph in float16 stays within the range of float16."""

    margin: float
    """The nodes in float16 hold their bound times this."""
    nodes: dict[str, NodeBound]
    """By the name of the node in the graph before it was turned to float16."""


@final
class QuantizationSettings(TypedDict):
    """How a graph was quantized."""

    recipe: list[Step]
    """The passes in order."""
    float16: NotRequired[Certificate]
    """Bounds of what flows through a graph in float16."""
    search: Search
    """How the recipe was found."""
    portability: TriedPortability
    """On which CPUs it computes the same integers."""
    calibration: Calibration
    """What inputs it was judged on."""


@final
class SettingsOfGraphs(TypedDict):
    """How each of several graphs was made."""

    graphs: dict[str, OptimizationSettings] | dict[str, QuantizationSettings]
    """By the name of the file."""


#: How a variant was made.
Settings: TypeAlias = ExportSettings | OptimizationSettings | QuantizationSettings | SettingsOfGraphs


class SeveralGraphs(TypedDict):
    """What is in each graph of a variant that has several."""

    graphs: NotRequired[dict[str, GraphDescription]]
    """By the name of the file; absent where there is one graph."""


class ExportedGraph(TypedDict):
    """What is known of a graph that transformers' exporter wrote."""

    exported_model: NotRequired[ExportedModel]
    """What transformers' ``ExportedModel`` is to know of it; absent where it cannot load it, and in other variants."""


class VariantRecord(GraphDescription, SeveralGraphs, ExportedGraph):
    """One ONNX form of a model, ``results/{model}/onnx/{variant}/``.

    Of several graphs, the inputs are the encoder's, the outputs the decoder's, and the operators those of all but a
    merged decoder together.
    """

    model: str
    """The model's name in config.yaml."""
    variant: str
    """The variant's name."""
    task: str
    """A key of ``TASKS``."""
    settings: Settings
    """How it was made."""
    files: Files
    """Those of the folder."""
    versions: Versions
    """Of the libraries that took part."""


def read_variant(path: Path) -> VariantRecord:
    """Read an ``onnx/{variant}.json``.

    Raises:
        UserError: the file is missing, or does not describe the files of a variant.
    """
    variant: VariantRecord = read_manifest(path, "files")
    return variant
