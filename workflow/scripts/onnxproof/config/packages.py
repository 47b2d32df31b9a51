"""Where installed packages lie that carry a model."""

import functools
import importlib.metadata
from pathlib import Path


@functools.cache
def distribution_folders(package: str) -> tuple[Path, frozenset[str]]:
    """Return where a distribution is installed and its folders; none where it keeps no list of its files.

    Raises:
        PackageNotFoundError, ValueError: no distribution of this name is installed, or none can have it.
    """
    distribution = importlib.metadata.distribution(package)
    parents = (str(parent) for file in distribution.files or () for parent in file.parents)
    return Path(str(distribution.locate_file(""))), frozenset(parents) - {"."}
