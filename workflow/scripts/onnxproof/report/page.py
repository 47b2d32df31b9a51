"""The report: one self-contained HTML page made from what was measured."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from onnxproof.files import integrity_of
from onnxproof.formatting import format_figure, format_pair, format_shape, format_threads
from onnxproof.parity.gate import Verdict
from onnxproof.places import RESOURCES
from onnxproof.records.parity import SampledAnswer
from onnxproof.report import plots
from onnxproof.report.results import BASELINE, HEADLINE_ORDER, Case, Model, Variant, WritingStep
from onnxproof.vocabulary import CPU_PROVIDER, METRICS, PYTORCH

TEMPLATE = "report.html.j2"
SCRIPT = "report.js"
OPEN_SECTIONS = 8  # with more models than this, their sections start folded
PLOTTED_MODELS = 12  # an overview plot shows at most this many; the table shows all
PLOTTED_SECTIONS = 50  # with more models than this, plots stay out of their sections: a page of them would not open
PLOTTED_CASES = 8
NOTABLE_CHANGE = 0.05  # sizes and speeds within five percent are called equal
SAME_ANSWER = 1e-4  # what float arithmetic in another order may change
SMALLEST_ERROR = 1e-7
TOP_OPERATORS = 6
MISSING = "–"


def render_report(models: Sequence[Model]) -> str:
    """Return the report as an HTML page that needs no other file and no network.

    The same measurements give the same text. Every name and value is escaped.
    """
    ordered = sorted(models, key=lambda model: not model.failed)
    environment = Environment(
        loader=FileSystemLoader(RESOURCES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "ms": format_ms,
        "figure": format_figure,
        "times": format_times,
        "megabytes": format_megabytes,
        "json": _format_recipe,
        "change": format_change,
        "answer": format_answer,
    }
    names = [variant.name for model in models for variant in model.variants]
    colours = plots.variant_colours([PYTORCH, BASELINE, *names])
    gates = [variant for model in models for variant in model.variants if variant.verdict in ("pass", "fail")]
    script = (RESOURCES / SCRIPT).read_text(encoding="utf-8")
    slugs = _slugs(ordered)

    def plots_of(model: Model, slug: str) -> dict[str, Any]:
        return (
            _section_plots(model, slug, colours) if len(models) <= PLOTTED_SECTIONS else {"pareto": None, "plots": []}
        )

    return environment.get_template(TEMPLATE).render(
        script=script,
        script_integrity=integrity_of(f"\n{script}"),
        pareto=_pareto("Trade of every variant", "overview-pareto", ordered[:PLOTTED_MODELS], colours),
        models=ordered,
        failed=[model for model in ordered if model.failed],
        gates=len(gates),
        passed=sum(variant.verdict == "pass" for variant in gates),
        legend={name: var for name, var in plots.legend(colours).items() if name in names},
        overview=_overview_plots(ordered, colours),
        sections=[_section(model, slug) | plots_of(model, slug) for model, slug in zip(ordered, slugs, strict=True)],
        folded=len(models) > OPEN_SECTIONS,
        plotted=PLOTTED_MODELS,
        places=list(dict.fromkeys(place for model in models for place in model.places)),
        machines=_machines(models),
        versions=_versions(models),
        times_smaller=times_smaller,
        pair=format_pair,
        meaning=_meaning,
        speedup_text=speedup_text,
        missing=MISSING,
        BASELINE=BASELINE,
    )


# ------------------------------------------------------------------------------------------------ formatting


def format_ms(value: float | None) -> str:
    """Format milliseconds, or items a second, to about three figures."""
    if value is None:
        return MISSING
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f}"


def format_times(value: float | None) -> str:
    """Format a ratio: ``2.18×``."""
    if value is None:
        return MISSING
    return f"{value:.1f}×" if value >= 10 else f"{value:.2f}×"


def format_megabytes(value: float | None) -> str:
    """Format a size given in MB (10⁶ bytes)."""
    return MISSING if value is None else f"{value:,.1f} MB"


def format_change(value: float | None) -> str:
    """Format a difference of a metric, with its sign: ``-0.001``."""
    return MISSING if value is None else f"{value:+.2g}"


def format_answer(value: Any) -> str:
    """Format an answer to labelled data: text as it is, lists with commas."""
    if value is None:
        return MISSING
    if isinstance(value, list):
        return ", ".join(map(format_answer, value)) or "none"
    if isinstance(value, float):
        return format_figure(value)
    return str(value)


def times_smaller(model: Model, variant: Variant) -> float | None:
    """Return how many times smaller than the fp32 export a variant is."""
    ratio = model.size_ratio(variant)
    return 1 / ratio if ratio else None


def speedup_text(variant: Variant, case: Case | WritingStep | None) -> str:
    """Return a case's speed-up over ONNX fp32, which is the baseline itself."""
    if variant.name == BASELINE:
        return "baseline"
    return format_times(case.speedup if case else None)


