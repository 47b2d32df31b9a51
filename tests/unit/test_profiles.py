"""The profiles and the manifests beside them: options that Snakemake knows, resources that it can read."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROFILES = sorted((ROOT / "profiles").glob("*/profile.yaml"))
MANIFESTS = sorted((ROOT / "profiles/kubernetes/manifests").glob("*.yaml"))
#: Options of plugins, which are not part of the usual environment.
PLUGINS = {"slurm": "snakemake_executor_plugin_slurm", "kubernetes": "snakemake_executor_plugin_kubernetes"}


def read(profile: Path) -> dict:
    return yaml.safe_load(profile.read_text(encoding="utf-8"))


def known_options() -> set[str]:
    from snakemake.cli import get_argument_parser

    actions = get_argument_parser()._actions
    return {option.removeprefix("--") for action in actions for option in action.option_strings}


def test_every_option_is_snakemakes_or_a_plugins():
    known = known_options()
    for profile in PROFILES:
        own = ("slurm-", "kubernetes-", "storage-s3-")
        unknown = {key for key in read(profile) if key not in known and not key.startswith(own)}
        assert unknown == set(), profile


@pytest.mark.parametrize("name", PLUGINS)
def test_every_option_of_a_plugin_is_known_to_it(name):
    if importlib.util.find_spec(PLUGINS[name]) is None:
        pytest.skip(f"{PLUGINS[name]} is not installed: make setup-cluster")
    options = read(ROOT / "profiles" / name / "profile.yaml")
    assert {key for key in options if key not in known_options()} == set()


def test_what_must_hold_everywhere_is_in_every_profile():
    for profile in PROFILES:
        assert read(profile)["keep-going"] is True, profile
        assert read(profile)["nolock"] is True, profile
        assert read(profile)["scheduler"] == "greedy", profile


def test_rules_named_in_profiles_exist():
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    names = set(re.findall(r"^(?:rule|use rule \w+ as) (\w+)", rules, re.MULTILINE))
    for profile in PROFILES:
        for key in ("set-resources", "set-threads"):
            assert set(read(profile).get(key, {})) <= names, profile


def test_on_a_cluster_every_benchmark_has_a_node_for_itself():
    rules = (ROOT / "workflow/rules/benchmark.smk").read_text()
    names = re.findall(r"^(?:rule|use rule \w+ as) (\w+)", rules, re.MULTILINE)
    assert len(names) == 4
    slurm = read(ROOT / "profiles/slurm/profile.yaml")["set-resources"]
    assert slurm == {name: {"slurm_extra": "'--exclusive'"} for name in names}
    assert read(ROOT / "profiles/kubernetes/profile.yaml")["set-threads"] == dict.fromkeys(names, 8)


def documents() -> list[tuple[str, dict]]:
    return [(path.name, document) for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())]


def test_the_manifests_fit_the_profile():
    profile = read(ROOT / "profiles/kubernetes/profile.yaml")
    found = {document["kind"]: document for _, document in documents()}
    assert found["ServiceAccount"]["metadata"]["name"] == profile["kubernetes-service-account-name"]
    claim = found["PersistentVolumeClaim"]["metadata"]["name"]
    assert [volume.split(":")[0] for volume in profile["kubernetes-persistent-volumes"]] == [claim]
    pod = found["Job"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == profile["container-image"]
    assert pod["serviceAccountName"] == found["ServiceAccount"]["metadata"]["name"]
    namespaces = {document["metadata"].get("namespace") for _, document in documents()} - {None}
    assert namespaces == {profile["kubernetes-namespace"]} == {found["Namespace"]["metadata"]["name"]}


@pytest.mark.skipif(
    importlib.util.find_spec("kubernetes_validate") is None, reason="needs kubernetes-validate, which holds the schemas"
)
@pytest.mark.parametrize("version", ["1.30", "1.34"])
def test_the_manifests_fit_the_schemas_of_kubernetes(version):
    import kubernetes_validate

    for _, document in documents():
        kubernetes_validate.validate(document, version, strict=True)
