"""What was measured, gathered per model and variant, for the summary table and the report."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from onnxproof.benchmark.other_providers import read_provider_answers
from onnxproof.benchmark.recommend import Recommendation, recommend
from onnxproof.cli import UserError
from onnxproof.evaluation.gate import Verdict as Quality
from onnxproof.evaluation.gate import judge_record
from onnxproof.files import read_json
from onnxproof.formatting import format_pair, format_shape, format_threads
from onnxproof.parity.gate import Verdict, judge, measurements
from onnxproof.records.benchmark import BenchmarkRecord, CpuDescription, LeftOut, TimedCase, read_benchmark
from onnxproof.records.common import Limits, Versions
from onnxproof.records.evaluation import read_evaluation
from onnxproof.records.parity import Sample, read_parity
from onnxproof.records.run import ShownModel, ShownModels
from onnxproof.records.source import SourceRecord, read_source
from onnxproof.records.variant import read_variant
from onnxproof.vocabulary import METRICS, PYTORCH, Step

BASELINE = "fp32"
MAIN_SEQUENCE = 128  # a sentence or short paragraph: what most requests look like
HEADLINE_ORDER = (
    "top1_agreement",
    "token_agreement",
    "span_agreement",
    "detection_agreement",
    "pixel_agreement",
    "greedy_token_match",
    "cosine_min",
)


@dataclass(frozen=True)
class Case:
    """One benchmark case: a batch size, a sequence length (tokens; none for images) and a thread count.

    ``fp32_p50_ms`` is fp32's median time in the same run, the only one that ``p50_ms`` may be compared with.
    """

    batch: int
    sequence: int | None
    threads: int
    p50_ms: float
    fp32_p50_ms: float | None
    p90_ms: float
    p99_ms: float
    items_per_s: float
    iterations: int
    speedup: float | None
    speedup_iqr: tuple[float, float] | None

    @property
    def key(self) -> tuple[int, int, int]:
        """What makes two cases comparable, and the order they are shown in."""
        return (self.batch, self.sequence or 0, self.threads)

    @property
    def label(self) -> str:
        """The case as the end of a column name: ``1x128_t2``."""
        return f"{format_shape(self.batch, self.sequence)}_t{self.threads}"

    @property
    def title(self) -> str:
        """The case for a reader: ``1 × 128, 2 threads``."""
        shape = f"{self.batch}" if self.sequence is None else f"{self.batch} × {self.sequence}"
        return f"{shape}, {format_threads(self.threads)}"


@dataclass(frozen=True)
class WritingStep:
    """One step of a model that writes texts, see ``records.benchmark.StepShape``; fp32 is that of the same run."""

    step: Step
    batch: int
    context: int
    threads: int
    p50_ms: float
    p90_ms: float
    tokens_per_s: float
    peak_rss_mb: float
    speedup: float | None
    speedup_iqr: tuple[float, float] | None

    @property
    def key(self) -> tuple[str, int, int, int]:
        """What makes two steps comparable, and the order they are shown in."""
        return (self.step, self.batch, self.context, self.threads)

    @property
    def title(self) -> str:
        """The step for a reader: ``First token after 32 tokens, 2 threads``."""
        texts = f" of each of {self.batch} texts" if self.batch > 1 else ""
        name = self.step.replace("_", " ").capitalize()
        return f"{name} after {self.context:,} tokens{texts}, {format_threads(self.threads)}"


@dataclass(frozen=True)
class Variant:
    """One form of a model with everything measured about it. PyTorch has neither a graph nor parity."""

    name: str
    task: str | None
    opset: Mapping[str, int]
    operators: Mapping[str, int]
    fused: Mapping[str, int]  #: those of the operators that stand for several of ONNX
    recipe: Any
    size_mb: float
    load_ms: float
    peak_rss_mb: float
    cases: tuple[Case, ...]
    writing: tuple[WritingStep, ...]
    left_out: tuple[LeftOut, ...]
    metrics: Mapping[str, float | None]
    verdicts: tuple[Verdict, ...]
    input_count: int | None
    machine: str | None
    host: str
    cpu: CpuDescription
    versions: Versions
    samples: Sequence[Sample]
    quality: Quality | None = None  #: on labelled data, where the configuration names some

    @property
    def place(self) -> str:
        """Where it was timed: the kind of machine, where one was asked for, and the host."""
        return f"{self.machine} ({self.host})" if self.machine else self.host

    @property
    def verdict(self) -> str:
        """``pass``, ``fail``, or ``reference``: PyTorch itself, which nothing is held against."""
        if self.name == PYTORCH:
            return "reference"
        has_quality = self.quality is None or self.quality.passed
        return "pass" if has_quality and not self.failures else "fail"

    @property
    def failures(self) -> tuple[Verdict, ...]:
        """The verdicts on its parity that failed."""
        return tuple(verdict for verdict in self.verdicts if not verdict.passed)

    @property
    def headline_metric(self) -> str | None:
        """The one metric to show where there is room for one: a failed one, else the task's most telling."""
        if self.failures:
            return self.failures[0].metric
        known = [name for name in HEADLINE_ORDER if name in self.metrics]
        return next(iter(known + sorted(self.metrics)), None)

    @property
    def main_case(self) -> Case | None:
        """The case quoted where there is room for one.

        One request at a time, of the length nearest 128 tokens, on the most threads measured.
        """
        return min(self.cases, key=_distance_from_main, default=None)

    def case(self, key: tuple[int, int, int]) -> Case | None:
        """Return this variant's case with the given key, if it was measured."""
        return next((case for case in self.cases if case.key == key), None)


