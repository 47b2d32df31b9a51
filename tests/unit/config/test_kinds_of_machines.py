"""Kinds of machines to measure on: which runs can keep what their names promise."""

import pytest

from onnxproof.config.machines import check_machines

KINDS = {"benchmark": {"machines": ["icelake", "genoa"]}}
ONCE = {"benchmark": {"machines": []}}
EXCLUSIVE = {"benchmark": {"slurm_extra": "'--exclusive'"}}


@pytest.mark.parametrize("remote", [False, True])
def test_without_kinds_every_run_is_accepted(remote):
    check_machines({"m": ONCE}, {}, remote, {"benchmark": {"constraint": "icelake"}})


def test_kinds_are_accepted_where_the_scheduler_alone_is_asked_for_them():
    check_machines({"m": KINDS}, KINDS, True, EXCLUSIVE | {"export": {"constraint": "big"}})
