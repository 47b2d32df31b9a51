"""Placeholder until merge."""

from pathlib import Path

from onnxproof.cli import UserError


def export_with_optimum(model: str, snapshot: Path, task: str, folder: Path) -> dict[str, str]:
    """Placeholder."""
    raise UserError("not here")
