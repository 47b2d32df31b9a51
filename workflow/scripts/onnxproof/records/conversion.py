"""What ``onnxproof convert --json`` prints."""

from typing import Any, Literal, NotRequired, TypedDict


class ConvertedVariant(TypedDict):
    """One ONNX form of the model; a figure is None where it was not measured."""

    file: str | None
    """Its path in the release; None where it is not shipped."""
    parity: Literal["pass", "fail", "missing"]
    """The verdict of the gate."""
    metric: str | None
    """The first metric of the task, a key of ``vocabulary.METRICS``."""
    value: float | None
    """What was measured of it."""
    size_mb: float | None
    """In MB of 1e6 bytes."""
    speedup: float | None
    """The time of fp32 over its own, see ``case``."""
    case: str | None
    """Where that was measured: batch x tokens, and the threads."""


class RecommendedVariant(TypedDict):
    """The fastest variant for a purpose on this machine."""

    purpose: str
    """``latency`` or ``throughput``."""
    variant: str
    """Its name."""
    file: str
    """Its path in the release."""
    speedup: float
    """The time of fp32 over its own, the geometric mean over the timed shapes."""


class ConversionError(TypedDict):
    """Why there is no release."""

    step: str | None
    """The rule that failed; None where none was started."""
    variant: str | None
    """The variant that it was about; None where it was about the model."""
    reason: str
    """One line."""
    log: str | None
    """The path of the log."""


class Conversion(TypedDict):
    """How a conversion ended."""

    status: Literal["released", "refused", "failed", "planned"]
    """``refused``: a variant missed a limit of a gate. ``planned``: ``--dry-run``."""
    model: str
    """Its name in config.yaml; what the command line has, if no configuration was written."""
    source: dict[str, Any]
    """Where it came from, as config.yaml has it; empty if none was written."""
    folder: str | None
    """Where the configuration and the results are; None if none was written."""
    release: str | None
    """The release that was verified; None where there is none."""
    report: str | None
    """The page about what was measured; None where there is none."""
    recommended: list[RecommendedVariant]
    """What to run; empty without a release."""
    variants: dict[str, ConvertedVariant]
    """What was measured, as far as the run got."""
    errors: list[ConversionError]
    """What went wrong; empty where nothing did."""
    seconds: float
    """How long it took."""
    steps: NotRequired[dict[str, int]]
    """With ``--dry-run``: how many jobs of each rule a run would start."""
