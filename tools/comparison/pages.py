"""What a reader gets of the comparison: two CSV files, a page of Markdown, and a plot for each model."""

from pathlib import Path
from typing import Any

import pandas as pd

from comparison.intervals import speedup_interval
from comparison.measuring import REFERENCE, TRAFFIC
from onnxproof.benchmark.recommend import Run, batches_of_purposes, fastest
from onnxproof.files import read_json, write_text
from onnxproof.report import plots

#: How near to PyTorch a recommendation must be, by how it is called.
QUALITIES = {"without a loss": 0.9999, "as good as the gate asks": 0.97}
BASELINE_LABEL = "onnxruntime fp32"
OURS, THEIRS = "#0b6e4f", "#7a7a7a"
#: Where a plot shows what is equal to PyTorch up to rounding.
SMALLEST_LOSS = 1e-8


def write_pages(folder: Path, table: Path | None) -> None:
    """Write ``samples.csv`` and ``summary.csv`` over all JSON records of ``folder``; and the page, if one is wanted."""
    records = [record for record in map(read_json, sorted(folder.glob("*.json"))) if "contenders" in record]
    write_text(folder / "summary.csv", pd.DataFrame(summary_rows(records)).to_csv(index=False))
    write_text(folder / "samples.csv", pd.DataFrame(sample_rows(records)).to_csv(index=False))
    if table is None:
        return
    for record in records:
        draw_trade(record, plot_path(table, record["model"]))
    write_text(table, render_page(records, table))


def summary_rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one flat row a model, contender and case; times in ms, sizes and memory in MB of 1e6 bytes."""
    return [
        {
            "model": record["model"],
            "contender": name,
            "case": label,
            "size_mb": facts["size_mb"],
            "peak_rss_mb": facts.get("peak_rss_mb"),
            **facts.get("quality", {}),
            **{key: value for key, value in case.items() if key not in ("interval", "samples_ms")},
            "speedup_low": case["interval"][0],
            "speedup_high": case["interval"][1],
        }
        for record in records
        for name, facts in record["contenders"].items()
        for label, case in facts["cases"].items()
    ]


def sample_rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row a timed call."""
    return [
        {"model": record["model"], "contender": name, "case": label, "round": number, "ms": sample}
        for record in records
        for name, facts in record["contenders"].items()
        for label, case in facts["cases"].items()
        for number, samples in enumerate(case["samples_ms"])
        for sample in samples
    ]


def case_labels(record: dict[str, Any]) -> list[str]:
    """Return the measured cases in the order in which they were measured."""
    cases: dict[str, Any] = record["contenders"][BASELINE_LABEL]["cases"]
    return list(cases)


def plot_path(table: Path, model: str) -> Path:
    """Return where a model's plot lies, beside the page."""
    return table.with_name(f"{table.stem}-{model}.svg")


def runs_of(record: dict[str, Any]) -> dict[str, Run]:
    """Return the speed-ups of each contender that was timed in every case, by batch and tokens; traffic aside."""
    labels = case_labels(record)
    return {
        name: Run(name, {shape_of(label): facts["cases"][label]["speedup"] for label in labels if label != TRAFFIC})
        for name, facts in files_of(record).items()
        if list(facts["cases"]) == labels
    }


def shape_of(label: str) -> tuple[int, int | None]:
    """Return the batch and the tokens of a case such as 8x128, or of 8 images, written 8."""
    batch, _, tokens = label.partition("x")
    return int(batch), int(tokens) if tokens else None


def recommendations(record: dict[str, Any]) -> list[str]:
    """Return a sentence for each purpose and each quality asked: what was fastest here, and its price."""
    runs = runs_of(record)
    contenders = record["contenders"]
    sentences = []
    for purpose, batch in batches_of_purposes(list(runs.values())).items():
        for wanted, least in QUALITIES.items():
            fit = [run for name, run in runs.items() if cosine_of(contenders[name]) >= least]
            best = fastest(fit, batch)
            own = fastest((run for run in fit if contenders[run.variant]["ours"]), batch)
            if best is None:
                continue
            facts = contenders[best.variant]
            behind = f"; our best, {own.variant}, {own.speedup(batch):.2f}x" if own and own is not best else ""
            sentences.append(
                f"{purpose} ({', '.join(best.shapes(batch))}), {wanted} (cosine at least {least}): "
                f"**{best.variant}**, {best.speedup(batch):.2f}x {BASELINE_LABEL} with {threads_in_words(record)}, "
                f"{facts['size_mb']:.0f} MB, lowest cosine {cosine_of(facts):.5f}{behind}."
            )
    return [*sentences, *settings_sentences(record)]


def cosine_of(facts: dict[str, Any]) -> float:
    """Return a contender's lowest cosine to PyTorch; 0 where it gave no answers, or some that are not finite."""
    return (facts.get("quality") or {}).get("cosine_min") or 0.0


def settings_sentences(record: dict[str, Any]) -> list[str]:
    """Return a sentence for each other session setting: where it was faster or slower beyond its interval."""
    sentences = []
    for name, facts in record["contenders"].items():
        plain = record["contenders"].get(facts.get("other_settings_of"), {"cases": {}})["cases"]
        told = []
        for label in facts["cases"].keys() & plain.keys():
            ratio, low, high = speedup_interval(facts["cases"][label]["samples_ms"], plain[label]["samples_ms"])
            if low > 1 or high < 1:
                told.append(f"{ratio:.2f}x at {label} ({low:.2f}–{high:.2f})")
        if facts.get("other_settings_of"):
            outcome = ", ".join(sorted(told)) or "no difference beyond the interval in any case: keep the default"
            sentences.append(f"{name}, beside onnxruntime's default settings: {outcome}.")
    return sentences


