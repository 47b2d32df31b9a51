"""The verdict on a variant from what was measured on labelled data."""

from dataclasses import dataclass

from onnxproof.evaluation.paired import Comparison, Decision, judge
from onnxproof.records.evaluation import EvaluationRecord

#: How much worse a variant may be where the configuration does not say: of a share that is right, one point of a
#: hundred; of metrics that are given in points, one; of errors, a part of the original's.
SHARE, POINT, PART = 0.01, 1.0, 0.02
#: Metrics from 0 to 100.
IN_POINTS = frozenset({"bleu", "chrf"})


@dataclass(frozen=True)
class Verdict:
    """What was decided, by which limit."""

    record: EvaluationRecord
    decision: Decision
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the variant is proven to be as good as the original, but for the limit."""
        return self.decision.passed

    def __str__(self) -> str:
        """Return the measurement and the decision in one line."""
        record, decision = self.record, self.decision
        low, high = record["interval"]
        kept = record["data"].get("kept_aside")
        aside = f", without {kept['inputs']} that the search for a recipe had" if kept else ""
        return (
            f"{record['metric']} {record['value']:.4g} against {record['original']:.4g}, difference "
            f"{record['difference']:+.3g} with a 95 % interval from {low:+.3g} to {high:+.3g} over "
            f"{record['data']['inputs']} inputs{aside}: it {decision.reason}"
        )


def default_limit(metric: str, original: float, higher_is_better: bool) -> float:
    """Return how much worse a variant may be where the configuration does not say.

    Args:
        metric: its name.
        original: the metric of the original's answers.
        higher_is_better: whether the metric is a share of what is right, and no error.
    """
    if metric in IN_POINTS:
        return POINT
    return SHARE if higher_is_better else PART * abs(original)


def judge_record(record: EvaluationRecord, not_worse_by: float | None) -> Verdict:
    """Return the verdict on what was measured; None for the metric's own limit."""
    better = record["higher_is_better"]
    limit = default_limit(record["metric"], record["original"], better) if not_worse_by is None else not_worse_by
    low, high = record["interval"]
    compared = Comparison(
        metric=record["metric"],
        inputs=record["data"]["inputs"],
        original=record["original"],
        variant=record["value"],
        difference=record["difference"],
        low=low,
        high=high,
        method=record["method"],
        changed=record["changed"],
        affected=record["affected"],
        gained=record["gained"],
        lost=record["lost"],
    )
    return Verdict(record, judge(compared, limit, better), limit)
