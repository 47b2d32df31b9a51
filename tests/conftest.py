"""A project whose chain is run once for all tests that look at its results."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from onnxproof.cli import UserError
from onnxproof.original.exporters.optimum import find_interpreter
from project import ROOT, Project, make_project
from tiny_models import save_classifier, save_sentence_transformer

TRANSFORMERS_JS = "@huggingface/transformers@4.3.1"
FASTEMBED = "fastembed==0.9.1"
GENAI = "onnxruntime-genai==0.18.0"
OPENVINO = "openvino==2026.4.1"


def made_once(tmp_path_factory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that all workers of a parallel run share; the first to want it makes what is in it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, complete = shared / name, shared / f"{name}.complete"
    with FileLock(shared / f"{name}.lock"):
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of an attempt that failed
            folder.mkdir()
            make(folder)
            complete.touch()
    return folder


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory) -> Path:
    """A folder with a tiny classifier and a tiny sentence-transformer."""

    def make(folder: Path) -> None:
        save_classifier(folder / "stars")
        save_sentence_transformer(folder / "sentences")

    return made_once(tmp_path_factory, "models", make)


@pytest.fixture
def project_factory():
    """The function that makes a project in a folder, for tests with models of their own."""
    return make_project


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_models) -> Project:
    """A project whose chain has been run to the end. Tests leave it as they found it."""

    def make(folder: Path) -> None:
        project = make_project(folder)
        shutil.copytree(tiny_models, folder / "models")
        run = project.snakemake()
        assert run.returncode == 0, run.stdout

    return Project(made_once(tmp_path_factory, "project", make))


@pytest.fixture
def copy_of_finished(finished, tmp_path) -> Project:
    """A copy of the finished project, with its times, that a test may change."""
    folder = tmp_path / "project"
    shutil.copytree(finished.folder, folder)
    return Project(folder)


@pytest.fixture(scope="session")
def optimum_python() -> Path:
    """The Python of the environment with optimum-onnx, which is made where it is missing."""
    try:
        return find_interpreter("the tests")
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory) -> Path:
    """Where transformers.js is installed."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("needs node and npm")

    def make(folder: Path) -> None:
        (folder / "package.json").write_text("{}")
        # Without its scripts: onnxruntime-node would fetch GPU libraries; the one for CPUs is in the package.
        install(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", TRANSFORMERS_JS], folder)

    return made_once(tmp_path_factory, "node", make) / "node_modules"


@pytest.fixture(scope="session")
def fastembed(tmp_path_factory) -> Path:
    """The Python of an environment with fastembed."""
    return python_with(FASTEMBED, tmp_path_factory)


@pytest.fixture(scope="session")
def genai_python(tmp_path_factory) -> Path:
    """The Python of an environment with onnxruntime-genai."""
    return python_with(GENAI, tmp_path_factory)


@pytest.fixture(scope="session")
def openvino_python(tmp_path_factory) -> Path:
    """The Python of an environment with OpenVINO."""
    return python_with(OPENVINO, tmp_path_factory)


@pytest.fixture(scope="session")
def llama_python() -> Path:
    """The Python of the environment with llama.cpp, which takes half an hour to build."""
    python = ROOT / ".venv-llama-cpp/bin/python"
    if not python.is_file():
        pytest.skip("`make .venv-llama-cpp/done` builds llama.cpp, which this test needs")
    return python


def python_with(requirement: str, tmp_path_factory) -> Path:
    """Return the Python of an environment with one package; skip the test where it can't be installed."""

    def make(folder: Path) -> None:
        install([sys.executable, "-m", "venv", "environment"], folder)
        install([str(folder / "environment/bin/pip"), "install", "--quiet", requirement], folder)

    return made_once(tmp_path_factory, requirement.split("=")[0], make) / "environment/bin/python"


def install(command: list[str], folder: Path) -> None:
    """Run a package manager in a folder; skip the test where it cannot get what it is asked for."""
    try:
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=150, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{command[0]} did not answer within 150 s")
    if run.returncode:
        pytest.skip(f"{' '.join(command)} failed: {run.stderr.strip()[-200:]}")