@dataclass(frozen=True)
class Model:
    """A model: where it came from, and its variants, PyTorch first.

    ``elsewhere`` holds, for each further kind of machine, the same variants as they were timed there; ``recommended``
    is for the first kind. ``on_providers`` has the variants that were timed with another execution provider than that
    of the CPU, by their names and the provider's: their metrics and verdicts are those of their answers there.
    """

    name: str
    source: str
    revision: str | None
    source_bytes: int
    release: str  #: where its release is, once every gate passed and it was verified
    variants: tuple[Variant, ...]
    elsewhere: tuple[tuple[Variant, ...], ...] = ()
    recommended: tuple[Recommendation, ...] = ()
    on_providers: Mapping[tuple[str, str], Variant] = field(default_factory=dict)

    @property
    def failed(self) -> tuple[Variant, ...]:
        """The variants whose gate failed."""
        return tuple(variant for variant in self.variants if variant.verdict == "fail")

    @property
    def by_machine(self) -> tuple[tuple[Variant, ...], ...]:
        """Its variants as they were timed on each kind of machine, the first of the configuration first."""
        return (self.variants, *self.elsewhere)

    @property
    def timed(self) -> tuple[Variant, ...]:
        """Its variants as they were timed on every kind of machine, one after another."""
        return tuple(variant for variants in self.by_machine for variant in variants)

    @property
    def places(self) -> tuple[str, ...]:
        """The machines its variants were timed on, by name: only times of one machine may be compared."""
        return tuple(dict.fromkeys(variant.place for variant in self.timed))

    def size_ratio(self, variant: Variant) -> float | None:
        """Return the variant's size divided by the fp32 export's (0.25: four times smaller)."""
        baseline = next((other for other in self.variants if other.name == BASELINE), None)
        return variant.size_mb / baseline.size_mb if baseline is not None and baseline.size_mb else None


def _distance_from_main(case: Case) -> tuple[int, int, int]:
    sequence = MAIN_SEQUENCE if case.sequence is None else case.sequence
    return (case.batch, abs(sequence - MAIN_SEQUENCE), -case.threads)


def read_settings(text: str) -> ShownModels:
    """Return what the summary shows of each model.

    ``text`` is that as JSON, or the path of a file that holds it.

    Raises:
        UserError: it is not such an object.
    """
    if text.lstrip().startswith("{"):
        try:
            settings = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"--settings: not JSON: {error}") from None
    else:
        settings = read_json(Path(text))
    if not isinstance(settings, dict) or not settings:
        raise UserError("--settings: expected an object with at least one model")
    for model, entry in settings.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("variants"), list):
            raise UserError(f"--settings: model {model!r}: expected an object with a list 'variants'")
    return settings


def load_models(results: Path, settings: Mapping[str, ShownModel], place: str | None = None) -> list[Model]:
    """Read what the pipeline recorded below ``results`` for every model and variant in ``settings``.

    ``place`` is where a reader finds ``results``, if elsewhere.

    Raises:
        UserError: a file is missing or holds no JSON, or no threshold applies to a variant.
    """
    return [_load_model(results, name, entry, place or results.as_posix()) for name, entry in settings.items()]


