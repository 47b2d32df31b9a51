"""``source.json``: where a model came from."""

from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from onnxproof.files import Files, read_manifest
from onnxproof.records.common import Versions


class Place(TypedDict):
    """Where a model was taken from; which keys there are follows from ``kind``."""

    kind: Literal["hub", "path", "package"]
    """A repository of the Hugging Face Hub, a local folder, or an installed distribution."""
    repo: NotRequired[str]
    """Of a ``hub``: owner/name."""
    path: NotRequired[str]
    """Of a ``path``: the folder, as it was configured."""
    package: NotRequired[str]
    """Of a ``package``: the distribution's name."""
    package_version: NotRequired[str]
    """Of a ``package``: its version."""
    package_path: NotRequired[str]
    """Of a ``package``: the model's folder in it."""
    requested_revision: str | None
    """Of a ``hub``: the revision that was configured, None for the default branch. None for other kinds."""
    revision: str | None
    """Of a ``hub``: the commit, 40 hex digits. None for other kinds."""


class Brought(TypedDict):
    """What a model was allowed to bring that is refused otherwise."""

    replaced_pickles: NotRequired[Files]
    """The pickled weights that were turned into safetensors, as they were."""
    allow_remote_code: NotRequired[bool]
    """True where the repository's own code was taken too."""


class Origin(Place, Brought):
    """Where a model came from, and what it was allowed to bring."""

    total_bytes: int
    """What its files have together."""


class SourceRecord(Origin):
    """The snapshot of one model, ``results/{model}/source/``."""

    model: str
    """Its name in config.yaml."""
    files: Files
    """Those of the snapshot."""
    versions: Versions
    """Of the libraries that took part."""


def read_source(path: Path) -> SourceRecord:
    """Read a ``source.json``.

    Raises:
        UserError: see ``read_manifest``.
    """
    source: SourceRecord = read_manifest(path)
    return source
