"""Kinds of machines that benchmarks are spread over: whether a run can keep what their names promise."""

from collections.abc import Mapping
from typing import Any

from onnxproof.cli import UserError
from onnxproof.config.problem import KeyPath, Problem

#: What the schedulers call a kind of node.
KIND_RESOURCES = ("constraint", "machine_type")


def check_machines(
    models: Mapping[str, Mapping[str, Any]],
    config: Mapping[str, Any],
    remote: bool,
    overridden: Mapping[str, Mapping[str, Any]],
) -> None:
    """Refuse a run whose measurements would bear the name of a machine that they were not taken on.

    Args:
        models: the resolved settings of every model.
        config: the configuration as it was written, to name the key that holds the kinds.
        remote: whether jobs go to other machines.
        overridden: rule → the resources that a profile or the command line sets in place of the rule's own.

    Raises:
        UserError: the jobs stay on this machine, or something else says where the benchmarks run.
    """
    model = next((name for name, settings in models.items() if settings["benchmark"]["machines"]), None)
    if model is None:
        return
    machines = models[model]["benchmark"]["machines"]
    is_global = machines == config.get("benchmark", {}).get("machines")
    path: KeyPath = (*(() if is_global else ("models", model)), "benchmark", "machines")
    if not remote:
        message = (
            "but the jobs of this run stay on this machine, whatever kind it is: run it on a cluster, as with "
            "--workflow-profile profiles/slurm, or set it to []"
        )
        raise UserError(str(Problem(path, message, machines)))
    for rule, resources in overridden.items():
        for name in KIND_RESOURCES:
            if "benchmark" in rule and name in resources:
                message = (
                    f"but set-resources, in a profile or on the command line, gives the rule {rule} a {name}, "
                    "and that would be measured instead: remove it there, or set benchmark.machines to []"
                )
                raise UserError(str(Problem(path, message, machines)))
