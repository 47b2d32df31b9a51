"""What ``check.py --json`` prints of each model."""

from typing import NotRequired, TypedDict


class Cost(TypedDict):
    """About what the chain takes for a model."""

    cpu_minutes: float
    """Minutes of one core."""
    memory_mb: int
    """The most memory of a step, in MB of 1e6 bytes."""
    disk_mb: int
    """Disk in all, in MB of 1e6 bytes."""


class CheckedModel(TypedDict):
    """What can be said of a model without its weights; only its name and its problems where it cannot be read."""

    model: str
    """Its name in config.yaml."""
    model_type: NotRequired[str]
    """As config.json names it."""
    architectures: NotRequired[list[str]]
    """As config.json names them."""
    task: NotRequired[str]
    """A key of ``TASKS``; absent where it serves none."""
    takes: NotRequired[str]
    """The kind of its inputs, see ``model_takes``."""
    parameters: NotRequired[int]
    """How many."""
    dtype: NotRequired[str]
    """The type in which they are saved."""
    max_tokens: NotRequired[int]
    """Where it cuts a text; absent where its files do not say, and of other inputs."""
    labels: NotRequired[str]
    """What the values of a classifier's head mean."""
    encode: NotRequired[str]
    """Of a sentence-transformer: what is applied beside the transformer."""
    exporter: NotRequired[str]
    """The exporter that is configured."""
    files: NotRequired[list[str]]
    """The ONNX files of its release."""
    cost: NotRequired[Cost]
    """About what the chain takes."""
    problems: list[str]
    """What is in the way of it, a line each."""
