"""A graph whose shapes are fixed, held to the original and to the graph that it was made of.

Inputs that are smaller than the shape are padded to it, as a program for an NPU pads them. What padding changes is what
the other inputs of a batch change in a graph of free shapes, and is held to the same limits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxproof.graph.sessions import Session, Value
from onnxproof.inputs.model_inputs import MASK, Array, Item, ModelInputs, Reference
from onnxproof.parity.answers import align_queries, batch_invariance, measure_answers, read_answers, run_items
from onnxproof.parity.measure import Measurement, recorded_inputs
from onnxproof.parity.metrics import compare_output

if TYPE_CHECKING:
    from onnxproof.records.reference import MeasuredReference


@dataclass(frozen=True)
class FixedSession:
    """A session of fixed shapes that takes batches of any size of inputs that are no longer than it takes.

    ``inputs`` says what padding is.
    """

    session: Session
    inputs: ModelInputs

    def get_inputs(self) -> Sequence[Value]:
        """Return what it is fed."""
        return self.session.get_inputs()

    def get_outputs(self) -> Sequence[Value]:
        """Return what it makes."""
        return self.session.get_outputs()

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Array], /) -> Sequence[Any]:
        """Return the named outputs, all of them for None, with a row for each row that was fed."""
        shapes = shapes_of(self.session)
        rows, batch = len(next(iter(feed.values()))), next(iter(shapes.values()))[0]
        parts = []
        for start in range(0, rows, batch):
            part = {name: values[start : start + batch] for name, values in feed.items()}
            filled = {name: self._fill(values, name, shapes[name]) for name, values in part.items()}
            parts.append(self.session.run(names, filled))
        return [np.concatenate(outputs)[:rows] for outputs in zip(*parts, strict=True)]

    def _fill(self, values: Array, name: str, shape: Sequence[int]) -> Array:
        """Pad each row at its end or, where the model pads at the left, at its start; repeat the last row."""
        missing = [wanted - size for wanted, size in zip(shape[1:], values.shape[1:], strict=True)]
        is_left = self.inputs.padding_side == "left"
        sides = [(count, 0) if is_left else (0, count) for count in missing]
        padded = np.pad(values, [(0, 0), *sides], constant_values=self.inputs.padding_values.get(name, 0))
        return np.pad(padded, [(0, shape[0] - len(values)), *[(0, 0)] * len(sides)], mode="edge")


def shapes_of(session: Session) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the inputs of a graph whose shapes are fixed."""
    return {value.name: tuple(map(int, value.shape)) for value in session.get_inputs()}  # type: ignore[arg-type]


def fits(item: Item, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Tell whether an input can be run: of the very shape, or shorter where a mask tells its padding apart."""
    return all(
        item[name].ndim == len(shape) - 1
        and all(
            size == wanted or (size < wanted and MASK in shapes)
            for size, wanted in zip(item[name].shape, shape[1:], strict=True)
        )
        for name, shape in shapes.items()
        if name in item
    )


def measure_fixed(
    name: str, fixed: Session, plain: tuple[Session, Session], reference: "Reference[MeasuredReference]"
) -> tuple[int, Measurement] | None:
    """Return how many of the inputs fit a graph of fixed shapes, and how far its answers to these are from PyTorch's.

    ``batch_invariance`` of the measurement is what padding changes: the first session of ``plain``, the graph, against
    the second, the one that it was made of, whose inputs are not padded. Neither is optimized, because onnxruntime
    fuses a graph of fixed shapes in another way, which changes how integers are rounded. None where no input fits.

    Raises:
        UserError: see ``measure_sessions``.
    """
    shapes = shapes_of(fixed)
    places = [index for index, item in enumerate(reference.answered_inputs.items) if fits(item, shapes)]
    if not places:
        return None
    chosen = replace(
        reference,
        inputs=replace(reference.inputs, items=[reference.inputs.items[index] for index in places]),
        outputs={output: [values[index] for index in places] for output, values in reference.outputs.items()},
    )
    task, labels = chosen.manifest["task"], chosen.manifest["label_count"]
    batch_size = next(iter(shapes.values()))[0]
    inputs = recorded_inputs(name, fixed, chosen)
    plain_fixed, plain_free = plain
    alone, padded, unpadded = (
        align_queries(task, chosen.outputs, run_items(session, inputs, task))
        for session in (FixedSession(fixed, inputs), FixedSession(plain_fixed, inputs), plain_free)
    )
    judged_as = chosen.manifest["judged_as"]
    expected, answers = (read_answers(judged_as, outputs, labels) for outputs in (chosen.outputs, alone))
    changed = [read_answers(judged_as, outputs, labels) for outputs in (unpadded, padded)]
    return len(places), Measurement(
        {output: compare_output(chosen.outputs[output], alone[output]) for output in chosen.outputs},
        measure_answers(judged_as, expected, answers),
        {"batch_size": batch_size, "inputs": len(places), **batch_invariance(*changed)},
        expected,
        answers,
    )
