"""The project as an installable package."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from conftest import install, made_once

from onnxproof.commands import COMMANDS, MAIN_COMMANDS, main
from onnxproof.places import SCRIPTS
from project import ROOT

#: Commands that no rule runs.
BY_HAND = {"check_targets"}


def test_every_rule_is_a_command():
    rules = "".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
    assert set(COMMANDS) - BY_HAND == set(re.findall(r'script=script_path\("(\w+)"\)', rules))


@pytest.mark.parametrize("name", MAIN_COMMANDS)
def test_every_command_for_one_model_runs_a_script(name):
    assert (SCRIPTS / f"{MAIN_COMMANDS[name][0]}.py").is_file()


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["absent"], 2), ([], 2)])
def test_the_commands_are_listed(arguments, status, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == status
    told = "".join(capsys.readouterr())
    assert "measure_parity" in told
    assert "\n  convert   turn one model into a verified ONNX release\n" in told


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The programs of an environment with the wheel and this environment's packages; no clone is on its path."""

    def make(folder: Path) -> None:
        install([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", ".", str(ROOT)], folder)
        (wheel,) = folder.glob("onnxproof-*.whl")
        install([sys.executable, "-m", "venv", "environment"], folder)
        install(["environment/bin/python", "-m", "pip", "install", "--quiet", "--no-deps", wheel.name], folder)
        (site,) = folder.glob("environment/lib/*/site-packages")
        (site / "packages.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    return made_once(tmp_path_factory, "wheel", make) / "environment/bin"


#: What is measured is not the point of these tests.
FEW_ROUNDS = ("--set", "benchmark.rounds=3", "--set", "benchmark.pytorch=false")


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.slow
def test_an_installed_package_runs_steps_outside_of_a_clone(installed, tiny_models, tmp_path):
    command = str(installed / "onnxproof")
    checked = run([command, "check", str(tiny_models / "stars")], tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert "task        text-classification" in checked.stdout
    output = ("--output-dir", "source", "--manifest", "source.json")
    fetched = run([command, "download", "--model", "stars", "--path", str(tiny_models / "stars"), *output], tmp_path)
    assert fetched.returncode == 0, fetched.stderr
    assert (tmp_path / "source/config.json").is_file()
    refused = run([command, "check", "absent"], tmp_path)
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)
    assert re.match(r"\d+\.\d+", run([command, "--version"], tmp_path).stdout)


@pytest.mark.slow
def test_the_commands_of_the_skill_make_a_verified_release_in_an_empty_folder(installed, tmp_path):
    """Those of its first block, as they are printed."""
    shutil.copytree(ROOT / "examples/star-rating-tiny", tmp_path / "models/my-classifier")
    skill = (ROOT / "skills/onnxproof/SKILL.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"^```bash\n(onnxproof check models/.*?)^```", skill, re.MULTILINE | re.DOTALL)
    results = {}
    for line in lines.splitlines():
        _, name, *arguments = shlex.split(line, comments=True)
        few = FEW_ROUNDS if name == "convert" else ()
        done = run([str(installed / "onnxproof"), name, *arguments, *few], tmp_path)
        assert done.returncode == 0, done.stderr
        results[name, "--dry-run" in arguments] = json.loads(done.stdout)
    (checked,) = results["check", False]
    assert checked["problems"] == []
    assert results["convert", True]["steps"]["export"] == 1
    converted = results["convert", False]
    assert converted["status"] == "released"
    assert {name: facts["parity"] for name, facts in converted["variants"].items()} == dict.fromkeys(
        ("fp32", "optimized", "int8"), "pass"
    )
    assert converted["variants"]["int8"]["size_mb"] < converted["variants"]["fp32"]["size_mb"] / 3
    # Which there are depends on how busy the machine was.
    assert {best["purpose"] for best in converted["recommended"]} <= {"latency", "throughput"}
    assert {best["variant"] for best in converted["recommended"]} <= converted["variants"].keys()
    assert converted["release"] == str(tmp_path / "onnxproof-my-classifier/results/my-classifier/release")
    assert results["verify", False]["passed"] is True

    again = run([str(installed / "onnxproof"), "convert", "models/my-classifier", *FEW_ROUNDS], tmp_path)
    assert (again.returncode, " of " in again.stderr) == (0, False)
    limit = ("--set", "parity.thresholds.int8.max_probability_diff=1.0e-9")
    command = [str(installed / "onnxproof"), "convert", "models/my-classifier", *FEW_ROUNDS, *limit]
    refused = run([*command, "--json"], tmp_path)
    result = json.loads(refused.stdout)
    assert (refused.returncode, result["status"], result["release"]) == (3, "refused", None)
    assert [(error["step"], error["variant"]) for error in result["errors"]] == [("gate_parity", "int8")]
    assert "max_probability_diff" in result["errors"][0]["reason"]
    assert result["variants"]["int8"]["parity"] == "fail"
    assert not Path(converted["release"]).exists()


@pytest.mark.slow
def test_an_installed_package_is_a_module_of_a_workflow(installed, tiny_models, tmp_path):
    (tmp_path / "Snakefile").write_text(
        "import onnxproof as package\n"
        f"settings = {{'models': {{'stars': {{'source': {{'path': '{tiny_models}/stars'}}}}}}}}\n"
        "module onnxproof:\n    snakefile: package.SNAKEFILE\n    config: settings\n"
        "use rule * from onnxproof as onnxproof_*\n"
    )
    made = run([str(installed / "python"), "-m", "snakemake", "--cores", "1", "results/stars/source.json"], tmp_path)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "results/stars/source/config.json").is_file()
    code = "from onnxproof.places import RESOURCES, SCHEMAS; print(RESOURCES, *SCHEMAS.iterdir())"
    places = run([str(installed / "python"), "-c", code], tmp_path)
    assert str(installed.parent) in places.stdout
    assert "config.schema.yaml" in places.stdout


@pytest.mark.slow
def test_a_copy_without_history_has_the_fallback_version(tmp_path):
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        if not name.startswith(("tests/", "docs/", "examples/")) and (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tmp_path / name)
    install([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "made", "."], tmp_path)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["version"]["fallback-version"]
    assert [path.name for path in (tmp_path / "made").iterdir()] == [f"onnxproof-{version}-py3-none-any.whl"]
