"""Whether a decoder can write new keys and values into its old cache, see ``passes.cache_in_place``: a proof."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from onnxproof.cli import first_line
from onnxproof.graph.generation import Array, continue_from_cache, fed_length
from onnxproof.graph.sessions import Session
from onnxproof.inputs.model_inputs import MASK, TOKENS, ModelInputs
from onnxproof.inputs.prompts import PAST
from onnxproof.parity.metrics import compare_output
from onnxproof.quantization.passes.cache_in_place import keep_cache_in_place
from onnxproof.quantization.sessions import open_session

#: No answer may differ by more than this part of the largest value.
LARGEST_RELATIVE_DIFF = 1e-4
#: The cache in which a buffer is taken for longer texts has room for so many more tokens.
ROOM = 5
LOGITS = "logits"


def why_not_in_place(model: onnx.ModelProto, inputs: ModelInputs) -> str | None:
    """Return why a decoder must give a new cache for each token; None where it can write into the old one.

    The shortest and the longest input are run, alone and in one batch. The answers to all tokens are compared, and that
    to the last one behind a cache of the others. There, the buffer of the cache is longer than the text, and what is
    behind the text is no number.

    Args:
        model: the float model.
        inputs: calibration inputs, each with an empty cache.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    try:
        keep_cache_in_place(changed)
    except ValueError as error:
        return str(error)
    names = [value.name for value in model.graph.input]
    by_length = sorted(inputs.items, key=lambda item: item[TOKENS].size)
    few = replace(inputs, items=[by_length[0], by_length[-1]], padding_side="left")
    feeds = [few.feed(indices, names) for indices in ([0], [1], [0, 1])]
    try:
        # One after the other: both sessions together would take the memory of the weights twice.
        expected, actual = _run(model, feeds, 0), _run(changed, feeds, ROOM)
    except Exception as error:  # onnxruntime's own exceptions share no other base
        return f"the graph does not run: {first_line(error)}"
    for left, right in zip(expected, actual, strict=True):
        difference = compare_output(left, right)["max_relative_diff"]
        if difference is None or difference > LARGEST_RELATIVE_DIFF:
            by = "what is no number" if difference is None else f"{difference:.2g} of the largest value"
            return f"an answer differs by {by}"
    return None


def _run(model: onnx.ModelProto, feeds: Sequence[Mapping[str, Array]], room: int) -> list[list[Array]]:
    """Return what ``_answers`` returns for each feed."""
    session = open_session(model)
    return [_answers(session, feed, room) for feed in feeds]


def _answers(session: Session, feed: Mapping[str, Array], room: int) -> list[Array]:
    """Return the logits of all tokens, and of the last ones behind a cache, without those of padding.

    The buffer of that cache has ``room`` for more tokens.
    """
    (logits,) = session.run([LOGITS], feed)
    answers = [logits[feed[MASK].astype(bool)]]
    if fed_length(feed) > 1:
        rest = continue_from_cache(session, feed, fed_length(feed) - 1)
        longer = {name: _with_room(values, room) if name.startswith(PAST) else values for name, values in rest.items()}
        (last,) = session.run([LOGITS], longer)
        answers.append(last[:, 0])
    return answers


def _with_room(cache: Array, room: int) -> Array:
    """Return a cache, (B, heads, tokens, size), in a buffer with room for more tokens."""
    return np.pad(cache, [(0, 0), (0, 0), (0, room), (0, 0)], constant_values=np.nan)
