"""Which recipe a model needs: from the cheapest to the most careful, the first that is good enough.

A recipe that one model needs is waste for another. Each rung of the ladder is applied and compared with the float
model on calibration inputs; no labels and no PyTorch are needed. The thresholds are those of the parity gate, taken
with a margin, because the gate judges on other texts.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from onnxproof.cli import UserError
from onnxproof.config import METRICS
from onnxproof.quantization.activations import Feeds
from onnxproof.quantization.judge import Judge
from onnxproof.quantization.recipe import apply_recipe
from onnxproof.quantization.sensitivity import measure_sensitivity
from onnxproof.quantization.sessions import open_session

Step = dict[str, Any]

#: The quantizing step of each flavour: one activation scale per tensor, or per token and so batch-invariant.
QUANTIZE: dict[str, Step] = {
    "int8": {"pass": "dynamic_matmul", "weight_range": "pair_safe"},
    "int8-invariant": {"pass": "per_token", "weight_range": "pair_safe"},
}
BASE: list[Step] = [{"pass": "split_skip_layer_norm"}, {"pass": "embedding_rows"}]
SMOOTH: Step = {"pass": "smooth", "weight_range": "pair_safe"}
OUTLIERS: Step = {"pass": "outlier_channels", "ratio": 3.0, "most": 8}

#: How many of the most sensitive nodes the last rungs leave in float.
FLOAT_NODES = (1, 2, 4, 8)
SENSITIVITY_INPUTS = 32
TIMING_ROUNDS = 7


@dataclass(frozen=True)
class Rung:
    """One recipe tried: its measured metrics, its size and speed against the float model, and the verdict.

    ``failed`` names the metrics beyond their threshold with its margin; none failed means the recipe is good enough.
    """

    recipe: list[Step]
    metrics: dict[str, float | None]
    size_ratio: float
    speedup: float
    failed: list[str]

    def describe(self) -> str:
        """Return one line for a log."""
        passes = " + ".join(step["pass"] for step in self.recipe)
        kept = sum(len(step.get("exclude", ())) for step in self.recipe)
        measured = ", ".join(
            f"{name} {value:.5f}" if value is not None else f"{name} not finite" for name, value in self.metrics.items()
        )
        verdict = f"too far: {', '.join(self.failed)}" if self.failed else "good enough"
        float_nodes = f" ({kept} nodes in float)" if kept else ""
        return f"{passes}{float_nodes}: {measured}; {self.size_ratio:.2f}x size, {self.speedup:.2f}x speed: {verdict}"


@dataclass(frozen=True)
class SearchResult:
    """The recipe found, the model it makes, and every rung tried, in order; the last is the one found."""

    recipe: list[Step]
    model: onnx.ModelProto
    rungs: list[Rung]


class NoRecipeError(UserError):
    """No rung of the ladder met the thresholds; ``rungs`` holds what each reached, and the message shows it."""

    def __init__(self, flavour: str, rungs: list[Rung]) -> None:
        """Keep the rungs."""
        self.rungs = rungs
        table = "\n".join(f"  {rung.describe()}" for rung in rungs)
        super().__init__(f"no {flavour} recipe stays within the thresholds on the calibration texts:\n{table}")


def find_recipe(
    model: onnx.ModelProto,
    calibration: Sequence[Feeds],
    thresholds: Mapping[str, float | None],
    *,
    task: str,
    flavour: str = "int8",
    batch_size: int = 8,
    padding: Mapping[str, int] | None = None,
    margin: float = 0.2,
    progress: Callable[[str], None] = print,
) -> SearchResult:
    """Return the first recipe of the ladder that stays within the thresholds.

    Args:
        model: the float model, optimized.
        calibration: model inputs of one text each, arrays of shape (1, tokens), without padding.
        thresholds: limits by metric name, as in the configuration; metrics that do not apply are ignored.
        task: the model's task, see ``metrics.task_metrics``.
        flavour: ``int8`` or ``int8-invariant``.
        batch_size: texts in the padded batch that ``batch_cosine_min`` is measured with.
        padding: the value each model input is padded with, 0 where not named.
        margin: the share of each threshold's room that is kept back, between 0 and 1.
        progress: told, in one line, of each rung tried.

    Raises:
        NoRecipeError: the most careful recipe is still beyond a threshold.
    """
    judge = Judge(model, calibration, task, batch_size, padding)
    rungs: list[Rung] = []
    for recipe, quantized in _ladder(model, judge, flavour, progress):
        metrics = judge.measure(quantized)
        rung = Rung(
            recipe=recipe,
            metrics=metrics,
            size_ratio=quantized.ByteSize() / model.ByteSize(),
            speedup=compare_speed(model, quantized, max(judge.batches, key=_size)),
            failed=beyond(metrics, thresholds, margin),
        )
        rungs.append(rung)
        progress(rung.describe())
        if not rung.failed:
            return SearchResult(recipe, quantized, rungs)
    raise NoRecipeError(flavour, rungs)


def beyond(metrics: Mapping[str, float | None], thresholds: Mapping[str, float | None], margin: float) -> list[str]:
    """Return the names of the metrics beyond their thresholds, each tightened by ``margin`` of its room.

    The room of a lower limit ends at 1, the perfect cosine or agreement; that of an upper limit at 0.
    """
    failed = []
    for name, limit in thresholds.items():
        if limit is None or name not in metrics:
            continue
        value = metrics[name]
        at_least = METRICS[name].bound == "at least"
        tightened = 1 - (1 - limit) * (1 - margin) if at_least else limit * (1 - margin)
        if value is None or (value < tightened if at_least else value > tightened):
            failed.append(name)
    return failed


def compare_speed(left: onnx.ModelProto, right: onnx.ModelProto, feeds: Feeds) -> float:
    """Return how many times as fast ``right`` is on one thread: the median of ratios measured in turns."""
    sessions = [open_session(model, threads=1) for model in (left, right)]
    ratios = []
    for _ in range(TIMING_ROUNDS + 1):
        seconds = []
        for session in sessions:
            start = time.perf_counter()
            session.run(None, dict(feeds))
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios[1:])  # the first call pays for memory


def _size(feeds: Feeds) -> int:
    return sum(values.size for values in feeds.values())


def _ladder(
    model: onnx.ModelProto, judge: Judge, flavour: str, progress: Callable[[str], None]
) -> Iterator[tuple[list[Step], onnx.ModelProto]]:
    """Yield recipes and the models they make, cheapest first."""
    if flavour not in QUANTIZE:
        raise UserError(f"quantization flavour '{flavour}' is unknown; known: {', '.join(QUANTIZE)}")
    quantize = QUANTIZE[flavour]
    for preparation in (BASE, [*BASE, SMOOTH], [*BASE, OUTLIERS, SMOOTH]):
        prepared = apply_recipe(model, preparation, judge.calibration)
        yield [*preparation, quantize], apply_recipe(prepared, [quantize], judge.calibration)
    few = judge.calibration[:: max(1, len(judge.calibration) // SENSITIVITY_INPUTS)]
    ranking = list(measure_sensitivity(prepared, quantize, Judge(prepared, few, judge.task), progress))
    for count in FLOAT_NODES:
        if count <= len(ranking) // 3:
            step = quantize | {"exclude": sorted(ranking[:count])}
            yield [*preparation, step], apply_recipe(prepared, [step], judge.calibration)
