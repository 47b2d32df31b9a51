"""What a change reruns, and what it leaves alone."""

import shutil

import pytest

from project import edited

#: Rule → the rules that read what it makes.
READERS = {
    "download": {"export", "record_reference", "benchmark_pytorch", "release", "summary"},
    "export": {"optimize", "measure_parity", "gate_parity", "benchmark", "benchmark_pytorch", "release", "summary"},
    "optimize": {"quantize", "measure_parity", "gate_parity", "benchmark", "release", "summary"},
    "quantize": {"measure_parity", "gate_parity", "benchmark", "release", "summary"},
    "record_reference": {"measure_parity", "release"},
    "measure_parity": {"gate_parity", "release", "summary"},
    "gate_parity": set(),
    "benchmark": {"release", "summary"},
    "benchmark_pytorch": {"summary"},
    "release": {"verify_release"},
    "verify_release": set(),
    "summary": set(),
}


def with_followers(rules: set[str]) -> set[str]:
    """Return rules and all that read what they make, directly or not."""
    following = rules.union(*(READERS[rule] for rule in rules))
    return rules if following == rules else with_followers(following)


def test_a_second_run_has_nothing_to_do(finished):
    run = finished.snakemake()
    assert run.returncode == 0
    assert "Nothing to be done" in run.stdout


def test_every_target_is_one_of_its_own(finished):
    targets = ["all_exported", "all_quantized", "all_parity", "all_benchmarks", "results/summary.csv"]
    for model in finished.config["models"]:
        targets += [f"results/{model}/{path}" for path in ("source", "reference", "release", "onnx/int8")]
        targets += [f"results/{model}/{path}.json" for path in ("source", "release", "parity/int8", "benchmark/int8")]
    assert finished.planned(*targets) == {}


def test_a_benchmark_alone_can_be_made_from_nothing(finished, tmp_path):
    shutil.rmtree(finished.folder / "nothing", ignore_errors=True)
    empty = tmp_path / "empty"
    shutil.copytree(finished.folder, empty, ignore=shutil.ignore_patterns("results", ".snakemake"))
    planned = type(finished)(empty).planned("results/sentences/benchmark/int8.json")
    assert planned == {"download": 1, "export": 1, "optimize": 1, "quantize": 1, "benchmark": 1}


def test_a_third_model_schedules_only_its_own_jobs(copy_of_finished):
    project = copy_of_finished
    shutil.copytree(project.folder / "models/stars", project.folder / "models/third")
    project.configure(edited(project.config, "models", "third", value={"source": {"path": "models/third"}}))
    assert project.planned() == {
        "all": 1,
        "benchmark": 3,
        "benchmark_pytorch": 1,
        "download": 1,
        "export": 1,
        "gate_parity": 3,
        "measure_parity": 3,
        "optimize": 1,
        "quantize": 1,
        "record_reference": 1,
        "release": 1,
        "summary": 1,
        "verify_release": 1,
    }


def test_a_threshold_reruns_only_gates_and_what_follows(copy_of_finished):
    project = copy_of_finished
    project.configure(
        edited(project.config, "models", "sentences", "parity", value={"thresholds": {"int8": {"cosine_min": 0.91}}})
    )
    assert project.planned() == {"all": 1, "gate_parity": 1, "release": 1, "summary": 1, "verify_release": 1}


def test_a_target_reruns_the_search_of_its_variant_and_what_follows(copy_of_finished):
    project = copy_of_finished
    targets = {"targets": {"int8-invariant": {"cosine_min": 0.91}}}
    project.configure(edited(project.config, "models", "sentences", "quantization", value=targets))
    assert project.planned() == {
        "all": 1,
        "benchmark": 1,
        "gate_parity": 1,
        "measure_parity": 1,
        "quantize": 1,
        "release": 1,
        "summary": 1,
        "verify_release": 1,
    }


def test_another_search_that_was_gone_on_from_is_no_reason_to_search_again(copy_of_finished):
    project = copy_of_finished
    targets = {"targets": {"int8": {"cosine_min": 0.91}}}
    project.configure(edited(project.config, "models", "sentences", "quantization", value=targets))
    variants = [f"results/sentences/onnx/{variant}.json" for variant in ("int8", "int8-invariant")]
    assert project.planned(*variants) == {"quantize": 1}
    run = project.snakemake(*variants)
    assert run.returncode == 0, run.stdout
    assert project.planned(*variants) == {}


