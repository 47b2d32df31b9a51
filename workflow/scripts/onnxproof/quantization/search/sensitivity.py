"""Which products suffer most from int8: the ones to leave in float, should any have to be.

Each quantizable node is quantized alone and the whole model's answers are compared with the float ones. That costs
one session a node, seconds for a small encoder and minutes for a large one, but it sees what local errors do not:
how later layers amplify or absorb them. The single errors add up well to the error of quantizing many.
"""

from collections.abc import Callable, Mapping
from typing import Any

import onnx

from onnxproof.graph.editor import GraphEditor
from onnxproof.quantization.recipe import apply_recipe
from onnxproof.quantization.search.judge import Judge
from onnxproof.quantization.targets import find_targets


def measure_sensitivity(
    model: onnx.ModelProto,
    step: Mapping[str, Any],
    judge: Judge,
    progress: Callable[[str], None] = print,
) -> dict[str, float]:
    """Return each quantizable node's share of the error, largest first: ``{node name: distance to float}``.

    Args:
        model: the float model, after every pass but the quantizing one.
        step: the quantizing step of the recipe; it must know the parameter ``exclude``.
        judge: what holds the float answers and the calibration inputs.
        progress: told of each node measured.
    """
    names = [target.name for target in find_targets(GraphEditor(model))]
    distances = {}
    for number, name in enumerate(names, start=1):
        others = [other for other in names if other != name]
        alone = apply_recipe(model, [dict(step) | {"exclude": others}], judge.calibration)
        distances[name] = judge.distance(alone)
        progress(f"sensitivity {number}/{len(names)}: {name}: {distances[name]:.3g}")
    return dict(sorted(distances.items(), key=lambda item: (-item[1], item[0])))
