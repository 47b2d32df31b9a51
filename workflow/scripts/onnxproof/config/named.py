"""Which model one word on a command line names: a folder, an installed package, or a repository on the Hub."""

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from typing import NotRequired, TypedDict

from onnxproof.cli import UserError
from onnxproof.config.checks import HUB_PATTERN, LONGEST_NAME

WEIGHTS = ("*.safetensors", "*.bin")
ALLOWED = "a folder, the name of an installed package that holds a model, or owner/name of a repository on the Hub"
#: Follows what the Hub says of a word that may have been meant as a folder.
NO_FOLDER = "; a folder {} is not here either"


class NamedSource(TypedDict):
    """A ``source`` of the configuration, see ``workflow/schemas/config.schema.yaml``."""

    hub: NotRequired[str]
    revision: NotRequired[str]
    package: NotRequired[str]
    path: NotRequired[str]


def find_source(model: str) -> NamedSource:
    """Return the source that a word names; one on the Hub has no ``revision``. The Hub is not asked.

    A folder that exists comes first, then an installed package, then the Hub.

    Raises:
        UserError: it names nothing, or a package that does not hold exactly one model.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return {"path": str(folder.resolve())}
    is_path = folder.is_absolute() or model.startswith((".", "~")) or model.endswith("/")
    if "/" in model and not is_path and HUB_PATTERN.fullmatch(model):
        return {"hub": model}
    if not is_path and "/" not in model:
        try:
            return {"package": model, "path": model_folder_of(model, distribution(model))}
        except (PackageNotFoundError, ValueError):
            pass
    is_file = " (it is a file)" if folder.exists() else ""
    raise UserError(f"{model}: there is no such folder{is_file} and no such package; a model is {ALLOWED}")


def model_folder_of(package: str, found: Distribution) -> str:
    """Return the folder inside an installed package that holds a model: weights beside a ``config.json``.

    Raises:
        UserError: there is none, or more than one.
    """
    files = [PurePosixPath(file) for file in found.files or () if ".." not in file.parts]
    configured = {file.parent for file in files if file.name == "config.json"}
    weighed = {file.parent for file in files if any(file.match(pattern) for pattern in WEIGHTS)}
    # A module of a sentence-transformer, such as 2_Dense, has weights of its own below the model's folder.
    folders = sorted(each for each in configured & weighed if not configured & weighed & set(each.parents))
    if len(folders) != 1:
        seen = f"more than one: {', '.join(map(str, folders))}" if folders else "none"
        raise UserError(
            f"{package}: the installed package must hold one model, weights beside a config.json, and has {seen}"
        )
    return str(folders[0])


def name_of(model: str, source: NamedSource) -> str:
    """Return the name of a model in the configuration: the last part of what names it, as a folder may be called."""
    last = Path(source["path"]).name if "package" not in source and "path" in source else model.rpartition("/")[2]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", last).lstrip(".-")[:LONGEST_NAME]
    return name or "model"
