"""What the README quotes is what was measured."""

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_comparison_is_the_one_that_bench_accuracy_wrote():
    table = [line for line in (ROOT / "docs/accuracy.md").read_text().splitlines() if line.startswith("|")]
    assert len(table) > 6
    assert "\n".join(table) in (ROOT / "README.md").read_text()