def _format_recipe(recipe: Any) -> str:
    return json.dumps(recipe, indent=2, ensure_ascii=False, default=str)


def _meaning(metric: str) -> str:
    return METRICS[metric].meaning if metric in METRICS else ""


def _slugs(models: Iterable[Model]) -> list[str]:
    """Return an HTML id for every model, made of its name alone, so that a link to it stays right."""
    slugs: list[str] = []
    for model in models:
        slug = base = f"model-{re.sub(r'[^A-Za-z0-9._-]', '-', model.name)}"
        number = 1
        while slug in slugs:
            number += 1
            slug = f"{base}-{number}"
        slugs.append(slug)
    return slugs


# -------------------------------------------------------------------------------------------- plain language


def describe_trade(model: Model, variant: Variant) -> str:
    """Say in plain words what a variant gains and what it costs, from its own figures alone."""
    if variant.name == PYTORCH:
        return "The original model, run by PyTorch. Every other variant is compared with its answers."
    if variant.name == BASELINE:
        return f"The plain export. It is the baseline for size and speed. {_describe_accuracy(variant)}"
    where = f" Measured on {variant.place}." if len(model.places) > 1 else ""
    others = [other for variants in model.elsewhere for other in variants if other.name == variant.name]
    where += "".join(f" On {other.place}: {_describe_speed(other)}." for other in others)
    return f"{_describe_size(model, variant)} and {_describe_speed(variant)}. {_describe_accuracy(variant)}{where}"


def _describe_size(model: Model, variant: Variant) -> str:
    factor = times_smaller(model, variant)
    if factor is None:
        return "Its size was not compared"
    if abs(factor - 1) < NOTABLE_CHANGE:
        return "It is as large as fp32"
    if factor > 1:
        return f"It is {format_times(factor)} smaller than fp32"
    return f"It is {format_times(1 / factor)} larger than fp32"


def _describe_speed(variant: Variant) -> str:
    case = variant.main_case
    if case is None or case.speedup is None:
        return "its speed-up was not measured"
    spread = case.speedup_iqr or (case.speedup, case.speedup)
    where = f"at {case.title}"
    if spread[0] <= 1 <= spread[1] or abs(case.speedup - 1) < NOTABLE_CHANGE:
        return f"as fast as fp32 within the noise ({format_times(case.speedup)} {where})"
    if case.speedup > 1:
        return f"{format_times(case.speedup)} as fast {where}"
    return f"slower than fp32 ({format_times(case.speedup)} {where})"


def _describe_accuracy(variant: Variant) -> str:
    metric = variant.headline_metric
    if metric is None:
        return "Its difference from PyTorch was not measured."
    words = f"{_meaning(metric) or metric}: {format_figure(variant.metrics[metric])}"
    verdict = "outside the thresholds" if variant.failures else "within the thresholds"
    return f"Its answers are {verdict} ({words})."


def describe_batch_invariance(variant: Variant) -> str | None:
    """Say in plain words whether an input's answer depends on the batch it comes in."""
    if "batch_max_abs_diff" not in variant.metrics:
        return None
    difference = variant.metrics["batch_max_abs_diff"]
    if difference is None:
        return "Its output in a padded batch is not finite."
    if difference <= SAME_ANSWER:
        words = format_figure(difference)
        return f"An input gets the same answer alone and in a padded batch (largest difference {words})."
    cosine = variant.metrics.get("batch_cosine_min")
    lowest = "" if cosine is None else f", lowest cosine {format_figure(cosine)}"
    return (
        f"The answer to an input depends on the other inputs of its batch (largest difference "
        f"{format_figure(difference)}{lowest}). Use a batch size of 1 if answers must be repeatable."
    )


def _count_operators(operators: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} ×{count}" for name, count in operators)


def _graph_facts(variant: Variant) -> dict[str, Any]:
    """Return a variant's opset, node count, fused operators, and most frequent operators, as text."""
    by_count, fused = (
        sorted(counts.items(), key=lambda item: (-item[1], item[0])) for counts in (variant.operators, variant.fused)
    )
    return {
        "opset": ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in variant.opset.items()) or MISSING,
        "nodes": sum(variant.operators.values()) or MISSING,
        "fused": _count_operators(fused) or "none",
        "top": _count_operators(by_count[:TOP_OPERATORS]) or MISSING,
    }


