"""Embedding tables in int8, one scale per row.

A table-wide scale is set by the one largest value of a whole vocabulary; a rare token's small row then keeps
only a few of the 255 steps. A scale per row costs four bytes a row.
"""

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxproof.graph.editor import GraphEditor, attribute_of

INT8_MAX = 127
#: Values handled at a time: a large vocabulary's table must not be in memory several times over.
BLOCK_VALUES = 1 << 22


def quantize_embedding_rows(model: onnx.ModelProto, *, minimum_rows: int = 256) -> None:
    """Store every embedding table as int8 rows and float32 row scales, in place.

    A table is a float32 constant of shape (rows, width) that only Gather nodes read, along axis 0. Each
    ``Gather(table, ids)`` becomes ``Cast(Gather(rows, ids)) * Gather(scales, ids)``. Several Gathers of one
    table share the stored rows. The error of a value is at most half its row's scale.

    Args:
        model: the model to change.
        minimum_rows: tables with fewer rows (token types, say) stay in float: nothing would be gained.
    """
    editor = GraphEditor(model)
    stored: dict[str, tuple[str, str]] = {}
    for gather in editor.of_type("Gather"):
        name = gather.input[0]
        table = editor.float_constant(name, rank=2)
        if table is None or table.shape[0] < minimum_rows or not _is_embedding(editor, name):
            continue
        if name not in stored:
            rows, scales = quantize_rows(table)
            stored[name] = (
                editor.add_constant(f"{name}_int8", rows),
                editor.add_constant(f"{name}_scale", scales),
            )
        editor.replace(gather, _dequantized_gather(editor, gather, *stored[name]))
    editor.finish()


def quantize_rows(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize a table of shape (rows, width) with one symmetric scale per row.

    Returns:
        int8 values of the same shape, and float32 scales of shape (rows, 1); an all-zero row has scale 1.
    """
    integers = np.empty(table.shape, dtype=np.int8)
    scales = np.empty((len(table), 1), dtype=np.float32)
    step = max(1, BLOCK_VALUES // max(1, table.shape[1]))
    for start in range(0, len(table), step):
        block = slice(start, start + step)
        largest = np.abs(table[block]).max(axis=1, keepdims=True) / INT8_MAX
        scales[block] = np.where(largest > 0, largest, 1)
        integers[block] = np.clip(np.rint(table[block] / scales[block]), -INT8_MAX, INT8_MAX)
    return integers, scales


def _is_embedding(editor: GraphEditor, table: str) -> bool:
    return not editor.is_output(table) and all(
        node.op_type == "Gather"
        and node.input[0] == table
        and table not in node.input[1:]
        and attribute_of(node, "axis", 0) == 0
        for node in editor.readers(table)
    )


def _dequantized_gather(editor: GraphEditor, gather: onnx.NodeProto, rows: str, scales: str) -> list[onnx.NodeProto]:
    ids, output, name = gather.input[1], gather.output[0], gather.name
    row, value, scale = (editor.new_tensor(f"{output}_{part}") for part in ("int8", "unscaled", "scale"))
    return [
        editor.new_node("Gather", [rows, ids], [row], f"{name}_int8", axis=0),
        editor.new_node("Cast", [row], [value], f"{name}_cast", to=onnx.TensorProto.FLOAT),
        editor.new_node("Gather", [scales, ids], [scale], f"{name}_scale", axis=0),
        editor.new_node("Mul", [value, scale], [output], f"{name}_dequantize"),
    ]
