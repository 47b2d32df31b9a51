"""Whether what is added to attention scores is a padding mask: found out by computing it.

Exporters write the same mask in many ways, so its nodes are not compared with any. The part of the graph that computes
it is run by itself on random inputs. It is the padding mask of a graph's input when, on all of them, the value for
each text, query and key is 0 where that text's key is set in the input and one large negative number where it is not,
the same for every query. A causal mask hides keys that are set, so it is none. A windowed mask does so too, as soon as
the text is longer than the window. The width of a window is a constant of the computation, so where the computed mask
has a row a query, one of the inputs is longer than all constants there. A mask that has one row for all queries, of
shape (B, 1, 1, S), can't depend on the query, however long the text.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxproof.graph.editor import producers, tensors_read
from onnxproof.graph.external_data import read_tensor, session_entries
from onnxproof.graph.matcher import MismatchError
from onnxproof.inputs.model_inputs import MASK, POSITIONS, TOKENS
from onnxproof.inputs.prompts import PAST

#: Hidden scores are moved by at least this much; float32 softmax gives them exactly zero from about -104 on.
WEAKEST = -1e3
#: The texts that a mask is computed for: their number, and lengths in tokens.
TEXTS, LENGTHS = 3, (5, 12)
#: Where the graph has this input, lengths are in samples of sound, at most so many of which make a key.
SOUND, SAMPLES = "input_values", 480
#: No mask is computed for longer texts: one of 2,048 tokens has four million values.
LONGEST = 2048
#: A mask's computation has no products of activations, and this many nodes at most.
MOST_NODES = 300
PRODUCTS = {"MatMul", "Gemm", "Conv", "Softmax", "Attention"}


@dataclass(frozen=True)
class PaddingMask:
    """What tells which keys are hidden, and what is added to their scores.

    ``tensor`` is the graph's input, integer of shape (B, S), that is 0 for them; or, where there is none and
    ``is_input`` is false, the mask itself, float32 of shape (B, 1, 1 or S, S). It is empty where nothing is hidden.
    """

    tensor: str
    hidden: float = 0.0
    is_input: bool = True


class MaskReader:
    """Reads the masks of one model, each once."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Read from a model, which must not change meanwhile."""
        self.model = model
        self._producers = producers(model.graph.node)
        self._known: dict[str, PaddingMask | MismatchError] = {}

    def read(self, tensor: str) -> PaddingMask:
        """Return the padding mask that a tensor added to scores of shape (B, heads, S, S) is.

        Raises:
            MismatchError: it is another kind of mask, or nothing that can be computed by itself.
        """
        if tensor not in self._known:
            try:
                self._known[tensor] = self._read(tensor)
            except MismatchError as mismatch:
                self._known[tensor] = mismatch
        known = self._known[tensor]
        if isinstance(known, MismatchError):
            raise known
        return known

    def read_causal(self, tensor: str) -> float:
        """Return what hides a key in the mask of a decoder, (B, 1, S, P + S), P of whose tokens are in a cache.

        The mask is that number where ``attention_mask`` is 0 or the key's token comes later, and 0 elsewhere.

        Raises:
            MismatchError: it is another kind of mask, or nothing that can be computed by itself.
        """
        computation = self._computation_of(tensor)
        generator = np.random.default_rng(0)
        in_nodes = [
            numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
            for node in computation.graph.node
            if node.op_type == "Constant"
            for value in [helper.get_attribute_value(node.attribute[0])]
        ]
        longer = self._longer_than_constants(computation, in_nodes)
        hidden: float | None = None
        for past, fed in ((0, LENGTHS[0]), (LENGTHS[1], 1), (LENGTHS[0], LENGTHS[1]), (longer, 2), (0, longer)):
            feed = _random_decoder_inputs(computation.graph.input, past, fed, generator)
            given = generator.integers(0, 2, (TEXTS, past + fed))
            given[:, 0] = 1  # no text is hidden as a whole
            feed |= {MASK: given} if MASK in feed else {}
            computed = self._run(computation, feed)
            hidden = float(computed.min(initial=0)) if hidden is None else hidden
            later = np.arange(past + fed) > past + np.arange(fed)[:, None]
            expected = np.where(later | (given == 0)[:, None, None], np.float32(hidden), np.float32(0))
            if hidden > WEAKEST or computed.dtype != np.float32 or not np.array_equal(computed, expected):
                raise MismatchError("the mask hides other keys than padding and later tokens")
        assert hidden is not None
        return hidden

    def _read(self, tensor: str) -> PaddingMask:
        computation = self._computation_of(tensor)
        generator = np.random.default_rng(0)
        mask: PaddingMask | None = None
        scale = SAMPLES if any(value.name == SOUND for value in self.model.graph.input) else 1
        lengths = list(LENGTHS)
        for length in lengths:
            feed = {value.name: _random_input(value, length * scale, generator) for value in computation.graph.input}
            computed = self._run(computation, feed)
            if computed.ndim > 4 or computed.dtype != np.float32:
                raise MismatchError("what is added to the scores is no float32 mask of four dimensions")
            computed = computed.reshape((1,) * (4 - computed.ndim) + computed.shape)
            found = _match(tensor, computed, feed)
            if mask is not None and found != mask:
                raise MismatchError("the mask's values depend on the text's length")
            mask = found
            if computed.shape[2] != 1 and len(lengths) == len(LENGTHS) and mask.tensor:
                lengths.append(self._longer_than_constants(computation))
        assert mask is not None
        return mask

    def _computation_of(self, tensor: str) -> onnx.ModelProto:
        """Return a model of the nodes that compute a tensor."""
        wanted, needed = [tensor], set()
        while wanted:
            name = wanted.pop()
            node = self._producers.get(name)
            if node is None or id(node) in needed:
                continue
            if node.op_type in PRODUCTS:
                raise MismatchError("what is added to the scores depends on activations")
            needed.add(id(node))
            if len(needed) > MOST_NODES:
                raise MismatchError("what is added to the scores takes too many nodes to compute")
            wanted += tensors_read(node)
        graph = self.model.graph
        nodes = [node for node in graph.node if id(node) in needed]
        read = {name for node in nodes for name in tensors_read(node)} | {tensor}
        computation = onnx.ModelProto()
        computation.CopyFrom(
            helper.make_model(
                helper.make_graph(
                    nodes,
                    "mask",
                    [value for value in graph.input if value.name in read],
                    [onnx.ValueInfoProto(name=tensor)],
                    [value for value in graph.initializer if value.name in read],
                ),
                opset_imports=self.model.opset_import,
                ir_version=self.model.ir_version,
            )
        )
        return computation

    def _run(self, computation: onnx.ModelProto, feed: dict[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        for key, value in session_entries(self.model).items():
            options.add_session_config_entry(key, value)
        try:
            session = onnxruntime.InferenceSession(
                computation.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            return np.asarray(session.run(None, feed)[0])
        except Exception as error:  # onnxruntime's own exceptions share no other base
            raise MismatchError("what is added to the scores cannot be computed by itself") from error

    def _longer_than_constants(self, computation: onnx.ModelProto, others: Sequence[Any] = ()) -> int:
        """Return a length above all small whole numbers among the constants of a computation, and others."""
        largest = max(LENGTHS)
        constants = [read_tensor(self.model, tensor) for tensor in computation.graph.initializer]
        for constant in [*constants, *others]:
            values = np.abs(np.asarray(constant, np.float64)).reshape(-1)
            usable = values[np.isfinite(values) & (values < np.iinfo(np.int32).max // 2)]
            largest = max(largest, int(usable.max(initial=0)))
        if 2 * largest + 2 > LONGEST:
            raise MismatchError("the mask may hide what is further away than texts can be computed for")
        return 2 * largest + 2


def _random_decoder_inputs(
    inputs: Iterable[onnx.ValueInfoProto], past: int, fed: int, generator: np.random.Generator
) -> dict[str, NDArray[np.generic]]:
    """Return values for inputs of a decoder: ``fed`` tokens of each text, behind ``past`` others in a cache.

    Raises:
        MismatchError: one of them is no input of a decoder.
    """
    feed: dict[str, NDArray[np.generic]] = {}
    for value in inputs:
        fixed = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        lengths = {TOKENS: fed, POSITIONS: fed, MASK: past + fed}
        shape: tuple[int, ...]
        if value.name.startswith(PAST) and len(fixed) == 4:
            shape = (TEXTS, fixed[1] or 1, past, fixed[3] or 1)
        elif value.name in lengths and len(fixed) == 2:
            shape = (TEXTS, lengths[value.name])
        else:
            raise MismatchError("the mask depends on other inputs than tokens and a cache")
        values = generator.integers(0, 2, shape)
        feed[value.name] = values.astype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
    return feed


def _random_input(value: onnx.ValueInfoProto, length: int, generator: np.random.Generator) -> NDArray[np.generic]:
    """Return zeros and ones for an input: the first free dimension is the number of texts, the others are lengths."""
    tensor = value.type.tensor_type
    shape = [
        dimension.dim_value if dimension.HasField("dim_value") else (length if position else TEXTS)
        for position, dimension in enumerate(tensor.shape.dim)
    ]
    values = generator.integers(0, 2, shape)
    if values.ndim > 1:
        values[:, 0] = 1  # no text is hidden as a whole
    return values.astype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))


def _match(tensor: str, computed: NDArray[np.float32], inputs: dict[str, NDArray[np.generic]]) -> PaddingMask:
    """Return the padding mask that values of shape (B or 1, 1, S or 1, S), computed from these inputs, are."""
    if not computed.any():
        return PaddingMask("")
    hidden = float(computed.min())
    if computed.shape[1] != 1 or hidden > WEAKEST or not np.isin(computed, np.array((0, hidden), np.float32)).all():
        raise MismatchError("what is added to the scores is no mask that hides some keys and leaves others alone")
    if not (computed == computed[:, :, :1]).all():
        raise MismatchError("the mask is another one for each query")
    for name, given in inputs.items():
        if given.ndim == 2 and np.issubdtype(given.dtype, np.integer) and given.shape[1] == computed.shape[3]:
            expected = np.where(given[:, np.newaxis, np.newaxis, :] != 0, 0, np.float32(hidden))
            if (computed == expected).all():
                return PaddingMask(name, hidden)
    if len(computed) != TEXTS:
        raise MismatchError("the mask hides the same keys in every text")
    return PaddingMask(tensor, hidden, is_input=False)
