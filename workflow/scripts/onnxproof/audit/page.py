"""What an audit found, for a reader: one sentence, and a page of Markdown."""

from collections import Counter
from collections.abc import Iterator, Sequence

from onnxproof.formatting import format_figure, format_shape, format_threads
from onnxproof.records.audit import AuditedFile, AuditRecord, AuditTiming, Finding, SpeedCase
from onnxproof.records.source import Place

#: Metrics that say most about a file, the first that a task has.
HEADLINES = (
    "cosine_min",
    "top1_agreement",
    "token_agreement",
    "next_token_agreement",
    "span_agreement",
    "label_agreement",
    "order_agreement",
)


def sentence_of(files: Sequence[AuditedFile], findings: Sequence[Finding]) -> str:
    """Return the verdict on a repository in one sentence."""
    counts = Counter(file["verdict"] for file in files)
    are = "is" if 1 in (counts["sound"], len(files)) else "are"
    parts = [f"{counts['sound']} of {_count(len(files), 'ONNX model')} {are} sound"]
    parts += [f"{counts['wrong']} {'is' if counts['wrong'] == 1 else 'are'} wrong"] if counts["wrong"] else []
    parts += [f"{counts['not judged']} could not be judged"] if counts["not judged"] else []
    beside = sum(each["severity"] == "wrong" for each in findings)
    told = f"; beside the graphs, {_count(beside, 'thing')} {'is' if beside == 1 else 'are'} wrong" if beside else ""
    return ", ".join(parts) + told + "."


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def name_place(place: Place) -> str:
    """Return where a model is, in words."""
    if place["kind"] == "hub":
        return f"{place['repo']} at {place['revision']}"
    if place["kind"] == "package":
        return f"{place['package']} {place['package_version']}"
    return place["path"].rstrip("/").rpartition("/")[2]


def page_of(audit: AuditRecord, heading: str = "#") -> str:
    """Return a page of Markdown about an audit; ``heading`` is that of its first line."""
    lines = [
        f"{heading} {audit['name']}",
        "",
        f"**{audit['verdict']}**",
        "",
        f"Held to {name_place(audit['original'])}, named by {audit['original_named_by']}: task {audit['task']}, "
        f"{_count(audit['inputs'], 'input')} for each file, {audit['seconds']:.0f} s in all.",
        "",
    ]
    shapes = list(dict.fromkeys(_shape_of(case) for case in _cases_of(audit)))
    heads = ["file", "name says", "holds", "MB", "agreement", "in batches", "raw inputs"]
    heads += [*(f"ms at {shape}" for shape in shapes), "verdict"]
    lines += [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    lines += [_row(file, shapes) for file in audit["files"]]
    if "timing" in audit:
        lines += ["", _about_times(audit["timing"], next(_cases_of(audit), None))]
    told = [
        ("The repository", audit["findings"]),
        *((f"`{file['name']}`", file["findings"]) for file in audit["files"]),
    ]
    for subject, findings in told:
        if findings:
            lines += ["", f"{subject}:", ""]
            lines += [f"- **{each['severity']}** ({each['kind']}): {each['message']}" for each in findings]
    return "\n".join(lines) + "\n"


def _row(file: AuditedFile, shapes: Sequence[str]) -> str:
    size = sum(entry["size"] for entry in file["files"].values()) / 1e6
    figures = [
        _headline(file.get("task_metrics")),
        format_figure(file["batch_invariance"]["cosine_min"]) if "batch_invariance" in file else "",
        _headline(file["final"]["metrics"]) if "final" in file else "",
    ]
    holds = ", ".join(f"{share:.0%} {name}" for name, share in file["weights"].items() if share >= 0.005)
    times = {_shape_of(case): _time_of(case) for case in file.get("speed", [])}
    cells = [f"`{file['name']}`", file["promised"] or "", holds, f"{size:.1f}", *figures]
    cells += [*(times.get(shape, "") for shape in shapes), file["verdict"]]
    return f"| {' | '.join(cells)} |"


def _cases_of(audit: AuditRecord) -> Iterator[SpeedCase]:
    return (case for file in audit["files"] for case in file.get("speed", []))


def _shape_of(case: SpeedCase) -> str:
    return format_shape(case["batch"], case["sequence"])


def _time_of(case: SpeedCase) -> str:
    """Return a time, and how many times faster it is than what it was compared with, the original first."""
    ratios = ", ".join(f"{other['median']:.2f}x" for other in case["times_faster"].values())
    return f"{case['p50_ms']:.3g}{f' ({ratios})' if ratios else ''}"


def _about_times(timing: AuditTiming, case: SpeedCase | None) -> str:
    """Return what the columns with times say."""
    if case is None:
        return "No file could be timed."
    dtype = timing["pytorch_dtype"]
    others = [f"the original in PyTorch{'' if dtype == 'float32' else f' ({dtype})'}"] if dtype else []
    others += [f"`{timing['fp32']}`"] if timing["fp32"] else []
    than = f"; in parentheses, how many times faster than {' and than '.join(others)}" if others else ""
    threads = format_threads(case["intra_op_threads"])
    return (
        f"Times are the median of a call of the graph alone, in turns with what it is compared with, with {threads} on "
        f"{timing['cpu']['model']}{than}. A shape is inputs x tokens."
    )


def _headline(metrics: dict[str, float | None] | None) -> str:
    name = next((name for name in HEADLINES if name in metrics), None) if metrics else None
    return f"{name} {format_figure(metrics[name])}" if metrics and name else ""
