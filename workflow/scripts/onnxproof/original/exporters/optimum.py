"""The second exporter: Optimum's, in an environment of its own with transformers 4.57.

This process has transformers 5 and never imports Optimum. It says how transformers 5 reads the model, and runs
``export_with_optimum.py`` with the other environment's interpreter: without the network, and without the caller's
environment variables.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from onnxproof.checkpoint.inference import read_transformer_config, transformer_folder
from onnxproof.checkpoint.snapshot import remote_code_allowed
from onnxproof.cli import UserError
from onnxproof.files import read_json, write_json
from onnxproof.original.lean_imports import import_transformers
from onnxproof.original.loading import one_line
from onnxproof.places import PROJECT
from onnxproof.records.checkpoint import ModelConfig

#: Names another environment's interpreter, where the pipeline is not to make its own.
INTERPRETER_VARIABLE = "ONNXPROOF_OPTIMUM_PYTHON"

_SCRIPT = PROJECT / "workflow/scripts/export_with_optimum.py"
_ENVIRONMENT = PROJECT / ".venv-optimum"
_INTERPRETER = _ENVIRONMENT / "bin/python"
#: What `make setup-optimum` writes last.
_COMPLETE = _ENVIRONMENT / "done"

#: Environment variables that the exporter keeps: where programs, temporary files and libraries are, and its threads.
KEPT_VARIABLES = (
    *("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "OMP_NUM_THREADS"),
    "FORCE_ONNX_EXTERNAL_DATA",  # of Optimum: weights in files of their own even where they are small
)
#: Python's hash seed decides the order of a merged decoder's nodes.
SET_VARIABLES = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONHASHSEED": "0", "PYTHONNOUSERSITE": "1"}

ERROR = "error: "


def export_with_optimum(model: str, snapshot: Path, task: str, folder: Path) -> dict[str, str]:
    """Export a snapshot with Optimum into an empty folder.

    Written are the graphs as Optimum names them, float32, with the output ``token_embeddings`` renamed to
    ``last_hidden_state``; weights in files of their own where they are large; and Optimum's copies of the
    configuration and the tokenizer.

    Args:
        model: the model's name, for messages.
        snapshot: the downloaded model.
        task: one of ``tasks.registry.TASKS``.
        folder: an empty folder.

    Returns:
        The versions of Python, optimum, optimum-onnx, transformers, torch, onnx and sentence-transformers used.

    Raises:
        UserError: the model has code of its own; transformers 4.57 cannot read it as transformers 5 does; Optimum
            cannot export it; or there is no environment with Optimum and none can be made.
    """
    if remote_code_allowed(snapshot):
        raise UserError(
            f"{model}: it has code of its own, which never runs beside the older transformers that Optimum's exporter "
            "needs: use transformers' own exporter"
        )
    interpreter = find_interpreter(model)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".optimum.") as scratch:
        newer, versions = Path(scratch) / "newer.json", Path(scratch) / "versions.json"
        write_json(newer, read_with_transformers(model, snapshot))
        command = [str(interpreter), str(_SCRIPT), "--model", model, "--source", str(snapshot.resolve())]
        command += ["--task", task, "--newer", str(newer.resolve()), "--output-dir", str(folder.resolve())]
        status, last = run_printing([*command, "--versions", str(versions.resolve())], exporter_environment())
        if status:
            raise UserError(explain_failure(model, status, last))
        used: dict[str, str] = read_json(versions)
    return used


def read_with_transformers(model: str, snapshot: Path) -> dict[str, ModelConfig]:
    """Return how transformers 5 reads a snapshot's configuration, and the defaults of its model type.

    Returns:
        ``{"resolved": configuration, "defaults": configuration}``, in types that JSON has.

    Raises:
        UserError: transformers 5 cannot read it.
    """
    import_transformers()
    from transformers import AutoConfig

    read_transformer_config(snapshot)
    place = transformer_folder(snapshot)
    with one_line(model, "transformers cannot read its config.json"):
        config = AutoConfig.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    return {"resolved": _as_json(config.to_dict()), "defaults": _as_json(_defaults_of(config))}


def _defaults_of(config: Any) -> ModelConfig:
    """Return what a configuration of the same class says of which nothing is said, and so inside it."""
    from transformers import PreTrainedConfig

    try:
        defaults: ModelConfig = type(config)().to_dict()
    except (ValueError, TypeError, AssertionError, KeyError, AttributeError):  # made of two, and of nothing else
        defaults = {}
    inside = {name: value for name, value in vars(config).items() if isinstance(value, PreTrainedConfig)}
    return defaults | {name: _defaults_of(value) for name, value in inside.items()}


def _as_json(config: ModelConfig) -> ModelConfig:
    """Return a configuration with what JSON has no type for as text, such as torch's dtypes."""
    values: ModelConfig = json.loads(json.dumps(config, default=str))
    return values


def find_interpreter(model: str) -> Path:
    """Return the Python of the environment with Optimum; make the environment where it is missing.

    Raises:
        UserError: it is missing and cannot be made.
    """
    named = os.environ.get(INTERPRETER_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise UserError(f"{model}: {INTERPRETER_VARIABLE} names {named}, which is no file")
        return Path(named)
    if not _COMPLETE.is_file():
        _make_environment(model)
    return _INTERPRETER


def _make_environment(model: str) -> None:
    """Make the environment as `make setup-optimum` does; jobs that come meanwhile wait."""
    import fcntl

    advice = f"{model}: Optimum's exporter needs an environment of its own: run 'make setup-optimum'"
    if not (PROJECT / "Makefile").is_file():
        raise UserError(f"{advice} where the pipeline's Makefile is")
    try:
        _ENVIRONMENT.mkdir(exist_ok=True)
        with (_ENVIRONMENT / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _COMPLETE.is_file():
                return
            print(f"{model}: making .venv-optimum, the environment of Optimum's exporter", flush=True)
            command = ["make", "-C", str(PROJECT), "setup-optimum", f"PYTHON={sys.executable}"]
            status, _ = run_printing(command, dict(os.environ))
    except OSError as error:
        raise UserError(f"{advice} (it could not be made now: {error.strerror})") from error
    if status or not _COMPLETE.is_file():
        raise UserError(f"{advice} (it could not be made now; the reason is in this job's log)")


def exporter_environment() -> dict[str, str]:
    """Return the environment variables of the exporter's process."""
    return {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ} | SET_VARIABLES


def run_printing(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a command, print what it prints as it comes, and return its status and its last line that is not empty."""
    last = ""
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(ERROR):  # told once, by this process
                last = line.strip()
                continue
            print(line, end="", flush=True)
            last = line.strip() or last
    return process.returncode, last


def explain_failure(model: str, status: int, last: str) -> str:
    """Return one line for an export that failed: the exporter's own error, or the last line of its traceback."""
    if last.startswith(ERROR):
        return last.removeprefix(ERROR)
    if status < 0:
        return f"{model}: Optimum's exporter was ended by signal {-status}: the memory may not have sufficed"
    return f"{model}: Optimum's exporter cannot export it: {last[:300]} (the traceback is in this job's log)"
