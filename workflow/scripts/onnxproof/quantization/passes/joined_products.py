"""Products by blocks that read the same values, as one product that is split behind it.

Queries, keys and values of a layer, and the two halves of a gated feed-forward block, read the same values. For one
token, a product takes as long as its weights take to be read, so that what each node costs besides is worth saving.
Every output keeps its blocks, so the numbers are the same up to the order of a sum.
"""

from collections import Counter

import numpy as np
import onnx

from onnxproof.graph.editor import GraphEditor, attribute_of, tensors_read
from onnxproof.vocabulary import MICROSOFT

#: What must be the same for two products to be one.
FORMAT = ("K", "bits", "block_size", "accuracy_level")


def join_products(model: onnx.ModelProto) -> None:
    """Join MatMulNBits nodes of one format that read the same values, in place."""
    editor = GraphEditor(model)
    uses = Counter(tensor for node in editor.nodes for tensor in tensors_read(node))
    alike: dict[tuple[object, ...], list[onnx.NodeProto]] = {}
    for node in editor.of_type("MatMulNBits"):
        # A tied head shares its weights with the table of embeddings.
        if all(uses[tensor] == 1 for tensor in node.input[1:]):
            values = [attribute_of(node, name, 0) for name in FORMAT]
            alike.setdefault((node.input[0], len(node.input), *values), []).append(node)
    for nodes in alike.values():
        if len(nodes) > 1:
            _join(editor, nodes)
    editor.finish()


def _join(editor: GraphEditor, nodes: list[onnx.NodeProto]) -> None:
    first, *others = nodes
    stored = []
    for position in range(1, len(first.input)):
        parts = [values for node in nodes if (values := editor.constant(node.input[position])) is not None]
        assert len(parts) == len(nodes), "MatMulNBits reads constants"
        stored.append(editor.add_constant(f"{first.input[position]}_joined", np.concatenate(parts)))
    sizes = np.array([attribute_of(node, "N", 0) for node in nodes], np.int64)
    joined = editor.new_tensor(f"{first.output[0]}_joined")
    product = editor.new_node(
        "MatMulNBits",
        [first.input[0], *stored],
        [joined],
        f"{first.name}_joined",
        domain=MICROSOFT,
        N=int(sizes.sum()),
        **{name: value for name in FORMAT if (value := attribute_of(first, name, 0))},
    )
    parts_of = editor.share_constant(f"sizes_{'_'.join(map(str, sizes))}", sizes)
    outputs = [node.output[0] for node in nodes]
    split = editor.new_node("Split", [joined, parts_of], outputs, f"{first.name}_split", axis=-1)
    editor.replace(first, [product, split])
    for node in others:
        editor.replace(node, [])
