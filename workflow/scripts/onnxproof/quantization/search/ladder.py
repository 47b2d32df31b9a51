"""Which recipe a model needs: from the fastest to the most careful, the first that is good enough.

A recipe that one model needs is waste for another. Each rung of the ladder is applied and compared with the float
model on calibration inputs; no labels and no PyTorch are needed. What is good enough are targets by metric, kept
tighter than the limits of the parity gate, because the gate judges on other texts. Where no rung reaches them, the
nearest is taken: the verdict is the gate's alone.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import onnx

from onnxproof.cli import UserError
from onnxproof.graph.external_data import weight_bytes
from onnxproof.inputs.model_inputs import ModelInputs
from onnxproof.quantization.activations import Feeds
from onnxproof.quantization.findings import Findings
from onnxproof.quantization.half_bounds import Bound
from onnxproof.quantization.recipe import apply_recipe
from onnxproof.quantization.search.candidates import ROUGHLY, Candidate, Effort, candidates_of, limit_effort
from onnxproof.quantization.search.judge import Alone, Judge
from onnxproof.quantization.search.labelled import Examples
from onnxproof.quantization.search.rung import Rung, Step
from onnxproof.quantization.sessions import open_session
from onnxproof.vocabulary import METRICS, QUANTIZED_VARIANTS

TIMING_ROUNDS = 7
SMALLEST_ROOM = 1e-6  # of a target that allows no error, which still ranks what misses it
#: Compensated rounding takes most of the time that a rung takes, and at best halves its error (2.3 times less was the
#: most seen). Beyond this distance from a target by one of these metrics without it, the rung is left as it is.
HOPELESS = 3.0
STEADY_METRICS = frozenset({"cosine_min", "cosine_mean", "mean_kl", "mean_relative_diff"})


@dataclass(frozen=True)
class Trial:
    """A recipe, the model that it makes, that model's metrics, and how far they are from their targets.

    See ``distances_to``. A trial that is not ``complete`` lacks the metrics of answers in batches, because those of
    answers alone miss a target: its distance can only be larger. ``model`` is None where it is not kept.
    """

    recipe: list[Step]
    model: onnx.ModelProto | None
    metrics: dict[str, float | None]
    distances: dict[str, float]
    bounds: Mapping[str, Bound]
    complete: bool

    @property
    def missed(self) -> list[str]:
        """The metrics beyond their targets."""
        return [name for name, distance in self.distances.items() if distance > 1]

    @property
    def distance(self) -> float:
        """How far the worst metric is from its target; 0 where there are no targets, infinite if it is not finite."""
        return max(self.distances.values(), default=0.0)


@dataclass(frozen=True)
class SearchResult:
    """The recipe taken, the model it makes, every rung tried in order, and the limits of a large model's search.

    ``bounds`` are those of the nodes of a model that computes in float16. ``labelled`` says what the recipe had to keep
    on labelled inputs, and ``left_out`` which passes no recipe has, and why.
    """

    recipe: list[Step]
    model: onnx.ModelProto
    rungs: list[Rung]
    bounds: Mapping[str, Bound]
    effort: Effort | None = None
    labelled: Mapping[str, Any] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def reached(self) -> bool:
        """Whether the recipe taken reaches every target; only the last rung tried can."""
        return not self.rungs[-1].missed

    def record(self) -> dict[str, Any]:
        """Return ``{reached, rungs}``, and what does not hold for all searches, as JSON holds it.

        That is ``limited_to`` where the model is a large one, ``labelled`` where there were labelled inputs, and
        ``left_out`` where a pass does not fit the model.
        """
        limited = {"limited_to": asdict(self.effort)} if self.effort else {}
        labelled = {"labelled": dict(self.labelled)} if self.labelled else {}
        left_out = {"left_out": dict(self.left_out)} if self.left_out else {}
        return limited | labelled | left_out | {"reached": self.reached, "rungs": [asdict(rung) for rung in self.rungs]}


def find_recipe(
    model: onnx.ModelProto,
    inputs: ModelInputs,
    targets: Mapping[str, float | None],
    *,
    task: str,
    variant: str = "int8",
    labels: int = 2,
    batch_size: int = 8,
    examples: Examples | None = None,
    findings: Findings | None = None,
    progress: Callable[[str], None] = print,
) -> SearchResult:
    """Return the first recipe of the ladder that reaches the targets, or the one that comes nearest.

    Times are measured, for the record, but decide nothing: the same inputs give the same recipe on a busy machine.

    Args:
        model: the float model, optimized.
        inputs: calibration inputs, see ``calibration_inputs``.
        targets: limits by metric name, as in the configuration; metrics that do not apply are ignored.
        task: the model's task, see ``read_answers``.
        variant: one of ``QUANTIZED_VARIANTS``.
        labels: number of the model's labels, see ``count_labels``.
        batch_size: inputs in the padded batch that ``batch_cosine_min`` is measured with.
        examples: the last of the inputs, where those have labels: a recipe must then keep the task's metric on them.
        findings: what the search of another variant has found out about the model on these inputs; what this one finds
            out is added.
        progress: told, in one line, of each rung tried; and how far a step is that takes long.

    Raises:
        UserError: the metric of the labelled inputs is not finite, or the variant is no quantized one.
    """
    if variant not in QUANTIZED_VARIANTS:
        raise UserError(f"variant '{variant}' is not quantized; those that are: {', '.join(QUANTIZED_VARIANTS)}")
    weights = weight_bytes(model)
    effort = limit_effort(weights)
    if effort:
        labelled = len(examples.entries) if examples else 0
        own, last = inputs.items[: len(inputs.items) - labelled], inputs.items[len(inputs.items) - labelled :]
        inputs = replace(inputs, items=[*own[:: math.ceil(len(own) / effort.inputs)], *last])
        progress(f"a large model: {len(inputs.items)} calibration inputs, and no search for its sensitive nodes")
    judge = Judge(model, inputs, task, labels, batch_size, examples, findings, progress)
    _check_examples(judge)
    typical = sorted(judge.calibration, key=_size)[len(judge.calibration) // 2]
    trials: list[Trial] = []
    rungs: list[Rung] = []
    nearest = 0

    def describe(trial: Trial) -> Rung:
        assert trial.model is not None
        speedup = compare_speed(model, trial.model, typical) if trial.complete else None
        distance = trial.distance if trial.distance < math.inf else None
        size_ratio = weight_bytes(trial.model) / weights
        rung = Rung(trial.recipe, trial.metrics, size_ratio, speedup, trial.missed, distance)
        progress(rung.describe())
        return rung

    def result(trial: Trial) -> SearchResult:
        assert trial.model is not None
        kept = _kept(judge, trial.metrics)
        return SearchResult(trial.recipe, trial.model, rungs, trial.bounds, effort, kept, judge.left_out)

    for candidate in candidates_of(variant, model, judge, effort, progress):
        trials.append(_try(judge, candidate, targets))
        rungs.append(describe(trials[-1]))
        if not trials[-1].missed:
            return result(trials[-1])
        nearest = _nearest(trials)
        trials = [trial if index == nearest else replace(trial, model=None) for index, trial in enumerate(trials)]
    while trials[nearest].model is None or not trials[nearest].complete:
        trials[nearest] = _complete(judge, trials[nearest], model, targets)
        rungs[nearest] = describe(trials[nearest])
        nearest = _nearest(trials)
    progress(f"no {variant} recipe reaches every target; the nearest is taken")
    return result(trials[nearest])


def _nearest(trials: Sequence[Trial]) -> int:
    """Return the position of the first trial with the smallest distance."""
    return min(range(len(trials)), key=lambda index: trials[index].distance)


def _kept(judge: Judge, metrics: Mapping[str, float | None]) -> dict[str, Any] | None:
    """Return what a recipe had to keep on labelled inputs, and what the one with these metrics kept."""
    if judge.examples is None:
        return None
    given = judge.examples.given
    return {
        "metric": given["metric"],
        "of_float": judge.quality,
        "of_recipe": metrics[judge.examples.name],
        "not_worse_by": given["not_worse_by"],
    }


def _check_examples(judge: Judge) -> None:
    if judge.examples is not None and not math.isfinite(judge.quality):
        given = judge.examples.given
        raise UserError(
            f"{given['model']}: evaluation.search_share keeps {len(given['rows'])} rows aside, on which "
            f"{given['metric']} is not defined: give a larger share"
        )


def distances_to(targets: Mapping[str, float | None], metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Return how far each metric with a target is on its way there: 0 at no error, 1 at the target, more beyond.

    No error is 1 for cosines and agreements, 0 for differences. What is not finite is infinitely far.
    """
    distances = {}
    for name, target in targets.items():
        if target is None or name not in metrics:
            continue
        value = metrics[name]
        at_least = METRICS[name].bound == "at least"
        error = math.inf if value is None else 1 - value if at_least else value
        room = 1 - target if at_least else target
        distances[name] = error / max(room, SMALLEST_ROOM)
    return distances


