"""What the original and its variants are worth on a user's labelled data."""

from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from onnxproof.files import read_json
from onnxproof.records.common import Versions


class KeptAsideRows(TypedDict):
    """Rows of the labelled data that chose the recipe and are not judged by."""

    share: float
    """The share that was asked for, ``evaluation.search_share``."""
    inputs: int
    """How many rows they are."""


class EvaluationData(TypedDict):
    """The labelled data."""

    file: str
    """The file's name."""
    sha256: str
    """Of its bytes."""
    inputs: int
    """How many rows of it were answered."""
    documents: str | None
    """The name of the file of documents that queries are looked for in; null where there is none."""
    task: NotRequired[str]
    """The name by which the task is quoted, such as ``mteb/STSBenchmark``; absent where none is configured."""
    kept_aside: NotRequired[KeptAsideRows]
    """What was not answered because the search for a recipe has it; absent where nothing is kept aside."""


class EvaluatedOriginal(TypedDict):
    """What the original's public interface answers to the labelled inputs: ``evaluation/answers/pytorch.jsonl``."""

    model: str
    """The model's name in config.yaml."""
    task: str
    """The task."""
    use: str
    """What the model is used for."""
    interface: str
    """The interface that was asked."""
    kind: str
    """The kind of answers: see the package ``onnxproof.evaluation``."""
    metric: str
    """The metric of the configuration, or that of the use."""
    labels: list[str]
    """The model's labels, by index."""
    rate: int | None
    """Samples a second, of a model that takes sounds."""
    new_tokens: int
    """How many tokens a text that is written has at most."""
    data: EvaluationData
    """What was answered."""
    rows_kept_aside: NotRequired[list[int]]
    """The numbers of the rows that were not, from 1 on, because the search for a recipe has them."""
    seconds: float
    """How long answering took, without loading the model."""
    threads: int
    """Threads that torch used."""
    versions: Versions
    """Of the libraries that answered."""


class EvaluatedVariant(TypedDict):
    """What a variant answers to the labelled inputs by the program of its card."""

    model: str
    """The model's name in config.yaml."""
    variant: str
    """The variant."""
    model_sha256: str
    """Of the graph, or of the first of several."""
    seconds: float
    """How long answering took, without loading the model."""
    threads: int
    """Threads in an operator."""
    versions: Versions
    """Of the libraries that answered."""


class KeptAside(TypedDict):
    """Labelled inputs that the search for a recipe uses: ``evaluation/kept_aside.json``."""

    model: str
    """The model's name in config.yaml."""
    kind: Literal["classification", "pair", "retrieval"]
    """The kind of answers: see the package ``onnxproof.evaluation``."""
    metric: str
    """What a recipe must keep."""
    not_worse_by: float
    """By how much it may be worse than the float model, in the metric's unit."""
    file: str
    """The name of the labelled data's file."""
    sha256: str
    """Of its bytes."""
    share: float
    """The share that was asked for."""
    rows: list[int]
    """The numbers of the rows, from 1 on."""
    inputs: list[Any]
    """Of each row a text, or the two texts of a pair."""
    labels: list[Any]
    """Of each row the index of a label, a number, or the relevance of documents by their ids."""
    documents: dict[str, str]
    """For queries: the text of each document, by its id; empty for others."""


class ChangedInput(TypedDict):
    """An input that the variant answers in another way than the original, or with another score."""

    row: int
    """Its number in the data, from 1 on."""
    input: str
    """Its beginning."""
    label: Any
    """Its label, by name."""
    original: Any
    """The original's answer."""
    variant: Any
    """The variant's answer."""
    score_change: float | None
    """The variant's score less the original's; null where inputs have no score of their own."""


class ClassQuality(TypedDict):
    """The inputs of one label."""

    label: str
    """The label's name."""
    inputs: int
    """How many have it."""
    original: float
    """The share that the original answers rightly."""
    variant: float
    """The share that the variant answers rightly."""


class EvaluationRecord(TypedDict):
    """How good a variant is on the labelled data beside the original, with the uncertainty of the difference."""

    model: str
    """The model's name in config.yaml."""
    variant: str
    """The variant."""
    model_sha256: str
    """Of the graph, or of the first of several."""
    metric: str
    """What was measured."""
    title: str
    """What the metric measures."""
    higher_is_better: bool
    """False for errors and losses."""
    library: str
    """The distribution that computes it."""
    data: EvaluationData
    """On what it was measured."""
    original: float
    """The metric of the original's answers."""
    value: float
    """The metric of the variant's answers."""
    difference: float
    """``value - original``."""
    interval: list[float]
    """The 95 % interval of the difference."""
    method: Literal["tango", "bootstrap-t", "bounded-bootstrap", "unchanged"]
    """How the interval was made, see ``evaluation.paired.Comparison``."""
    changed: float | None
    """The share of inputs that are answered in another way; null where answers are real numbers."""
    affected: int | None
    """Inputs that add something else to the metric with the variant; null where practically all do."""
    gained: int | None
    """Inputs whose score is higher with the variant; null where the metric is no mean of scores."""
    lost: int | None
    """Inputs whose score is lower with the variant; null where the metric is no mean of scores."""
    most_changed: list[ChangedInput]
    """The inputs whose answers changed the most."""
    classes: list[ClassQuality]
    """One entry a label; empty where inputs have none of their own."""
    seconds: dict[str, float]
    """How long the original and the variant took to answer, by ``original`` and ``variant``."""
    versions: Versions
    """Of the libraries that computed the metric."""


def read_kept_aside(file: Path) -> KeptAside:
    """Read ``evaluation/kept_aside.json``."""
    record: KeptAside = read_json(file)
    return record


def read_evaluated_original(file: Path) -> EvaluatedOriginal:
    """Read ``evaluation/answers/pytorch.json``."""
    record: EvaluatedOriginal = read_json(file)
    return record


def read_evaluated_variant(file: Path) -> EvaluatedVariant:
    """Read ``evaluation/answers/{variant}.json``."""
    record: EvaluatedVariant = read_json(file)
    return record


def read_evaluation(file: Path) -> EvaluationRecord:
    """Read ``evaluation/{variant}.json``."""
    record: EvaluationRecord = read_json(file)
    return record