def _machines(models: Iterable[Model]) -> list[str]:
    """Return every CPU the figures come from, once each."""
    return list(dict.fromkeys(_describe_cpu(variant) for model in models for variant in model.timed))


def _describe_cpu(variant: Variant) -> str:
    cpu = variant.cpu
    parts = [f"{variant.place}: {cpu['model']}"]
    if cpu["logical_cores"]:
        physical = f" ({cpu['physical_cores']} physical)" if cpu["physical_cores"] else ""
        parts.append(f"{cpu['logical_cores']} logical cores{physical}")
    if cpu["flags"]:
        parts.append(" ".join(cpu["flags"]))
    return "; ".join(parts)


def _versions(models: Iterable[Model]) -> dict[str, str]:
    """Return every tool's version; a tool used in several versions lists them all."""
    found: dict[str, dict[str, None]] = {}
    for model in models:
        for variant in model.timed:
            for tool, version in variant.versions.items():
                found.setdefault(tool, {})[str(version)] = None
    return {tool: ", ".join(found[tool]) for tool in sorted(found)}


# ----------------------------------------------------------------------------------- a model's story, in steps


def tell_story(model: Model) -> list[tuple[str, str]]:
    """Return a model's way from source to verdict in a few steps: ``(step, sentence)``."""
    shipped = [variant for variant in model.variants if variant.name not in (PYTORCH, BASELINE)]
    smallest = min((variant for variant in shipped if variant.size_mb), key=_size, default=None)
    gated = [variant for variant in model.variants if variant.verdicts]
    size = f"{model.source_bytes / 1e6:,.1f} MB of files"
    steps = [("Source", f"{model.source}, {size}.")]
    if smallest is not None:
        baseline = next((variant for variant in model.variants if variant.name == BASELINE), None)
        was = f"{format_megabytes(baseline.size_mb)} as ONNX fp32, " if baseline else ""
        steps.append(("Size", f"{was}{format_megabytes(smallest.size_mb)} as {smallest.name}."))
    inputs = next((variant.input_count for variant in gated if variant.input_count), None)
    limits = [verdict for variant in gated for verdict in variant.verdicts]
    held = sum(verdict.passed for verdict in limits)
    steps.append(("Parity", f"{held} of {len(limits)} limits hold{f' on {inputs} inputs' if inputs else ''}."))
    fastest = max((variant for variant in shipped if _speedup(variant)), key=_speedup, default=None)
    if fastest is not None:
        where = f" on {fastest.place}" if model.elsewhere else ""
        steps.append(("Speed", f"{fastest.name}: {_describe_speed(fastest)}{where}."))
    return [*steps, ("Verdict", _verdict_in_words(model))]


def recommend_in_words(model: Model) -> list[tuple[str, str]]:
    """Return what to use for which purpose, and its price: ``(purpose, sentence)``."""
    variants = {variant.name: variant for variant in model.variants}
    told = []
    for choice in model.recommended:
        variant = variants[choice.variant]
        threads = format_threads(choice.session["intra_op_threads"])
        where = f" on {variant.place}" if len(model.places) > 1 else ""
        answering = model.on_providers.get((choice.variant, choice.provider), variant)
        judged = "" if answering is variant else f" The gate judged those on {CPU_PROVIDER}."
        told.append(
            (
                f"{choice.purpose.capitalize()}, {'in float' if choice.in_float else 'within the limits'}",
                f"{choice.variant} on {choice.provider} with {threads}: "
                f"{format_times(choice.speedup)} as fast as fp32{where}, at {' and '.join(choice.shapes)}"
                f"{' (batch x tokens before the next one)' if choice.writes else ''}. "
                f"{_describe_accuracy(answering)}{judged}",
            )
        )
    for (name, provider), answering in model.on_providers.items():
        if answering.failures:
            told.append(("Not recommended", f"{name} on {provider}: {_describe_accuracy(answering)}"))
    return told


def compare_samples(model: Model) -> dict[str, Any] | None:
    """Return the sampled inputs with everyone's answers, for a table: ``{columns, rows: [{texts, answers}]}``.

    An answer is ``(text, differs)``: whether the label is not PyTorch's. None where nothing was sampled.
    """
    sampled = [variant for variant in model.variants if variant.samples]
    if not sampled:
        return None
    rows = [
        {
            "texts": entries[0]["texts"],
            "answers": [
                _answer_in_words(entries[0]["expected"], entries[0]["expected"]),
                *(_answer_in_words(entry["actual"], entry["expected"]) for entry in entries),
            ],
        }
        for entries in zip(*(variant.samples for variant in sampled), strict=True)
    ]
    return {"columns": [PYTORCH, *(variant.name for variant in sampled)], "rows": rows}


