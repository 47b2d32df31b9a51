"""Make the form of a variant whose shapes are fixed, and measure how far its answers are from PyTorch's.

Some execution providers take graphs with fixed shapes alone. The nodes and weights stay the same. This step only
measures; ``release.py`` judges.
"""

import argparse
from pathlib import Path

from onnxproof.cli import UserError, run_script
from onnxproof.files import describe_files, staged_folder, versions_of, write_json
from onnxproof.graph.files import MODEL_FILE, graph_files
from onnxproof.graph.fixed_shapes import fix_shapes
from onnxproof.graph.sessions import open_session
from onnxproof.inputs.reference import read_reference
from onnxproof.parity.fixed import measure_fixed
from onnxproof.records.fixed import FixedRecord
from onnxproof.records.variant import VariantRecord, read_variant


def make_fixed(
    onnx_folder: Path,
    manifest: VariantRecord,
    reference_folder: Path,
    reference_manifest: Path,
    shape: list[int],
    threads: int,
    folder: Path,
) -> FixedRecord:
    """Write the graph of a variant with its shapes fixed, and return what was measured on it.

    Args:
        onnx_folder: the variant.
        manifest: its record.
        reference_folder: the recorded inputs and answers.
        reference_manifest: their record.
        shape: a length for each free axis of the graph, see ``fix_shapes``.
        threads: of onnxruntime.
        folder: where to write.

    Raises:
        UserError: the variant has several graphs or a cache, has other free axes, or no input fits the shape.
    """
    name = f"{manifest['model']} {manifest['variant']}"
    if len(graph_files(onnx_folder)) > 1:
        raise UserError(f"{name}: release.fixed_shapes is for models of one graph, and this one has several")
    reference = read_reference(reference_folder, reference_manifest)
    if reference.inputs.shared:
        raise UserError(f"{name}: release.fixed_shapes is not for models that are given candidates, as this one is")
    with staged_folder(folder) as stage:
        fix_shapes(name, onnx_folder / MODEL_FILE, shape, stage / MODEL_FILE)
        fixed = open_session(stage / MODEL_FILE, threads)
        if caches := {value.name for value in fixed.get_inputs()} - reference.inputs.items[0].keys():
            raise UserError(
                f"{name}: release.fixed_shapes is for models without a cache of keys and values, and this one takes "
                f"{min(caches)}"
            )
        padded, free = (open_session(place / MODEL_FILE, threads, optimized=False) for place in (stage, onnx_folder))
        found = measure_fixed(name, fixed, (padded, free), reference)
        if found is None:
            raise UserError(
                f"{name}: none of the {reference.answered} inputs fits release.fixed_shapes {shape}: "
                "give a larger shape, or evaluation inputs that fit"
            )
        files = describe_files(stage)
    count, measured = found
    return {
        "model": manifest["model"],
        "variant": manifest["variant"],
        "task": reference.manifest["task"],
        "shape": shape,
        "fitting": count,
        "outputs": measured.outputs,
        "task_metrics": measured.task_metrics,
        "batch_invariance": measured.batch_invariance,
        "reference_batch_invariance": reference.manifest["batch_invariance"],
        "files": files,
        "versions": versions_of("numpy", "onnx", "onnxruntime"),
    }


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, write the graph and what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--onnx-dir", type=Path, required=True, help="folder with the variant")
    parser.add_argument("--onnx-manifest", type=Path, required=True, help="its manifest")
    parser.add_argument("--reference", type=Path, required=True, help="folder with the recorded reference")
    parser.add_argument("--reference-manifest", type=Path, required=True, help="its manifest")
    parser.add_argument("--shape", type=int, nargs="+", required=True, help="batch size and, of texts, tokens")
    parser.add_argument("--threads", type=int, default=1, help="intra-op threads")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write the graph to")
    parser.add_argument("--manifest", type=Path, required=True, help="JSON file to describe it in")
    args = parser.parse_args(argv)
    record = make_fixed(
        args.onnx_dir,
        read_variant(args.onnx_manifest),
        args.reference,
        args.reference_manifest,
        args.shape,
        args.threads,
        args.output_dir,
    )
    write_json(args.manifest, record)
    print(f"{record['model']} {record['variant']}: {record['fitting']} inputs fit {args.shape}", flush=True)


if __name__ == "__main__":
    run_script(main)
