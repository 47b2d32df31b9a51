"""Files that are either whole or absent, and the manifests that describe them."""

import base64
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

from onnxproof.cli import UserError

CHUNK_BYTES = 1 << 20


class FileEntry(TypedDict):
    """What a file was when it was described."""

    size: int
    """In bytes."""
    sha256: str
    """In hex."""


#: The files of a folder by their paths in it, sorted.
Files: TypeAlias = dict[str, FileEntry]

#: What Snakemake leaves in a folder that it made: part of no model.
SNAKEMAKE_MARK = ".snakemake_timestamp"


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a file, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def integrity_of(text: str) -> str:
    """Return the sha256 of a text as a Content-Security-Policy has it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def describe_files(folder: Path) -> Files:
    """Return the size and sha256 of every file below ``folder`` by its path in it, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SNAKEMAKE_MARK)
    return {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256_of(path)} for path in files
    }


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing, cannot be read or holds no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except RecursionError:
        raise UserError(f"{path}: not a JSON file: nested too deeply") from None
    except ValueError as error:  # broken syntax, bytes that are no UTF-8, a number of thousands of digits
        raise UserError(f"{path}: not a JSON file: {error}") from None


def read_manifest(path: Path, *keys: str) -> Any:
    """Read the manifest that a job wrote, and check that it describes what the caller needs.

    The functions of ``onnxproof.records`` that read one kind of manifest return it with its type.

    Args:
        path: the JSON file.
        keys: what must be in it. Under ``files``, each entry must have a size in bytes and a sha256.

    Raises:
        UserError: the file is missing or is no such manifest.
    """
    manifest = read_json(path)
    advice = "delete it and run again, and its job will write it anew"
    if not isinstance(manifest, dict):
        raise UserError(f"{path}: no manifest: a JSON object was expected; {advice}")
    missing = [key for key in keys if key not in manifest]
    if missing:
        raise UserError(f"{path}: no whole manifest: it lacks {', '.join(missing)}; {advice}")
    files = manifest.get("files", {})
    if not isinstance(files, dict) or not all(map(_describes_file, files.values())):
        raise UserError(f"{path}: no manifest: 'files' must give each file's size and sha256; {advice}")
    return manifest


def _describes_file(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("size"), int) and isinstance(entry.get("sha256"), str)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step, see ``write_bytes``."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step: readers see the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{path.name}.partial"
    with _own(partial, partial.touch) as handle:
        try:
            os.ftruncate(handle, 0)
            with open(handle, "wb", closefd=False) as stream:
                stream.write(content)
            os.fsync(handle)
            os.chmod(partial, 0o644)
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one step, keys in the order given. NaN and infinity are refused: JSON has none."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``target`` when the block ends well and vanishes when it fails.

    Killed in between, it stays beside ``target`` under a hidden name, and the next call for ``target`` clears it.
    A process that still writes there, left over from a run that was killed, is waited for.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = target.parent / f".{target.name}.partial"
    with _own(stage, lambda: stage.mkdir(exist_ok=True)):
        try:
            for left_over in stage.iterdir():
                shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
            yield stage
            os.chmod(stage, 0o755)
            os.utime(stage)  # a folder copied with its times must not look older than what it was made from
            for path in stage.rglob("*"):
                os.chmod(path, 0o755 if path.is_dir() else 0o644)
                if path.is_file():
                    _write_to_disk(path)
            if target.exists():
                shutil.rmtree(target)
            os.replace(stage, target)
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise


@contextmanager
def _own(path: Path, make: Callable[[], object]) -> Iterator[int]:
    """Yield an open handle of a file or folder that no other process has in this block; wait while another has it.

    ``make`` creates it where it is absent. What a killed process left in it is still there.
    """
    import fcntl

    while True:
        make()
        try:
            handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"{path}: another process is writing here; waiting for it", flush=True)
                fcntl.flock(handle, fcntl.LOCK_EX)
            # While this process waited, the other one may have given it its final name, or removed it.
            if not _is_open_as(path, handle):
                continue
            yield handle
            return
        finally:
            os.close(handle)


def _is_open_as(path: Path, handle: int) -> bool:
    """Tell whether a path still names the file that a handle is open for."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _write_to_disk(path: Path) -> None:
    """Have the system write a file out, so that a power cut cannot leave a part of it under its final name."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def versions_of(*distributions: str) -> dict[str, str]:
    """Return Python's version and those of the named distributions, as installed in this process."""
    from importlib.metadata import version  # a fifth of what the start of a small job takes

    return {"python": platform.python_version()} | {name: version(name) for name in sorted(distributions)}
