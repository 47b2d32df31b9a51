"""What a configuration's ``evaluation`` means for one model: its form, its settings and its metric."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxproof.cli import UserError
from onnxproof.evaluation.forms import Form, Model, Settings, form_of
from onnxproof.evaluation.metrics import METRICS
from onnxproof.evaluation.quoted import DOCUMENT, QUOTED


@dataclass(frozen=True)
class Plan:
    """How a model is evaluated: from which file, how its rows are read, and what is measured."""

    file: Path
    most: int | None  #: rows that are read at most
    model: Model
    form: Form
    settings: Settings
    metric: str
    search_share: float | None = None  #: of the rows, kept aside for the search for a recipe

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the fields of an input."""
        return self.settings.inputs or self.form.inputs


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the scripts that answer labelled data are told: the data, how they are read, and what is written."""
    parser.add_argument("--data", type=Path, required=True, help="labelled data, .jsonl, .csv or .parquet")
    parser.add_argument("--documents", type=Path, help="documents that queries are looked for in")
    parser.add_argument(
        "--settings", type=json.loads, required=True, metavar="JSON", help="evaluation of config.yaml, without data"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads that PyTorch or an operator may use")
    parser.add_argument("--output", type=Path, required=True, help="file to write the answers to, .jsonl")
    parser.add_argument("--manifest", type=Path, required=True, help="JSON file to describe them in")


def read_settings(given: Mapping[str, Any], documents: Path | None) -> Settings:
    """Return what ``evaluation`` of the configuration says of the fields: ``input``, ``label`` and ``labels``.

    Where it does not, a task that is known by its name does.
    """
    quoted = QUOTED.get(str(given.get("task")))
    inputs = given.get("input") or (quoted.inputs if quoted else ())
    fields: Sequence[str] = [inputs] if isinstance(inputs, str) else inputs
    label = given.get("label") or (quoted.label if quoted else None)
    document = quoted.document if quoted and quoted.document else DOCUMENT
    return Settings(tuple(fields), label, given.get("labels") or {}, documents, document)


def make_plan(
    name: str, given: Mapping[str, Any], file: Path, documents: Path | None, model: Model, config: Mapping[str, Any]
) -> Plan:
    """Return how a model is evaluated.

    Args:
        name: the model's name, for messages.
        given: ``evaluation`` of its configuration.
        file: the labelled data.
        documents: the file of what queries are looked for in; None where there is none.
        model: its use, task and labels.
        config: the content of its ``config.json``.

    Raises:
        UserError: models of this use cannot be evaluated, or not by the metric of the configuration.
    """
    settings = read_settings(given, documents)
    form = form_of(model, config, settings)
    if form is None:
        raise UserError(f"{name}: evaluation: a model for {model.use} cannot be evaluated on labelled data")
    if documents is not None and form.kind != "retrieval":
        raise UserError(f"{name}: evaluation.documents is for embedding models, and this one is for {model.use}")
    quoted = QUOTED.get(str(given.get("task")))
    if quoted and model.use not in quoted.uses:
        raise UserError(
            f"{name}: evaluation.task is {given['task']}, for {' or '.join(quoted.uses)}, and this model is for "
            f"{model.use}"
        )
    metric = given.get("metric") or (quoted.metric if quoted else form.metric)
    fitting = [metric.name for metric in METRICS.values() if form.kind in metric.kinds]
    if metric not in fitting:
        raise UserError(
            f"{name}: evaluation.metric is {metric!r}, and a model for {model.use} is measured by: {', '.join(fitting)}"
        )
    return Plan(file, given.get("max_inputs"), model, form, settings, metric, given.get("search_share"))
