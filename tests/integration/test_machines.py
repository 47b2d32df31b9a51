"""Benchmarks spread over kinds of machines: what is planned, what is refused, what the results hold."""

import json

import pandas as pd
import pytest

from fitting import misfits
from project import Project, make_tiny_project

KINDS = ["icelake", "genoa"]


def spread(project: Project, *machines: str) -> Project:
    project.configure(project.config | {"benchmark": project.config["benchmark"] | {"machines": [*machines]}})
    return project


@pytest.fixture
def tiny(tiny_models, tmp_path) -> Project:
    return make_tiny_project(tmp_path / "project", tiny_models)


def test_every_kind_gets_jobs_that_ask_for_it(tiny):
    stars = tiny.config["models"]["stars"]
    once = stars | {"benchmark": {"pytorch": False, "machines": []}}
    tiny.configure(tiny.config | {"models": {"stars": {"source": stars["source"]}, "once": once}})
    spread(tiny, *KINDS)
    jobs = [job for job in tiny.planned_jobs("all_benchmarks") if job[0].startswith("benchmark")]
    asked = {
        (rule, wildcards["model"], wildcards.get("variant"), resources.get("constraint"), resources.get("machine_type"))
        for rule, wildcards, resources in jobs
    }
    first = {("benchmark_pytorch", "stars", None, "icelake", "icelake")} | {
        ("benchmark", "stars", variant, "icelake", "icelake") for variant in ("fp32", "optimized")
    }
    other = {("benchmark_pytorch_on_machine", "stars", None, "genoa", "genoa")} | {
        ("benchmark_on_machine", "stars", variant, "genoa", "genoa") for variant in ("fp32", "optimized")
    }
    unnamed = {("benchmark", "once", variant, None, None) for variant in ("fp32", "optimized")}
    assert asked == first | other | unnamed
    for rule in ("benchmark", "benchmark_pytorch"):
        assert (
            len({resources["mem_mb"] for name, _, resources in jobs if name.removesuffix("_on_machine") == rule}) == 1
        )


def test_a_profiles_own_constraint_holds_where_no_kind_is_named(tiny):
    jobs = tiny.planned_jobs("--default-resources", "constraint=fast", "--", "all_benchmarks")
    assert {resources["constraint"] for rule, _, resources in jobs if rule == "benchmark"} == {"fast"}


def test_kinds_are_refused_where_jobs_stay_on_this_machine(tiny):
    run = spread(tiny, *KINDS).snakemake()
    assert run.returncode != 0
    assert "benchmark.machines is ['icelake', 'genoa'], but the jobs of this run stay on this machine" in run.stdout
    assert "Traceback" not in run.stdout
    assert not (tiny.folder / "results").exists()


@pytest.mark.slow
def test_each_kind_has_a_record_and_rows_and_a_new_one_runs_alone(tiny):
    """Without the check, as this machine stands for all kinds; what asks the scheduler for them is tested above."""
    snakefile = tiny.folder / "Snakefile"
    text = snakefile.read_text()
    assert "    check_places()\n" in text
    snakefile.write_text(text.replace("    check_places()\n", ""))
    run = spread(tiny, *KINDS).snakemake()
    assert run.returncode == 0, run.stdout
    results = tiny.folder / "results"

    records = [
        json.loads((results / "stars/benchmark" / path).read_text()) for path in ("fp32.json", "genoa/fp32.json")
    ]
    assert misfits(results) == []
    assert records[0].keys() == records[1].keys()
    assert [(record["machine"], record["variant"]) for record in records] == [("icelake", "fp32"), ("genoa", "fp32")]
    table = pd.read_csv(results / "summary.csv")
    assert list(zip(table["variant"], table["machine"], strict=True)) == [
        (variant, machine) for machine in KINDS for variant in ("fp32", "optimized")
    ]
    assert "Measured on 2 kinds of machines: compare times only within one." in run.stdout
    assert "genoa" in (results / "report.html").read_text()
    assert "(`genoa`):" in (results / "stars/release/README.md").read_text()
    manifest = json.loads((results / "stars/release/manifest.json").read_text())
    (elsewhere,) = manifest["variants"]["fp32"]["benchmark"]["elsewhere"]
    assert elsewhere["machine"] == "genoa"
    assert elsewhere["cases"][0]["p50_ms"] == records[1]["cases"][0]["p50_ms"]

    assert tiny.planned() == {}
    followers = {"all": 1, "release": 1, "summary": 1, "verify_release": 1}
    assert spread(tiny, *KINDS, "graviton").planned() == {"benchmark_on_machine": 2} | followers
    assert spread(tiny, "icelake").planned() == followers
    assert spread(tiny).planned() == {"benchmark": 2} | followers
