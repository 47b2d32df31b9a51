"""The metrics that users can name in ``evaluation:`` of the configuration."""

from onnxproof.evaluation.metric import Metric
from onnxproof.evaluation.metrics import classification, similarity

#: By name.
METRICS: dict[str, Metric] = {
    metric.name: metric for module in (classification, similarity) for metric in module.METRICS
}
