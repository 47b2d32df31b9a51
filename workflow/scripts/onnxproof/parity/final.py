"""Hold what a release's own program answers to raw inputs to what the original's public interface answers."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxproof.inputs.final_answers import USES, FinalAnswers
from onnxproof.parity.card_programs import BATCH_SIZE, ask, load_function, program_of, with_file
from onnxproof.parity.final_answers import Metrics, measure

if TYPE_CHECKING:
    from onnxproof.records.release import Gate

#: From this limit of ``batch_cosine_min`` on, a variant promises the same answers in a batch as alone; unless the
#: original's own answers depend on their batch, by more than rounding, which lowers the limit that its gate had.
SAME_IN_BATCHES, ROUNDING = 0.9999, 2e-6


@dataclass(frozen=True)
class Program:
    """The program of a card that answers raw inputs: its text, and the ONNX file that it loads as printed."""

    text: str
    file: str


def find_program(folder: Path, final: FinalAnswers, files: list[str]) -> Program | None:
    """Return the program on a release's card that answers raw inputs; None where the card has none.

    Args:
        folder: the release.
        final: what was recorded from the original.
        files: the ONNX files of its variants, relative to it.
    """
    text = program_of((folder / "README.md").read_text(encoding="utf-8"), USES[final.use].heading)
    if text is None:
        return None
    shown = [file for file in files if file in text]
    return Program(text, max(shown, key=len)) if shown else None


def missing_packages(final: FinalAnswers) -> list[str]:
    """Return the packages that the program needs and that are not installed."""
    return [name for name in USES[final.use].needs if importlib.util.find_spec(name) is None]


def promises_batches(gate: "Gate") -> bool:
    """Tell from a variant's gate, as the release's manifest has it, whether answers in a batch must be those alone."""
    limit = gate["thresholds"].get("batch_cosine_min", 0.0)
    had = {verdict["metric"]: verdict["allowed"] for verdict in gate["limits"]}.get("batch_cosine_min", 0.0)
    return bool(limit >= SAME_IN_BATCHES and had >= limit - ROUNDING)


def measure_final(
    program: Program, folder: Path, file: str, final: FinalAnswers, with_batches: bool, threads: int = 0
) -> dict[str, Metrics]:
    """Return how far a program's answers are from the original's: each input alone, and in batches of unlike lengths.

    Args:
        program: the card's program.
        folder: the release.
        file: the ONNX file of the variant that it is to load.
        final: raw inputs and the original's answers.
        with_batches: whether it is asked for batches too, see ``promises_batches``.
        threads: intra-op threads; with 0, onnxruntime chooses how many.
    """
    text = with_file(program.text, program.file, file)
    function = load_function(text, USES[final.use].function, folder, threads)
    activation = str(final.settings.get("activation", ""))
    measured = {"alone": measure(final.use, activation, final.answers, ask(final, function))}
    if with_batches:
        in_batches = ask(final, function, BATCH_SIZE)
        measured["in batches"] = measure(final.use, activation, final.answers, in_batches)
    return measured
