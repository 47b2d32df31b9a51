"""Embedding tables by blocks, in operators that every runtime has; a tied head reads the same table.

A file that onnxruntime alone runs on a CPU may have com.microsoft GatherBlockQuantized instead: two nodes in place of
17, and the same bits. onnxruntime-web has no kernel of it for WASM. Each row is little work, so that most of what a
token costs here is what onnxruntime needs to start a node.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxproof.graph.editor import GraphEditor, NodeWriter, attribute_of
from onnxproof.quantization.blocks import BlockFormat, BlockWeight, quantize_to_blocks
from onnxproof.quantization.passes.block_weights import biased_product, store_blocks
from onnxproof.quantization.targets import Target, find_targets
from onnxproof.vocabulary import MICROSOFT


def quantize_embedding_blocks(
    model: onnx.ModelProto,
    *,
    bits: int = 4,
    block_size: int = 32,
    minimum_rows: int = 256,
    accuracy_level: int = 0,
    one_operator: bool = False,
) -> None:
    """Store every embedding table as 4-bit or 8-bit integers with a scale a block of a row, in place.

    A table is a float32 constant of shape (rows, width) that Gather nodes read, along axis 0, and nothing else.
    Products with its transpose, such as the head of a language model with tied embeddings, read the same integers by
    MatMulNBits.

    Args:
        model: the model to change.
        bits: 4 or 8 bits a weight.
        block_size: weights of a row that share a scale.
        minimum_rows: tables with fewer rows (token types, say) stay in float: nothing would be gained.
        accuracy_level: of the tied product, see ``block_weights.quantize_block_weights``.
        one_operator: whether GatherBlockQuantized unpacks the rows, which not every runtime has.

    Raises:
        ValueError: onnxruntime has no such format.
    """
    editor = GraphEditor(model)
    format = BlockFormat(bits, block_size)
    targets = find_targets(editor)
    tables: dict[str, list[onnx.NodeProto]] = {}
    for gather in editor.of_type("Gather"):
        table = editor.float_constant(gather.input[0], rank=2)
        if table is not None and len(table) >= minimum_rows and _is_embedding(editor, gather.input[0], targets):
            tables.setdefault(gather.input[0], []).append(gather)
    for name, gathers in tables.items():
        table = editor.float_constant(name, rank=2)
        assert table is not None
        weight = quantize_to_blocks(np.ascontiguousarray(table.T), format)
        stored = store_blocks(editor, name, weight)
        read_rows = _gathered_rows if one_operator else _unpacked_rows
        for gather in gathers:
            writer = NodeWriter(editor)
            writer.start(gather)
            rows, shape = read_rows(writer, gather.input[1], stored, weight)
            _flatten(writer, rows, shape, gather.output[0], weight)
            editor.replace(gather, writer.nodes)
        for target in tied_products(targets, name, table):
            editor.replace(target.node, biased_product(editor, target, stored, weight, accuracy_level))
    editor.finish()


def _is_embedding(editor: GraphEditor, table: str, targets: Sequence[Target]) -> bool:
    """Tell whether a constant is read by Gathers of whole rows, and by products that could read it by blocks too."""
    products = {target.name for target in targets}
    return not editor.is_output(table) and all(
        node.name in products
        or (
            node.op_type == "Gather"
            and node.input[0] == table
            and table not in node.input[1:]
            and attribute_of(node, "axis", 0) == 0
        )
        for node in editor.readers(table)
    )


def tied_products(targets: Sequence[Target], name: str, table: NDArray[np.float32]) -> list[Target]:
    """Return the products whose weight is the transposed table, whether they share its constant or hold a copy."""
    found = []
    for target in targets:
        if target.node.op_type == "Attention":
            continue
        weight = target.read_weight()
        if weight.shape == table.shape[::-1] and (target.node.input[1] == name or np.array_equal(weight, table.T)):
            found.append(target)
    return found


def _unpacked_rows(writer: NodeWriter, ids: str, stored: list[str], weight: BlockWeight) -> tuple[str, str]:
    """Write the nodes that read rows of the packed table as floats; return the rows by blocks, and the joined shape."""
    editor, (integers, scales) = writer.editor, stored
    blocks, size = len(weight.scales), weight.format.size

    def shape_of_ids_and(*last: int) -> str:
        ends = editor.share_constant(f"{integers}_shape_{'x'.join(map(str, last))}", np.array(last, dtype=np.int64))
        return writer.add("Concat", [shape, ends], f"shape_{len(last)}", axis=0)

    def number(value: float) -> str:
        return editor.share_constant(f"float_{value:g}", np.array(value, dtype=np.float32))

    last_axis = editor.share_constant("last_axis", np.array([-1], dtype=np.int64))
    shape = writer.add("Shape", [ids])
    rows = writer.add("Gather", [integers, ids], "packed", axis=0)
    values = writer.add("Cast", [rows], "bytes", to=onnx.TensorProto.FLOAT)
    if weight.format.bits == 4:
        # Not BitShift: OpenVINO computes it as a division, and rounds the quotient.
        high = writer.add("Floor", [writer.add("Mul", [values, number(1 / 16)], "sixteenths")], "high")
        above = writer.add("Mul", [high, number(16)], "above")
        low = writer.add("Sub", [values, above], "low")
        halves = [writer.add("Unsqueeze", [half, last_axis], f"half_{at}") for at, half in enumerate((low, high))]
        pairs = writer.add("Concat", halves, "pairs", axis=-1)
        values = writer.add("Reshape", [pairs, shape_of_ids_and(blocks, size)], "blocks")
    centred = writer.add("Sub", [values, number(weight.format.middle)], "centred")
    scale = writer.add("Gather", [scales, ids], "scales", axis=0)
    scaled = writer.add("Mul", [centred, writer.add("Unsqueeze", [scale, last_axis], "scale")], "scaled")
    return scaled, shape_of_ids_and(blocks * size)


def _gathered_rows(writer: NodeWriter, ids: str, stored: list[str], weight: BlockWeight) -> tuple[str, str]:
    """Do what ``_unpacked_rows`` does, by one operator."""
    editor, (integers, scales) = writer.editor, stored
    last_axis = editor.share_constant("last_axis", np.array([-1], dtype=np.int64))
    # The operator's scales have as many axes as its integers, those of MatMulNBits one less. onnxruntime computes this
    # once, when it loads the file.
    scale = writer.add("Unsqueeze", [scales, last_axis], "scale")
    rows = writer.add(
        "GatherBlockQuantized",
        [integers, ids, scale],
        "blocks",
        domain=MICROSOFT,
        bits=weight.format.bits,
        block_size=weight.format.size,
        gather_axis=0,
        quantize_axis=2,
    )
    kept = [0] * _count_axes(editor, ids)
    if kept:
        return rows, editor.share_constant(f"rows_of_{len(kept)}_axes", np.array([*kept, -1], dtype=np.int64))
    return rows, writer.add("Concat", [writer.add("Shape", [ids]), last_axis], "shape", axis=0)


def _count_axes(editor: GraphEditor, tensor: str) -> int:
    """Return how many axes one of the graph's inputs has; 0 for other tensors, of which that is not looked up."""
    found = [value for value in editor.model.graph.input if value.name == tensor]
    return len(found[0].type.tensor_type.shape.dim) if found else 0


def _flatten(writer: NodeWriter, rows: str, shape: str, output: str, weight: BlockWeight) -> None:
    """Join the blocks of rows in this shape, and cut off what fills up the last block."""
    width, whole = len(weight.integers), len(weight.scales) * weight.format.size
    flat = writer.add("Reshape", [rows, shape], "flat", output="" if whole > width else output)
    if whole > width:
        share = writer.editor.share_constant
        bounds = [share(f"axis_{value}", np.array([value], dtype=np.int64)) for value in (0, width, -1)]
        writer.add("Slice", [flat, *bounds], "rows", output=output)
