"""The answers that were measured with the execution providers that files are timed with beside the CPU's."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from onnxproof.parity.gate import Verdict, judge
from onnxproof.records.benchmark import BenchmarkRecord
from onnxproof.records.parity import ParityRecord, read_parity


class ProviderAnswers(NamedTuple):
    """How far a variant's answers with one provider are from PyTorch's, and what its limits say to that."""

    parity: ParityRecord
    verdicts: tuple[Verdict, ...]

    @property
    def missed(self) -> list[str]:
        """The metrics that are beyond the variant's limits."""
        return [verdict.metric for verdict in self.verdicts if not verdict.passed]


def read_provider_answers(
    folder: Path, benchmarks: Mapping[str, BenchmarkRecord], thresholds: Mapping[str, Mapping[str, float | None]]
) -> dict[tuple[str, str], ProviderAnswers]:
    """Return the answers of each variant with each provider that it was timed with, by both names.

    Those on the CPU are left out: the gate judges them.

    Args:
        folder: the model's results.
        benchmarks: the content of ``benchmark/{variant}.json`` by variant.
        thresholds: the limits of each variant.

    Raises:
        UserError: see ``judge``.
    """
    found = {}
    for variant, record in benchmarks.items():
        for timed in record.get("other_providers", []):
            parity = read_parity(folder / "parity" / timed["provider"] / f"{variant}.json")
            verdicts = tuple(judge(parity, thresholds.get(variant, {})))
            found[variant, timed["provider"]] = ProviderAnswers(parity, verdicts)
    return found
