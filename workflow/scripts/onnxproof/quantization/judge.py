"""How far a quantized model is from its float original, on calibration inputs: no labels, no PyTorch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxproof.metrics import answers_of, cosine_similarity, task_metrics
from onnxproof.quantization.activations import Feeds
from onnxproof.quantization.sessions import open_session
from onnxproof.reference import PER_TOKEN

MASK = "attention_mask"
ANSWERS = PER_TOKEN | {"logits", "sentence_embedding"}  # what ``answers_of`` reads

Array = NDArray[Any]


class Judge:
    """Holds the float model's answers and compares other models with them."""

    def __init__(
        self,
        model: onnx.ModelProto,
        calibration: Sequence[Feeds],
        task: str,
        batch_size: int = 8,
        padding: Mapping[str, int] | None = None,
    ) -> None:
        """Run the float ``model`` on every input alone.

        Args:
            model: the float model.
            calibration: model inputs of one text each, arrays of shape (1, tokens), without padding.
            task: whose answers are compared, see ``metrics.answers_of``.
            batch_size: inputs in a padded batch, for what depends on neighbours.
            padding: the value each input is padded with on the right, 0 where not named.
        """
        self.task, self.calibration = task, calibration
        self.lengths = np.array([next(iter(feeds.values())).shape[1] for feeds in calibration])
        groups = np.array_split(np.arange(len(calibration)), max(1, round(len(calibration) / batch_size)))
        self.batches = [pad_batch([calibration[index] for index in group], padding or {}) for group in groups]
        self.expected = self.answers(model, calibration)

    def answers(self, model: onnx.ModelProto, inputs: Sequence[Feeds]) -> Array:
        """Return the task's answers, one row a text, from inputs alone or in the batches of this judge."""
        session = open_session(model)
        names = [value.name for value in session.get_outputs() if value.name in ANSWERS]
        outputs: dict[str, list[Array]] = {name: [] for name in names}
        for feeds in inputs:
            for name, values in zip(names, session.run(names, dict(feeds)), strict=True):
                outputs[name].append(values[feeds[MASK] == 1] if name in PER_TOKEN else values)
        joined = {name: np.concatenate(parts) for name, parts in outputs.items()}
        return answers_of(self.task, joined, self.lengths)

    def measure(self, model: onnx.ModelProto) -> dict[str, float | None]:
        """Return the task's metrics of ``model``, and ``batch_cosine_min``: a text alone against it in a batch."""
        alone, batched = self.answers(model, self.calibration), self.answers(model, self.batches)
        finite = np.isfinite(alone).all() and np.isfinite(batched).all()
        invariance = float(cosine_similarity(alone, batched).min()) if finite else None
        return task_metrics(self.task, self.expected, alone) | {"batch_cosine_min": invariance}

    def distance(self, model: onnx.ModelProto) -> float:
        """Return one number for ranking: the mean KL divergence of labels, or one minus the mean cosine."""
        metrics = task_metrics(self.task, self.expected, self.answers(model, self.calibration))
        value = metrics["mean_kl"] if "mean_kl" in metrics else metrics["cosine_mean"]
        if value is None:
            return float("inf")
        return value if "mean_kl" in metrics else 1 - value


def pad_batch(inputs: Sequence[Feeds], padding: Mapping[str, int]) -> dict[str, Array]:
    """Join inputs of shape (1, tokens) into one batch, padded on the right to the longest."""
    longest = max(next(iter(feeds.values())).shape[1] for feeds in inputs)
    return {
        name: np.concatenate(
            [
                np.pad(
                    feeds[name],
                    ((0, 0), (0, longest - feeds[name].shape[1])),
                    constant_values=padding.get(name, 0),
                )
                for feeds in inputs
            ]
        )
        for name in inputs[0]
    }
