"""One recipe that was tried, as the search records it and the gate tells of it; cheap to import."""

from dataclasses import dataclass
from typing import Any

Step = dict[str, Any]


@dataclass(frozen=True)
class Rung:
    """One recipe tried: its measured metrics, its size and speed against the float model, and the verdict.

    Where the answers to inputs alone miss a target, those in batches are not measured, nor is ``speedup``.

    ``missed`` names the metrics beyond their targets; none missed means the recipe is good enough. ``distance`` says
    how far the worst of them is: 1 is at its target, 0 is the float model's own answer, None is not finite.
    """

    recipe: list[Step]
    metrics: dict[str, float | None]
    size_ratio: float
    speedup: float | None
    missed: list[str]
    distance: float | None

    def describe(self) -> str:
        """Return one line for a log."""
        passes = " + ".join(step["pass"] for step in self.recipe)
        kept = sum(len(step.get("exclude", ())) for step in self.recipe)
        measured = ", ".join(
            f"{name} {value:.5f}" if value is not None else f"{name} not finite" for name, value in self.metrics.items()
        )
        verdict = f"misses {', '.join(self.missed)}" if self.missed else "reaches every target"
        float_nodes = f" ({kept} nodes in float)" if kept else ""
        speed = f", {self.speedup:.2f}x speed" if self.speedup is not None else ""
        return f"{passes}{float_nodes}: {measured}; {self.size_ratio:.2f}x size{speed}: {verdict}"