def _answer_in_words(answer: SampledAnswer, expected: SampledAnswer) -> tuple[str, bool]:
    if "label" in answer:
        return f"{answer['label']} ({answer['probability']:.3f})", answer["label"] != expected["label"]
    return f"{answer['similarity']:.4f}", False


def _verdict_in_words(model: Model) -> str:
    if model.failed:
        missed = "; ".join(
            f"{variant.name}: {', '.join(verdict.metric for verdict in variant.failures)}" for variant in model.failed
        )
        return f"Not released: these limits were missed: {missed}."
    return f"Every gate passed. The release is in {model.release}. It is verified if verified.json is beside it."


def _size(variant: Variant) -> float:
    return variant.size_mb or 0.0


def _speedup(variant: Variant) -> float:
    case = variant.main_case
    return (case.speedup if case else None) or 0.0


# ------------------------------------------------------------------------------------------------- the plots

Colours = dict[str, str]


def _overview_plots(models: Sequence[Model], colours: Colours) -> list[tuple[str, str]]:
    """Return captions and plots of speed-up and size over the models (failed ones first, up to a cap)."""
    shown = models[:PLOTTED_MODELS]

    def grouped(
        figure: Callable[[Variant], plots.Row | None], variants: list[tuple[str, Sequence[Variant]]]
    ) -> list[tuple[str, list[plots.Row]]]:
        rows = [(name, [figure(variant) for variant in group]) for name, group in variants]
        return [(name, [row for row in found if row is not None]) for name, found in rows]

    def speed(variant: Variant) -> plots.Row | None:
        case = variant.main_case
        if variant.name == BASELINE or case is None:
            return None
        text = f"{format_times(case.speedup)}" if case.speedup else "not measured"
        return plots.Row(variant.name, case.speedup, text, colours[variant.name])

    def size(variant: Variant) -> plots.Row:
        return plots.Row(variant.name, variant.size_mb, format_megabytes(variant.size_mb), colours[variant.name])

    return [
        (
            "Speed-up over the ONNX fp32 export at batch size 1 (dashed line: fp32)",
            plots.bars(
                "Speed-up by model and variant",
                "overview-speed",
                grouped(
                    speed, [(model.name + _on(model, group), group) for model in shown for group in model.by_machine]
                ),
                "times as fast as fp32",
                1.0,
            ),
        ),
        (
            "Size of the files to load",
            plots.bars(
                "Size by model and variant",
                "overview-size",
                grouped(size, [(model.name, model.variants) for model in shown]),
                "MB",
            ),
        ),
    ]


def _on(model: Model, variants: Sequence[Variant]) -> str:
    """Return the words that tell variants timed on one kind of machine from those timed on another."""
    return f" on {variants[0].machine}" if model.elsewhere else ""


def _cases_of(model: Model, most: int | None = None) -> list[tuple[str, list[tuple[Variant, Case]]]]:
    """Return each machine's cases, ``most`` of them, with a title and all that was timed on them there."""
    found = []
    for variants in model.by_machine:
        for key in sorted({case.key for variant in variants for case in variant.cases})[:most]:
            rows = [(variant, case) for variant in variants if (case := variant.case(key))]
            found.append((rows[0][1].title + _on(model, variants), rows))
    return found


def _steps_of(model: Model) -> list[tuple[str, list[tuple[Variant, WritingStep]]]]:
    """Return each machine's steps of writing, with a title and all that was timed on them there."""
    found = []
    for variants in model.by_machine:
        for key in sorted({step.key for variant in variants for step in variant.writing}):
            rows = [(variant, step) for variant in variants for step in variant.writing if step.key == key]
            found.append((rows[0][1].title + _on(model, variants), rows))
    return found


def _left_out(model: Model) -> list[str]:
    """Return a sentence for each step that was not timed, once for all variants of which the same is true."""
    told: dict[str, list[str]] = {}
    for variant in model.timed:
        for case in variant.left_out:
            step = f"{case['step'].replace('_', ' ')} after {format_shape(case['batch'], case['context'])}"
            told.setdefault(f"{step}: {case['reason']}", []).append(variant.name)
    return [f"Not timed ({', '.join(dict.fromkeys(names))}): {words}." for words, names in told.items()]


def _error(variant: Variant) -> tuple[str, float] | None:
    """Return a variant's distance from PyTorch's answers as one number with its name: 0 is no distance."""
    metric = next((name for name in HEADLINE_ORDER if variant.metrics.get(name) is not None), None)
    return None if metric is None else (f"1 − {metric}", max(0.0, 1 - (variant.metrics[metric] or 0.0)))


