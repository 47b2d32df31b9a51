"""The conda environments, the locks and pyproject.toml say the same."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from onnxproof.engine.code_digest import files_of_script

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
#: Modules whose distribution has another name.
DISTRIBUTIONS = {"yaml": "pyyaml", "PIL": "pillow", "pytrec_eval": "pytrec-eval-terrier", "sklearn": "scikit-learn"}
#: What only `score_evaluation` computes with. Other scripts look metrics up by their names.
METRIC_LIBRARIES = (
    "jiwer",
    "pycocotools",
    "pytrec-eval-terrier",
    "rouge-score",
    "sacrebleu",
    "scikit-learn",
    "seqeval",
)

#: Prints the environment and the image of each rule that has an environment.
TELLING_IMAGES = """
import json
from pathlib import Path
from snakemake.api import OutputSettings, ResourceSettings, SnakemakeApi
with SnakemakeApi(OutputSettings(quiet={"all"})) as api:
    workflow = api.workflow(resource_settings=ResourceSettings(cores=1), snakefile=Path("Snakefile"))._workflow
    rules = [rule for rule in workflow.rules if rule.conda_env]
    print(json.dumps({rule.name: [str(rule.conda_env), rule.container_img] for rule in rules}))
"""


def locked(name: str) -> dict[str, str]:
    text = (ROOT / "envs" / "locks" / name).read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", text, flags=re.MULTILINE))


def pins_of(environment: Path) -> dict[str, str]:
    dependencies = yaml.safe_load(environment.read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    return dict(pin.split("==") for pin in pip)


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda path: path.stem)
def test_environments_agree_with_the_lock(environment):
    versions = locked("evaluation.txt") | {"torch": locked("torch-cpu.txt")["torch"].removesuffix("+cpu")}
    pins = pins_of(environment)
    assert pins == {name: versions[name] for name in pins}


def test_only_the_export_environment_has_torch():
    assert [path.stem for path in ENVIRONMENTS if "torch" in pins_of(path)] == ["export"]


def test_the_lock_satisfies_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    torch = {"torch": locked("torch-cpu.txt")["torch"]}
    run, dev = locked("run.txt") | torch, locked("dev.txt") | torch
    evaluation = locked("evaluation.txt") | torch
    cluster = locked("cluster.txt") | torch
    for lock, wanted in (
        (run, project["project"]["dependencies"]),
        (evaluation, project["project"]["dependencies"] + project["dependency-groups"]["evaluation"]),
        (dev, [wanted for wanted in project["dependency-groups"]["dev"] if isinstance(wanted, str)]),
        (cluster, [wanted for wanted in project["dependency-groups"]["cluster"] if isinstance(wanted, str)]),
        (cluster, project["project"]["dependencies"] + project["dependency-groups"]["evaluation"]),
    ):
        for requirement in map(Requirement, wanted):
            version = lock[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{requirement} is locked as {version}"
    assert run.items() <= evaluation.items() <= dev.items()
    assert {name for name, version in run.items() if cluster[name] != version} == {"python-dateutil"}


PEERS = sorted((ROOT / "envs" / "peers").glob("*.txt"))


def test_every_locked_file_is_hashed():
    for lock in (*(ROOT / "envs" / "locks").glob("*.txt"), *PEERS):
        text = lock.read_text()
        requirements = [block for block in re.split(r"\n(?=[a-z])", text) if "==" in block]
        assert requirements
        assert all("--hash=sha256:" in block for block in requirements)


def test_peers_are_in_no_environment_of_the_pipeline():
    names = ["amd-quark", "llama-cpp", "model-signing", "neural-compressor", "olive", "onnxruntime-genai"]
    names += ["onnxruntime-openvino", "openvino"]
    assert [lock.stem for lock in PEERS] == names
    installed = locked("dev.txt").keys()
    assert not {"llama-cpp-python", "nncf", "olive-ai", "onnx-neural-compressor", *names} & installed
    for lock in PEERS:
        wanted = lock.with_suffix(".in").read_text()
        pins = dict(re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", lock.read_text(), flags=re.MULTILINE))
        assert re.findall(r"^([a-z-]+)==(\S+)", wanted, flags=re.MULTILINE)
        for name, version in re.findall(r"^([a-z-]+)==(\S+)", wanted, flags=re.MULTILINE):
            assert pins[name] == version


def rules_with_environments() -> list[tuple[str, str]]:
    pairs = []
    for rules in sorted((ROOT / "workflow" / "rules").glob("*.smk")):
        for rule in re.split(r"^rule ", rules.read_text(), flags=re.MULTILINE)[1:]:
            script = re.search(r'script_path\("(\w+)"\)', rule)
            environment = re.search(r'conda:\s+"\.\./\.\./envs/(\w+)\.yaml"', rule)
            assert script, f"{rules.name}: the rule {rule.splitlines()[0]} names no script"
            assert environment, f"{rules.name}: the rule {rule.splitlines()[0]} names no environment"
            pairs.append((script[1], environment[1]))
    return pairs


@pytest.mark.parametrize(("script", "environment"), sorted(set(rules_with_environments())))
def test_environments_hold_what_their_scripts_import(script, environment):
    installed = {canonicalize_name(name) for name in pins_of(ROOT / "envs" / f"{environment}.yaml")}
    for path in files_of_script(script):
        for node in ast.walk(ast.parse(Path(path).read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names.append(node.module)
            own = {"onnxproof", *(script.stem for script in (ROOT / "workflow" / "scripts").glob("*.py"))}
            for name in {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - own:
                distribution = canonicalize_name(DISTRIBUTIONS.get(name, name))
                if environment != "export" and distribution in ("torch", "transformers", "sentence-transformers"):
                    continue  # imported only for the variant `pytorch`, which has the export environment
                if environment != "evaluation" and distribution in METRIC_LIBRARIES:
                    continue
                if distribution in ("llama-cpp", "onnxruntime-genai", "openvino"):
                    continue  # imported only where a benchmark times it, in an environment of its own
                assert distribution in installed, f"{Path(path).name} imports {name}"


def test_every_rule_with_an_environment_has_the_image_of_the_same_lock():
    build = (ROOT / "Dockerfile").read_text()
    assert "COPY envs/locks envs/locks" in build
    (target,) = re.findall(r"^RUN make (\S+)$", build, re.MULTILINE)
    recipe = re.search(
        r"^\$\(VENV\)/cluster\.done: \$\(LOCKS\)/cluster\.txt", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert (target, bool(recipe)) == ("setup-cluster", True)
    versions = locked("cluster.txt") | {"torch": locked("torch-cpu.txt")["torch"].removesuffix("+cpu")}
    command = [sys.executable, "-c", TELLING_IMAGES]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True)
    rules = json.loads(run.stdout.splitlines()[-1])
    assert len(rules) == 26
    for rule, (environment, image) in rules.items():
        assert image == "envs/onnxproof.sif", rule
        pins = pins_of(ROOT / "envs" / Path(environment).name)
        assert pins == {name: versions[name] for name in pins}
