"""Loading what anyone may have saved: an odd folder ends in one line, and no weight is invented or left out.

transformers draws weights that it does not find at random, leaves out those that it does not know, and logs both; what
it cannot read raises whatever the code that stumbles over it raises. ``one_line`` and ``check_weights`` stand between.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from onnxproof.cli import UserError, explain
from onnxproof.original.corrections import correct_biases

LONGEST_REASON = 300
#: How many names a message lists.
NAMES_TOLD = 4
#: Parts of names that a bare encoder may lack or have too many of: they hang beside the vectors that are compared.
BESIDE_VECTORS = ("pooler", "pooling_layer", "sentence_pooler")
#: Last parts of the names of tables that models work out by themselves, and older versions saved.
WORKED_OUT = frozenset(
    [
        "position_ids",
        "token_type_ids",
        "inv_freq",
        "masked_bias",
        "relative_position_index",
        "relative_coords_table",
        "num_batches_tracked",
        "causal_mask",
        "bias_mask",
    ]
)


@contextmanager
def one_line(model: str, what: str) -> Iterator[None]:
    """Turn whatever a library raises for a model's files into one line; ``what`` begins it, behind the model's name.

    Raises:
        UserError: in place of any error; but a full disk, or a lack of memory, keeps its own.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the loaders' exceptions share no other base
        if explain(error) is not None:
            raise
        raise UserError(f"{model}: {what}: {reason_of(error)}") from error


def reason_of(error: BaseException) -> str:
    """Return an error's type and message on one line."""
    text = " ".join(str(error).split())[:LONGEST_REASON]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def check_weights(model: str, network: Any, report: dict[str, Any], task: str, bare: bool) -> None:
    """Refuse a network that has weights which its folder does not, or lacks some that its folder has.

    Args:
        model: the model's name, for messages.
        network: what transformers loaded; biases that transformers 5 took apart are put right in it.
        report: what transformers found, see ``patches.recorded_reports``.
        task: the task it was loaded for, for messages.
        bare: whether only its vectors are used, so that what hangs beside them may be missing.

    Raises:
        UserError: names weights that are missing, of another shape, or that belong to the network and were not loaded.
    """
    corrected = correct_biases(network, report["missing_keys"])
    missing = [key for key in report["missing_keys"] if key not in corrected and not (bare and _is_beside(key))]
    if missing:
        raise UserError(
            f"{model}: the snapshot holds no weights for {_told(missing)}: it was not made for the task {task}, or "
            "its weights were saved under other names"
        )
    mismatched = sorted(report["mismatched_keys"])
    if mismatched:
        name, saved, wanted = mismatched[0]
        raise UserError(
            f"{model}: {name} has the shape {list(saved)} in the weights and {list(wanted)} by config.json "
            f"({len(mismatched)} weights differ): one of the two belongs to another model"
        )
    unexpected = [key for key in report["unexpected_keys"] if not _may_be_left(network, key)]
    if unexpected:
        raise UserError(
            f"{model}: the weights hold {_told(unexpected)}, for which the network that config.json describes has no "
            "place, so that transformers leaves them out: correct config.json, or save the model with the "
            "transformers that made it"
        )


def _told(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - NAMES_TOLD} more" if len(listed) > NAMES_TOLD else ""
    return ", ".join(listed[:NAMES_TOLD]) + more


def _is_beside(key: str) -> bool:
    return any(part in key for part in BESIDE_VECTORS)


def _may_be_left(network: Any, key: str) -> bool:
    """Tell whether a saved weight belongs to no part of the network that answers.

    Such are heads of other tasks, which hang beside the network's own parts, poolers that this task has no use for,
    and tables that the network works out. Whatever lies inside one of the network's parts would change its answer.
    """
    parts = key.split(".")
    if parts[-1] in WORKED_OUT or _is_beside(key):
        return True
    prefix = getattr(network, "base_model_prefix", "")
    base = getattr(network, prefix, None) if prefix else None
    # The weights of a bare encoder may be saved with the prefix that they have below a head.
    inside = [parts, parts[1:]] if prefix and parts[0] == prefix and base is None else [parts]
    return not any(_leads_into(network, names) for names in inside)


def _leads_into(network: Any, names: list[str]) -> bool:
    """Tell whether a name's first parts lead to one of a network's modules, and so its whole belongs inside it."""
    children = dict(network.named_children())
    return bool(names) and names[0] in children
