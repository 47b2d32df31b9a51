"""Which nodes of a graph an execution provider refuses, by what the provider's documentation says.

A table for each provider is in ``resources/targets/``: the operators that it takes, and the conditions on a node that a
graph shows. Nothing is run here. onnxruntime gives a provider what it takes and runs the rest on the CPU, so a refused
node costs time and not the answer.

A provider that needs fixed shapes is judged by the graph as it is once the shapes of its inputs are fixed: what depends
on shapes and constants alone is then computed when the graph is loaded, and no node of it is left.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from onnxproof.places import RESOURCES

TABLES = RESOURCES / "targets"

#: Names of types in the tables.
TYPES = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    **{
        number: name.lower()
        for name, number in TensorProto.DataType.items()
        if number not in (TensorProto.UNDEFINED, TensorProto.FLOAT, TensorProto.DOUBLE)
    },
}
#: Operators whose output has another shape for other values, which no fixed shape of an input settles.
SHAPED_BY_VALUES = frozenset({"Compress", "NonMaxSuppression", "NonZero", "Unique"})
#: The inputs, by their positions, that say which shape an output has.
SHAPE_INPUTS = {
    **dict.fromkeys(("Expand", "OneHot", "Pad", "Reshape", "Split", "Squeeze", "Tile", "TopK", "Unsqueeze"), (1,)),
    "ConstantOfShape": (0,),
    "Range": (0, 1, 2),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
}
#: Operators that read a shape alone.
OF_SHAPES = frozenset({"Shape", "Size"})
#: Operators that pass on values of the type that they read.
SAME_TYPE = frozenset({"Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})


@dataclass(frozen=True)
class Provider:
    """What is documented of one execution provider."""

    name: str
    title: str
    sources: tuple[str, ...]
    documented: str  #: what the table was made of, and what it leaves out
    fixed_shapes: bool  #: whether it takes graphs with fixed shapes alone
    operators: frozenset[str]  #: those that it takes, as ``domain:Operator``
    conditions: Mapping[str, Mapping[str, Any]]  #: of some of them, see ``_unmet``


@dataclass(frozen=True)
class Refused:
    """A node that a provider refuses, and why."""

    node: str
    operator: str
    reason: str

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.operator} {self.node}: {self.reason}"


@dataclass(frozen=True)
class Judged:
    """What a provider makes of a graph.

    ``nodes`` counts those that are left once shapes are fixed, or all of them for a provider that takes any shape.
    ``not_fixed`` names the inputs whose shapes must be fixed first.
    """

    nodes: int
    refused: list[Refused] = field(default_factory=list)
    not_fixed: list[str] = field(default_factory=list)


def provider_names() -> list[str]:
    """Return the providers that there are tables of, in the order of the alphabet."""
    return sorted(path.stem for path in TABLES.glob("*.yaml"))


@cache
def read_provider(name: str) -> Provider:
    """Return the table of one provider.

    Raises:
        OSError: there is none of this name.
    """
    table = yaml.safe_load((TABLES / f"{name}.yaml").read_text(encoding="utf-8"))
    listed = {f"{domain}:{operator}" for domain, names in table["operators"].items() for operator in names}
    return Provider(
        name,
        table["title"],
        tuple(table["sources"]),
        table["documented"],
        table["fixed_shapes"],
        frozenset(listed | table["conditions"].keys()),
        table["conditions"],
    )


def judge_graph(model: onnx.ModelProto, provider: Provider) -> Judged:
    """Return which nodes of a model a provider refuses; weights in files beside the graph are not read."""
    facts = _Facts(model, provider.fixed_shapes)
    left = [node for node in _with_subgraphs(model.graph) if not facts.is_settled(node)]
    refused = [
        Refused(node.name or node.output[0], _told(operator), reason)
        for node in left
        if (reason := _reason(node, operator := _operator(node), provider, facts))
    ]
    return Judged(len(left), refused, _without_fixed_shape(model.graph) if provider.fixed_shapes else [])


def _reason(node: onnx.NodeProto, operator: str, provider: Provider, facts: "_Facts") -> str:
    if operator not in provider.operators:
        return "the operator is not listed"
    return "; ".join(_unmet(node, provider.conditions.get(operator, {}), facts))


def _unmet(node: onnx.NodeProto, conditions: Mapping[str, Any], facts: "_Facts") -> Iterator[str]:
    """Yield the conditions that a node does not meet.

    ``types`` are those of its values: the integers of QuantizeLinear and DequantizeLinear, else the first input's.
    ``pairs`` are types of two quantized inputs; ``rounded: output`` asks that the output of such a product be rounded
    to the type of the first one, and ``scales: one`` that neither has a scale per channel. ``zero_point: zero`` allows
    symmetric scales alone. ``constant`` and ``nonzero`` name inputs by their positions, and ``absent`` those that a
    node may not have. ``attribute`` limits one attribute, ``outputs`` their number, and ``behind`` names the operator
    that must make the first input. What a graph does not tell is taken for right.
    """
    seen = facts.type_of_values(node)
    if "types" in conditions and seen not in (None, *conditions["types"]):
        yield f"its values are {seen}, allowed are {', '.join(conditions['types'])}"
    if "pairs" in conditions:
        yield from _unmet_of_integers(node, conditions, facts)
    if conditions.get("zero_point") == "zero" and facts.has_zero_point(node):
        yield "its zero point is not 0"
    for position in conditions.get("constant", ()):
        if len(node.input) > position and node.input[position] and not facts.is_constant(node.input[position]):
            yield f"its input {node.input[position]} is not constant"
    for position in conditions.get("absent", ()):
        if len(node.input) > position and node.input[position]:
            yield f"it has the input {node.input[position]}, number {position + 1}"
    for position in conditions.get("nonzero", ()):
        values = facts.small_constant(node.input[position]) if len(node.input) > position else None
        if values is not None and 0 in values:
            yield f"its input {node.input[position]} has a 0"
    if limited := conditions.get("attribute"):
        value = next((helper.get_attribute_value(a) for a in node.attribute if a.name == limited["name"]), None)
        value = limited["default"] if value is None else value.decode() if isinstance(value, bytes) else value
        if value not in limited["values"]:
            yield f"{limited['name']} is {value}, allowed is {', '.join(map(str, limited['values']))}"
    if "outputs" in conditions and sum(bool(name) for name in node.output) > conditions["outputs"]:
        yield f"it has {sum(bool(name) for name in node.output)} outputs, allowed is {conditions['outputs']}"
    if "behind" in conditions and facts.operator_of(node.input[0]) != conditions["behind"]:
        yield f"its input does not come from {conditions['behind']}"


def _unmet_of_integers(node: onnx.NodeProto, conditions: Mapping[str, Any], facts: "_Facts") -> Iterator[str]:
    """Yield the conditions that a product does not meet if both of its inputs are quantized."""
    pair = [facts.quantized_type(name) for name in node.input[:2]]
    if None in pair:
        return
    if pair not in conditions["pairs"]:
        allowed = " or ".join(" by ".join(types) for types in conditions["pairs"])
        yield f"it multiplies {' by '.join(map(str, pair))}, allowed is {allowed}"
    if conditions.get("scales") == "one":
        for number, name in enumerate(node.input[:2], start=1):
            if facts.has_scales(name):
                yield f"its input number {number} has a scale per channel, allowed is one scale"
    if conditions.get("rounded") == "output" and facts.rounded_type(node.output[0]) != pair[0]:
        yield f"its output is not rounded to {pair[0]}"


class _Facts:
    """What a graph tells of its tensors."""

    def __init__(self, model: onnx.ModelProto, fixed_shapes: bool) -> None:
        graph = model.graph
        nodes = list(_with_subgraphs(graph))
        self._stored = dict(_constants(graph))
        self._makers = {name: node for node in nodes for name in node.output if name}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._types = {value.name: value.type.tensor_type.elem_type for value in [*graph.input, *graph.value_info]}
        self._types |= {name: tensor.data_type for name, tensor in self._stored.items()}
        self._settled = set(self._stored)
        varying: set[str] = set()
        for node in nodes:
            read = {name for name in node.input if name}
            asked = {node.input[at] for at in SHAPE_INPUTS.get(node.op_type, ()) if at < len(node.input)} - {""}
            is_varying = node.op_type in SHAPED_BY_VALUES or bool(_bodies(node)) or not asked <= self._settled
            if is_varying or read & varying:
                varying.update(node.output)
            of_shapes = fixed_shapes and node.op_type in OF_SHAPES and not read & varying
            if of_shapes or (read <= self._settled and not _bodies(node) and _keeps_constant(node)):
                self._settled.update(node.output)

    def is_settled(self, node: onnx.NodeProto) -> bool:
        """Tell whether a node is computed when the graph is loaded. DequantizeLinear is kept: it marks a weight."""
        return all(name in self._settled for name in node.output)

    def is_constant(self, tensor: str) -> bool:
        return tensor in self._settled

    def operator_of(self, tensor: str) -> str | None:
        maker = self._makers.get(tensor)
        return None if maker is None else maker.op_type

    def small_constant(self, tensor: str) -> list[Any] | None:
        """Return the values of a stored tensor that lie in the graph itself."""
        stored = self._stored.get(tensor)
        if stored is None or stored.data_location == TensorProto.EXTERNAL:
            return None
        values: list[Any] = numpy_helper.to_array(stored).ravel().tolist()
        return values

    def type_of(self, tensor: str) -> str | None:
        """Return the type of a tensor, where the graph tells it."""
        maker = self._makers.get(tensor)
        if tensor in self._types:
            return TYPES.get(self._types[tensor])
        if maker is None:
            return None
        if maker.op_type == "Cast":
            return TYPES.get(next(attribute.i for attribute in maker.attribute if attribute.name == "to"))
        if maker.op_type == "QuantizeLinear":
            return self.type_of_values(maker)
        return self.type_of(maker.input[0]) if maker.op_type in SAME_TYPE else None

    def type_of_values(self, node: onnx.NodeProto) -> str | None:
        """Return the type of what a node reads first; of QuantizeLinear, of what it makes."""
        if node.op_type != "QuantizeLinear":
            return self.type_of(node.input[0]) if node.input else None
        if len(node.input) > 2 and node.input[2]:
            return self.type_of(node.input[2])
        asked = next((a.i for a in node.attribute if a.name == "output_dtype" and a.i), TensorProto.UINT8)
        return TYPES.get(asked)

    def quantized_type(self, tensor: str) -> str | None:
        """Return the type of the integers behind a tensor that DequantizeLinear makes, and others move; else None."""
        maker = self._dequantizing(tensor)
        return None if maker is None else self.type_of_values(maker)

    def has_scales(self, tensor: str) -> bool:
        """Tell whether a tensor that DequantizeLinear makes, and others move, has more than one scale."""
        maker = self._dequantizing(tensor)
        scale = None if maker is None else self._stored.get(maker.input[1])
        return scale is not None and math.prod(scale.dims) > 1

    def rounded_type(self, tensor: str) -> str | None:
        """Return the type of integers that a tensor becomes, where QuantizeLinear alone reads it; else None."""
        readers = self._readers.get(tensor, [])
        return self.type_of_values(readers[0]) if [node.op_type for node in readers] == ["QuantizeLinear"] else None

    def _dequantizing(self, tensor: str) -> onnx.NodeProto | None:
        maker = self._makers.get(tensor)
        while maker is not None and maker.op_type in SAME_TYPE:
            maker = self._makers.get(maker.input[0])
        return maker if maker is not None and maker.op_type == "DequantizeLinear" else None

    def has_zero_point(self, node: onnx.NodeProto) -> bool:
        """Tell whether a node has a zero point that is known not to be 0."""
        values = self.small_constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        return values is not None and any(values)


def _keeps_constant(node: onnx.NodeProto) -> bool:
    """Tell whether constants make a constant: a weight behind DequantizeLinear is left for the provider."""
    return node.op_type != "DequantizeLinear" and not node.op_type.startswith("Random")


def _with_subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for body in _bodies(node):
            yield from _with_subgraphs(body)


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Yield what a graph and its subgraphs store, by name: initializers and the values of Constant nodes."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant":
            yield from ((node.output[0], attribute.t) for attribute in node.attribute if attribute.name == "value")
        for body in _bodies(node):
            yield from _constants(body)


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]


def _without_fixed_shape(graph: onnx.GraphProto) -> list[str]:
    stored = {tensor.name for tensor in graph.initializer}
    return [value.name for value in graph.input if value.name not in stored and not _is_fixed(value)]


def _is_fixed(value: onnx.ValueInfoProto) -> bool:
    axes: Iterable[Any] = value.type.tensor_type.shape.dim
    return all(axis.HasField("dim_value") for axis in axes)


def _operator(node: onnx.NodeProto) -> str:
    return f"{node.domain or 'ai.onnx'}:{node.op_type}"


def _told(operator: str) -> str:
    return operator.removeprefix("ai.onnx:")
