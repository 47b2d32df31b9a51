"""What a look at an ONNX file tells without running it: precision, weights, operators, versions, axes."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxproof.audit.repository import finding
from onnxproof.checkpoint.untrusted import shortened, stays_inside
from onnxproof.cli import first_line
from onnxproof.graph.folder import all_tensors, nodes_of
from onnxproof.inputs.model_inputs import MASK, MASKED_POSITIONS, TOKENS
from onnxproof.records.audit import Finding
from onnxproof.vocabulary import MICROSOFT

#: The newest that the builds of onnxruntime load which clients in browsers and on phones have.
NEWEST_OPSET, NEWEST_IR = 21, 10
#: Domains whose operators onnxruntime has.
KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", MICROSOFT, "com.microsoft.nchwc", "ai.onnx.preview.training")
#: Smaller constants are shapes, biases and norms, which keep their precision in most files.
SMALLEST_WEIGHT = 1024
#: Tensors that only hand on what they are given, so that what is behind them says what a weight is for.
PASSING = ("Cast", "DequantizeLinear", "Transpose", "Identity", "Reshape")
LOOKUPS = ("Gather", "GatherBlockQuantized", "EmbedLayerNormalization")
#: A share of weights from here on is meant; less is left over by a converter.
MEANT = 0.05
#: Bytes that are for nothing, from which on they are told: in a file of weights, or of weights that no operator reads.
MOST_UNUSED_BYTES = 1 << 20

TYPE_NAMES: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "int8",
    TensorProto.INT4: "int4",
    TensorProto.UINT4: "int4",
}
#: The precision of a model by the type of most of its weights; of int4 beside float16 it is another.
PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8", "int4": "q4"}


@dataclass
class Inspection:
    """What was seen in the graphs of a model."""

    findings: list[Finding] = field(default_factory=list)
    #: Elements of weights by their type: of all, and of those in products alone.
    elements: Counter[str] = field(default_factory=Counter)
    in_products: Counter[str] = field(default_factory=Counter)
    external: set[str] = field(default_factory=set)  #: names of files of weights, relative to the graph's folder
    opset: dict[str, int] = field(default_factory=dict)
    ir_version: int = 0
    is_readable: bool = True  #: whether graphs and weights are whole, so that a run makes sense
    takes_one_at_a_time: bool = False  #: whether the batch axis is fixed at 1

    def tell(self, severity: str, kind: str, message: str) -> None:
        """Add a finding, each sentence once."""
        told = finding(severity, kind, message)  # type: ignore[arg-type] # the callers below give literals
        if told not in self.findings:
            self.findings.append(told)

    @property
    def shares(self) -> dict[str, float]:
        """The share of all weights in each type, the largest first."""
        total = sum(self.elements.values())
        return {name: round(count / total, 4) for name, count in self.elements.most_common()} if total else {}

    @property
    def held(self) -> str | None:
        """The precision of most weights in products; None without weights."""
        counted = self.in_products or self.elements
        if not counted:
            return None
        most = counted.most_common(1)[0][0]
        precision = PRECISIONS.get(most, most)
        return (
            "q4f16"
            if precision == "q4" and self.shares.get("float32", 0) <= MEANT < self.shares.get("float16", 0)
            else precision
        )


def inspect(paths: Iterable[Path]) -> Inspection:
    """Look at the graphs of one model; weights in files of their own are read tensor by tensor."""
    seen = Inspection()
    for path in paths:
        try:
            model = onnx.load(path, load_external_data=False)
        except Exception as error:  # protobuf's errors share no base
            seen.is_readable = False
            seen.tell("wrong", "unreadable", f"{path.name} is no ONNX file that can be read: {first_line(error)[:120]}")
            continue
        if not model.graph.node:
            seen.is_readable = False
            seen.tell("wrong", "unreadable", f"{path.name} holds no graph: {path.stat().st_size} bytes.")
            continue
        try:
            _look_at_graph(seen, model, path.parent)
        except Exception as error:  # whatever a damaged description of tensors leads to
            seen.is_readable = False
            seen.tell(
                "wrong", "unreadable", f"{path.name} describes tensors that do not exist: {first_line(error)[:120]}"
            )
    return seen


def _look_at_graph(seen: Inspection, model: onnx.ModelProto, folder: Path) -> None:
    _look_at_versions(seen, model)
    _look_at_operators(seen, model)
    _look_at_axes(seen, model)
    _look_at_external_data(seen, model, folder)
    _count_weights(seen, model)
    if seen.is_readable:
        _look_for_numbers(seen, model, folder)


def _look_at_versions(seen: Inspection, model: onnx.ModelProto) -> None:
    seen.ir_version = max(seen.ir_version, model.ir_version)
    seen.opset |= {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    version = seen.opset.get("ai.onnx", 0)
    if version > NEWEST_OPSET:
        seen.tell("risk", "opset", f"Opset {version} is newer than {NEWEST_OPSET}, the newest that all clients load.")
    if model.ir_version > NEWEST_IR:
        seen.tell(
            "risk", "ir", f"IR version {model.ir_version} is newer than {NEWEST_IR}, the newest that all clients load."
        )


def _look_at_operators(seen: Inspection, model: onnx.ModelProto) -> None:
    own = {(function.domain, function.name) for function in model.functions}
    bodies = [node for function in model.functions for node in function.node]
    custom = sorted(
        {
            f"{node.domain}.{node.op_type}"
            for node in (*nodes_of(model.graph), *bodies)
            if node.domain not in KNOWN_DOMAINS and (node.domain, node.op_type) not in own
        }
    )
    if custom:
        shown = ", ".join(custom[:3]) + (f" and {len(custom) - 3} more" if len(custom) > 3 else "")
        seen.tell("wrong", "custom-operator", f"Operators that only a library of its own can run: {shown}.")


def _look_at_axes(seen: Inspection, model: onnx.ModelProto) -> None:
    constants = {tensor.name for tensor in model.graph.initializer}
    goes_on = any("past" in value.name for value in model.graph.input)
    for value in model.graph.input:
        if value.name in constants or "past" in value.name:
            continue
        sizes = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        if sizes and sizes[0] > 0 and len(sizes) > 1:
            seen.takes_one_at_a_time = seen.takes_one_at_a_time or sizes[0] == 1
            seen.tell("wrong", "frozen-axis", f"The batch axis of its inputs is fixed at {sizes[0]}.")
        if len(sizes) == 2 and sizes[1] > (1 if goes_on else 0):  # with a cache, one token after another is enough
            seen.tell("wrong", "frozen-axis", f"The length of its inputs is fixed at {sizes[1]} tokens.")


def _place_of(tensor: TensorProto) -> tuple[str, int, int | None]:
    """Return the file, the first byte and the number of bytes of a tensor in a file; None for all that follow."""
    facts = {entry.key: entry.value for entry in tensor.external_data}
    length = facts.get("length")
    return facts.get("location", ""), int(facts.get("offset", 0)), None if length is None else int(length)


def _bytes_of(tensor: TensorProto) -> int:
    """Return how many bytes the values of a tensor take by its type and shape."""
    bits = 4 if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4) else 0
    bits = bits or 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int((math.prod(tensor.dims) * bits + 7) // 8)


def _look_at_external_data(seen: Inspection, model: onnx.ModelProto, folder: Path) -> None:
    used: dict[str, int] = {}
    for tensor in all_tensors(model.graph):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        location, offset, length = _place_of(tensor)
        path = folder / location
        if not stays_inside(location):
            seen.is_readable = False
            seen.tell(
                "wrong", "external-data", f"Weights are to be read from {shortened(location)}, outside the folder."
            )
            continue
        seen.external.add(location)
        if not path.is_file():
            seen.is_readable = False
            seen.tell("wrong", "external-data", f"Its weights are in {shortened(location)}, which is missing.")
            continue
        needed = _bytes_of(tensor)
        if length is not None and length != needed:
            seen.is_readable = False
            seen.tell(
                "wrong",
                "external-data",
                f"{shortened(tensor.name)} needs {needed} bytes, and {length} are set aside in {shortened(location)}.",
            )
        used[location] = max(used.get(location, 0), offset + needed)
    for location, end in used.items():
        size = (folder / location).stat().st_size
        if size < end:
            seen.is_readable = False
            seen.tell(
                "wrong", "external-data", f"{shortened(location)} is cut short: {size} bytes, and {end} are needed."
            )
        elif size > end + MOST_UNUSED_BYTES:
            unused = (size - end) / 1e6
            seen.tell("risk", "external-data", f"{shortened(location)} has {unused:.1f} MB that no tensor refers to.")


def _count_weights(seen: Inspection, model: onnx.ModelProto) -> None:
    consumers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    bits: dict[str, int] = {}
    for node in nodes_of(model.graph):
        for position, name in enumerate(node.input):
            consumers.setdefault(name, []).append((node, position))
        width = next((attribute.i for attribute in node.attribute if attribute.name == "bits"), None)
        if width is None and node.op_type in ("MatMulNBits", "GatherBlockQuantized", "MatMulBnb4"):
            width = 4
        if width is not None and node.domain == MICROSOFT:
            bits[node.input[0 if node.op_type == "GatherBlockQuantized" else 1]] = width
    read = consumers.keys() | {value.name for value in model.graph.output}
    unread = 0
    for name, tensor in _named_constants(model.graph):
        if name not in read:
            unread += _bytes_of(tensor)
            continue
        kind, count = TYPE_NAMES.get(tensor.data_type), math.prod(tensor.dims)
        if bits.get(name) == 4 and tensor.data_type in (TensorProto.UINT8, TensorProto.INT8):
            kind, count = "int4", 2 * count
        if kind is None or count < SMALLEST_WEIGHT:
            continue
        seen.elements[kind] += count
        if not _is_table(name, consumers):
            seen.in_products[kind] += count
    if unread > MOST_UNUSED_BYTES:
        seen.tell("note", "unread", f"No operator reads {unread / 1e6:.1f} MB of its weights.")


def _named_constants(graph: onnx.GraphProto) -> Iterator[tuple[str, TensorProto]]:
    """Yield the constants of a graph and of its subgraphs, by the names under which nodes read them."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.HasField("t"):
                yield node.output[0], attribute.t
            for subgraph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _named_constants(subgraph)


