"""Optimize the exported graph: fuse attention, layer normalization and GELU where the architecture allows.

Attentions are fused by rules of ours, which know the graphs of today's exporters, and then by onnxruntime's own
transformer optimizer, which knows older ones; kinds that neither fuses are rewritten by passes of ours. Where all that
finds nothing to fuse, fails, or changes an answer, the graph gets onnxruntime's basic optimizations,
which are the same on every CPU; where those fail too, it stays as it was exported. Every step is proven on a few inputs
before it is kept, and what was done, and why, is recorded.
"""

import argparse
import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxproof.checkpoint.inference import read_transformer_config
from onnxproof.cli import UserError, first_line, run_script
from onnxproof.files import staged_folder, versions_of, write_json
from onnxproof.graph.external_data import (
    WHOLE_BELOW,
    load_model,
    move_outside,
    save_model,
    session_entries,
    weights_folder,
)
from onnxproof.graph.files import MODEL_FILE, separate_graphs
from onnxproof.graph.folder import count_operators, describe_variant, fused_operators, settings_of_graphs
from onnxproof.graph.generation import continue_from_cache, fed_length
from onnxproof.graph.inputs import inputs_of_graph
from onnxproof.graph.merged_decoder import merge_decoders
from onnxproof.graph.sessions import open_session
from onnxproof.graph.support_files import copy_support_files
from onnxproof.inputs.model_inputs import Array, ModelInputs
from onnxproof.inputs.prompts import PAST
from onnxproof.parity.metrics import compare_output
from onnxproof.records.checkpoint import ModelConfig
from onnxproof.records.variant import OptimizationSettings, read_variant
from onnxproof.tasks.registry import PARTS, TASKS

if TYPE_CHECKING:
    import onnx

    from onnxproof.graph.sessions import Session

#: ``model_type`` of config.json → the graph shape that onnxruntime's fusions were written for; BERT's for all others,
#: whose layers are often BERT's.
FUSION_TYPES = {
    "bart": "bart",
    "beit": "vit",
    "clip": "clip",
    "deit": "vit",
    "dinov2": "vit",
    "siglip": "clip",
    "swin": "swin",
    "vit": "vit",
    "vit_msn": "vit",
    "yolos": "vit",
}

#: An optimized graph must answer so many inputs, alone and in one batch, to within this part of the largest value.
PROOF_INPUTS = 4
LARGEST_RELATIVE_DIFF = 1e-4


def optimize_basic(model: "onnx.ModelProto", target: Path) -> None:
    """Apply onnxruntime's basic graph optimizations (constant folding, redundant nodes) offline."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    if weights_folder(model):
        entry = "session.optimized_model_external_initializers_file_name"
        options.add_session_config_entry(entry, f"{target.name}_data")
    for key, value in session_entries(model).items():
        options.add_session_config_entry(key, value)
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def fuse_transformer(model: "onnx.ModelProto", config: ModelConfig) -> "onnx.ModelProto":
    """Return a transformer with its layers fused by onnxruntime's transformer optimizer.

    Embedding fusion is left off: it would hide the embedding tables from the quantizer. FastGelu too: it is an
    approximation. The mask stays as it is: for BERT the optimizer would count its ones, which is wrong where a text is
    padded on the left, and which leaves no mask that could be added to the scores.
    """
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    logging.getLogger("onnxruntime.transformers").setLevel(logging.ERROR)
    fusion_type = FUSION_TYPES.get(config.get("model_type", ""), "bert")
    options = FusionOptions(fusion_type)
    options.enable_embed_layer_norm = False
    if fusion_type == "bert":
        options.use_raw_attention_mask()
    # The optimizer fails on a layer normalization without a bias that follows an addition.
    norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    options.enable_skip_layer_norm = all(len(node.input) > 2 and node.input[2] for node in norms)
    sizes = (config.get("num_attention_heads") or config.get("n_heads"), config.get("hidden_size") or config.get("dim"))
    heads, hidden = sizes if all(isinstance(size, int) for size in sizes) else (0, 0)  # let the optimizer find out
    # The optimizer reads what a graph refers to from the current folder.
    with contextlib.chdir(weights_folder(model) or "."):
        fused = optimize_model(
            model,
            fusion_type,
            num_heads=heads,
            hidden_size=hidden,
            optimization_options=options,
            opt_level=0,  # the basic optimizations have run already
        )
    return move_outside(fused.model)


class Proof:
    """Holds the exported graph's outputs for a few inputs and compares optimized graphs with them."""

    def __init__(self, graph: Path, inputs: ModelInputs, names: list[str], batch_size: int):
        """Run the exported graph of a file, whose inputs have these names, on the first of the inputs.

        Each is run alone, and ``batch_size`` of them together. A graph with a cache of keys and values is run with an
        empty one, and again with what its own run left there.

        Raises:
            UserError: it does not run on them.
        """
        alone = [[index] for index in range(min(PROOF_INPUTS, len(inputs.items)))]
        together = next(iter(inputs.batches(batch_size, names)))
        self.feeds = [inputs.feed(indices, names) for indices in (*alone, together)]
        if any(name.startswith(PAST) for name in names):
            session = open_session(graph, 1)
            longer = [feed for feed in self.feeds if fed_length(feed) > 1]
            self.feeds += [continue_from_cache(session, feed) for feed in longer]
        self.expected = self.run(open_session(graph, 1))

    def run(self, session: "Session") -> list[list[Array]]:
        """Return all outputs for every input."""
        try:
            return [list(session.run(None, feed)) for feed in self.feeds]
        except Exception as error:  # onnxruntime's own exceptions share no other base
            raise UserError(f"the graph does not run: {first_line(error)}") from error

    def difference(self, model: "onnx.ModelProto") -> float:
        """Return the largest difference of a graph's outputs, over the largest value or 1; infinite if not finite.

        Raises:
            UserError: the graph does not run, or its outputs have other shapes.
        """
        from onnxproof.quantization.sessions import open_session

        actual = self.run(open_session(model, threads=1))
        columns = zip(zip(*self.expected, strict=True), zip(*actual, strict=True), strict=True)
        differences = [compare_output(left, right)["max_relative_diff"] for left, right in columns]
        return max(float("inf") if difference is None else difference for difference in differences)


