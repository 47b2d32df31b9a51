"""What every pass needs to ask of, and change in, an ONNX graph."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnxproof.graph.external_data import make_tensor, read_tensor


class GraphEditor:
    """The main graph of a model, opened for editing: a list of nodes, and the constants they read.

    ``nodes`` is a plain list that passes read and change; ``finish`` writes it back. Every node gets a name
    of its own, so that a name identifies a node. Subgraphs (bodies of If, Loop, Scan) are left alone, but
    what they read counts as read.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        """Open ``model``, which ``finish`` changes in place."""
        self.model = model
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        overridable = {value.name for value in model.graph.input}
        self._overridable = overridable & self._constants.keys()
        self._tensor_names = overridable | self._constants.keys()
        self._tensor_names.update(name for node in self.nodes for name in node.output)
        self._node_names: set[str] = set()
        for node in self.nodes:
            node.name = _unused(node.name or node.op_type, self._node_names)

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators that the model asks for."""
        return next(int(entry.version) for entry in self.model.opset_import if entry.domain in ("", "ai.onnx"))

    def of_type(self, *op_types: str) -> list[onnx.NodeProto]:
        """Return the nodes of these operator types, in graph order."""
        return [node for node in self.nodes if node.op_type in op_types]

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """Return the node that makes ``tensor``; None for graph inputs and constants."""
        return producers(self.nodes).get(tensor)

    def readers(self, tensor: str) -> list[onnx.NodeProto]:
        """Return the nodes that read ``tensor``, themselves or in a subgraph, each once, in graph order."""
        return [node for node in self.nodes if tensor in tensors_read(node)]

    def is_output(self, tensor: str) -> bool:
        """Tell whether the graph hands ``tensor`` to its caller."""
        return any(value.name == tensor for value in self.model.graph.output)

    def float_constant(self, tensor: str, rank: int | None = None) -> NDArray[np.float32] | None:
        """Return the values of a float32 constant (of this rank); None where ``tensor`` is anything else."""
        read = self.float_reader(tensor, rank)
        return read() if read else None

    def float_reader(self, tensor: str, rank: int | None = None) -> Callable[[], NDArray[np.float32]] | None:
        """Return what reads a float32 constant (of this rank); None where ``tensor`` is anything else."""
        stored = self._stored(tensor)
        if stored is None or stored.data_type != onnx.TensorProto.FLOAT or rank not in (None, len(stored.dims)):
            return None
        return partial(read_tensor, self.model, stored)

    def constant_shape(self, tensor: str) -> tuple[int, ...] | None:
        """Return the shape of a constant, without its values; None where ``tensor`` is anything else."""
        stored = self._stored(tensor)
        return None if stored is None else tuple(stored.dims)

    def constant(self, tensor: str) -> NDArray[Any] | None:
        """Return the values of a constant of any type; None where ``tensor`` is anything else."""
        stored = self._stored(tensor)
        return None if stored is None else read_tensor(self.model, stored)

    def add_constant(self, name: str, values: NDArray[Any]) -> str:
        """Store a constant under ``name``, or that name and a number where it is taken; return the name."""
        name = self.new_tensor(name)
        self._constants[name] = make_tensor(self.model, name, values)
        return name

    def share_constant(self, name: str, values: NDArray[Any]) -> str:
        """Return ``name`` where it holds these very values already, else ``add_constant``."""
        stored = self._constants.get(name)
        if stored is not None and np.array_equal(read_tensor(self.model, stored), values):
            return name
        return self.add_constant(name, values)

    def change_constant(self, node: onnx.NodeProto, position: int, values: NDArray[Any]) -> None:
        """Let one input of ``node`` read ``values``; other readers of the old constant keep it."""
        node.input[position] = self.add_constant(node.input[position], values)

    def new_tensor(self, name: str) -> str:
        """Return a tensor name nobody uses: ``name``, or that and a number."""
        return _unused(name, self._tensor_names)

    def new_node(
        self,
        op_type: str,
        inputs: Iterable[str],
        outputs: Iterable[str],
        name: str,
        domain: str = "",
        **attributes: Any,
    ) -> onnx.NodeProto:
        """Return a node with a name of its own; the caller puts it in ``nodes``."""
        if domain:
            self._import_domain(domain)
        name = _unused(name, self._node_names)
        return helper.make_node(op_type, list(inputs), list(outputs), name=name, domain=domain, **attributes)

    def replace(self, old: onnx.NodeProto, new: list[onnx.NodeProto]) -> None:
        """Put ``new``, in topological order, where ``old`` is."""
        position = self._position(old)
        self.nodes[position : position + 1] = new

    def insert_after(self, node: onnx.NodeProto, new: list[onnx.NodeProto]) -> None:
        """Put ``new``, in topological order, right behind ``node``."""
        position = self._position(node) + 1
        self.nodes[position:position] = new

    def insert_before(self, node: onnx.NodeProto, new: list[onnx.NodeProto]) -> None:
        """Put ``new``, in topological order, right before ``node``."""
        position = self._position(node)
        self.nodes[position:position] = new

    def finish(self) -> None:
        """Write the nodes and the constants still read into the model."""
        graph = self.model.graph
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self.nodes]
        del graph.node[:]
        graph.node.extend(nodes)
        read = {name for node in nodes for name in tensors_read(node)} | {value.name for value in graph.output}
        stored = {tensor.name for tensor in graph.initializer}
        for index in reversed(range(len(graph.initializer))):
            if graph.initializer[index].name not in read:
                del graph.initializer[index]
        graph.initializer.extend(
            tensor for name, tensor in self._constants.items() if name in read and name not in stored
        )

    def _stored(self, tensor: str) -> onnx.TensorProto | None:
        return None if tensor in self._overridable else self._constants.get(tensor)

    def _position(self, wanted: onnx.NodeProto) -> int:
        return next(index for index, node in enumerate(self.nodes) if node.name == wanted.name)

    def _import_domain(self, domain: str) -> None:
        if all(entry.domain != domain for entry in self.model.opset_import):
            self.model.opset_import.append(helper.make_opsetid(domain, 1))


class NodeWriter:
    """Collects the ``nodes`` that take the place of another one, with names made from its name."""

    def __init__(self, editor: GraphEditor) -> None:
        """Write for a graph that is open for editing."""
        self.editor = editor
        self.name = ""
        self.nodes: list[onnx.NodeProto] = []

    def start(self, last: onnx.NodeProto) -> None:
        """Begin to write what takes the place of a node."""
        self.name, self.nodes = last.name, []

    def add(self, op_type: str, inputs: list[str], part: str = "", output: str = "", **attributes: Any) -> str:
        """Add a node with one output, ``output`` or a new tensor named after ``part`` or the operator; return it."""
        name = f"{self.name}_{part or op_type}"
        output = output or self.editor.new_tensor(name)
        self.nodes.append(self.editor.new_node(op_type, inputs, [output], name, **attributes))
        return output


def producers(nodes: Iterable[onnx.NodeProto]) -> dict[str, onnx.NodeProto]:
    """Return the node that makes each tensor; those that no node makes, graph inputs and constants, are left out."""
    return {output: node for node in nodes for output in node.output if output}


def attribute_of(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return the value of a node's attribute, or ``default`` where the node does not have it."""
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def tensors_read(node: onnx.NodeProto) -> Iterator[str]:
    """Yield what a node reads, itself or in a subgraph, each as often as it does."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for subgraph in (attribute.g, *attribute.graphs):
            for inner in subgraph.node:
                yield from tensors_read(inner)


def _unused(wanted: str, taken: set[str]) -> str:
    name, count = wanted, 1
    while name in taken:
        name, count = f"{wanted}_{count}", count + 1
    taken.add(name)
    return name