def files_of(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the contenders without those that are another one's file under other settings."""
    return {name: facts for name, facts in record["contenders"].items() if not facts.get("other_settings_of")}


def threads_in_words(record: dict[str, Any]) -> str:
    """Return the number of threads as a reader says it."""
    return "one thread" if record["threads"] == 1 else f"{record['threads']} threads"


def shared_label(record: dict[str, Any]) -> str:
    """Return the largest case whose share of the peak is known."""
    return [label for label in case_labels(record) if label != TRAFFIC][-1]


def render_page(records: list[dict[str, Any]], table: Path) -> str:
    """Return the page of Markdown over all models."""
    first = records[0]
    lines = [
        "# Our files beside other runtimes, and beside the limit",
        "",
        f"Written by `make bench`: {first['cpu']['model']} "
        f"({', '.join(first['cpu']['flags']) or 'no flags known'}), {threads_in_words(first)}. Every "
        "contender runs in a process of its own, all take turns within one run, and "
        f"*speed-up* is the median over rounds of the ratio to {BASELINE_LABEL}, with its 95 % bootstrap interval. "
        "*Share* is the part of this CPU's peak that a model's matrix products reached: of MatMul in float32 for float "
        "files, of MatMulInteger (unsigned activations, signed weights) for int8 files, both timed in the same rounds. "
        f"*{TRAFFIC}* answers texts of mixed lengths in batches of 8 as they arrive, tokenization included. Cosines "
        "are to PyTorch's answers. Who needs more than four times the baseline's time is timed once and has no "
        "interval. Ours are in bold.",
        "",
    ]
    for record in records:
        lines += [*model_section(record, plot_path(table, record["model"]).name), ""]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    return "\n".join([*lines, f"Versions: {versions}.", ""])


def model_section(record: dict[str, Any], plot: str) -> list[str]:
    """Return one model's heading, limit, table and recommendations."""
    labels, peaks = case_labels(record), record["peak_giga_operations_per_s"]
    weights = (
        "The weights are random: speed depends on the shape alone, and the cosines say little of a trained model."
        if record["random_weights"]
        else ""
    )
    lines = [
        f"## {record['model']}",
        "",
        f"{weights} Judged on {record['items_judged']} inputs. Peak of this CPU in this run: "
        f"{peaks['float']:.0f} billion operations a second in float, {peaks['integer']:.0f} in integers "
        f"({peaks['integer'] / peaks['float']:.2f}x).".strip(),
        "",
        f"| contender | {' | '.join(labels)} | share at {shared_label(record)} | cosine, lowest | cosine, mean | MB "
        "| RSS, MB |",
        f"| --- | {'--- | ' * len(labels)}--- | --- | --- | --- | --- |",
        *(describe_row(name, facts, labels, shared_label(record)) for name, facts in record["contenders"].items()),
        "",
        f"![What is lost to PyTorch against speed; right and up is better]({plot})",
        "",
        "Right and up is better. A mark's area is the size of the file; green marks are ours.",
        "",
        "What to use on a machine like this:",
        "",
        *(f"- {sentence}" for sentence in recommendations(record)),
    ]
    failed = {name: facts["failed"] for name, facts in record["contenders"].items() if "failed" in facts}
    return lines + [f"- {name} did not run: {reason}" for name, reason in failed.items()]


def describe_row(name: str, facts: dict[str, Any], labels: list[str], shared: str) -> str:
    """Return a contender's row: speed-ups with their intervals and times, its share, quality, size and memory."""
    cells = [f"**{name}**" if facts["ours"] else name]
    for label in labels:
        case = facts["cases"].get(label)
        cells.append("–" if case is None else describe_case(case))
    share = facts["cases"].get(shared, {}).get("share_of_peak")
    cells.append("–" if share is None else f"{100 * share:.0f} %")
    quality = facts.get("quality", {})
    cells += ["–" if quality.get(key) is None else f"{quality[key]:.4f}" for key in ("cosine_min", "cosine_mean")]
    memory = facts.get("peak_rss_mb")
    cells += [f"{facts['size_mb']:.1f}", "–" if memory is None else f"{memory:.0f}"]
    return f"| {' | '.join(cells)} |"


def describe_case(case: dict[str, Any]) -> str:
    """Return a case's speed-up, its interval where it was timed more than once, and its median time."""
    low, high = case["interval"]
    interval = f" ({low:.2f}–{high:.2f})" if len(case["samples_ms"]) > 1 else ""
    return f"{case['speedup']:.2f}{interval}, {case['p50_ms']:.1f} ms"


def draw_trade(record: dict[str, Any], path: Path) -> None:
    """Draw what is lost to PyTorch against the speed-up in single items, as the report draws a model's variants."""
    runs = {name: run for name, run in runs_of(record).items() if name != REFERENCE}
    batch = batches_of_purposes(list(runs.values()))["latency"]
    points = [
        plots.Point(
            name,
            run.speedup(batch),
            max(1 - cosine_of(facts), SMALLEST_LOSS),
            facts["size_mb"],
            OURS if facts["ours"] else THEIRS,
        )
        for name, run in runs.items()
        for facts in [record["contenders"][name]]
        if cosine_of(facts)
    ]
    shapes = ", ".join(runs[BASELINE_LABEL].shapes(batch))
    x_axis = f"times as fast as {BASELINE_LABEL} at {shapes}"
    plots.save_scatter(path, points, x_axis, "1 − lowest cosine to PyTorch", baseline=1.0)