def _pareto(title: str, ident: str, models: Sequence[Model], colours: Colours) -> str | None:
    """Draw error against speed-up, with the size as area; None where nothing was measured for it.

    Over several models the baseline, which is at 1 by definition, is left out. Errors that float arithmetic in another
    order makes too are drawn as ``SMALLEST_ERROR``.
    """
    points: list[plots.Point] = []
    axes: dict[str, None] = {}
    for model in models:
        for variant in model.variants:
            error = _error(variant)
            speedup = 1.0 if variant.name == BASELINE else _speedup(variant)
            is_known = len(models) > 1 and variant.name == BASELINE
            if is_known or error is None or not speedup or not variant.size_mb:
                continue
            axes[error[0]] = None
            label = variant.name if len(models) == 1 else f"{model.name} {variant.name}"
            colour = colours[variant.name]
            point = plots.Point(
                label, speedup, max(error[1], SMALLEST_ERROR), variant.size_mb, colour, passed=not variant.failures
            )
            points.append(point)
    if not points:
        return None
    return plots.scatter(title, ident, points, "times as fast as fp32", " or ".join(axes), baseline=1.0)


def _section(model: Model, slug: str) -> dict[str, Any]:
    """Return what the template needs to show one model, its plots aside."""
    return {
        "model": model,
        "slug": slug,
        "task": next((variant.task for variant in model.variants if variant.task), None),
        "graphs": [(variant, _graph_facts(variant)) for variant in model.variants if variant.name != PYTORCH],
        "gated": [variant for variant in model.variants if variant.verdicts],
        "trades": [
            (variant, describe_trade(model, variant), describe_batch_invariance(variant)) for variant in model.variants
        ],
        "cases": _cases_of(model),
        "steps": _steps_of(model),
        "left_out": _left_out(model),
        "story": tell_story(model),
        "recommended": recommend_in_words(model),
        "samples": compare_samples(model),
        "quality": [variant for variant in model.variants if variant.quality],
        "best": {
            "speedup": max((_speedup(variant) for variant in model.variants), default=0) or "",
            "smaller": max((times_smaller(model, variant) or 0 for variant in model.variants), default=0) or "",
            "error": max((error[1] for variant in model.variants if (error := _error(variant))), default=""),
            "bytes": model.source_bytes,
        },
    }


def _section_plots(model: Model, slug: str, colours: Colours) -> dict[str, Any]:
    """Return the plots of one model."""
    return {
        "pareto": _pareto(f"Trade of {model.name}", f"{slug}-pareto", [model], colours),
        "plots": [
            (
                "Latency from the median (dot) to the 90th percentile (end of the line), on a logarithmic scale. "
                "Each variant was timed in a separate run",
                plots.dots(
                    f"Latency of {model.name}", f"{slug}-latency", _latency_groups(model, colours), "ms a batch"
                ),
            ),
            (
                "Error of each metric, on a logarithmic scale. The bar is the threshold: errors to its left pass",
                plots.margins(f"Parity of {model.name}", f"{slug}-parity", _parity_groups(model), "error"),
            ),
        ],
    }


def _latency_groups(model: Model, colours: Colours) -> list[tuple[str, list[plots.Row]]]:
    groups = []
    for title, found in _cases_of(model, PLOTTED_CASES):
        rows = [
            plots.Row(
                f"{variant.name} on {variant.place}" if len(model.places) > 1 else variant.name,
                case.p50_ms,
                f"{format_ms(case.p50_ms)} ms" if case.p50_ms is not None else "not measured",
                colours[variant.name],
                high=case.p90_ms,
            )
            for variant, case in found
        ]
        groups.append((title, rows))
    return groups


def _parity_groups(model: Model) -> list[tuple[str, list[plots.Row]]]:
    return [
        (variant.name, [_error_row(verdict) for verdict in variant.verdicts])
        for variant in model.variants
        if variant.verdicts
    ]


def _error_row(verdict: Verdict) -> plots.Row:
    """Return a verdict as an error: a least value (cosine, agreement) is shown as its distance from 1."""
    measured, allowed, label = verdict.measured, verdict.allowed, verdict.metric
    if verdict.at_least:
        measured, allowed, label = None if measured is None else 1 - measured, 1 - allowed, f"1 − {label}"
    text = "not finite" if measured is None else f"{measured:.2g}"
    return plots.Row(label, measured, text, bound=allowed, passed=verdict.passed)
