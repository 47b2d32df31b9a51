"""Export a snapshot to ONNX: the fp32 variant, from which all others are made. See ``onnxproof.original.exporters``."""

import argparse
import shutil
import tempfile
from pathlib import Path

from onnxproof.checkpoint.inference import choose_task
from onnxproof.checkpoint.sentence_modules import lift_transformer
from onnxproof.cli import run_script
from onnxproof.files import staged_folder, write_json
from onnxproof.graph.external_data import gather_weights, join_weights
from onnxproof.graph.files import separate_graphs
from onnxproof.graph.folder import describe_variant, model_bytes
from onnxproof.graph.merged_decoder import merge_decoders
from onnxproof.graph.support_files import copy_support_files
from onnxproof.memory import free_large_blocks_at_once
from onnxproof.original.exporters import EXPORTERS, export_graphs
from onnxproof.original.used_tokenizer import place_used_tokenizer
from onnxproof.records.variant import ExportSettings


def add_missing_tokenizer(exported: Path, folder: Path) -> None:
    """Take the tokenizer that the exporter saved where the snapshot has only a vocabulary of another form."""
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (exported / name).is_file() and not (folder / name).exists():
            shutil.copyfile(exported / name, folder / name)


def export(
    model: str, snapshot: Path, requested_task: str | None, folder: Path, manifest: Path, exporter: str = "auto"
) -> None:
    """Export one model and describe the result.

    Raises:
        UserError: the snapshot serves no supported task, or not the requested one; or it cannot be exported.
    """
    task = choose_task(model, snapshot, requested_task)
    free_large_blocks_at_once()
    print(f"{model}: exporting for the task {task}", flush=True)
    with staged_folder(folder) as stage:
        with tempfile.TemporaryDirectory(dir=stage, prefix=".export.") as scratch:
            exported = Path(scratch)
            made = export_graphs(model, snapshot, task, exporter, exported)
            for file in separate_graphs(exported):
                gather_weights(exported / file)
                join_weights(exported / file)
                for path in exported.glob(f"{file}*"):
                    shutil.move(path, stage / path.name)
            merge_decoders(stage)
            copy_support_files(snapshot, stage)
            lift_transformer(stage)
            add_missing_tokenizer(exported, stage)
            place_used_tokenizer(exported, stage)
        settings: ExportSettings = {"exporter": made.exporter, "dtype": "float32"}
        if made.attention:
            settings["attention"] = made.attention
        if made.reason:
            settings["reason"] = made.reason
        description = describe_variant(model, "fp32", task, stage, settings, made.versions, made.description)
    write_json(manifest, description)
    print(f"{model}: wrote {folder}: {model_bytes(folder) / 1e6:.1f} MB", flush=True)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the model's name in config.yaml")
    parser.add_argument("--source", type=Path, required=True, help="folder with the downloaded snapshot")
    parser.add_argument("--task", help="task to export for; inferred from the snapshot when left out")
    parser.add_argument("--exporter", choices=EXPORTERS, default="auto", help="what writes the graph")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write the ONNX model to")
    parser.add_argument("--manifest", type=Path, required=True, help="JSON file to describe it in")
    args = parser.parse_args(argv)
    export(args.model, args.source, args.task, args.output_dir, args.manifest, args.exporter)


if __name__ == "__main__":
    run_script(main)