def is_hopeless(distances: Mapping[str, float]) -> bool:
    """Tell whether a recipe without compensated rounding is so far from a target that rounding will not mend it."""
    return any(distance > HOPELESS for name, distance in distances.items() if name in STEADY_METRICS)


def _try(judge: Judge, candidate: Candidate, targets: Mapping[str, float | None]) -> Trial:
    """Quantize a candidate and measure it; with compensated rounding only if that may bring it to the targets."""
    if candidate.is_screened:
        roughly = candidate.quantize | ROUGHLY
        quantized = apply_recipe(candidate.prepared, [roughly], judge.calibration)
        alone = judge.measure_alone(quantized)
        if is_hopeless(distances_to(targets, alone.metrics)):
            return _trial(judge, candidate, roughly, quantized, alone, targets)
        del quantized, alone
    quantized = apply_recipe(candidate.prepared, [candidate.quantize], judge.calibration)
    return _trial(judge, candidate, candidate.quantize, quantized, judge.measure_alone(quantized), targets)


def _trial(
    judge: Judge,
    candidate: Candidate,
    quantize: Step,
    quantized: onnx.ModelProto,
    alone: Alone,
    targets: Mapping[str, float | None],
) -> Trial:
    """Return what came of a candidate; it is run in padded batches only if its answers alone reach the targets."""
    recipe = [*candidate.preparation, quantize]
    trial = Trial(recipe, quantized, alone.metrics, _distances(judge, targets, alone.metrics), candidate.bounds, False)
    return trial if trial.missed else _measure_batched(judge, trial, alone, targets)


