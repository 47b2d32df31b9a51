"""How far a quantized model is from its float original, on calibration inputs: no labels, no PyTorch.

What computes in float16 is judged as hardware with float16 would compute it, see ``half_emulation.py``.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import onnx

from onnxproof.graph.sessions import Session
from onnxproof.inputs.model_inputs import ModelInputs
from onnxproof.parity.answers import (
    Answers,
    Metrics,
    Outputs,
    align_queries,
    answer_distance,
    batch_invariance,
    measure_answers,
    measure_likelihoods,
    read_answers,
    run_items,
)
from onnxproof.parity.metrics import finite
from onnxproof.progress import Progress
from onnxproof.quantization.activations import Calibration
from onnxproof.quantization.findings import Findings
from onnxproof.quantization.half_emulation import emulated
from onnxproof.quantization.search.labelled import Examples
from onnxproof.quantization.sessions import open_session


@dataclass(frozen=True)
class Alone:
    """A model's session, its answers to every input alone, and their metrics: more than half of the tokens are still
    to be run, those of the padded batches.
    """

    session: Session
    answers: Answers
    metrics: Metrics


class Judge:
    """Holds the float model's answers and compares other models with them."""

    def __init__(
        self,
        model: onnx.ModelProto,
        inputs: ModelInputs,
        task: str,
        labels: int = 2,
        batch_size: int = 8,
        examples: Examples | None = None,
        findings: Findings | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        """Run the float ``model`` on every input alone.

        Args:
            model: the float model.
            inputs: calibration inputs, see ``calibration_inputs``.
            task: whose answers are compared, see ``read_answers``.
            labels: number of the model's labels, see ``count_labels``.
            batch_size: inputs in a padded batch, for what depends on neighbours.
            examples: the last of the inputs, where those have labels.
            findings: what passes have found out about the model on these inputs before.
            tell: given a line now and then where running all inputs takes long.
        """
        self.inputs, self.task, self.labels, self.batch_size = inputs, task, labels, batch_size
        names = [value.name for value in model.graph.input]
        feeds = (inputs.feed([index], names) for index in range(len(inputs.items)))
        self.tell = tell
        self.calibration = Calibration(feeds, findings, tell)
        self.outputs = self._run("running the float model", open_session(model))
        self.expected = read_answers(task, self.outputs, labels)
        self.examples = examples
        #: Passes that all recipes go without, and why.
        self.left_out: dict[str, str] = {}
        self.quality = self._quality(self.expected)

    def on_fewer(self, model: onnx.ModelProto, count: int) -> "Judge":
        """Return a judge of about ``count`` of the inputs, spread evenly, that holds the answers of ``model``."""
        items = self.inputs.items[:: max(1, len(self.inputs.items) // count)]
        return Judge(model, replace(self.inputs, items=items), self.task, self.labels, self.batch_size, tell=self.tell)

    def _run(self, name: str, session: Session, batch_size: int = 1) -> Outputs:
        progress = Progress(name, len(self.inputs.items), self.tell)
        return run_items(session, self.inputs, self.task, batch_size, progress.count)

    def answers(self, outputs: Outputs) -> Answers:
        """Return the task's answers, one array an input; a detector's in the order of the float model's."""
        return read_answers(self.task, align_queries(self.task, self.outputs, outputs), self.labels)

    def measure(self, model: onnx.ModelProto) -> Metrics:
        """Return the task's metrics of ``model``, and ``batch_cosine_min``: an input alone against it in a batch."""
        return self.measure_batched(self.measure_alone(model))

    def measure_alone(self, model: onnx.ModelProto) -> "Alone":
        """Run ``model`` on every input alone and measure the answers."""
        session = open_session(emulated(model))
        outputs = self._run("comparing answers", session)
        answers = self.answers(outputs)
        metrics = measure_answers(self.task, self.expected, answers) | measure_likelihoods(self.outputs, outputs)
        if self.examples is not None:
            metrics |= {self.examples.name: finite(self._quality(answers))}
        return Alone(session, answers, metrics)

    def measure_batched(self, alone: "Alone") -> Metrics:
        """Return all metrics of a model that was run on every input alone, see ``measure``."""
        batched = self.answers(self._run("comparing answers in batches", alone.session, self.batch_size))
        return alone.metrics | {"batch_cosine_min": batch_invariance(alone.answers, batched)["cosine_min"]}

    def _quality(self, answers: Answers) -> float:
        """Return the metric of the answers to the labelled inputs, see ``Examples.quality``; NaN without such."""
        if self.examples is None:
            return math.nan
        return self.examples.quality(answers[-len(self.examples.entries) :])

    def lost(self, metrics: Mapping[str, float | None]) -> dict[str, float]:
        """Return how far a model with these metrics is from what it must keep on labelled inputs, if there are any."""
        if self.examples is None:
            return {}
        name = self.examples.name
        return {name: self.examples.distance(metrics[name], self.quality)}

    def distance(self, model: onnx.ModelProto) -> float:
        """Return one number for ranking: see ``answer_distance``."""
        answers = self.answers(self._run("comparing answers", open_session(emulated(model))))
        return answer_distance(self.task, self.expected, answers)
