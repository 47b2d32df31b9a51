"""What the rules tell the scripts about a run, in files below ``.snakemake/``."""

from typing import NotRequired, TypeAlias, TypedDict

from onnxproof.records.common import Limits


class ShownModel(TypedDict):
    """What the summary shows of a model."""

    variants: list[str]
    """The variants of the configuration."""
    pytorch: NotRequired[bool]
    """Whether the original was timed too."""
    machines: NotRequired[list[str]]
    """The kinds of machines that it was timed on; the first is that of ``benchmark/{variant}.json``."""
    thresholds: NotRequired[dict[str, Limits]]
    """What each variant is allowed."""
    evaluated: NotRequired[bool]
    """Whether the variants were evaluated on labelled data."""
    not_worse_by: NotRequired[float | None]
    """How much worse they may be there; null for the metric's own limit."""


#: What the summary shows, by model.
ShownModels: TypeAlias = dict[str, ShownModel]


class FailedJob(TypedDict):
    """A job that was tried in vain."""

    model: str
    """The model's name in config.yaml."""
    rule: str
    """The rule's name."""
    variant: str
    """The variant's name; empty where the rule makes none."""
    log: str
    """The path of its log."""
