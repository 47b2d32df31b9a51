"""Export a snapshot to ONNX with Optimum: the fp32 variant, from which all others are made.

Everything that depends on Optimum's exporter, and so on its transformers version, is in this file.
"""

import argparse
import ctypes
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnxproof.cli import run_script
from onnxproof.external_data import gather_weights
from onnxproof.files import staged_folder, versions_of, write_json
from onnxproof.lean_imports import import_sentence_transformers, import_transformers
from onnxproof.merged_decoder import merge_decoders
from onnxproof.onnx_folder import MODEL_FILE, copy_support_files, describe_variant, model_bytes, separate_graphs
from onnxproof.snapshot import remote_code_allowed
from onnxproof.tasks import choose_task
from onnxproof.tasks.inference import read_transformer_config
from onnxproof.tasks.registry import GENERATING_TASKS, TASKS, exporter_task

#: Of mallopt, see glibc's malloc.h.
M_MMAP_THRESHOLD = -3


def export_graph(snapshot: Path, task: str, folder: Path) -> None:
    """Run Optimum's exporter on a local snapshot; writes the graph and re-saved tokenizer files to ``folder``.

    Task and library are given explicitly: Optimum cannot infer either from a folder, and takes some
    classifiers for sentence-transformers models. Its one-input validation is left out: parity is measured on
    many inputs in a step of its own.
    """
    library, import_library = "transformers", import_transformers
    if task == "sentence-similarity":
        library, import_library = "sentence_transformers", import_sentence_transformers
    import_library()
    from optimum.exporters.onnx import main_export

    config = read_transformer_config(snapshot)
    name = exporter_task(task, config.get("model_type"))

    def run(name: str) -> None:
        with weights_left_apart():
            main_export(
                str(snapshot),
                output=folder,
                task=name,
                library_name=library,
                do_validation=False,
                device="cpu",
                trust_remote_code=remote_code_allowed(snapshot),
                **traced_shapes(task, config),
            )

    if task not in GENERATING_TASKS:
        return run(name)
    try:
        run(f"{name}-with-past")
    except ValueError as error:
        if "does not need past key values" not in str(error):
            raise
        run(name)  # a decoder, such as BERT's, that Optimum keeps no cache for


def traced_shapes(task: str, config: dict[str, Any]) -> dict[str, int]:
    """Return the sizes of the inputs that a graph is traced with, where a model takes those and no others."""
    if config.get("model_type") == "whisper":
        return {"nb_max_frames": 2 * int(config["max_source_positions"])}
    batch = TASKS[task].largest_batch
    return {"batch_size": batch} if batch else {}


def free_large_blocks_at_once() -> None:
    """Have glibc map every block of a MB or more by itself, and so give it back as soon as it is freed.

    By default it raises that limit to 32 MB and keeps what was freed below it: the exporter's passes, each of which
    copies weights, then hold several copies. See mallopt(3). Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1 << 20)


@contextmanager
def weights_left_apart() -> Iterator[None]:
    """Keep Optimum from joining the files of a large model's weights, one a tensor, while it holds the model itself.

    For that it reads all of them into memory again; ``gather_weights`` joins them tensor by tensor.
    """
    from optimum.exporters.onnx import convert

    original = convert.check_model_uses_external_data
    convert.check_model_uses_external_data = lambda model: False
    try:
        yield
    finally:
        convert.check_model_uses_external_data = original


def rename_output(path: Path, old: str, new: str) -> None:
    """Rename a graph output wherever it is produced or consumed, if the graph has it.

    Optimum calls a sentence-transformer's token vectors ``token_embeddings``; its own ``ORTModel`` classes and
    sentence-transformers' ONNX backend look for ``last_hidden_state``.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    if old not in {output.name for output in model.graph.output}:
        return
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*model.graph.output, *model.graph.value_info):
        if value.name == old:
            value.name = new
    onnx.save(model, path)


def add_missing_tokenizer(exported: Path, folder: Path) -> None:
    """Take the fast tokenizer that Optimum saved where the snapshot has only a slow one's vocabulary."""
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (exported / name).is_file() and not (folder / name).exists():
            shutil.copyfile(exported / name, folder / name)


def export(model: str, snapshot: Path, requested_task: str | None, folder: Path, manifest: Path) -> None:
    """Export one model and describe the result.

    Raises:
        UserError: the snapshot serves no supported task, or not the requested one.
    """
    task = choose_task(model, snapshot, requested_task)
    free_large_blocks_at_once()
    print(f"{model}: exporting for the task {task}", flush=True)
    with staged_folder(folder) as stage:
        with tempfile.TemporaryDirectory(dir=stage, prefix=".export.") as scratch:
            exported = Path(scratch)
            export_graph(snapshot, task, exported)
            if (exported / MODEL_FILE).is_file():
                rename_output(exported / MODEL_FILE, "token_embeddings", "last_hidden_state")
            for file in separate_graphs(exported):
                gather_weights(exported / file)
                for path in exported.glob(f"{file}*"):
                    shutil.move(path, stage / path.name)
            merge_decoders(stage)
            copy_support_files(snapshot, stage)
            add_missing_tokenizer(exported, stage)
        description = describe_variant(
            model,
            "fp32",
            task,
            stage,
            {"exporter": "optimum.exporters.onnx.main_export", "dtype": "float32"},
            versions_of("optimum", "optimum-onnx", "transformers", "torch", "onnx", "sentence-transformers"),
        )
    write_json(manifest, description)
    print(f"{model}: wrote {folder}: {model_bytes(folder) / 1e6:.1f} MB", flush=True)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the model's name in config.yaml")
    parser.add_argument("--source", type=Path, required=True, help="folder with the downloaded snapshot")
    parser.add_argument("--task", help="task to export for; inferred from the snapshot when left out")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write the ONNX model to")
    parser.add_argument("--manifest", type=Path, required=True, help="JSON file to describe it in")
    args = parser.parse_args(argv)
    export(args.model, args.source, args.task, args.output_dir, args.manifest)


if __name__ == "__main__":
    run_script(main)