def _load_model(results: Path, name: str, entry: ShownModel, place: str) -> Model:
    folder = results / name
    source = read_source(folder / "source.json")
    thresholds = entry.get("thresholds", {})
    names = ([PYTORCH] if entry.get("pytorch") else []) + [
        variant for variant in entry["variants"] if variant != PYTORCH
    ]
    benchmarks = {variant: read_benchmark(folder / "benchmark" / f"{variant}.json") for variant in names}
    variants = tuple(
        replace(
            _load_variant(folder, variant, thresholds.get(variant, {}), benchmarks[variant]),
            quality=_load_quality(folder, variant, entry) if entry.get("evaluated") and variant != PYTORCH else None,
        )
        for variant in names
    )
    passed = {variant.name: variant for variant in variants if variant.verdict == "pass"}
    fit = {name: benchmarks[name] for name in passed}
    on_providers = {
        (name, provider): replace(passed[name], metrics=measurements(answers.parity), verdicts=answers.verdicts)
        for (name, provider), answers in read_provider_answers(folder, fit, thresholds).items()
    }
    unfit = {key for key, variant in on_providers.items() if variant.failures}
    return Model(
        name=name,
        source=_describe_source(source),
        revision=source["revision"],
        source_bytes=source["total_bytes"],
        release=f"{place}/{name}/release",
        variants=variants,
        elsewhere=tuple(
            tuple(
                replace(variant, **_speed(read_benchmark(folder / "benchmark" / machine / f"{variant.name}.json")))
                for variant in variants
            )
            for machine in entry.get("machines", [])[1:]
        ),
        recommended=tuple(recommend(fit, unfit)),
        on_providers=on_providers,
    )


def _load_quality(folder: Path, variant: str, entry: ShownModel) -> Quality:
    """Return the verdict on a variant on labelled data."""
    return judge_record(read_evaluation(folder / "evaluation" / f"{variant}.json"), entry.get("not_worse_by"))


def _describe_source(source: SourceRecord) -> str:
    """Return where a model came from, in a few words: kind, then whichever names its manifest holds."""
    names = [source.get("repo"), source.get("package"), source.get("path")]
    return " ".join([source["kind"], *filter(None, names)])


def _load_variant(folder: Path, name: str, thresholds: Limits, benchmark: BenchmarkRecord) -> Variant:
    speed = _speed(benchmark)
    if name == PYTORCH:
        return Variant(
            name=name,
            task=None,
            opset={},
            operators={},
            fused={},
            recipe={},
            metrics={},
            verdicts=(),
            input_count=None,
            samples=[],
            **speed,
        )
    manifest = read_variant(folder / "onnx" / f"{name}.json")
    parity = read_parity(folder / "parity" / f"{name}.json")
    return Variant(
        name=name,
        task=manifest["task"],
        opset=manifest["opset"],
        operators=manifest["operators"],
        fused=manifest["fused"],
        recipe={"settings": manifest["settings"]} if manifest["settings"] else {},
        metrics=measurements(parity),
        verdicts=tuple(judge(parity, thresholds)),
        input_count=parity["inputs"]["count"],
        samples=parity["samples"],
        **speed,
    )


def _speed(benchmark: BenchmarkRecord) -> dict[str, Any]:
    """Return the fields of a variant that its benchmark fills."""
    return {
        "size_mb": benchmark["size_mb"],
        "load_ms": benchmark["load_ms"],
        "peak_rss_mb": benchmark["peak_rss_mb"],
        "cases": tuple(_read_cases(benchmark)),
        "writing": tuple(_read_steps(benchmark)),
        "left_out": tuple(benchmark["generation"]["left_out"]) if "generation" in benchmark else (),
        "machine": benchmark["machine"],
        "host": benchmark["host"],
        "cpu": benchmark["cpu"],
        "versions": benchmark["versions"],
    }


def _read_cases(benchmark: BenchmarkRecord) -> Iterable[Case]:
    timed_with = benchmark["baseline"]["cases"] if benchmark["baseline"] else []
    baseline = {_case_shape(case): case["p50_ms"] for case in timed_with}
    cases = [
        Case(
            batch=case["batch"],
            sequence=case["sequence"],
            threads=case["intra_op_threads"],
            p50_ms=case["p50_ms"],
            fp32_p50_ms=baseline.get(_case_shape(case)),
            p90_ms=case["p90_ms"],
            p99_ms=case["p99_ms"],
            items_per_s=case["items_per_s"],
            iterations=case["iterations"],
            speedup=case.get("speedup_vs_fp32"),
            speedup_iqr=(case["speedup_iqr"][0], case["speedup_iqr"][1]) if "speedup_iqr" in case else None,
        )
        for case in benchmark["cases"]
    ]
    return sorted(cases, key=lambda case: case.key)


