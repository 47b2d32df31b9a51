"""Record what the original's public interface answers to a user's labelled data, so that no later step needs torch."""

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxproof.checkpoint.inference import choose_task, read_transformer_config
from onnxproof.cli import UserError, run_script
from onnxproof.evaluation.answers import AnswerFile
from onnxproof.evaluation.asking import answers_to, count_examples, rows_kept_aside
from onnxproof.evaluation.forms import PERPLEXITY, likelihood_answer
from onnxproof.evaluation.plan import Plan, add_options, make_plan
from onnxproof.files import sha256_of, versions_of, write_json
from onnxproof.inputs.labelled import describe_model
from onnxproof.inputs.material import MAX_TOKENS, likelihood_item
from onnxproof.inputs.model_inputs import LIKELIHOODS, TOKENS, ModelInputs
from onnxproof.records.evaluation import EvaluatedOriginal

if TYPE_CHECKING:
    from onnxproof.original.interfaces import Interface


def ask_original(name: str, snapshot: Path, plan: Plan, new_tokens: int) -> "Interface":
    """Load the original; return its interface, which answers raw inputs as the plan's form has them.

    Raises:
        UserError: it cannot be loaded, or has no public interface for its use.
    """
    from onnxproof.original.final_answers import open_interface
    from onnxproof.original.interfaces import Interface
    from onnxproof.original.model import load_original

    original = replace(load_original(name, snapshot, plan.model.task), new_tokens=new_tokens)
    if plan.form is PERPLEXITY:

        def likelihood(text: str) -> dict[str, float]:
            limit = min(original.most_tokens, MAX_TOKENS)
            tokens = original.processor(text, truncation=True, max_length=limit)[TOKENS]
            if not tokens:
                raise UserError(f"{name}: evaluation: {text!r} has no token")
            inputs = ModelInputs([likelihood_item(np.array(tokens, dtype=np.int64))])
            found = original.run(inputs, [0])[0][LIKELIHOODS]
            return likelihood_answer(found)

        return Interface(f"{type(original.network).__name__}.forward", likelihood)
    opened = open_interface(original, name, snapshot)
    if opened is None:
        raise UserError(f"{name}: evaluation: the original has no public interface for raw inputs")
    use, interface = opened
    if use.gives != "tokens":
        return interface

    def write(text: str) -> str:
        return str(original.processor.decode(interface.ask(text), skip_special_tokens=True)).strip()

    return Interface(interface.name, write)


def record(
    name: str,
    snapshot: Path,
    task: str | None,
    data: Path,
    documents: Path | None,
    given: Mapping[str, Any],
    threads: int,
    answers: Path,
    manifest: Path,
) -> None:
    """Answer the labelled inputs by the original and write its answers and their record.

    Raises:
        UserError: the data cannot be read, a label is none of the model's, or the original cannot be asked.
    """
    task = choose_task(name, snapshot, task)
    config = read_transformer_config(snapshot)
    model = describe_model(name, task, config, snapshot)
    plan = make_plan(name, given, data, documents, model, config)
    count = count_examples(plan)

    import torch

    torch.set_num_threads(threads)
    new_tokens = given["new_tokens"]
    interface = ask_original(name, snapshot, plan, new_tokens)
    start = time.monotonic()
    with AnswerFile(answers) as file:
        for example, answer in answers_to(plan, count, interface.ask, interface.ask_all):
            file.write(example.place.number, input=example.shown, label=example.label, answer=answer)
    described: EvaluatedOriginal = {
        "model": name,
        "task": task,
        "use": model.use,
        "interface": interface.name,
        "kind": plan.form.kind,
        "metric": plan.metric,
        "labels": list(model.names),
        "rate": model.rate,
        "new_tokens": new_tokens,
        "data": {
            "file": data.name,
            "sha256": sha256_of(data),
            "inputs": count,
            "documents": documents.name if documents is not None else None,
        },
        "seconds": round(time.monotonic() - start, 3),
        "threads": threads,
        "versions": versions_of("torch", "transformers", "tokenizers", "sentence-transformers"),
    }
    if given.get("task"):
        described["data"]["task"] = given["task"]
    if plan.search_share:
        aside = rows_kept_aside(plan)
        described["data"]["kept_aside"] = {"share": plan.search_share, "inputs": len(aside)}
        described["rows_kept_aside"] = aside
    write_json(manifest, described)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the model's name in config.yaml")
    parser.add_argument("--source", type=Path, required=True, help="folder with the downloaded snapshot")
    parser.add_argument("--task", help="task to run; inferred from the snapshot when left out")
    add_options(parser)
    args = parser.parse_args(argv)
    record(
        args.model,
        args.source,
        args.task,
        args.data,
        args.documents,
        args.settings,
        args.threads,
        args.output,
        args.manifest,
    )


if __name__ == "__main__":
    run_script(main)
