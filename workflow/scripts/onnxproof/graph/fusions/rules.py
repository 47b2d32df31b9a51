"""Applying rewrite rules of onnxscript to a model, whose weights may be in files."""

from collections import Counter
from collections.abc import Callable, Sequence

import onnx
import onnx_ir as ir
from onnx_ir import external_data
from onnx_ir.passes import common as passes
from onnxscript.rewriter import MatchResult, RewriteRule, RewriteRuleClassBase, RewriteRuleSet

from onnxproof.graph.external_data import move_outside, weights_folder
from onnxproof.graph.matcher import MismatchError


class Rule(RewriteRuleClassBase):
    """A rewrite rule that counts the reasons why its check failed."""

    def __init__(self) -> None:
        """Begin to count."""
        super().__init__(type(self).__name__)
        self.reasons: Counter[str] = Counter()

    def result_of(self, read: Callable[[], object]) -> MatchResult:
        """Return the result of a check: a failure with a reason where ``read`` raises ``MismatchError``."""
        result = MatchResult()
        try:
            read()
        except MismatchError as mismatch:
            self.reasons[str(mismatch)] += 1
            return result.fail(str(mismatch))
        return result


def apply_rules(model: onnx.ModelProto, rules: Sequence[Rule]) -> int:
    """Rewrite a model in place by the first rule that matches at each node; return how often one did.

    What the replaced nodes alone needed goes with them, and equal computations that the rules add become one.
    """
    graph_model = ir.from_proto(model)
    folder = weights_folder(model)
    if folder is not None:
        external_data.set_base_dir(graph_model.graph, folder)
    count = RewriteRuleSet([_as_rule(rule) for rule in rules]).apply_to_model(graph_model)
    if count:
        passes.CommonSubexpressionEliminationPass()(graph_model)
        passes.RemoveUnusedNodesPass()(graph_model)
        rewritten = move_outside(ir.to_proto(graph_model))
        model.Clear()
        model.MergeFrom(rewritten)
    return int(count)


def _as_rule(rule: Rule) -> RewriteRule:
    return RewriteRule(rule.pattern, rule.rewrite, rule.check, name=rule.name)
