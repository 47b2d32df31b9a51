"""What a reader gets of the comparison: two CSV files, a page of Markdown, and a plot for each model."""

from pathlib import Path
from statistics import geometric_mean
from typing import Any

import pandas as pd

from onnxproof.bench.measuring import REFERENCE, TRAFFIC
from onnxproof.bench.statistics import speedup_interval
from onnxproof.files import read_json, write_text

#: How near to PyTorch a recommendation must be, by how it is called.
QUALITIES = {"without a loss": 0.9999, "as good as the gate asks": 0.97}
BASELINE_LABEL = "onnxruntime fp32"
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
        draw_pareto(record, plot_path(table, record["model"]))
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


def cases_by_purpose(labels: list[str]) -> dict[str, list[str]]:
    """Return the cases that say something of latency, those of one item, and of throughput; no purpose without any."""
    single = [label for label in labels if label.split("x")[0] == "1"]
    purposes = {"latency": single, "throughput": [label for label in labels if label not in single]}
    return {purpose: cases for purpose, cases in purposes.items() if cases}


def mean_speedup(facts: dict[str, Any], cases: list[str]) -> float:
    """Return the geometric mean of a contender's speed-ups over some cases."""
    return geometric_mean([facts["cases"][label]["speedup"] for label in cases])


def recommendations(record: dict[str, Any]) -> list[str]:
    """Return a sentence for each purpose and each quality asked: what was fastest here, and its price."""
    labels = case_labels(record)
    sentences = []
    for purpose, cases in cases_by_purpose(labels).items():
        for wanted, least in QUALITIES.items():
            scores = {
                name: mean_speedup(facts, cases)
                for name, facts in files_of(record).items()
                if list(facts["cases"]) == labels and ((facts.get("quality") or {}).get("cosine_min") or 0) >= least
            }
            best = max(scores, key=lambda name: scores[name])
            facts = record["contenders"][best]
            ours = {name: value for name, value in scores.items() if record["contenders"][name]["ours"]}
            own = max(ours, key=lambda name: ours[name]) if ours else None
            behind = f"; our best, {own}, {ours[own]:.2f}x" if own and own != best else ""
            sentences.append(
                f"{purpose}, {wanted} (cosine at least {least}): **{best}**, {scores[best]:.2f}x {BASELINE_LABEL} "
                f"with {threads_in_words(record)}, {facts['size_mb']:.0f} MB, lowest cosine "
                f"{facts['quality']['cosine_min']:.5f}{behind}."
            )
    return [*sentences, *settings_sentences(record)]


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
        f"Written by `make bench`: {first['cpu']['model']} ({', '.join(first['cpu']['flags']) or 'no flags known'}), "
        f"{threads_in_words(first)}. Every contender runs in a process of its own, all take turns within one run, and "
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
        f"![Quality, speed and size]({plot})",
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


def pareto_front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return, by speed, the points (speed, loss) that no other one beats in one without being worse in the other."""

    def is_beaten(point: tuple[float, float]) -> bool:
        return any(other != point and other[0] >= point[0] and other[1] <= point[1] for other in points)

    return sorted({point for point in points if not is_beaten(point)})


def draw_pareto(record: dict[str, Any], path: Path) -> None:
    """Draw what is lost to PyTorch against the speed-up; a mark's area is the size, a line joins the Pareto front."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    labels = case_labels(record)
    purpose, cases = next(iter(cases_by_purpose(labels).items()))
    shown = {
        name: (mean_speedup(facts, cases), max(1 - facts["quality"]["cosine_min"], SMALLEST_LOSS), facts)
        for name, facts in files_of(record).items()
        if name != REFERENCE and list(facts["cases"]) == labels and (facts.get("quality") or {}).get("cosine_min")
    }
    largest = max(facts["size_mb"] for _, _, facts in shown.values())
    with rc_context({"svg.hashsalt": "onnxproof", "font.size": 8, "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for number, (name, (speed, loss, facts)) in enumerate(shown.items(), start=1):
            colour = "#0b6e4f" if facts["ours"] else "#7a7a7a"
            area = 40 + 300 * facts["size_mb"] / largest
            axes.scatter([speed], [loss], s=area, color=colour, alpha=0.6, linewidths=0, label=f"{number}  {name}")
            axes.annotate(str(number), (speed, loss), xytext=(6, 5), textcoords="offset points")
        front = pareto_front([(speed, loss) for speed, loss, _ in shown.values()])
        axes.plot([speed for speed, _ in front], [loss for _, loss in front], color="#0b6e4f", linewidth=0.8)
        axes.set_yscale("log")
        axes.invert_yaxis()
        axes.set_xlabel(f"speed-up over {BASELINE_LABEL}: {purpose}, geometric mean of {', '.join(cases)}")
        axes.set_ylabel("1 − lowest cosine to PyTorch")
        axes.set_title(f"{record['model']}: right and up is better; area: size of the file; green: ours")
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside right upper", frameon=False, markerscale=0.5)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})
