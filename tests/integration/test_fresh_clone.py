"""The commands and programs of the README and the guides, on a fresh clone with a new environment and real models."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from card_programs import needs_optimum

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "docs/models.md", "docs/releases.md")

pytestmark = pytest.mark.slow


def blocks(language: str) -> list[str]:
    """Return the documents' code blocks of one language."""
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS)
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Return the documents' shell commands, each once, without comments and without those that other tests run."""
    lines = [line.split(" #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    run_here = ("snakemake", "python results/", "python workflow/")
    return list(dict.fromkeys(line for line in lines if line.startswith(run_here)))


class Clone:
    """A clone of the committed project and a shell in it, its own environment active once it has one."""

    def __init__(self, folder: Path):
        self.folder = folder

    def run(self, command: str) -> str:
        """Run a shell command; return its output, both streams merged; its failure fails the test."""
        environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
        outside = [part for part in environment["PATH"].split(os.pathsep) if ".venv" not in part]
        environment["PATH"] = os.pathsep.join([str(self.folder / ".venv" / "bin"), *outside])
        run = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert run.returncode == 0, f"{command}\n{run.stdout[-6000:]}"
        return run.stdout

    def json(self, path: str):
        return json.loads((self.folder / "results" / path).read_text())


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Clone:
    folder = tmp_path_factory.mktemp("clone") / "project"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    clone = Clone(folder)
    output = clone.run("make run")
    assert "results/all-MiniLM-L6-v2/release" in output
    return clone


def test_the_environment_is_the_locked_one(clone):
    locked = dict(re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", (ROOT / "envs/locks/run.txt").read_text(), re.MULTILINE))
    installed = json.loads(clone.run("uv pip list --format json --quiet"))
    versions = {package["name"]: package["version"] for package in installed}
    wrong = {name: versions[name] for name in versions.keys() & locked.keys() if versions[name] != locked[name]}
    assert wrong == {}
    assert versions["torch"].startswith("2.13.0")
    assert not [name for name in versions if name.startswith("nvidia")]


def test_a_second_run_has_nothing_to_do(clone):
    assert "Nothing to be done" in clone.run("snakemake --cores 2")


@pytest.mark.parametrize("command", commands())
def test_commands_of_the_documents(clone, command):
    clone.run(command)


@pytest.fixture(scope="module")
def older_python(clone) -> str:
    """The interpreter for the programs that need Optimum."""
    clone.run("make setup-optimum")
    return ".venv-optimum/bin/python"


@pytest.mark.parametrize("program", blocks("python"), ids=lambda program: program.split()[1])
def test_programs_of_the_documents(clone, older_python, program):
    (clone.folder / "program.py").write_text(program)
    clone.run(f"{older_python if needs_optimum(program) else 'python'} program.py")


@pytest.mark.long
@pytest.mark.parametrize("model", ["all-MiniLM-L6-v2", "star-rating-tiny"])
def test_the_model_card_s_programs(clone, older_python, model):
    release = clone.folder / "results" / model / "release"
    programs = re.findall(r"^```python\n(.*?)^```", (release / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(programs) >= 2
    for program in programs:
        (clone.folder / "program.py").write_text(program)
        python = f"../../../{older_python}" if needs_optimum(program) else "python"
        clone.run(f"cd results/{model}/release && {python} ../../../program.py")


@pytest.mark.parametrize("model", ["all-MiniLM-L6-v2", "star-rating-tiny"])
def test_the_release_verifies_itself(clone, model):
    assert "PASS" in clone.run(f"python results/{model}/release/verify_release.py")


def test_minilm_keeps_its_answers_at_a_quarter_of_the_size(clone):
    fp32 = clone.json("all-MiniLM-L6-v2/parity/fp32.json")
    assert fp32["inputs"]["count"] >= 200
    assert fp32["task_metrics"]["cosine_min"] >= 0.99999
    int8 = clone.json("all-MiniLM-L6-v2/parity/int8.json")["task_metrics"]
    assert int8["cosine_min"] >= 0.97
    assert int8["cosine_mean"] >= 0.99
    sizes = [
        clone.json(f"all-MiniLM-L6-v2/onnx/{variant}.json")["files"]["model.onnx"]["size"]
        for variant in ("int8", "fp32")
    ]
    assert sizes[0] <= 0.27 * sizes[1]


def test_the_star_ratings_stay_the_same(clone):
    parity = clone.json("star-rating-tiny/parity/int8.json")
    assert parity["inputs"]["count"] >= 500
    assert parity["task_metrics"]["top1_agreement"] >= 0.99
