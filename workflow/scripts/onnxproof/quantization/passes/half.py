"""Weights and values in float16: half the memory, and twice the speed on GPUs.

Inputs and outputs of the graph stay float32. So do the values of nodes that are named: a Cast before and behind them
keeps them apart. What float16 would do to a node tells ``half_bounds.measure_bounds``.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxproof.graph.editor import GraphEditor, attribute_of, tensors_read
from onnxproof.quantization.half_bounds import HIGHEST, float_tensors

HALF, FLOAT = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
#: Constants with so many values are stored in float16 even where a node in float32 reads them.
LARGE = 256
#: What hides keys from a softmax: in float32, hidden by so much or more, the weight of a key is exactly zero.
HIDES, HIDDEN = -1e4, -4096.0
#: What reads such constants on their way to the scores.
MASKING = {"Add", "Mul", "Where"}
#: What writes values into places of a tensor, or adds them to what is there.
SCATTERS = {"ScatterElements", "ScatterND"}


def halve(model: onnx.ModelProto, *, keep: Sequence[str] = ()) -> None:
    """Let a float32 graph compute in float16, in place.

    Args:
        model: the model to change. Subgraphs stay as they are.
        keep: names of nodes that compute in float32.

    Raises:
        ValueError: ``keep`` names no node of the graph.
    """
    tensors = set(float_tensors(model)) | {
        value.name for value in model.graph.input if value.type.tensor_type.elem_type == FLOAT
    }
    editor = GraphEditor(model)
    unknown = sorted(set(keep) - {node.name for node in editor.nodes})
    if unknown:
        raise ValueError(f"keep names {unknown[0]!r}, which is no node of this graph")
    _Halving(editor, tensors, set(keep)).run()
    del model.graph.value_info[:]


def soften_masks(model: onnx.ModelProto) -> None:
    """Let masks hide keys by a number that float16 holds, in place: their weights are exactly zero either way."""
    editor = GraphEditor(model)
    for node in editor.of_type(*MASKING):
        for position, tensor in enumerate(node.input):
            values = editor.float_constant(tensor)
            if (
                values is not None
                and values.size
                and values.min() <= HIDES
                and np.isin(values[values > HIDES], 0).all()
            ):
                editor.change_constant(node, position, np.where(values <= HIDES, np.float32(HIDDEN), values))
    editor.finish()


class _Halving:
    """What is known while the nodes of a graph are turned to float16, one after another."""

    def __init__(self, editor: GraphEditor, tensors: set[str], keep: set[str]) -> None:
        self.editor, self.tensors, self.keep = editor, tensors, keep
        self.opsets = {entry.domain: entry.version for entry in editor.model.opset_import}
        #: The names of a tensor in float32 and in float16, by its own name and whether it is the latter.
        self.names: dict[tuple[str, bool], str] = {}
        self.halves: set[str] = set()
        captured = {name for node in editor.nodes for name in set(tensors_read(node)) - set(node.input)}
        #: What must be float32 under its own name: the graph's outputs, and what subgraphs read.
        self.given = captured | {value.name for value in editor.model.graph.output}

    def run(self) -> None:
        """Rewrite all nodes."""
        nodes: list[onnx.NodeProto] = []
        for node in self.editor.nodes:
            is_half = self._takes_half(node)
            for position, tensor in enumerate(node.input):
                if self._is_float(tensor):
                    wants_half = is_half and self._allows_half(node, position, "inputs")
                    node.input[position] = self._in_type(tensor, wants_half, nodes)
            nodes.append(node)
            if is_half:
                self._let_make_half(node, nodes)
        self.editor.nodes[:] = nodes
        self.editor.finish()

    def _takes_half(self, node: onnx.NodeProto) -> bool:
        """Tell whether a node computes in float16: it can, it need not be float32, and it has to do with floats."""
        if node.name in self.keep or any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            return False
        # onnxruntime's CPU provider has a float16 kernel for Scatter, which fails where it must add (1.32).
        if node.op_type in SCATTERS and attribute_of(node, "reduction", b"none") != b"none":
            return False
        made = [position for position, name in enumerate(node.output) if name in self.tensors]
        if not all(self._allows_half(node, position, "outputs") for position in made):
            return False
        read = [position for position, name in enumerate(node.input) if self._is_float(name)]
        allowed = [position for position in read if self._allows_half(node, position, "inputs")]
        if made:
            return bool(allowed) or (not read and _says_its_type(node))
        # Where no float comes out, float16 is taken where it is there already.
        return any(node.input[position] in self.halves for position in allowed)

    def _let_make_half(self, node: onnx.NodeProto, nodes: list[onnx.NodeProto]) -> None:
        if node.op_type == "ConstantOfShape" and not node.attribute:  # zeros in float32, unless it says otherwise
            zero = numpy_helper.from_array(np.zeros(1, dtype=np.float32))
            node.attribute.append(helper.make_attribute("value", zero))
        for position, name in enumerate(node.output):
            if name not in self.tensors:
                continue
            self.halves.add(name)
            if name in self.given:
                node.output[position] = self.names[name, True] = self.editor.new_tensor(f"{name}_half")
                nodes.append(self.editor.new_node("Cast", [node.output[position]], [name], f"{name}_float", to=FLOAT))
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT:
                attribute.i = HALF
            elif attribute.HasField("t") and attribute.t.data_type == FLOAT:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float16)))

    def _in_type(self, tensor: str, half: bool, nodes: list[onnx.NodeProto]) -> str:
        """Return the name of a tensor in float16, or in float32; where there is none, a Cast makes one."""
        if tensor not in self.tensors:
            return self._constant_in_type(tensor, half, nodes)
        if half == (tensor in self.halves) or (not half and tensor in self.given):
            return self.names.get((tensor, half), tensor)
        if (tensor, half) not in self.names:
            name = self.editor.new_tensor(f"{tensor}_{'half' if half else 'float'}")
            source = self.names.get((tensor, not half), tensor)
            nodes.append(self.editor.new_node("Cast", [source], [name], name, to=HALF if half else FLOAT))
            self.names[tensor, half] = name
        return self.names[tensor, half]

    def _constant_in_type(self, tensor: str, half: bool, nodes: list[onnx.NodeProto]) -> str:
        values = self.editor.float_constant(tensor)
        assert values is not None
        fits = bool(np.abs(values).max(initial=0) <= HIGHEST)
        if not half and (values.size < LARGE or not fits):
            return tensor
        stored = self.names.get((tensor, True))
        if stored is None:
            stored = self.names[tensor, True] = self.editor.add_constant(f"{tensor}_half", values.astype(np.float16))
        if half:
            return stored
        if (tensor, False) not in self.names:
            name = self.names[tensor, False] = self.editor.new_tensor(f"{tensor}_float")
            nodes.append(self.editor.new_node("Cast", [stored], [name], name, to=FLOAT))
        return self.names[tensor, False]

    def _is_float(self, tensor: str) -> bool:
        return tensor in self.tensors or self.editor.float_reader(tensor) is not None

    def _allows_half(self, node: onnx.NodeProto, position: int, side: str) -> bool:
        """Tell whether onnxruntime's operator takes, or gives, float16 at a position."""
        types = _allowed_types(node.domain, node.op_type, self.opsets.get(node.domain, 1))[side]
        return "tensor(float16)" in types[min(position, len(types) - 1)] if types else False


def _says_its_type(node: onnx.NodeProto) -> bool:
    """Tell whether the type of what a node makes out of other things than floats is one of its attributes."""
    if node.op_type == "Constant":
        return any(attribute.name == "value" for attribute in node.attribute)
    return node.op_type in ("Cast", "ConstantOfShape")


@functools.cache
def _schemas() -> dict[tuple[str, str], list[Any]]:
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

    found: dict[tuple[str, str], list[Any]] = {}
    for schema in get_all_operator_schema():
        found.setdefault((schema.domain, schema.name), []).append(schema)
    return found


@functools.cache
def _allowed_types(domain: str, op_type: str, opset: int) -> dict[str, list[frozenset[str]]]:
    """Return the types that an operator's inputs and outputs may have; of its last one stand for any that follow."""
    known = [schema for schema in _schemas().get((domain, op_type), []) if schema.since_version <= opset]
    if not known:
        return {"inputs": [], "outputs": []}
    schema = max(known, key=lambda schema: schema.since_version)
    return {side: [frozenset(value.types) for value in getattr(schema, side)] for side in ("inputs", "outputs")}
