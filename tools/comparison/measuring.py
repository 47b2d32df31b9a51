"""One run over all contenders of one model: quality first, then speed in turns, each contender in its own process."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from comparison.contenders import Entry
from comparison.intervals import speedup_interval
from comparison.limit import PEAK_SHAPE, peak_operations
from onnxproof.benchmark.timing import (
    Case,
    Effort,
    ModelSizes,
    Rounds,
    Worker,
    model_files,
    prepare_case,
    size_mb,
    time_in_turns,
)
from onnxproof.cli import UserError
from onnxproof.parity.metrics import cosine_similarity, finite

TRAFFIC = "traffic"
#: Who needs so many times the baseline's time is timed once: rounds of it would keep all others waiting.
HOPELESS = 4.0
REFERENCE = "PyTorch eager"


@dataclass(frozen=True)
class Traffic:
    """Texts as they arrive: their tokenizer's file, how many share a batch, and where they are cut, in tokens."""

    texts: Sequence[str]
    tokenizer: str
    batch_size: int
    most_tokens: int


class Field:
    """The contenders of one run that are still in it, and what is known of each, by name."""

    def __init__(self, entries: Sequence[Entry], threads: int, stack: contextlib.ExitStack) -> None:
        """Start and load every contender; who cannot be loaded is recorded with the reason and left out.

        Raises:
            UserError: the first entry, with which all are compared, cannot be loaded.
        """
        self.entries = {entry.name: entry for entry in entries}
        self.baseline = entries[0].name
        self.workers: dict[str, Worker] = {}
        self.records: dict[str, dict[str, Any]] = {}
        for entry in entries:
            record: dict[str, Any] = {
                "ours": entry.ours,
                "arithmetic": entry.arithmetic,
                "other_settings_of": entry.other_settings_of,
                "cases": {},
            }
            self.records[entry.name] = record | {"size_mb": size_mb(model_files(entry.contender))}
            with self.excused(entry.name):
                worker = stack.enter_context(Worker(entry.contender, threads))
                self.workers[entry.name] = worker
                self.records[entry.name]["load_ms"] = worker.loaded["load_ms"]
            print(f"loaded {entry.name}", flush=True)

    @contextlib.contextmanager
    def excused(self, name: str) -> Any:
        """Record a contender's failure and go on without it; the baseline's ends the run."""
        try:
            yield
        except UserError as error:
            if name == self.baseline:
                raise
            self.records[name]["failed"] = str(error).splitlines()[0]
            self.workers.pop(name, None)
            print(f"without {name}: {error}", flush=True)

    def ask(self, command: str, **arguments: Any) -> dict[str, dict[str, Any]]:
        """Ask every contender that is still in, one after another; return the answers of those that gave one."""
        answers = {}
        for name, worker in list(self.workers.items()):
            with self.excused(name):
                answers[name] = worker.ask(command, **arguments)
        return answers

    def input_types(self, name: str) -> dict[str, str]:
        """Return the types of a contender's inputs; PyTorch takes what the baseline takes."""
        types: dict[str, str] = (
            self.workers[name].loaded["input_types"] or self.workers[self.baseline].loaded["input_types"]
        )
        return types

    def prepare(self, case: Case | Traffic, sizes: ModelSizes, seed: int) -> None:
        """Have every contender make the inputs of a case."""
        if isinstance(case, Case):
            prepare_case(list(self.workers.values()), case, sizes, seed)
            return
        for name, worker in self.workers.items():
            worker.ask(
                "prepare_texts",
                texts=list(case.texts),
                tokenizer=case.tokenizer,
                batch_size=case.batch_size,
                most_tokens=case.most_tokens,
                input_types=self.input_types(name),
            )


def start_peaks(entries: Sequence[Entry], threads: int, stack: contextlib.ExitStack) -> dict[str, Worker]:
    """Return prepared workers of the peak products, by arithmetic."""
    rows, inner, _ = PEAK_SHAPE
    workers = {}
    for entry in entries:
        worker = workers[entry.arithmetic] = stack.enter_context(Worker(entry.contender, threads))
        prepare_case([worker], Case(rows, None), ModelSizes(1, None, {"input_values": (inner,)}), 0)
    return workers


def measure_quality(field: Field, inputs: Case | Traffic, sizes: ModelSizes, output: str, seed: int) -> None:
    """Record every contender's cosine similarity to PyTorch, lowest and mean over the items of ``inputs``."""
    compiled = {name: worker for name, worker in field.workers.items() if worker.contender.options.get("compiled")}
    for name in compiled:  # the same mathematics as eager, and a compilation for every length
        del field.workers[name]
    field.prepare(inputs, sizes, seed)
    rows = {name: np.array(answer["rows"]) for name, answer in field.ask("answer", output=output).items()}
    field.workers |= compiled
    for name, values in rows.items():
        cosines = cosine_similarity(rows[REFERENCE], values)
        field.records[name]["quality"] = {
            "cosine_min": finite(float(cosines.min())),
            "cosine_mean": finite(float(cosines.mean())),
        }


def measure_speed(
    field: Field,
    peaks: Mapping[str, Worker],
    label: str,
    case: Case | Traffic,
    sizes: ModelSizes,
    effort: Effort,
    operations: int | None,
) -> dict[str, float]:
    """Time one case of all contenders and the peaks in turns, and record it; return the peaks in 1e9 operations/s.

    ``operations`` are those of the plain graph's matrix products in this case; None leaves out the share of the limit.
    """
    field.prepare(case, sizes, effort.seed)
    first = {name: [answer["samples_ms"]] for name, answer in field.ask("run", iterations=1).items()}
    limit = HOPELESS * _typical(first[field.baseline])
    racing = {name: worker for name, worker in field.workers.items() if _typical(first[name]) <= limit}
    timed = time_in_turns([*racing.values(), *peaks.values()], effort)
    samples: dict[str, Rounds] = dict(zip([*racing, *peaks], timed, strict=True))
    for name in field.workers.keys() - racing.keys():
        samples[name] = first[name]
    names = list(field.workers)
    rates = {kind: peak_operations() / 1e6 / _typical(samples[kind]) for kind in peaks}
    items = case.batch if isinstance(case, Case) else len(case.texts)
    for name in names:
        against = samples if name in racing else first
        speedup, low, high = speedup_interval(samples[name], against[field.baseline])
        p50 = _typical(samples[name])
        record = {"p50_ms": p50, "items_per_s": 1000 * items / p50, "speedup": speedup, "interval": [low, high]}
        if operations is not None:
            rate = operations / 1e6 / p50
            record |= {"giga_operations_per_s": rate, "share_of_peak": rate / rates[field.records[name]["arithmetic"]]}
        field.records[name]["cases"][label] = record | {"samples_ms": samples[name]}
    print(f"timed {label}: " + ", ".join(f"{name} {_typical(samples[name]):.1f} ms" for name in names), flush=True)
    return rates


def _typical(rounds: Rounds) -> float:
    return median(sample for samples in rounds for sample in samples)