def _read_steps(benchmark: BenchmarkRecord) -> Iterable[WritingStep]:
    steps = [
        WritingStep(
            step=case["step"],
            batch=case["batch"],
            context=case["context"],
            threads=case["intra_op_threads"],
            p50_ms=case["p50_ms"],
            p90_ms=case["p90_ms"],
            tokens_per_s=case["tokens_per_s"],
            peak_rss_mb=case["peak_rss_mb"],
            speedup=case.get("speedup_vs_fp32"),
            speedup_iqr=(case["speedup_iqr"][0], case["speedup_iqr"][1]) if "speedup_iqr" in case else None,
        )
        for case in benchmark.get("generation", {"cases": []})["cases"]
    ]
    return sorted(steps, key=lambda step: step.key)


def _case_shape(case: TimedCase) -> tuple[int, int | None, int]:
    return (case["batch"], case["sequence"], case["intra_op_threads"])


def summary_table(models: Sequence[Model]) -> pd.DataFrame:
    """Return one row a model and variant, and one more for each further kind of machine; numbers unformatted.

    Sizes are in MB (10⁶ bytes), times in ms. What is no matter of speed is the same in all rows of a variant.

    ``size_ratio_vs_fp32`` is size divided by fp32's size; ``speedup_*`` comes from interleaved runs
    against ONNX fp32 and is empty for fp32 itself. ``p50_ms``, ``items_per_s`` and ``speedup`` follow for
    every case, as ``p50_ms_{batch}x{sequence}_t{threads}``; ``main_*`` repeats the case quoted most.
    """
    variants = [variant for model in models for variant in model.timed]
    measured = {name for variant in variants for name in variant.metrics}
    metrics = [*METRICS, *sorted(measured - set(METRICS))]
    cases = {case.key: case.label for variant in variants for case in variant.cases}
    rows = [_row(model, variant, metrics) for model in models for variant in model.timed]
    table = pd.DataFrame(rows)
    case_columns = [
        f"{figure}_{cases[key]}" for key in sorted(cases) for figure in ("p50_ms", "items_per_s", "speedup")
    ]
    last = ["machine", "host", "cpu", "onnxruntime", "release"]
    first = [name for name in table.columns if name not in case_columns and name not in last]
    return table.reindex(columns=first + case_columns + last)


def _row(model: Model, variant: Variant, metrics: Iterable[str]) -> dict[str, Any]:
    main = variant.main_case
    row: dict[str, Any] = {
        "model": model.name,
        "variant": variant.name,
        "task": variant.task,
        "source": model.source,
        "revision": model.revision,
        "size_mb": variant.size_mb,
        "size_ratio_vs_fp32": model.size_ratio(variant),
        "parity": variant.verdict,
        "failed_metrics": "; ".join(describe_failure(verdict) for verdict in variant.failures) or None,
        "headline_metric": variant.headline_metric,
    }
    row |= {name: variant.metrics.get(name) for name in metrics}
    row |= {
        "load_ms": variant.load_ms,
        "peak_rss_mb": variant.peak_rss_mb,
        "main_case": main.label if main else None,
        "main_p50_ms": main.p50_ms if main else None,
        "main_fp32_p50_ms": main.fp32_p50_ms if main else None,
        "main_speedup": main.speedup if main else None,
    }
    for case in variant.cases:
        row |= {
            f"p50_ms_{case.label}": case.p50_ms,
            f"items_per_s_{case.label}": case.items_per_s,
            f"speedup_{case.label}": case.speedup,
        }
    return row | {
        "machine": variant.machine,
        "host": variant.host,
        "cpu": variant.cpu["model"],
        "onnxruntime": variant.versions.get("onnxruntime"),
        "release": None if model.failed else model.release,
    }


def describe_failure(verdict: Verdict) -> str:
    """Return a failed verdict in one line: metric, what was measured, what is allowed."""
    measured, allowed = format_pair(verdict.measured, verdict.allowed)
    return f"{verdict.metric} {measured}, allowed {'>=' if verdict.at_least else '<='} {allowed}"
