"""Measure how far a variant's answers are from PyTorch's: each input alone, and again in padded batches.

This step only measures; ``gate_parity.py`` judges. So the evidence survives a verdict against it.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onnxproof.cli import UserError, run_script
from onnxproof.encoder_decoder import generate_after, open_merged, open_variant
from onnxproof.files import read_json, versions_of, write_json
from onnxproof.generation import measure_generation, with_empty_cache
from onnxproof.metrics import compare_output
from onnxproof.onnx_folder import GRAPH_FILES, MERGED_FILE
from onnxproof.reference import TEXTS_FILE, Reference, read_reference
from onnxproof.samples import SAMPLED_TASKS, sample_answers
from onnxproof.tasks.answers import align_queries, batch_invariance, measure_answers, read_answers, run_items
from onnxproof.tasks.material import Entry


def measure(
    onnx_folder: Path,
    manifest: dict[str, Any],
    reference: Reference,
    batch_size: int,
    threads: int,
    texts: Sequence[Entry] = (),
) -> dict[str, Any]:
    """Return the parity of one variant, in the fields of ``parity/{variant}.json``.

    A merged decoder is held to the same: its outputs stand beside the others, and the worse text counts.

    ``texts`` are the recorded inputs as a person reads them; none, or pairs of texts, give no samples.

    Raises:
        UserError: the graph lacks an output that was recorded, or has one of another shape.
    """
    model, variant = manifest["model"], manifest["variant"]
    session = open_variant(onnx_folder, threads)
    missing = set(reference.outputs) - {value.name for value in session.get_outputs()}
    if missing:
        raise UserError(f"{model} {variant}: the graph has no output {', '.join(sorted(missing))}")
    inputs = with_empty_cache(reference.inputs, session.get_inputs())
    known = inputs.items[0].keys() | inputs.shared.keys()
    unknown = {value.name for value in session.get_inputs()} - known
    if unknown:
        raise UserError(f"{model} {variant}: the graph wants {', '.join(sorted(unknown))}, which was not recorded")
    task, judged = reference.manifest["task"], reference.manifest["judged_as"]
    labels = reference.manifest["label_count"]
    alone = align_queries(task, reference.outputs, run_items(session, inputs, task))
    compared = {name: compare_output(reference.outputs[name], alone[name]) for name in reference.outputs}
    batched = align_queries(task, alone, run_items(session, inputs, task, batch_size))
    expected, answers, answers_in_batch = (
        read_answers(judged, outputs, labels) for outputs in (reference.outputs, alone, batched)
    )
    metrics = measure_answers(judged, expected, answers)
    merged = open_merged(onnx_folder, threads, session)
    if merged is not None:
        outputs = run_items(merged, inputs, task)
        compared |= {
            f"{name} of {MERGED_FILE}": compare_output(reference.outputs[name], outputs[name]) for name in outputs
        }
    if reference.generated:
        matches = [
            measure_generation(partial(generate_after, each, inputs), reference.generated)
            for each in (session, merged)
            if each is not None
        ]
        metrics = {"greedy_token_match": min(matches)} | metrics
    return {
        "model": model,
        "variant": variant,
        "task": task,
        "reference": "pytorch",
        **proven_files(manifest),
        "inputs": {key: reference.manifest["inputs"][key] for key in ("count", "sha256")},
        "outputs": compared,
        "task_metrics": metrics,
        "batch_invariance": {"batch_size": batch_size} | batch_invariance(answers, answers_in_batch),
        "reference_batch_invariance": reference.manifest["batch_invariance"],
        "samples": sample_answers(
            judged, texts, np.concatenate(expected), np.concatenate(answers), reference.manifest["labels"]
        )
        if texts and judged in SAMPLED_TASKS and isinstance(texts[0], str)
        else [],
        "intra_op_threads": threads,
        "versions": versions_of("onnxruntime", "numpy"),
    }


def proven_files(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the sha256 of a variant's graph, ``model_sha256``; ``weights_sha256`` has those of all files beside it.

    These are weights in files of their own, and the further graphs of an encoder-decoder.
    """
    files = manifest["files"]
    first, *others = [name for graph in GRAPH_FILES for name in sorted(files) if name.startswith(graph)]
    found = {name: files[name]["sha256"] for name in others}
    return {"model_sha256": files[first]["sha256"]} | ({"weights_sha256": found} if found else {})


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--onnx-dir", type=Path, required=True, help="folder with the variant")
    parser.add_argument("--onnx-manifest", type=Path, required=True, help="its manifest")
    parser.add_argument("--reference", type=Path, required=True, help="folder with the recorded reference")
    parser.add_argument("--reference-manifest", type=Path, required=True, help="its manifest")
    parser.add_argument("--batch-size", type=int, default=8, help="inputs in a padded batch")
    parser.add_argument("--threads", type=int, default=1, help="intra-op threads")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args(argv)
    reference = read_reference(args.reference, args.reference_manifest)
    texts_file = args.reference / TEXTS_FILE  # absent where the inputs are no texts
    texts = read_json(texts_file) if texts_file.is_file() else []
    parity = measure(args.onnx_dir, read_json(args.onnx_manifest), reference, args.batch_size, args.threads, texts)
    write_json(args.output, parity)
    print(f"{parity['model']} {parity['variant']}: {parity['task_metrics']}", flush=True)


if __name__ == "__main__":
    run_script(main)
