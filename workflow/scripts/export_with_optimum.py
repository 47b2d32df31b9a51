"""Export a snapshot to ONNX with Optimum. Runs in ``.venv-optimum`` alone, see onnxproof/original/exporters/optimum.py.

Everything that depends on Optimum's exporter, and so on transformers 4.57, is in this file, but for
``weights_left_apart``.
"""

import argparse
import inspect
import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from onnxproof.checkpoint.inference import read_transformer_config, transformer_folder
from onnxproof.cli import UserError, run_script
from onnxproof.files import read_json, versions_of, write_json
from onnxproof.graph.files import MODEL_FILE
from onnxproof.memory import free_large_blocks_at_once
from onnxproof.original.exporters.older_spelling import (
    Accepted,
    complete_config,
    translate_config,
    unread_keys,
    write_older_copy,
)
from onnxproof.original.lean_imports import import_sentence_transformers, import_transformers
from onnxproof.original.patches import weights_left_apart
from onnxproof.records.checkpoint import ModelConfig
from onnxproof.tasks.model_types import exporter_task
from onnxproof.tasks.registry import GENERATING_TASKS, TASKS

#: What transformers logs when it invents weights.
INVENTED = "newly initialized"
#: Parts of the names of what may be missing: poolers beside the answer, and tables that a model works out by itself.
NOT_NEEDED = ("pooler", "inv_freq", "relative_position_index", "relative_coords_table", "position_ids")
#: Keys of a configuration's constructor that are no keys of its file.
NOT_KEYS = {"self", "kwargs", "args"}


def export_graph(snapshot: Path, task: str, folder: Path) -> None:
    """Run Optimum's exporter on a local snapshot; writes the graph and re-saved tokenizer files to ``folder``.

    Task and library are given explicitly: Optimum cannot infer either from a folder, and takes some
    classifiers for sentence-transformers models. Its one-input validation is left out: parity is measured on
    many inputs in a step of its own. Code of the repository's own never runs.
    """
    library, import_library = "transformers", import_transformers
    if task == "sentence-similarity":
        library, import_library = "sentence_transformers", import_sentence_transformers
    import_library()
    from optimum.exporters.onnx import convert, main_export

    config = read_transformer_config(snapshot)
    name = exporter_task(task, config.get("model_type"))

    def run(name: str) -> None:
        with weights_left_apart(convert):
            main_export(
                str(snapshot),
                output=folder,
                task=name,
                library_name=library,
                do_validation=False,
                device="cpu",
                trust_remote_code=False,
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


def traced_shapes(task: str, config: ModelConfig) -> dict[str, int]:
    """Return the sizes of the inputs that a graph is traced with, where a model takes those and no others."""
    if config.get("model_type") == "whisper":
        return {"nb_max_frames": 2 * int(config["max_source_positions"])}
    batch = TASKS[task].largest_batch
    return {"batch_size": batch} if batch else {}


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


class WeightsWatch(logging.Handler):
    """Keeps the message in which transformers says that it invented weights."""

    def __init__(self) -> None:
        """Start without a message."""
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record's message if it is about invented weights."""
        if INVENTED in record.getMessage():
            self.messages.append(" ".join(record.getMessage().split()))


@contextmanager
def invented_weights_refused(model: str) -> Iterator[None]:
    """Refuse an export for which transformers 4.57 did not find all weights that the answer needs.

    Raises:
        UserError: names the weights.
    """
    watch = WeightsWatch()
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addHandler(watch)
    try:
        yield
    finally:
        logger.removeHandler(watch)
    for message in watch.messages:
        _, _, names = message.partition(f"{INVENTED}: ")
        listed = names.partition("]")[0].strip("[").split(", ") if names else []
        missing = [name for name in listed if not any(part in name for part in NOT_NEEDED)]
        if missing:
            raise UserError(
                f"{model}: transformers 4.57, which Optimum's exporter uses, finds no weights for "
                f"{', '.join(missing[:4])}: use transformers' own exporter"
            )


def accepted_by(config: Any) -> Accepted:
    """Return the keys that a configuration's class knows, with those of the configurations inside it."""
    from transformers import PretrainedConfig

    keys = {
        name
        for kind in type(config).__mro__
        if "__init__" in vars(kind)
        for name in inspect.signature(kind.__init__).parameters  # type: ignore[misc]
    }
    with suppress(ValueError, TypeError, AssertionError, KeyError, AttributeError):  # made of two configurations
        keys |= set(vars(type(config)()))
    parts = {name: accepted_by(value) for name, value in vars(config).items() if isinstance(value, PretrainedConfig)}
    return Accepted(frozenset(keys - NOT_KEYS), parts)


def settle_config(model: str, folder: Path, newer: dict[str, ModelConfig]) -> None:
    """Complete a translated ``config.json`` in place, and make sure that 4.57 reads it as transformers 5 does.

    Args:
        model: the model's name, for messages.
        folder: the translated copy, see ``write_older_copy``.
        newer: ``resolved``, the configuration as transformers 5 reads it, and ``defaults``, that of its model type.

    Raises:
        UserError: names the keys that 4.57 reads otherwise.
    """
    import_transformers()
    from transformers import AutoConfig

    file = transformer_folder(folder) / "config.json"
    resolved, defaults = (translate_config(model, newer[key]) for key in ("resolved", "defaults"))
    try:
        accepted = accepted_by(AutoConfig.from_pretrained(file.parent, local_files_only=True))
        write_json(file, complete_config(read_json(file), resolved, accepted))
        older = AutoConfig.from_pretrained(file.parent, local_files_only=True)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(
            f"{model}: transformers 4.57, which Optimum's exporter uses, cannot read its config.json "
            f"({' '.join(str(error).split())[:200]}): use transformers' own exporter"
        ) from error
    seen = json.loads(json.dumps(older.to_dict(), default=str))
    unread = list(unread_keys(resolved, defaults, seen, accepted))
    if unread:
        raise UserError(
            f"{model}: transformers 4.57, which Optimum's exporter uses, reads config.json otherwise: "
            f"{'; '.join(unread[:4])}: use transformers' own exporter"
        )


def export(model: str, snapshot: Path, task: str, newer: Path, folder: Path, versions: Path) -> None:
    """Export one model from a copy of its snapshot in the older spelling."""
    free_large_blocks_at_once()
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".older.") as scratch:
        write_older_copy(model, snapshot, Path(scratch))
        settle_config(model, Path(scratch), read_json(newer))
        with invented_weights_refused(model):
            export_graph(Path(scratch), task, folder)
    if (folder / MODEL_FILE).is_file():
        rename_output(folder / MODEL_FILE, "token_embeddings", "last_hidden_state")
    write_json(
        versions, versions_of("optimum", "optimum-onnx", "transformers", "torch", "onnx", "sentence-transformers")
    )


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the model's name in config.yaml")
    parser.add_argument("--source", type=Path, required=True, help="folder with the downloaded snapshot")
    parser.add_argument("--task", required=True, help="task to export for")
    parser.add_argument("--newer", type=Path, required=True, help="JSON file: how transformers 5 reads config.json")
    parser.add_argument("--output-dir", type=Path, required=True, help="empty folder to write the graphs to")
    parser.add_argument("--versions", type=Path, required=True, help="JSON file to write the versions used to")
    args = parser.parse_args(argv)
    export(args.model, args.source, args.task, args.newer, args.output_dir, args.versions)


if __name__ == "__main__":
    run_script(main)
