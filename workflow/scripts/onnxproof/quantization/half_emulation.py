"""A graph in float16 as a graph in float32 that rounds as hardware with float16 does.

onnxruntime's CPU provider computes float16 operators in float32, rounds at most what it hands on, and so can overflow
nowhere inside. Here every value is rounded to float16 behind the operator that makes it, and products of matrices are
added up in float16 too, ``CHUNK`` inputs at a time. That is more pessimistic than most kernels, which add in float32.
"""

import numpy as np
import onnx
from onnx import numpy_helper

from onnxproof.graph.editor import GraphEditor, NodeWriter
from onnxproof.quantization.half_bounds import tensor_types
from onnxproof.quantization.passes.attention_parts import take_apart
from onnxproof.quantization.passes.block_weights import stored_weight

HALF, FLOAT = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
#: Inputs of a product that are added up exactly before the sum is rounded.
CHUNK = 32


def uses_half(model: onnx.ModelProto) -> bool:
    """Tell whether a model computes in float16."""
    return any(tensor.data_type == HALF for tensor in model.graph.initializer) or any(
        attribute.name == "to" and attribute.i == HALF for node in model.graph.node for attribute in node.attribute
    )


def emulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float32 model that answers as hardware with float16 would; a model without float16 as it is."""
    if not uses_half(model):
        return model
    own = onnx.ModelProto()
    own.CopyFrom(model)
    _Emulation(own).run()
    del own.graph.value_info[:]
    return own


class _Emulation:
    """What is known while the nodes of a graph are rewritten, one after another."""

    def __init__(self, model: onnx.ModelProto) -> None:
        types = tensor_types(model)
        self.halves = {name for name, type in types.items() if type == "tensor(float16)"}
        self.editor = GraphEditor(model)
        self.writer = NodeWriter(self.editor)

    def run(self) -> None:
        """Rewrite all nodes."""
        self._take_attention_apart()
        nodes: list[onnx.NodeProto] = []
        for node in self.editor.nodes:
            is_half = any(name in self.halves for name in node.output)
            for position, tensor in enumerate(node.input):
                node.input[position] = self._as_float(tensor)
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == HALF:
                    attribute.i = FLOAT
                elif attribute.HasField("t") and attribute.t.data_type == HALF:
                    attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32)))
            nodes += self._rewritten(node) if is_half else [node]
        self.editor.nodes[:] = nodes
        self.editor.finish()

    def _take_attention_apart(self) -> None:
        """Let com.microsoft Attention be its product, and what comes after: each is rounded."""
        for node in self.editor.of_type("Attention"):
            if node.output[0] in self.halves:
                *before, _ = take_apart(self.editor, node)
                self.halves.update(output for part in before for output in part.output)

    def _as_float(self, tensor: str) -> str:
        values = self.editor.constant(tensor) if tensor else None
        if values is None or values.dtype != np.float16:
            return tensor
        return self.editor.share_constant(f"{tensor}_float32", values.astype(np.float32))

    def _rewritten(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        self.writer.start(node)
        if node.op_type == "MatMul":
            self._multiply(node.input[0], node.input[1], node.output[0])
        elif node.op_type == "MatMulNBits":
            weight = stored_weight(self.editor, node).dequantized().astype(np.float16).astype(np.float32)
            self._multiply(node.input[0], self.editor.add_constant(f"{node.name}_weight", weight), node.output[0])
        else:
            self._round_outputs(node)
        return self.writer.nodes

    def _round_outputs(self, node: onnx.NodeProto) -> None:
        """Add a node, and round those of its outputs that are float16."""
        self.writer.nodes.append(node)
        for position, name in enumerate(node.output):
            if name in self.halves:
                node.output[position] = self.editor.new_tensor(f"{name}_exact")
                self._rounded(node.output[position], name)

    def _rounded(self, tensor: str, output: str = "") -> str:
        half = self.writer.add("Cast", [tensor], "to_half", to=HALF)
        return self.writer.add("Cast", [half], "rounded", output=output, to=FLOAT)

    def _multiply(self, left: str, right: str, output: str) -> None:
        """Add the nodes of a product of matrices that is added up in float16."""
        weight = self.editor.float_constant(right, rank=2)
        if weight is None or len(weight) <= CHUNK:
            self._rounded(self.writer.add("MatMul", [left, right]), output)
            return
        sizes = [len(weight[at : at + CHUNK]) for at in range(0, len(weight), CHUNK)]
        stored = self.editor.share_constant(f"chunks_{len(weight)}", np.array(sizes, dtype=np.int64))
        parts = [self.editor.new_tensor(f"{output}_inputs") for _ in sizes]
        self.writer.nodes.append(
            self.editor.new_node("Split", [left, stored], parts, f"{self.writer.name}_in", axis=-1)
        )
        total = ""
        for number, part in enumerate(parts):
            rows = self.editor.add_constant(f"{right}_rows", weight[number * CHUNK : (number + 1) * CHUNK])
            product = self.writer.add("MatMul", [part, rows])
            if total:
                product = self.writer.add("Add", [total, product])
            total = self._rounded(product, output if number == len(parts) - 1 else "")