def _complete(judge: Judge, trial: Trial, model: onnx.ModelProto, targets: Mapping[str, float | None]) -> Trial:
    """Return a trial with all metrics; the float ``model`` is quantized again where that was not kept."""
    quantized = trial.model or apply_recipe(model, trial.recipe, judge.calibration)
    return _measure_batched(judge, replace(trial, model=quantized), judge.measure_alone(quantized), targets)


def _measure_batched(judge: Judge, trial: Trial, alone: Alone, targets: Mapping[str, float | None]) -> Trial:
    metrics = judge.measure_batched(alone)
    return replace(trial, metrics=metrics, distances=_distances(judge, targets, metrics), complete=True)


def _distances(
    judge: Judge, targets: Mapping[str, float | None], metrics: Mapping[str, float | None]
) -> dict[str, float]:
    return distances_to(targets, metrics) | judge.lost(metrics)


def compare_speed(left: onnx.ModelProto, right: onnx.ModelProto, feeds: Feeds) -> float:
    """Return how many times as fast ``right`` is on one thread: the median of ratios measured in turns.

    CPU time of the one thread is compared, so that other processes count for little.
    """
    sessions = [open_session(model, threads=1) for model in (left, right)]
    ratios = []
    for _ in range(TIMING_ROUNDS + 1):
        seconds = []
        for session in sessions:
            start = time.thread_time()
            session.run(None, dict(feeds))
            seconds.append(time.thread_time() - start)
        ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios[1:])  # the first call pays for memory


def _size(feeds: Feeds) -> int:
    return sum(values.size for values in feeds.values())
