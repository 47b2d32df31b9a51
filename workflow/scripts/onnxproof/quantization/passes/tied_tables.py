"""An embedding table and the head that is tied to it, stored once."""

import onnx

from onnxproof.graph.editor import GraphEditor, attribute_of
from onnxproof.quantization.passes.embedding_blocks import tied_products
from onnxproof.quantization.targets import find_targets


def share_tied_tables(model: onnx.ModelProto) -> None:
    """Let a product whose weight is a transposed copy of an embedding table read the table, in place.

    Optimizers compute the transposed table in advance, and so store it twice. onnxruntime transposes it when it loads
    the model.
    """
    editor = GraphEditor(model)
    targets = find_targets(editor)
    for table in dict.fromkeys(gather.input[0] for gather in editor.of_type("Gather")):
        values = editor.float_constant(table, rank=2)
        copies = [] if values is None else tied_products(targets, table, values)
        transposed = ""
        for target in copies:
            if attribute_of(target.node, "transB", 0):
                target.node.input[1] = table
                continue
            if not transposed:
                transposed = editor.new_tensor(f"{table}_transposed")
                turn = editor.new_node("Transpose", [table], [transposed], transposed, perm=[1, 0])
                editor.insert_before(target.node, [turn])
            target.node.input[1] = transposed
    editor.finish()
