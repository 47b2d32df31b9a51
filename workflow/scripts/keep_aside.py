"""Keep a share of the labelled rows aside, inputs and labels, for the search for a recipe of a quantized variant.

The gate on labelled data never sees them: see ``onnxproof/evaluation/aside.py``.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from onnxproof.checkpoint.inference import choose_task, read_transformer_config
from onnxproof.cli import UserError, run_script
from onnxproof.evaluation.aside import SEARCHED_METRICS, SEARCHED_USES
from onnxproof.evaluation.asking import examples_of, text_of_document
from onnxproof.evaluation.data import read_rows
from onnxproof.evaluation.gate import default_limit
from onnxproof.evaluation.plan import Plan, make_plan
from onnxproof.files import sha256_of, write_json
from onnxproof.inputs.labelled import describe_model
from onnxproof.records.evaluation import KeptAside

#: Of the documents, those that answer a query and the first others are searched, so many at most beside the former.
OTHER_DOCUMENTS = 500


def documents_for(plan: Plan, labels: list[dict[str, int]]) -> dict[str, str]:
    """Return the documents that answer queries, and the first others: texts by their ids, in the order of the file.

    Raises:
        UserError: see ``read_rows``.
    """
    if plan.settings.documents is None:
        return {}
    wanted, others, found = {name for label in labels for name in label}, 0, {}
    fields = plan.settings.document
    for place, row in read_rows(plan.settings.documents):
        name = str(row.get(fields[0]))
        if name in wanted or others < OTHER_DOCUMENTS:
            found[name] = text_of_document(row, place, fields)
            others += name not in wanted
    return found


def keep_aside(
    name: str, snapshot: Path, task: str | None, data: Path, documents: Path | None, given: Mapping[str, Any]
) -> KeptAside:
    """Return the rows that the search for a recipe uses.

    Raises:
        UserError: the data cannot be read, no row is kept aside, or the search cannot use labels for such a model.
    """
    task = choose_task(name, snapshot, task)
    config = read_transformer_config(snapshot)
    model = describe_model(name, task, config, snapshot)
    plan = make_plan(name, given, data, documents, model, config)
    if model.use not in SEARCHED_USES or plan.metric not in SEARCHED_METRICS:
        raise UserError(
            f"{name}: evaluation.search_share: a search with labels is for text classifiers and embedders, by "
            f"{', '.join(SEARCHED_METRICS)}; this is a model for {model.use}, measured by {plan.metric}"
        )
    examples = list(examples_of(plan, kept_aside=True))
    if not examples:
        raise UserError(
            f"{name}: evaluation.search_share is {plan.search_share}, and of the rows of {data} none falls to it; "
            "give more rows or a larger share"
        )
    limit = given.get("not_worse_by")
    return {
        "model": name,
        "kind": cast(Any, plan.form.kind),
        "metric": plan.metric,
        "not_worse_by": default_limit(plan.metric, 0.0, higher_is_better=True) if limit is None else limit,
        "file": data.name,
        "sha256": sha256_of(data),
        "share": cast(float, plan.search_share),
        "rows": [example.place.number for example in examples],
        "inputs": [example.raw[0] if len(example.raw) == 1 else list(example.raw) for example in examples],
        "labels": [example.label for example in examples],
        "documents": documents_for(plan, [example.label for example in examples]),
    }


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the model's name in config.yaml")
    parser.add_argument("--source", type=Path, required=True, help="folder with the downloaded snapshot")
    parser.add_argument("--task", help="task to run; inferred from the snapshot when left out")
    parser.add_argument("--data", type=Path, required=True, help="labelled data, .jsonl, .csv or .parquet")
    parser.add_argument("--documents", type=Path, help="documents that queries are looked for in")
    parser.add_argument(
        "--settings", type=json.loads, required=True, metavar="JSON", help="evaluation of config.yaml, without data"
    )
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args(argv)
    record = keep_aside(args.model, args.source, args.task, args.data, args.documents, args.settings)
    write_json(args.output, record)
    print(f"{args.model}: {len(record['rows'])} rows of {args.data} are kept aside for the search", flush=True)


if __name__ == "__main__":
    run_script(main)