def _is_table(name: str, consumers: dict[str, list[tuple[onnx.NodeProto, int]]]) -> bool:
    """Tell whether rows of a weight are looked up, as those of an embedding; a tied table counts as one."""
    for node, position in consumers.get(name, []):
        if node.op_type in LOOKUPS and (position == 0 or node.op_type == "EmbedLayerNormalization"):
            return True
        if node.op_type in PASSING and position == 0 and _is_table(node.output[0], consumers):
            return True
    return False


def _look_for_numbers(seen: Inspection, model: onnx.ModelProto, folder: Path) -> None:
    """Look for weights that are no numbers. Minus infinity is what masks are made of."""
    for name, values in float_weights(model, folder):
        if np.isnan(values).any():
            seen.tell("wrong", "no-number", f"The weight {shortened(name)} holds values that are no numbers (NaN).")
        elif np.isposinf(values).any():
            seen.tell("wrong", "no-number", f"The weight {shortened(name)} holds infinite values.")


def float_weights(model: onnx.ModelProto, folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the names and values of float32 and float16 weights; those in files are mapped into memory."""
    for name, tensor in _named_constants(model.graph):
        if tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16) or math.prod(tensor.dims) < 2:
            continue
        if tensor.data_location != TensorProto.EXTERNAL:
            yield name, numpy_helper.to_array(tensor)
            continue
        location, offset, _ = _place_of(tensor)
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        yield name, np.memmap(folder / location, dtype, "r", offset, tuple(tensor.dims))


def compare_with_promise(seen: Inspection, promised: str | None) -> None:
    """Tell where a file holds another precision than its name promises; nothing where the name promises none."""
    held, shares = seen.held, seen.shares
    if promised is None or held is None:
        if held not in (None, "fp32"):
            seen.tell("note", "name", f"The name does not say that the file holds {_words(shares)}.")
        return
    left = shares.get("float32", 0) + shares.get("float64", 0)
    same = {"uint8": "int8"}.get(promised, promised)
    if held != same and not (same == "q4" and held == "q4f16"):
        seen.tell("wrong", "name", f"The name says {promised}; the file holds {_words(shares)}.")
    elif same in ("fp16", "bf16", "q4f16") and left > MEANT:
        seen.tell("wrong", "name", f"The name says {promised}; {left:.0%} of the weights are float32.")


def _words(shares: dict[str, float]) -> str:
    return ", ".join(f"{share:.0%} {name}" for name, share in shares.items() if share >= 0.005) or "no weights"


def look_at_inputs(seen: Inspection, names: Iterable[str], recorded: Iterable[str]) -> None:
    """Tell which inputs of the original a graph does not take.

    Without a mask, a padded batch gets other answers; other inputs may be settled inside the graph.
    """
    missing = set(recorded) - set(names) - {MASKED_POSITIONS}
    if MASK in missing and TOKENS in recorded:
        seen.tell("wrong", "no-mask", "It takes no attention_mask, so that padding is read as if it were text.")
    for name in sorted(missing - {MASK}):
        seen.tell("note", "input", f"It does not take {name}, which the original takes.")
