"""Measure how far a variant's answers are from PyTorch's: each input alone, and again in padded batches.

This step only measures; ``gate_parity.py`` judges. So the evidence survives a verdict against it.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.cli import UserError, run_script
from onnxproof.files import read_json, versions_of, write_json
from onnxproof.metrics import answers_of, compare_output, cosine_similarity, finite, task_metrics
from onnxproof.onnx_folder import MODEL_FILE
from onnxproof.reference import PER_TOKEN, TEXTS_FILE, Reference, read_reference
from onnxproof.samples import sample_answers
from onnxproof.sessions import open_session

Array = NDArray[Any]


def run_in_batches(session: Any, reference: Reference, batch_size: int) -> dict[str, Array]:
    """Run all inputs, ``batch_size`` at a time in the recorded order; return outputs as the reference holds them.

    A batch is padded to its longest input, and the padding's rows are left out of the result.
    """
    wanted = {value.name for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs() if value.name in reference.outputs]
    parts: dict[str, list[Array]] = {name: [] for name in names}
    for start in range(0, len(reference.lengths), batch_size):
        indices = list(range(start, min(start + batch_size, len(reference.lengths))))
        feed = {name: values for name, values in reference.feed(indices).items() if name in wanted}
        for name, output in zip(names, session.run(names, feed), strict=True):
            parts[name].append(reference.unpad(output, indices) if name in PER_TOKEN else output)
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def measure(
    onnx_folder: Path,
    manifest: dict[str, Any],
    reference: Reference,
    texts: list[str],
    batch_size: int,
    threads: int,
) -> dict[str, Any]:
    """Return the parity of one variant, in the fields of ``parity/{variant}.json``.

    Raises:
        UserError: the graph lacks an output that was recorded, or has one of another shape.
    """
    model, variant = manifest["model"], manifest["variant"]
    session = open_session(onnx_folder / MODEL_FILE, threads)
    missing = set(reference.outputs) - {value.name for value in session.get_outputs()}
    if missing:
        raise UserError(f"{model} {variant}: the graph has no output {', '.join(sorted(missing))}")
    task = reference.manifest["task"]
    alone = run_in_batches(session, reference, 1)
    batched = run_in_batches(session, reference, batch_size)
    expected = answers_of(task, reference.outputs, reference.lengths)
    answers = answers_of(task, alone, reference.lengths)
    answers_in_batch = answers_of(task, batched, reference.lengths)
    return {
        "model": model,
        "variant": variant,
        "task": task,
        "reference": "pytorch",
        "model_sha256": manifest["files"][MODEL_FILE]["sha256"],
        "inputs": {key: reference.manifest["inputs"][key] for key in ("count", "sha256")},
        "outputs": {name: compare_output(reference.outputs[name], alone[name]) for name in alone},
        "task_metrics": task_metrics(task, expected, answers),
        "batch_invariance": {
            "batch_size": batch_size,
            "max_abs_diff": finite(np.abs(answers - answers_in_batch).max()),
            "cosine_min": finite(cosine_similarity(answers, answers_in_batch).min()),
        },
        "samples": sample_answers(task, texts, expected, answers, reference.manifest.get("labels")),
        "intra_op_threads": threads,
        "versions": versions_of("onnxruntime", "numpy"),
    }


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
    texts = read_json(args.reference / TEXTS_FILE)
    parity = measure(args.onnx_dir, read_json(args.onnx_manifest), reference, texts, args.batch_size, args.threads)
    write_json(args.output, parity)
    print(f"{parity['model']} {parity['variant']}: {parity['task_metrics']}", flush=True)


if __name__ == "__main__":
    run_script(main)
