"""A project whose chain is run once for all tests that look at its results."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from project import Project, make_project
from tiny_models import save_classifier, save_sentence_transformer


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
