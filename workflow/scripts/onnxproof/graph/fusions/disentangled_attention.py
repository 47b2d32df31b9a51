"""DeBERTa's disentangled attention with fewer and cheaper nodes, for speed.

Beside the product of queries and keys, each score has the query times a table of relative positions and the key times
another (He et al. 2021, arXiv 2006.03654). The exported graph multiplies with every position of the tables, 512 in the
published models however short the text, copies the tables once a text of the batch, and picks each score's position
with an index as large as all scores.

But a text of S tokens has 2 S - 1 distances, and in the order of the distances the scores that are picked lie along
diagonals. So the rows of those distances are taken from the tables, and a product of width 2 S is read in steps of
2 S - 1, which moves each row one further to the left than the one above it: two copies of contiguous memory instead of
a pick (the relative shift of Transformer-XL, Dai et al. 2019, arXiv 1901.02860, here for distances of both signs).
All is exact up to float rounding: the scale of the scores is multiplied into the tables.
"""

from collections import Counter
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxproof.graph.editor import GraphEditor, NodeWriter
from onnxproof.graph.fusions.disentangled_pattern import Attention, DisentangledPattern, Index, Term
from onnxproof.graph.fusions.rewrites import remove_unused_nodes
from onnxproof.graph.matcher import GraphMatcher


def simplify_disentangled_attention(model: onnx.ModelProto, reasons: Counter[str] | None = None) -> int:
    """Rewrite, in place, the attentions of a DeBERTa-v2 or v3 graph; return how many.

    The same answers up to float rounding, those of fully masked rows included: the mask is applied as it was. What does
    not look exactly as ``transformers`` writes it stays, and the reason is counted in ``reasons``.
    """
    editor = GraphEditor(model)
    pattern = DisentangledPattern(GraphMatcher(editor, reasons))
    writer = _Writer(editor)
    count = 0
    for softmax in editor.of_type("Softmax"):
        attention = pattern.matcher.match(partial(pattern.match, softmax))
        if attention is not None:
            editor.replace(attention.last, writer.write(attention))
            count += 1
    if count:
        editor.finish()
        remove_unused_nodes(model.graph)
    return count


@dataclass(frozen=True)
class _Steps:
    """Names of tensors of shape (1,): the number of tokens, first and last of what is read; and the new shape's."""

    tokens: str
    start: str
    end: str
    shape: str


class _Writer(NodeWriter):
    """Writes attentions anew; what depends on the number of tokens alone is written once for all of them."""

    def __init__(self, editor: GraphEditor) -> None:
        super().__init__(editor)
        self._rows: dict[Index, str] = {}
        self._distances: dict[str, str] = {}
        self._steps: dict[str, _Steps] = {}

    def write(self, attention: Attention) -> list[onnx.NodeProto]:
        """Return the nodes that take the place of an attention's last one, and make the same output."""
        self.start(attention.last)
        keys = self.add("Transpose", [attention.key], "keys", perm=[0, 1, 3, 2])
        products = self.add("MatMul", [attention.query, keys], "products")
        scale = self.editor.share_constant("attention_scale", np.array(attention.scale, np.float32))
        scores = self.add("Mul", [products, scale], "scores")
        positional, *others = [self._positional(term, attention) for term in attention.terms]
        for other in others:
            positional = self.add("Add", [positional, other], "positional")
        scores = self.add("Add", [scores, positional], "sum")
        choices = [attention.hidden, scores] if attention.hides else [scores, attention.hidden]
        masked = self.add("Where", [attention.mask, *choices], "masked")
        shares = self.add("Softmax", [masked], "shares", axis=-1)
        self.add("MatMul", [shares, attention.value], "answer", output=attention.last.output[0])
        return self.nodes

    def _positional(self, term: Term, attention: Attention) -> str:
        """Write a term's scores, of shape (B, heads, S, S)."""
        steps = self._steps_of(term.index.distance)
        table = self.editor.add_constant(f"{self.name}_table", term.table)
        rows = self.add("Gather", [table, self._rows_of(term.index)], "rows", axis=1)
        rows = self.add("Transpose", [rows], "rows", perm=[0, 2, 1])
        product = self.add("MatMul", [attention.query if term.by_query else attention.key, rows], "by_distance")
        flat = self.add("Reshape", [product, self._integers(0, 0, -1)], "flat")
        used = self.add("Slice", [flat, steps.start, steps.end, self._integers(2)], "used")
        shifted = self.add("Reshape", [used, steps.shape], "shifted")
        scores = self.add("Slice", [shifted, self._integers(0), steps.tokens, self._integers(3)], "picked")
        return scores if term.by_query else self.add("Transpose", [scores], "turned", perm=[0, 1, 3, 2])

    def _rows_of(self, index: Index) -> str:
        """Write which row of a table belongs to each distance, in the order of ``_distances_of``."""
        if index not in self._rows:
            distances = self._distances_of(index.distance)
            if index.sign < 0:
                distances = self.add("Neg", [distances], "negative")
            moved = self.add("Add", [distances, self._integer(index.offset)], "moved")
            limits = [self._integer(index.lowest), self._integer(index.highest)]
            self._rows[index] = self.add("Clip", [moved, *limits], "positions")
        return self._rows[index]

    def _distances_of(self, matrix: str) -> str:
        """Write a matrix's values from the last row's first to the first row's last, and one more, of shape (2 S,)."""
        if matrix not in self._distances:
            column = self.add("Gather", [matrix, self._integer(0)], "column", axis=1)
            first = self._integers(0)
            upwards = [self._integers(-1), self._integers(np.iinfo(np.int64).min), first, self._integers(-1)]
            column = self.add("Slice", [column, *upwards], "upwards")
            row = self.add("Gather", [matrix, self._integer(0)], "row", axis=0)
            rest = self.add("Slice", [row, self._integers(1), self._integers(np.iinfo(np.int64).max), first], "rest")
            filler = self.add("Slice", [row, first, self._integers(1), first], "filler")
            self._distances[matrix] = self.add("Concat", [column, rest, filler], "distances", axis=0)
        return self._distances[matrix]

    def _steps_of(self, matrix: str) -> _Steps:
        """Write the numbers for reading a product of shape (B, heads, S, 2 S) in steps of 2 S - 1, from S - 1 on."""
        if matrix not in self._steps:
            row = self.add("Gather", [matrix, self._integer(0)], "first_row", axis=0)
            tokens = self.add("Shape", [row], "tokens")
            start = self.add("Sub", [tokens, self._integers(1)], "start")
            width = self.add("Add", [tokens, start], "width")
            used = self.add("Mul", [tokens, width], "length")
            end = self.add("Add", [start, used], "end")
            shape = self.add("Concat", [self._integers(0), self._integers(0), tokens, width], "shape", axis=0)
            self._steps[matrix] = _Steps(tokens, start, end, shape)
        return self._steps[matrix]

    def _integers(self, *values: int) -> str:
        return self._shared("integers", np.array(values, np.int64))

    def _integer(self, value: int) -> str:
        return self._shared("integer", np.array(value, np.int64))

    def _shared(self, name: str, values: NDArray[np.int64]) -> str:
        return self.editor.share_constant("_".join([name, *map(str, values.reshape(-1))]), values)