def test_benchmark_settings_rerun_only_benchmarks_and_what_follows(copy_of_finished):
    project = copy_of_finished
    project.configure(edited(project.config, "benchmark", "rounds", value=3))
    released = {"release": 2, "verify_release": 2}
    assert project.planned() == {"all": 1, "benchmark": 7, "benchmark_pytorch": 1, "summary": 1} | released


def test_without_copies_only_the_release_is_made_anew_and_has_one_file_for_int8(copy_of_finished):
    project = copy_of_finished
    project.configure(edited(project.config, "models", "stars.v1", "release", value={"copies": False}))
    assert project.planned() == {"all": 1, "release": 1, "verify_release": 1}
    run = project.snakemake("results/stars.v1/verified.json")
    assert run.returncode == 0, run.stdout
    files = {path.name for path in (project.folder / "results/stars.v1/release/onnx").glob("*.onnx")}
    assert files == {"model.onnx", "model_quantized.onnx"}


def test_another_threshold_of_another_model_leaves_this_one_alone(copy_of_finished):
    project = copy_of_finished
    project.configure(
        edited(project.config, "models", "sentences", "parity", value={"thresholds": {"int8": {"cosine_min": 0.91}}})
    )
    assert project.planned("results/stars.v1/release.json") == {}


def test_an_edited_script_reruns_its_rule(copy_of_finished):
    project = copy_of_finished
    with (project.folder / "workflow/scripts/gate_parity.py").open("a") as script:
        script.write("EDITED = True\n")
    planned = project.planned()
    assert planned["gate_parity"] == 7
    assert not planned.keys() & {"download", "export", "optimize", "quantize", "measure_parity", "benchmark"}


@pytest.mark.parametrize(
    ("helper", "users"),
    [
        ("graph/fusions/rewrites", {"optimize"}),
        ("quantization/search/ladder", {"quantize"}),
        ("parity/gate", {"gate_parity", "release", "verify_release", "summary"}),
        ("parity/measure", {"measure_parity", "release", "verify_release"}),
        ("report/plots", {"summary"}),
    ],
)
def test_an_edited_helper_module_reruns_the_rules_that_import_it_and_what_follows(copy_of_finished, helper, users):
    project = copy_of_finished
    module = project.folder / f"workflow/scripts/onnxproof/{helper}.py"
    module.write_text(f"{module.read_text()}EDITED = True\n")
    assert project.planned().keys() == with_followers(users) | {"all"}


def test_reworded_comments_and_messages_rerun_nothing(copy_of_finished):
    project = copy_of_finished
    for path in ("workflow/scripts/quantize.py", "workflow/scripts/onnxproof/config/resolve.py"):
        with (project.folder / path).open("a") as module:
            module.write("# reworded\n")
    assert project.planned() == {}


def test_an_edited_verifier_reruns_what_ships_it(copy_of_finished):
    project = copy_of_finished
    with (project.folder / "workflow/scripts/verify_release.py").open("a") as script:
        script.write("# edited\n")
    assert project.planned().keys() == {"release", "verify_release", "all"}


@pytest.mark.parametrize("resource", ["model_card.md.j2", "usage/choose.py.j2", "verify_page/verify.mjs.j2"])
def test_an_edit_of_what_a_release_is_made_with_reruns_it(copy_of_finished, resource):
    project = copy_of_finished
    with (project.folder / "workflow/resources" / resource).open("a") as file:
        file.write("edited\n")
    assert project.planned() == {"all": 1, "release": 2, "verify_release": 2}


def test_files_that_are_only_newer_rerun_nothing(copy_of_finished):
    """As after a checkout of the same commit elsewhere."""
    project = copy_of_finished
    for path in (project.folder / "workflow").rglob("*"):
        path.touch()
    assert project.planned() == {}


def test_an_edited_local_model_reruns_its_chain(copy_of_finished):
    project = copy_of_finished
    config = project.folder / "models/stars/config.json"
    config.write_text(config.read_text() + "\n")
    planned = project.planned()
    assert planned["download"] == 1
    assert planned["export"] == 1
    assert planned["summary"] == 1


def test_a_removed_model_leaves_only_the_summary_to_do(copy_of_finished):
    project = copy_of_finished
    models = {name: model for name, model in project.config["models"].items() if name != "stars.v1"}
    project.configure(project.config | {"models": models})
    assert project.planned() == {"all": 1, "summary": 1}
