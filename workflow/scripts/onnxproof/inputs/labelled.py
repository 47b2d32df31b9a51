"""What a model is to labelled data: its use and its labels, from the files of its snapshot."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxproof.cli import UserError
from onnxproof.evaluation.forms import Model
from onnxproof.inputs.final_answers import PAIRS, use_of
from onnxproof.tasks.heads import count_labels


def describe_model(name: str, task: str, config: Mapping[str, Any], snapshot: Path) -> Model:
    """Return what a model is used for and what its labels are called.

    Raises:
        UserError: no program of a card answers raw inputs for its task.
    """
    use = use_of(task, config)
    if use is None:
        raise UserError(f"{name}: evaluation: a model for {task} cannot be evaluated on labelled data")
    kind = "text-pair-classification" if use.name == "text-classification" and use.takes == PAIRS else use.name
    named = config.get("id2label") or {str(index): f"LABEL_{index}" for index in range(count_labels(config))}
    names = tuple(str(named[key]) for key in sorted(named, key=int))
    return Model(kind, task, names, _sampling_rate(snapshot) if use.takes == "sounds" else None)


def _sampling_rate(snapshot: Path) -> int:
    for file in ("preprocessor_config.json", "processor_config.json"):
        if (snapshot / file).is_file():
            settings = json.loads((snapshot / file).read_text(encoding="utf-8"))
            rate = settings.get("sampling_rate") or settings.get("feature_extractor", {}).get("sampling_rate")
            if isinstance(rate, int):
                return rate
    return 16_000
