"""Measure opened graphs against recorded answers: in the pipeline, and again where a release is verified."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from onnxproof.cli import UserError
from onnxproof.graph.encoder_decoder import generate_after, open_graphs, open_merged
from onnxproof.graph.files import MERGED_FILE
from onnxproof.graph.generation import measure_generation, with_empty_cache
from onnxproof.graph.sessions import Session, open_session
from onnxproof.inputs.model_inputs import LIKELIHOODS, Array, ModelInputs, Reference
from onnxproof.parity.answers import (
    align_queries,
    answer_inputs,
    batches_of,
    batches_of_one_shape,
    by_output,
    measure_answers,
    measure_likelihoods,
    read_answers,
    run_batch,
    run_items,
    tell_nobody,
)
from onnxproof.parity.metrics import compare_output
from onnxproof.vocabulary import CPU_PROVIDER

if TYPE_CHECKING:
    from onnxproof.records.parity import OutputDifference
    from onnxproof.records.reference import BatchInvariance, MeasuredReference


@dataclass(frozen=True)
class Sessions:
    """The opened graphs of one variant: ``separate`` runs all of them, ``merged`` those with the decoders in one."""

    separate: Session
    merged: Session | None = None


@dataclass(frozen=True)
class Measurement:
    """What was measured, in the fields of ``parity/{variant}.json``, and the answers that were compared.

    ``expected`` (PyTorch's) and ``answers`` have one (rows, features) array an input, see ``read_answers``.
    """

    outputs: "dict[str, OutputDifference]"
    task_metrics: dict[str, float | None]
    batch_invariance: "BatchInvariance"
    expected: list[Array]
    answers: list[Array]


def open_sessions(
    files: Mapping[str, Path], folder: Path, threads: int, *, as_written: bool = True, provider: str = CPU_PROVIDER
) -> Sessions:
    """Open the graphs of a variant, see ``open_graphs`` for ``files`` and ``folder``, ``open_session`` for the rest."""
    open_graph = partial(open_session, threads=threads, as_written=as_written, provider=provider)
    separate = open_graphs(files, folder, open_graph)
    return Sessions(separate, open_merged(files, open_graph, separate))


def measure_sessions(
    name: str,
    sessions: Sessions,
    reference: "Reference[MeasuredReference]",
    batch_size: int,
    tell: Callable[[int], None] = tell_nobody,
) -> Measurement:
    """Return how far the answers of one variant are from the recorded ones, over all inputs that have answers.

    Inputs are run alone, in padded batches and in batches of one shape, see ``answer_inputs``. A merged decoder is held
    to the same, each input alone: its outputs stand beside the others, and the worse text counts.

    Args:
        name: the model and the variant, for messages.
        sessions: the variant's graphs.
        reference: inputs and recorded answers, whole or those that a release carries.
        batch_size: inputs in a padded batch.
        tell: given the number of inputs at each run of them; each input counts once for each of ``runs_of_inputs``.

    Raises:
        UserError: a graph lacks an output that was recorded, wants an input that was not, cannot be run, or gives an
            output of another shape.
    """
    session, task, labels = sessions.separate, reference.manifest["task"], reference.manifest["label_count"]
    judged_as = reference.manifest["judged_as"]
    inputs = recorded_inputs(name, session, reference)
    batches = batches_of(session, inputs, task, batch_size)

    def run(indices: Sequence[int]) -> dict[int, dict[str, Array]]:
        tell(len(indices))
        return run_batch(session, inputs, task, indices)

    found, batched, changed = answer_inputs(
        task, judged_as, labels, inputs, batches, partial(batches_of_one_shape, session, inputs, task, batch_size), run
    )
    if batched < len(inputs.items):
        tell(len(inputs.items) - batched)  # the others were run once, and count twice
    alone = align_queries(task, reference.outputs, by_output(found, range(len(found))))
    computed = [name for name in reference.outputs if name != LIKELIHOODS]
    compared = {output: compare_output(reference.outputs[output], alone[output]) for output in computed}
    expected, answers = (read_answers(judged_as, outputs, labels) for outputs in (reference.outputs, alone))
    if sessions.merged is not None:
        outputs = run_items(sessions.merged, inputs, task, tell=tell)
        compared |= {
            f"{output} of {MERGED_FILE}": compare_output(reference.outputs[output], outputs[output])
            for output in computed
        }
    return Measurement(
        compared,
        generation_metrics(sessions, reference)
        | measure_answers(judged_as, expected, answers)
        | measure_likelihoods(reference.outputs, alone),
        {"batch_size": batch_size, "inputs": batched, **changed},
        expected,
        answers,
    )


def runs_of_inputs(sessions: Sessions) -> int:
    """Return how often ``measure_sessions`` runs each input: alone, in a batch, and by a merged decoder."""
    return 2 if sessions.merged is None else 3


def recorded_inputs(name: str, session: Session, reference: "Reference[MeasuredReference]") -> ModelInputs:
    """Return the inputs that have answers, with an empty cache where the graphs take one.

    Raises:
        UserError: the graphs lack an output that was recorded, or want an input that was not.
    """
    missing = set(reference.outputs) - {LIKELIHOODS} - {value.name for value in session.get_outputs()}
    if missing:
        raise UserError(f"{name}: the graph has no output {', '.join(sorted(missing))}")
    inputs = with_empty_cache(reference.answered_inputs, session.get_inputs())
    known = inputs.items[0].keys() | inputs.shared.keys()
    unknown = {value.name for value in session.get_inputs()} - known
    if unknown:
        raise UserError(f"{name}: the graph wants {', '.join(sorted(unknown))}, which was not recorded")
    return inputs


def generation_metrics(sessions: Sessions, reference: "Reference[MeasuredReference]") -> dict[str, float | None]:
    """Return how much of the text that PyTorch generates is generated too; nothing where none was recorded."""
    if not reference.generated:
        return {}
    inputs = with_empty_cache(reference.inputs, sessions.separate.get_inputs())
    opened = [session for session in (sessions.separate, sessions.merged) if session is not None]
    writers: list[Callable[[int, int, bool], list[int]]] = [partial(generate_after, each, inputs) for each in opened]
    return {"greedy_token_match": min(measure_generation(write, reference.generated) for write in writers)}
