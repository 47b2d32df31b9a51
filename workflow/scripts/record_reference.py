"""Record what PyTorch answers to the evaluation inputs, once, so that no later step needs torch.

What a model answers must not depend on the neighbours in a batch, so one answer without padding judges the variants
both alone and in padded batches. Inputs are run alone until batches have shown that neighbours change nothing. The
others are then run in batches of one shape.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from onnxproof.checkpoint.inference import choose_task, judged_as_in, read_transformer_config
from onnxproof.checkpoint.reading import Checkpoint
from onnxproof.checkpoint.tokenizer_files import TOKENIZER_FILE
from onnxproof.cli import UserError, run_script
from onnxproof.files import describe_files, staged_folder, versions_of, write_json
from onnxproof.inputs.final_answers import FinalAnswers
from onnxproof.inputs.material import MAX_TOKENS, Entry, compose_texts
from onnxproof.inputs.model_inputs import TOKENS, Item, ModelInputs
from onnxproof.inputs.prompts import GENERATED_PROMPTS
from onnxproof.inputs.reference import INPUTS_FILE, TEXTS_FILE, save_final_answers, save_reference
from onnxproof.inputs.texts import EVALUATION_TEXTS, read_texts
from onnxproof.original.final_answers import record_final_answers
from onnxproof.original.loading import one_line
from onnxproof.original.model import Original, load_original
from onnxproof.original.used_tokenizer import check_portable, special_tokens, tokenizer_of
from onnxproof.parity.answers import answer_inputs
from onnxproof.records.checkpoint import ModelConfig
from onnxproof.records.reference import (
    OwnInvariance,
    RecordedInputs,
    RecordedOutput,
    ReferenceRecord,
    Usage,
)
from onnxproof.tasks.heads import CLASSIFYING_TASKS, activation_of, count_labels
from onnxproof.tasks.model_types import model_takes
from onnxproof.tasks.registry import GENERATING_TASKS, TASKS


def check_finite(model: str, outputs: list[Item]) -> None:
    """Refuse a model whose answers are no numbers: nothing can be compared with them.

    Raises:
        UserError: an answer holds a NaN, or no finite value at all.
    """
    for item in outputs:
        for name, values in item.items():
            if np.isnan(values).any() or (values.size and not np.isfinite(values).any()):
                raise UserError(
                    f"{model}: the original itself answers with values that are no numbers ({name}): its weights, or "
                    "the numbers in its configuration files, are damaged"
                )


def answer_all(
    original: Original, model: str, inputs: ModelInputs, judged: str, labels: int, batch_size: int
) -> tuple[list[Item], OwnInvariance]:
    """Return PyTorch's outputs for each input without padding, and how far its answers in padded batches are from them.

    See ``answer_inputs`` for how inputs are run. Some architectures let padding into their answers: those that convolve
    over tokens, or pool all of them. Each of their inputs is run alone, and a variant can be no better than its
    original.

    Args:
        original: the model.
        model: its name, for messages.
        inputs: the evaluation inputs.
        judged: what the model's head makes of its task, see ``heads.judged_as``.
        labels: number of the model's labels.
        batch_size: inputs in a batch, at most.

    Raises:
        UserError: PyTorch cannot run an input, or a batch.
    """
    size, names = TASKS[original.task].fit_batch(batch_size), list(inputs.items[0])
    done: set[int] = set()

    def run(indices: Sequence[int]) -> dict[int, Item]:
        where = " in batches" if len(indices) > 1 else ""
        with one_line(model, f"the original cannot answer the evaluation inputs{where}"):
            outputs: dict[int, Item] = dict(zip(indices, original.run(inputs, indices), strict=True))
        before = len(done)
        done.update(indices)
        if len(done) // 50 > before // 50 or before < len(done) == len(inputs.items):
            print(f"ran {len(done)} of {len(inputs.items)} inputs", flush=True)
        return outputs

    run([0])  # what cannot be run at all is told of without batches
    found, count, measured = answer_inputs(
        original.task,
        judged,
        labels,
        inputs,
        inputs.batches(size, names),
        partial(inputs.batches_of_one_shape, size, names),
        run,
    )
    outputs = [found[index] for index in range(len(inputs.items))]
    return outputs, {"batch_size": batch_size, "inputs": count, **measured}


def generate_some(original: Original, inputs: ModelInputs) -> dict[int, list[int]]:
    """Return the tokens that PyTorch generates for a few inputs, spread evenly, by the input's number."""
    if original.generate is None:
        return {}
    count = len(inputs.items)
    chosen = dict.fromkeys(index * count // GENERATED_PROMPTS for index in range(GENERATED_PROMPTS))
    return {index: original.generate(inputs, index) for index in chosen}


def texts_of_inputs(original: Original, texts: list[str]) -> list[Entry]:
    """Return what each input of a text model was made from: a text, a pair, or the pairs of a choice."""
    entries = compose_texts(original.task, original.config, texts)
    if original.task in GENERATING_TASKS:  # a text without tokens is no prompt, and was left out
        entries = [entry for entry in entries if original.processor(entry)[TOKENS]]
    return entries


def describe_inputs(inputs: ModelInputs, sha256: str, most_tokens: int) -> RecordedInputs:
    """Return how many inputs there are and, for texts, how long they are in tokens."""
    described: RecordedInputs = {"count": len(inputs.items), "sha256": sha256}
    if TOKENS not in inputs.items[0]:
        return described
    lengths = [item[TOKENS].shape[-1] for item in inputs.items]
    return {
        **described,
        "tokens": sum(lengths),
        "shortest": min(lengths),
        "longest": max(lengths),
        "max_tokens": min(most_tokens, MAX_TOKENS),
        "max_tokens_of_model": most_tokens,
    }


def describe_outputs(outputs: list[Item]) -> dict[str, RecordedOutput]:
    """Return each output's dtype and shape: rows over all inputs and features, or all inputs and one input's shape."""
    described: dict[str, RecordedOutput] = {}
    for name, first in outputs[0].items():
        arrays = [item[name] for item in outputs]
        rows = [sum(map(len, arrays)), *first.shape[1:]] if first.ndim == 2 else [len(arrays), *first.shape]
        described[name] = {"shape": rows, "dtype": str(first.dtype)}
    return described


def describe_usage(final: FinalAnswers | None, task: str, config: ModelConfig) -> Usage:
    """Return what the programs of a card must know, and what was asked of the original's public interface."""
    if final is not None:
        usage: Usage = {"use": final.use, "interface": final.interface, "inputs": len(final.inputs)}
        usage.update(final.settings)  # type: ignore[typeddict-item] # mypy asks for all keys that a release may add
        return usage
    return {"activation": activation_of(task, config)} if task in CLASSIFYING_TASKS else {}


def record(
    model: str,
    snapshot: Path,
    requested_task: str | None,
    texts_file: Path,
    threads: int,
    batch_size: int,
    folder: Path,
    manifest: Path,
) -> None:
    """Run the evaluation inputs through PyTorch and write inputs, outputs and their manifest.

    Raises:
        UserError: the texts cannot be read, or the snapshot does not serve the task.
    """
    task = choose_task(model, snapshot, requested_task)
    texts = read_texts(texts_file)

    import torch

    torch.set_num_threads(threads)
    original = load_original(model, snapshot, task)
    tokenizer = tokenizer_of(original.processor)
    with one_line(model, "the original cannot answer the evaluation inputs"):
        if tokenizer is not None:
            file = snapshot / Checkpoint(snapshot).beside_config(TOKENIZER_FILE)
            check_portable(model, tokenizer, file, texts)
        inputs = original.make_inputs(texts)
    config = read_transformer_config(snapshot)
    labels = count_labels(config)
    judged = judged_as_in(snapshot, task)
    outputs, invariance = answer_all(original, model, inputs, judged, labels, batch_size)
    check_finite(model, outputs)
    with one_line(model, "the original cannot answer the evaluation inputs"):
        generated = generate_some(original, inputs)
    with one_line(model, "the original cannot answer raw inputs"):
        final = record_final_answers(original, model, snapshot)
    with staged_folder(folder) as stage:
        if final is not None:
            save_final_answers(stage, final)
        if model_takes(original.config.get("model_type")) == "text":
            write_json(stage / TEXTS_FILE, texts_of_inputs(original, texts))
        save_reference(stage, inputs, outputs, generated)
        files = describe_files(stage)
    description: ReferenceRecord = {
        "model": model,
        "task": task,
        "judged_as": judged,
        "reference": "pytorch",
        "inputs": describe_inputs(inputs, files[INPUTS_FILE]["sha256"], original.most_tokens),
        "outputs": describe_outputs(outputs),
        "padding": {
            "side": inputs.padding_side,
            "values": {name: inputs.padding_values.get(name, 0) for name in inputs.items[0]},
            "special_tokens": special_tokens(tokenizer) if tokenizer is not None else {},
        },
        "labels": config.get("id2label"),
        "label_count": labels,
        "batch_invariance": invariance,
        "usage": describe_usage(final, task, original.config),
        "threads": threads,
        "files": files,
        "versions": versions_of("torch", "transformers", "tokenizers", "sentence-transformers"),
    }
    write_json(manifest, description)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the model's name in config.yaml")
    parser.add_argument("--source", type=Path, required=True, help="folder with the downloaded snapshot")
    parser.add_argument("--task", help="task to run; inferred from the snapshot when left out")
    parser.add_argument(
        "--texts",
        type=Path,
        default=EVALUATION_TEXTS,
        help="evaluation texts, .jsonl or .txt (default: bundled)",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads that torch may use")
    parser.add_argument("--batch-size", type=int, default=8, help="inputs in a padded batch")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write the reference to")
    parser.add_argument("--manifest", type=Path, required=True, help="JSON file to describe it in")
    args = parser.parse_args(argv)
    record(
        args.model, args.source, args.task, args.texts, args.threads, args.batch_size, args.output_dir, args.manifest
    )


if __name__ == "__main__":
    run_script(main)