def optimize_graph(
    source: Path, task: str, config: ModelConfig, scratch: Path, file: str = MODEL_FILE
) -> tuple["onnx.ModelProto", OptimizationSettings]:
    """Return an optimized graph of an ONNX folder and what was done.

    The settings are ``{rewrites, method, fused, reason, proof}``: how often a rewrite of ours was made, by the operator
    that it makes or takes apart; the operators fused and how many of each; why it is not the better method or a rewrite
    is missing, where that is so; and the measured difference from the exported graph.
    """
    from onnxproof.graph.fusions.rewrites import normalize_with_one_node
    from onnxproof.graph.fusions.split_skip_layer_norm import split_skip_layer_normalization

    exported = load_model(source / file, scratch)
    names = [value.name for value in exported.graph.input]
    try:
        judged_as, inputs = inputs_of_graph(source, file, task, exported.graph.input)
    except UserError as error:
        return exported, {"method": "unchanged", "fused": {}, "reason": f"nothing could be proven: {error}"}
    proof = Proof(source / file, inputs, names, (TASKS | PARTS)[judged_as].fit_batch(PROOF_INPUTS))
    basic = scratch / "basic.onnx"
    rewrites = {"LpNormalization": normalize_with_one_node(exported)}
    reasons: list[str] = []
    waiting = [exported]
    del exported  # what follows is made of the simplified graph, and holds its weights in files

    def simplify() -> tuple["onnx.ModelProto", dict[str, int]]:
        if not basic.exists():
            optimize_basic(waiting[0], basic)
            waiting.clear()
        return load_model(basic, scratch, WHOLE_BELOW), {}

    def fuse(by_onnxruntime: bool) -> tuple["onnx.ModelProto", dict[str, int]]:
        model, _ = simplify()
        model, rewritten = apply_rewrites(model, fusions(), proof, reasons)
        if by_onnxruntime:
            model = fuse_transformer(model, config)
        model, of_attentions = apply_rewrites(model, special_attentions(), proof, reasons)
        model, of_decoders = apply_rewrites(model, decoder_rewrites(), proof, reasons)
        for name, count in [*of_attentions.items(), *of_decoders.items()]:
            rewritten[name] = rewritten.get(name, 0) + count
        is_faster = any(rewritten.values())
        rewritten["SkipLayerNormalization"] = split_skip_layer_normalization(model)
        if not is_faster and not fused_operators(model):
            raise UserError("the fusions found nothing in this graph that is faster fused")
        return model, rewritten

    methods: dict[str, Callable[[], tuple[onnx.ModelProto, dict[str, int]]]] = {
        "onnxruntime transformer fusion": lambda: fuse(by_onnxruntime=True),
        # Where onnxruntime's optimizer fails or changes an answer, what our rules fuse is still good.
        "fusion rules": lambda: fuse(by_onnxruntime=False),
        "onnxruntime basic optimization": simplify,
    }
    for method, make in methods.items():
        try:
            model, own_rewrites, difference = prove(make, proof)
        except UserError as error:
            reasons.append(str(error))
            continue
        told = "; ".join(dict.fromkeys(reasons))
        settings: OptimizationSettings = {
            "rewrites": rewrites | own_rewrites,
            "method": method,
            "fused": fused_operators(model),
        }
        if told:
            settings["reason"] = told
        settings["proof"] = {"inputs": len(proof.feeds), "max_relative_diff": difference}
        return model, settings
    told = "; ".join(dict.fromkeys(reasons))
    return load_model(source / file, scratch), {"method": "unchanged", "fused": {}, "reason": told}


@dataclass(frozen=True)
class Rewrite:
    """A rewrite of ours, by the name under which it is counted.

    ``needed`` is an operator without which there is nothing to rewrite, so that other graphs need no copy. ``apply``
    rewrites a model in place and returns how often.
    """

    name: str
    needed: str
    apply: Callable[["onnx.ModelProto"], int]


