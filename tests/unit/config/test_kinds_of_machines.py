"""Kinds of machines to measure on: which runs can keep what their names promise."""

import re

import pytest

from onnxproof.cli import UserError
from onnxproof.config.machines import check_machines

KINDS = {"benchmark": {"machines": ["icelake", "genoa"]}}
ONCE = {"benchmark": {"machines": []}}
EXCLUSIVE = {"benchmark": {"slurm_extra": "'--exclusive'"}}


@pytest.mark.parametrize("remote", [False, True])
def test_without_kinds_every_run_is_accepted(remote):
    check_machines({"m": ONCE}, {}, remote, {"benchmark": {"constraint": "icelake"}})


def test_kinds_are_accepted_where_the_scheduler_alone_is_asked_for_them():
    check_machines({"m": KINDS}, KINDS, True, EXCLUSIVE | {"export": {"constraint": "big"}})


@pytest.mark.parametrize(
    ("models", "config", "key"),
    [
        ({"m": KINDS}, KINDS, "benchmark.machines"),
        ({"m": ONCE, "n": KINDS}, {}, "models.n.benchmark.machines"),
        ({"m": ONCE, "n": KINDS}, {"benchmark": {"machines": ["other"]}}, "models.n.benchmark.machines"),
    ],
)
def test_on_this_machine_kinds_are_refused_by_the_key_that_names_them(models, config, key):
    with pytest.raises(UserError, match=rf"^{re.escape(key)} is \['icelake', 'genoa'\], but the jobs of this run stay"):
        check_machines(models, config, False, {})


@pytest.mark.parametrize("rule", ["benchmark", "benchmark_pytorch", "benchmark_on_machine"])
@pytest.mark.parametrize("resource", ["constraint", "machine_type"])
def test_a_profile_that_puts_benchmarks_elsewhere_is_refused(rule, resource):
    with pytest.raises(UserError, match=rf"gives the rule {rule} a {resource}, and that would be measured instead"):
        check_machines({"m": KINDS}, KINDS, True, {rule: {resource: "sapphire"}})
