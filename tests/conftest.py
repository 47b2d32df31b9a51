"""A project whose chain is run once for all tests that look at its results."""

import shutil
from pathlib import Path

import pytest

from project import Project, make_project
from tiny_models import save_classifier, save_sentence_transformer


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory) -> Path:
    """A folder with a tiny classifier and a tiny sentence-transformer."""
    folder = tmp_path_factory.mktemp("models")
    save_classifier(folder / "stars")
    save_sentence_transformer(folder / "sentences")
    return folder


@pytest.fixture
def project_factory():
    """The function that makes a project in a folder, for tests with models of their own."""
    return make_project


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_models) -> Project:
    """A project whose chain has been run to the end. Tests leave it as they found it."""
    project = make_project(tmp_path_factory.mktemp("project"))
    shutil.copytree(tiny_models, project.folder / "models")
    run = project.snakemake()
    assert run.returncode == 0, run.stdout
    return project


@pytest.fixture
def copy_of_finished(finished, tmp_path) -> Project:
    """A copy of the finished project, with its times, that a test may change."""
    folder = tmp_path / "project"
    shutil.copytree(finished.folder, folder)
    return Project(folder)
