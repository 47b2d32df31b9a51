"""Measure how far a variant's answers are from PyTorch's: each input alone, and again in padded batches.

This step only measures; ``gate_parity.py`` judges. So the evidence survives a verdict against it.
"""

import argparse
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from onnxproof.cli import run_script
from onnxproof.files import versions_of, write_json
from onnxproof.graph.encoder_decoder import files_of_variant
from onnxproof.graph.files import GRAPH_FILES, MERGED_FILE
from onnxproof.inputs.model_inputs import Reference
from onnxproof.inputs.reference import read_reference
from onnxproof.parity.measure import Measurement, measure_sessions, open_sessions, runs_of_inputs
from onnxproof.parity.samples import SAMPLED_TASKS, sample_answers
from onnxproof.progress import Progress
from onnxproof.records.parity import ParityRecord, ProvenFiles, Sample
from onnxproof.records.reference import ReferenceRecord
from onnxproof.records.variant import VariantRecord, read_variant
from onnxproof.vocabulary import CPU_PROVIDER, HALF_VARIANTS


def measure(
    onnx_folder: Path,
    manifest: VariantRecord,
    reference: Reference[ReferenceRecord],
    batch_size: int,
    threads: int,
    provider: str = CPU_PROVIDER,
) -> ParityRecord:
    """Return the parity of one variant, computed by an execution provider of onnxruntime.

    Raises:
        UserError: see ``measure_sessions`` and ``check_provider``.
    """
    model, variant = manifest["model"], manifest["variant"]
    with tempfile.TemporaryDirectory(prefix="emulated.") as scratch:
        files = files_of_variant(onnx_folder)
        emulates = variant in HALF_VARIANTS and provider == CPU_PROVIDER
        if emulates:
            files = emulate_files(files, Path(scratch))
        sessions = open_sessions(files, onnx_folder, threads, provider=provider)
        name, runs = f"{model} {variant}", reference.answered * runs_of_inputs(sessions)
        progress = Progress(name, runs, partial(print, flush=True))
        measured = measure_sessions(name, sessions, reference, batch_size, progress.count)
    recorded = reference.manifest["inputs"]
    return {
        "model": model,
        "variant": variant,
        "task": reference.manifest["task"],
        "provider": provider,
        "reference": "pytorch",
        **proven_files(manifest),
        "inputs": {"count": recorded["count"], "sha256": recorded["sha256"]},
        "outputs": measured.outputs,
        "task_metrics": measured.task_metrics,
        "batch_invariance": measured.batch_invariance,
        "reference_batch_invariance": reference.manifest["batch_invariance"],
        "samples": samples_of(measured, reference),
        "emulates_float16": emulates,
        "intra_op_threads": threads,
        "versions": versions_of("onnxruntime", "numpy"),
    }


def emulate_files(files: Mapping[str, Path], scratch: Path) -> dict[str, Path]:
    """Return the graphs of a variant as hardware with float16 computes them, written to ``scratch``, see ``emulated``.

    onnxruntime computes float16 operators in float32 on a CPU: a run of the files themselves shows no overflow. A
    merged decoder holds the same nodes as the others, and is left out.
    """
    from onnxproof.graph.external_data import load_model, save_model
    from onnxproof.quantization.half_emulation import emulated

    written = {}
    for name, path in files.items():
        if name != MERGED_FILE:
            written[name] = scratch / name
            with tempfile.TemporaryDirectory(dir=scratch) as own:
                save_model(emulated(load_model(path, Path(own))), written[name])
    return written


def samples_of(measured: Measurement, reference: Reference[ReferenceRecord]) -> list[Sample]:
    """Return a few texts with both answers to them; none for pairs of texts, and for inputs that are no texts."""
    task, texts = reference.manifest["judged_as"], reference.texts
    if task not in SAMPLED_TASKS or not texts or not isinstance(texts[0], str):
        return []
    expected, answers = np.concatenate(measured.expected), np.concatenate(measured.answers)
    return sample_answers(task, texts, expected, answers, reference.manifest["labels"])


def proven_files(manifest: VariantRecord) -> ProvenFiles:
    """Return the sha256 of a variant's graph, ``model_sha256``; ``weights_sha256`` has those of all files beside it.

    These are weights in files of their own, and the further graphs of an encoder-decoder.
    """
    files = manifest["files"]
    first, *others = [name for graph in GRAPH_FILES for name in sorted(files) if name.startswith(graph)]
    proven: ProvenFiles = {"model_sha256": files[first]["sha256"]}
    if others:
        proven["weights_sha256"] = {name: files[name]["sha256"] for name in others}
    return proven


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--onnx-dir", type=Path, required=True, help="folder with the variant")
    parser.add_argument("--onnx-manifest", type=Path, required=True, help="its manifest")
    parser.add_argument("--reference", type=Path, required=True, help="folder with the recorded reference")
    parser.add_argument("--reference-manifest", type=Path, required=True, help="its manifest")
    parser.add_argument("--batch-size", type=int, default=8, help="inputs in a padded batch")
    parser.add_argument("--threads", type=int, default=1, help="intra-op threads")
    parser.add_argument("--provider", default=CPU_PROVIDER, help="onnxruntime's execution provider that computes")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args(argv)
    reference = read_reference(args.reference, args.reference_manifest)
    manifest = read_variant(args.onnx_manifest)
    parity = measure(args.onnx_dir, manifest, reference, args.batch_size, args.threads, args.provider)
    write_json(args.output, parity)
    print(f"{parity['model']} {parity['variant']}: {parity['task_metrics']}", flush=True)


if __name__ == "__main__":
    run_script(main)
