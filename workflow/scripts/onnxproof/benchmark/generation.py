"""Timing how a model writes: the first token after a prompt, and the tokens after it, in turns with fp32."""

import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from onnxproof.benchmark.runtimes import BYTES_PER_MB
from onnxproof.benchmark.timing import (
    Contender,
    Effort,
    ModelSizes,
    Rounds,
    Worker,
    compare,
    start_workers,
    summarize,
    time_in_turns,
)
from onnxproof.formatting import format_shape
from onnxproof.hardware import free_memory_mb
from onnxproof.records.benchmark import LeftOut, TimedStep, Writing
from onnxproof.vocabulary import Step

#: Bytes of a logit.
LOGIT_BYTES = 4
#: How often a cache is in memory at once: the one that a step takes, and the one that it gives.
CACHES_HELD = 2
#: How often logits are: onnxruntime's, and the copy that NumPy reads.
LOGITS_HELD = 2


@dataclass(frozen=True)
class WritingCase:
    """A step after ``context`` tokens in each of ``batch`` texts, see ``records.benchmark.StepShape``."""

    step: Step
    batch: int
    context: int

    def __str__(self) -> str:
        """Return the step and batch x tokens: ``next token after 8x128``."""
        return f"{self.step.replace('_', ' ')} after {format_shape(self.batch, self.context)}"

    def tokens_in_step(self) -> int:
        """Return how many tokens a step takes: the prompt's, or one of each text."""
        return self.context if self.step == "first_token" else self.batch


@dataclass(frozen=True)
class WritingPlan:
    """What is asked of a writer, see the schema's ``benchmark.generation``; ``new_tokens`` steps a turn."""

    prompt_lengths: list[int]
    context_lengths: list[int]
    batch_sizes: list[int]
    new_tokens: int

    def cases(self) -> list[WritingCase]:
        """Return each prompt alone and each batch size after each context, from small to large, as memory counts."""
        first = [WritingCase("first_token", 1, length) for length in self.prompt_lengths]
        following = [
            WritingCase("next_token", batch, length) for batch in self.batch_sizes for length in self.context_lengths
        ]
        return sorted(first + following, key=lambda case: (case.batch, case.context, case.step))


@dataclass(frozen=True)
class Limits:
    """What a machine and a model allow: tokens of a text, None if open, and the memory that cases may add.

    ``token_bytes`` is what a token of a text takes in a cache, ``logit_bytes`` what its logits take, of all processes.
    """

    most_tokens: int | None
    free_mb: float
    token_bytes: int
    logit_bytes: int

    def refuses(self, case: WritingCase, new_tokens: int) -> str | None:
        """Return why a case cannot be timed; None if it can."""
        made = 1 if case.step == "first_token" else new_tokens
        if self.most_tokens is not None and case.context + made > self.most_tokens:
            return f"{case.context} tokens and {made} new are more than the {self.most_tokens} that the model takes"
        cache = CACHES_HELD * case.batch * (case.context + made) * self.token_bytes
        needed_mb = (cache + LOGITS_HELD * case.context * self.logit_bytes) / BYTES_PER_MB
        if needed_mb > self.free_mb:
            return f"caches and logits take about {needed_mb:.0f} MB, and {self.free_mb:.0f} MB were free"
        return None


@dataclass(frozen=True)
class WritingResult:
    """One case at one thread count: the record of the contender and, where there is one, of the baseline."""

    contender: TimedStep
    baseline: TimedStep | None


def case_record(case: WritingCase, threads: int, rounds: Rounds, peak_rss_mb: float) -> TimedStep:
    """Return a case's shape, thread count, figures and raw samples."""
    figures = summarize(case.tokens_in_step(), rounds)
    return {
        "step": case.step,
        "batch": case.batch,
        "context": case.context,
        "intra_op_threads": threads,
        "p50_ms": figures["p50_ms"],
        "p90_ms": figures["p90_ms"],
        "p99_ms": figures["p99_ms"],
        "tokens_per_s": figures["items_per_s"],
        "iterations": figures["iterations"],
        "peak_rss_mb": peak_rss_mb,
        "samples_ms": rounds,
    }


def measure_case(
    workers: list[Worker], case: WritingCase, threads: int, sizes: ModelSizes, effort: Effort
) -> WritingResult:
    """Time one case; the first worker is the contender, the last, if another, the fp32 baseline."""
    for worker in workers:
        worker.ask("prepare_step", **asdict(case), vocab_size=sizes.vocab_size, seed=effort.seed)
    samples = time_in_turns(workers, effort)
    records = [
        case_record(case, threads, rounds, worker.ask("memory")["peak_rss_mb"])
        for worker, rounds in zip(workers, samples, strict=True)
    ]
    if len(records) == 1:
        return WritingResult(records[0], None)
    return WritingResult({**records[0], **compare(samples[0], samples[1])}, records[1])


def limits_of(workers: list[Worker], sizes: ModelSizes) -> Limits:
    """Return what the machine and the model allow once all workers have loaded."""
    token_bytes = max(worker.loaded["cache_bytes"] for worker in workers)  # PyTorch's cache is as large as the graph's
    logit_bytes = sizes.vocab_size * LOGIT_BYTES
    return Limits(sizes.max_tokens, free_memory_mb(), len(workers) * token_bytes, len(workers) * logit_bytes)


def measure(
    contenders: list[Contender],
    thread_counts: list[int],
    plan: WritingPlan,
    sizes: ModelSizes,
    effort: Effort,
    report: Callable[[WritingCase, WritingResult], None],
) -> Writing:
    """Time how a model writes, one fresh worker a contender and thread count; ``report`` hears of each result.

    All contenders must be writers. What is left out is decided once, so that every thread count has the same cases.

    Raises:
        UserError: a worker failed.
    """
    left_out: dict[WritingCase, str] | None = None
    results: list[WritingResult] = []
    for threads in thread_counts:
        with contextlib.ExitStack() as stack:
            workers = [stack.enter_context(worker) for worker in start_workers(contenders, threads, stack)]
            if left_out is None:
                limits = limits_of(workers, sizes)
                refused = {case: limits.refuses(case, plan.new_tokens) for case in plan.cases()}
                left_out = {case: reason for case, reason in refused.items() if reason is not None}
            for case in (case for case in plan.cases() if case not in left_out):
                steps = 1 if case.step == "first_token" else plan.new_tokens
                results.append(measure_case(workers, case, threads, sizes, replace(effort, warmup=0, iterations=steps)))
                report(case, results[-1])
    baseline = [result.baseline for result in results if result.baseline is not None]
    return {
        "new_tokens": plan.new_tokens,
        "cases": [result.contender for result in results],
        "left_out": [left_out_record(case, reason) for case, reason in (left_out or {}).items()],
        "baseline": {"variant": contenders[-1].variant, "cases": baseline} if len(contenders) > 1 else None,
    }


def left_out_record(case: WritingCase, reason: str) -> LeftOut:
    """Return the record of a case that was not timed."""
    return {"step": case.step, "batch": case.batch, "context": case.context, "reason": reason}
