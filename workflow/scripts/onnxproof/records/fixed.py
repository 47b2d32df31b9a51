"""``fixed/{variant}/{shape}.json``: the form of a variant whose shapes are fixed."""

from pathlib import Path

from onnxproof.files import Files, read_manifest
from onnxproof.records.common import Versions
from onnxproof.records.parity import Judged


class FixedRecord(Judged):
    """The form of a variant whose shapes are fixed, and how far its answers are from PyTorch's.

    ``batch_invariance`` says what padding changes: the answers are compared with those of the variant itself to inputs
    that are not padded.
    """

    shape: list[int]
    """The length of each axis that is free in the variant: of texts, the batch size and the tokens."""
    fitting: int
    """How many of the evaluation inputs are no longer than that. The others were not asked."""
    files: Files
    """The graph, and its weights if they are in a file beside it."""
    versions: Versions
    """Of the libraries that took part."""


def read_fixed(path: Path) -> FixedRecord:
    """Read a ``fixed/{variant}/{shape}.json``.

    Raises:
        UserError: see ``read_manifest``.
    """
    record: FixedRecord = read_manifest(path)
    return record
