"""Answer a user's labelled data by a variant, with the program of the model's card, as a release's user would.

The answers are scored by ``score_evaluation.py`` beside those of the original.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxproof.checkpoint.inference import read_transformer_config
from onnxproof.cli import UserError, run_script
from onnxproof.evaluation.answers import AnswerFile
from onnxproof.evaluation.asking import Ask, answers_to
from onnxproof.evaluation.forms import PERPLEXITY, Model
from onnxproof.evaluation.plan import Plan, add_options, make_plan
from onnxproof.files import sha256_of, versions_of, write_json
from onnxproof.graph.encoder_decoder import files_of_variant
from onnxproof.graph.files import MODEL_FILE
from onnxproof.records.evaluation import EvaluatedOriginal, EvaluatedVariant, read_evaluated_original
from onnxproof.records.reference import ReferenceRecord, read_reference_record
from onnxproof.records.variant import VariantRecord, read_variant
from onnxproof.release.programs import load_program, stage_variant
from onnxproof.release.quality import ask_likelihoods, ask_program


def ask_variant(
    folder: Path, stage: Path, plan: Plan, reference: ReferenceRecord, new_tokens: int, threads: int
) -> Ask:
    """Return how a variant is asked about one raw input.

    Raises:
        UserError: the card of such a model has no program for raw inputs.
    """
    stage_variant(folder, reference, stage)
    if plan.form is PERPLEXITY:
        most_tokens = reference["inputs"].get("max_tokens_of_model")
        return ask_likelihoods(folder / MODEL_FILE, stage / "tokenizer.json", most_tokens, threads)
    answer = load_program(reference, stage, threads)
    usage = reference["usage"]
    return ask_program(answer, str(usage.get("use")), usage.get("arguments", {}), new_tokens, stage)


def evaluate(
    folder: Path,
    manifest: VariantRecord,
    original: EvaluatedOriginal,
    reference: ReferenceRecord,
    data: Path,
    documents: Path | None,
    given: Mapping[str, Any],
    threads: int,
    answers: Path,
) -> EvaluatedVariant:
    """Answer the labelled inputs by a variant and write its answers; return their record.

    Raises:
        UserError: the data are not those that the original answered, or the variant cannot be asked.
    """
    if sha256_of(data) != original["data"]["sha256"]:
        raise UserError(f"{data}: changed since the original answered it; run again")
    model = Model(original["use"], original["task"], tuple(original["labels"]), original["rate"])
    plan = make_plan(original["model"], given, data, documents, model, read_transformer_config(folder))
    with tempfile.TemporaryDirectory(prefix="staged.") as stage:
        ask = ask_variant(folder, Path(stage), plan, reference, original["new_tokens"], threads)
        start = time.monotonic()
        with AnswerFile(answers) as file:
            for example, answer in answers_to(plan, original["data"]["inputs"], ask):
                file.write(example.place.number, answer=answer)
        seconds = time.monotonic() - start
    first = min(files_of_variant(folder))
    return {
        "model": original["model"],
        "variant": manifest["variant"],
        "model_sha256": manifest["files"][first]["sha256"],
        "seconds": round(seconds, 3),
        "threads": threads,
        "versions": versions_of("onnxruntime", "numpy", "tokenizers"),
    }


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--onnx-dir", type=Path, required=True, help="folder with the variant")
    parser.add_argument("--onnx-manifest", type=Path, required=True, help="its manifest")
    parser.add_argument("--original", type=Path, required=True, help="record of the original's answers")
    parser.add_argument("--reference-manifest", type=Path, required=True, help="record of the reference")
    add_options(parser)
    args = parser.parse_args(argv)
    record = evaluate(
        args.onnx_dir,
        read_variant(args.onnx_manifest),
        read_evaluated_original(args.original),
        read_reference_record(args.reference_manifest),
        args.data,
        args.documents,
        args.settings,
        args.threads,
        args.output,
    )
    write_json(args.manifest, record)


if __name__ == "__main__":
    run_script(main)
