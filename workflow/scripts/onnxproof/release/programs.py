"""The program of a model's card before there is a release: for a variant's folder, as it would be printed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnxproof.checkpoint.sentence_modules import settle_modules
from onnxproof.cli import UserError
from onnxproof.graph.files import MODEL_FILE, decoder_file, graph_files
from onnxproof.graph.support_files import copy_support_files
from onnxproof.inputs.final_answers import USES
from onnxproof.parity.card_programs import Answer, load_function
from onnxproof.records.reference import ReferenceRecord
from onnxproof.release.card import usage_examples
from onnxproof.release.tokenizer import settle_tokenizer, tell_limits

#: The folder of the graphs in a release.
GRAPHS = "onnx"


def stage_variant(onnx_folder: Path, reference: ReferenceRecord, stage: Path) -> None:
    """Lay a variant out in an empty folder as a release would be.

    Args:
        onnx_folder: the variant; the folder refers to its graphs.
        reference: the record of its original's answers.
        stage: the folder.
    """
    copy_support_files(onnx_folder, stage)
    (stage / GRAPHS).mkdir()
    graphs = graph_files(onnx_folder) or [MODEL_FILE]
    for path in sorted(onnx_folder.iterdir()):
        if path.name.startswith(tuple(graphs)):
            (stage / GRAPHS / path.name).symlink_to(path.resolve())
    settle_tokenizer(stage, reference["inputs"].get("max_tokens_of_model"), reference["padding"])
    settle_modules(stage)


def load_program(reference: ReferenceRecord, stage: Path, threads: int) -> Answer:
    """Return the function of a card's program that answers raw inputs, for a variant that ``stage_variant`` laid out.

    Args:
        reference: the record of its original's answers.
        stage: the folder, which the program reads as long as it is asked.
        threads: intra-op threads.

    Raises:
        UserError: the card of such a model has no program for raw inputs.
    """
    usage = reference["usage"].copy()
    tell_limits(stage, usage, reference["inputs"].get("max_tokens_of_model"))
    text = _program(str(usage.get("use")), _shown(graph_files(stage / GRAPHS)), usage)
    if text is None:
        raise UserError(f"{reference['model']}: no program of a card answers raw inputs for {reference['task']}")
    return load_function(text, USES[str(usage["use"])].function, stage, threads)


def _shown(graphs: Sequence[str]) -> str:
    """Return the graph that a program names: the decoder's, of several."""
    return f"{GRAPHS}/{graphs[0] if len(graphs) == 1 else decoder_file(graphs)}"


def _program(use: str, file: str, usage: Any) -> str | None:
    if use not in USES:
        return None
    examples = usage_examples(use, file, usage, with_export_file=False)
    return next((example["code"] for example in examples if example["name"] == USES[use].heading), None)
