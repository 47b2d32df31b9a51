"""The metrics that users can name in ``evaluation:`` of the configuration."""

from onnxproof.evaluation.metric import Metric
from onnxproof.evaluation.metrics import (
    classification,
    detection,
    images,
    language,
    multi_label,
    numbers,
    questions,
    retrieval,
    texts,
    tokens,
)

_MODULES = (
    classification,
    multi_label,
    numbers,
    tokens,
    questions,
    retrieval,
    texts,
    language,
    detection,
    images,
)
#: By name.
METRICS: dict[str, Metric] = {metric.name: metric for module in _MODULES for metric in module.METRICS}