def fusions() -> list[Rewrite]:
    """Return the fusions that come before onnxruntime's optimizer."""
    from onnxproof.graph.fusions.attention import fuse_self_attention

    return [Rewrite("Attention", "Softmax", fuse_self_attention)]


def special_attentions() -> list[Rewrite]:
    """Return the rewrites of attentions that have no operator of their own."""
    from onnxproof.graph.fusions.disentangled_attention import simplify_disentangled_attention
    from onnxproof.graph.fusions.rotary_embedding import fuse_rotary_embedding

    return [
        Rewrite("DisentangledAttention", "Softmax", simplify_disentangled_attention),
        Rewrite("RotaryEmbedding", "Cos", fuse_rotary_embedding),
    ]


def decoder_rewrites() -> list[Rewrite]:
    """Return the rewrites of decoders, whose texts start at any position, and of what ``special_attentions`` left."""
    from onnxproof.graph.fusions.cached_attention import fuse_cached_attention
    from onnxproof.graph.fusions.grouped import group_masks, group_queries
    from onnxproof.graph.fusions.rotary import fuse_rotations, rotate_heads_first

    return [
        Rewrite("RotaryEmbedding", "Neg", fuse_rotations),
        Rewrite("GroupedQueries", "Expand", group_queries),
        Rewrite("GroupedMasks", "Softmax", group_masks),
        Rewrite("MultiHeadAttention", "Softmax", fuse_cached_attention),
        Rewrite("RotaryEmbeddingHeadsFirst", "RotaryEmbedding", rotate_heads_first),
    ]


def apply_rewrites(
    model: "onnx.ModelProto", rewrites: list[Rewrite], proof: Proof, reasons: list[str]
) -> tuple["onnx.ModelProto", dict[str, int]]:
    """Return a graph with rewrites made one after the other, and how often each was made.

    Where a rewrite is not proven, the graph goes on without it and the reason is added to ``reasons``.
    """
    import onnx

    counts = {rewrite.name: 0 for rewrite in rewrites}
    for rewrite in rewrites:
        if rewrite.needed not in count_operators(model):
            continue
        rewritten = onnx.ModelProto()
        rewritten.CopyFrom(model)
        try:
            with failures_explained():
                count = rewrite.apply(rewritten)
            if not count:
                continue
            prove(lambda made=rewritten: (made, {}), proof)  # type: ignore[misc]
        except UserError as error:
            reasons.append(f"without a rewrite of {rewrite.name}: {error}")
            continue
        model, counts[rewrite.name] = rewritten, count
    return model, counts


@contextlib.contextmanager
def failures_explained() -> Iterator[None]:
    """Make a UserError of whatever an optimizer trips over: the graph before it is still good."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"the optimizer failed: {type(error).__name__}: {first_line(error)}") from error


def prove(
    make: Callable[[], tuple["onnx.ModelProto", dict[str, int]]], proof: Proof
) -> tuple["onnx.ModelProto", dict[str, int], float]:
    """Return what ``make`` does, a graph and its rewrites, and the graph's difference from the exported one.

    Raises:
        UserError: it cannot be made, does not run, or changes an answer.
    """
    from onnxproof.graph.fusions.rewrites import forget_shapes, remove_unused_domains

    with failures_explained():
        model, rewrites = make()
        remove_unused_domains(model)
        forget_shapes(model)
        difference = proof.difference(model)
    if difference > LARGEST_RELATIVE_DIFF:
        raise UserError(f"the optimized graph changes an answer by {difference:.2g} of the largest value")
    return model, rewrites, difference


def optimize(model: str, source: Path, source_manifest: Path, folder: Path, manifest: Path) -> None:
    """Optimize one exported model and describe the result.

    Raises:
        UserError: the exported graph itself does not run.
    """
    task = read_variant(source_manifest)["task"]
    with staged_folder(folder) as stage:
        made: dict[str, OptimizationSettings] = {}
        for file in separate_graphs(source):
            with tempfile.TemporaryDirectory(dir=stage, prefix=".optimize.") as scratch:
                graph, made[file] = optimize_graph(source, task, read_transformer_config(source), Path(scratch), file)
                save_model(graph, stage / file)
        merge_decoders(stage)
        settings = settings_of_graphs(made)
        copy_support_files(source, stage)
        description = describe_variant(model, "optimized", task, stage, settings, versions_of("onnx", "onnxruntime"))
    write_json(manifest, description)
    for file, settings in made.items():
        fused = ", ".join(f"{count} {name}" for name, count in settings["fused"].items())
        print(f"{model} {file}: {settings['method']}: {fused or settings.get('reason', 'nothing fused')}", flush=True)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and optimize."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the model's name in config.yaml")
    parser.add_argument("--source", type=Path, required=True, help="folder with the exported ONNX model")
    parser.add_argument("--source-manifest", type=Path, required=True, help="its manifest")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write the optimized model to")
    parser.add_argument("--manifest", type=Path, required=True, help="JSON file to describe it in")
    args = parser.parse_args(argv)
    optimize(args.model, args.source, args.source_manifest, args.output_dir, args.manifest)


if __name__ == "__main__":
    run_script(main)
