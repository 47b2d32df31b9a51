"""The program of a model's card before there is a release: for a variant's folder, as it would be printed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnxproof.checkpoint.sentence_modules import settle_modules
from onnxproof.checkpoint.tokenizer_files import TOKENIZER_FILE
from onnxproof.cli import UserError
from onnxproof.files import read_json
from onnxproof.graph.files import MODEL_FILE, decoder_file, graph_files
from onnxproof.graph.folder import copy_support_files
from onnxproof.inputs.final_answers import USES
from onnxproof.parity.card_programs import Answer, load_function
from onnxproof.records.reference import ReferenceRecord
from onnxproof.release.card import usage_examples
from onnxproof.release.tokenizer import settle_tokenizer

#: The folder of the graphs in a release.
GRAPHS = "onnx"


def stage_program(onnx_folder: Path, reference: ReferenceRecord, stage: Path, threads: int) -> Answer:
    """Lay a variant out as a release would be; return the function of its card's program that answers raw inputs.

    Args:
        onnx_folder: the variant.
        reference: the record of its original's answers.
        stage: an empty folder, which the program reads as long as it is asked.
        threads: intra-op threads.

    Raises:
        UserError: the card of such a model has no program for raw inputs.
    """
    copy_support_files(onnx_folder, stage)
    (stage / GRAPHS).mkdir()
    graphs = graph_files(onnx_folder) or [MODEL_FILE]
    for path in sorted(onnx_folder.iterdir()):
        if path.name.startswith(tuple(graphs)):
            (stage / GRAPHS / path.name).symlink_to(path.resolve())
    most_tokens = reference["inputs"].get("max_tokens_of_model")
    settle_tokenizer(stage, most_tokens, reference["padding"])
    settle_modules(stage)
    usage = dict(reference["usage"])
    if most_tokens:
        tokenizer = stage / TOKENIZER_FILE
        usage["pads"] = tokenizer.is_file() and read_json(tokenizer).get("padding") is not None
        usage["max_tokens"] = most_tokens
    text = _program(str(usage.get("use")), _shown(graphs), usage)
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
