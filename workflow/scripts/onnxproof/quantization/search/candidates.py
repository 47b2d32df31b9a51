"""The recipes that a search tries for each variant, in order: from the fastest or smallest to the most careful."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import onnx

from onnxproof.graph.editor import GraphEditor
from onnxproof.graph.external_data import MAPPED_BYTES, SINGLE_FILE_BYTES
from onnxproof.graph.generation import has_cache
from onnxproof.quantization import half_bounds
from onnxproof.quantization.half_bounds import Bound, measure_bounds
from onnxproof.quantization.passes.static_matmul import has_integer_scores
from onnxproof.quantization.recipe import apply_recipe
from onnxproof.quantization.search.in_place import why_not_in_place
from onnxproof.quantization.search.judge import Judge
from onnxproof.quantization.search.rung import Step
from onnxproof.quantization.search.sensitivity import measure_sensitivity
from onnxproof.quantization.targets import find_targets

#: The quantizing step of each variant: one activation scale per tensor, or per token and so batch-invariant; or scales
#: that the file holds, around plain operators.
QUANTIZE: dict[str, Step] = {
    "int8": {"pass": "dynamic_matmul", "weight_range": "pair_safe", "rounding": "compensated"},
    "uint8": {"pass": "dynamic_matmul", "weight_range": "full", "unsigned": True, "rounding": "compensated"},
    "int8-invariant": {"pass": "per_token", "weight_range": "pair_safe", "rounding": "compensated"},
    "int8-static": {"pass": "static_matmul", "weight_range": "pair_safe", "rounding": "compensated", "room": True},
    "int8-symmetric": {
        "pass": "static_matmul",
        "weight_range": "pair_safe",
        "rounding": "compensated",
        "activations": "int8",
        "room": True,
    },
    "w8a16": {
        "pass": "static_matmul",
        "weight_range": "full",
        "rounding": "compensated",
        "activations": "uint16",
        "unsigned": True,
        "outputs": True,
        "scores": False,
    },
}
ROUGHLY: Step = {"rounding": "nearest"}
#: A fused operator that slows an int8 graph down is taken apart first: the passes after it see plain biases.
SPLIT: Step = {"pass": "split_bias_gelu"}
EMBEDDINGS: Step = {"pass": "embedding_rows"}
SMOOTH: Step = {"pass": "smooth", "weight_range": "pair_safe"}
CENTER: Step = {"pass": "center_channels"}
SMOOTH_FIXED: Step = SMOOTH | {"fixed_scales": True}
#: What prepares a graph for fixed scales of each form. TensorRT's Gather takes no integers, so the tables of
#: int8-symmetric stay in float.
FIXED: dict[str, list[Step]] = {
    "int8-static": [CENTER, SMOOTH_FIXED, EMBEDDINGS],
    "int8-symmetric": [CENTER, SMOOTH_FIXED | {"activations": "int8"}],
    "w8a16": [SMOOTH_FIXED | {"weight_range": "full", "activations": "uint16"}, EMBEDDINGS],
}
#: With fewer calibration inputs, centering does harm: 1 - mean cosine of MiniLM was 0.0051 with it and 0.0042 without
#: on 16 inputs, 0.0035 and 0.0032 on 32, 0.0018 and 0.0019 on 64, 0.0019 and 0.0021 on 132.
FEWEST_CENTERED = 64
#: In float, first only where that costs little.
NARROW_OUTLIERS: Step = {"pass": "outlier_channels", "ratio": 3.0, "most": 8, "widening": False}
OUTLIERS: Step = {"pass": "outlier_channels", "ratio": 3.0, "most": 4}
#: Where scales are fixed. Computed anew, they cost OpenVINO less, see the pass; and 32 hardly more than 4.
FIXED_OUTLIERS: Step = NARROW_OUTLIERS | {"most": 32, "anew": True}

#: What is done to the float model before it is quantized, from the fastest result to the most careful.
PREPARATIONS: list[list[Step]] = [
    [SPLIT, EMBEDDINGS],
    [SPLIT, SMOOTH, EMBEDDINGS],
    [SPLIT, NARROW_OUTLIERS, SMOOTH, EMBEDDINGS],
    [SPLIT, OUTLIERS, SMOOTH, EMBEDDINGS],
]


#: Where scales are fixed, the outliers of these shares of the products that do not widen stay in float, those of the
#: most sensitive ones. They cost time: a quarter of MiniLM's twelve a fiftieth in OpenVINO, a half a twentieth.
NARROWED = (0.25, 0.5)
#: How many of the most sensitive nodes the last rungs leave in float.
FLOAT_NODES = (1, 2, 4, 8)
SENSITIVITY_INPUTS = 32
#: Of the products of a model, no larger share is given 8 bits where others have 4.
MOST_SPARED = 2 / 3
#: A model of ``SINGLE_FILE_BYTES`` is judged on so many inputs, a larger one on fewer, in inverse proportion.
LARGE_MODEL_INPUTS = 48
FEWEST_INPUTS = 8
#: Of a large model, only weights with at most so many inputs are rounded with compensation.
LARGE_MODEL_WIDEST = 2048


@dataclass(frozen=True)
class BlockRung:
    """A recipe by blocks: how embeddings are stored, how the weights of products are.

    Of the products, so many of the most sensitive ones are ``spared``: they have 8 bits where others have 4.
    """

    table: Step
    weights: Step
    spared: int = 0


@dataclass(frozen=True)
class BlockLadder:
    """The recipes of a variant whose weights alone are quantized: from the smallest file to the most exact one.

    ``accuracy_level`` is that of the products, see ``block_weights.quantize_block_weights``. Where ``in_place``, a
    decoder can write new keys and values into its old cache, see ``cache_in_place``.
    """

    accuracy_level: int
    rungs: tuple[BlockRung, ...]
    in_place: bool = False

    @property
    def level(self) -> Step:
        """The parameter of each step that writes products."""
        return {"accuracy_level": self.accuracy_level} if self.accuracy_level else {}

    def prepare(self, table: Step, is_in_place: bool) -> list[Step]:
        """Return the steps before the one for products; ``is_in_place`` tells whether the cache is written in place.

        Only onnxruntime runs such a file, on a CPU, so that an operator of its own reads the table of embeddings too.
        """
        embedding: Step = {"pass": "embedding_blocks"} | table | self.level
        return [IN_PLACE, embedding | {"one_operator": True}] if is_in_place else [embedding]


#: What lets a program write into the cache.
IN_PLACE: Step = {"pass": "cache_in_place"}
#: What lets onnxruntime's kernel for CPUs round activations to int8: half the time, and hardly less exact.
ON_CPU = 4
FOUR_BITS: Step = {"bits": 4, "block_size": 32, "zero_points": True}
EIGHT_BITS: Step = {"bits": 8, "block_size": 32}
SMALLEST_TABLE: Step = {"bits": 4, "block_size": 128}
SMALL_TABLE: Step = {"bits": 4, "block_size": 32}
_FOUR_BIT_RUNGS = (
    BlockRung(SMALLEST_TABLE, FOUR_BITS | {"block_size": 128}),
    BlockRung(SMALL_TABLE, FOUR_BITS | {"block_size": 128}),
    BlockRung(SMALL_TABLE, FOUR_BITS),
    BlockRung(SMALL_TABLE, FOUR_BITS, spared=4),
    BlockRung(EIGHT_BITS, FOUR_BITS),
    BlockRung(EIGHT_BITS, FOUR_BITS, spared=2),
    BlockRung(EIGHT_BITS, FOUR_BITS, spared=4),
    BlockRung(EIGHT_BITS, FOUR_BITS, spared=8),
    BlockRung(EIGHT_BITS, FOUR_BITS, spared=16),
)
_EIGHT_BIT_RUNGS = (
    BlockRung(EIGHT_BITS, EIGHT_BITS | {"block_size": 128}),
    BlockRung(EIGHT_BITS, EIGHT_BITS | {"zero_points": True}),
)
BLOCKS = {
    "w8": BlockLadder(ON_CPU, _EIGHT_BIT_RUNGS),
    "q4": BlockLadder(0, _FOUR_BIT_RUNGS),
    "q4-cpu": BlockLadder(ON_CPU, _FOUR_BIT_RUNGS, in_place=True),
}


def single_file_bytes(variant: str) -> int:
    """Return from which size on, in bytes, a variant has its weights in a file beside its graph."""
    return MAPPED_BYTES if variant in BLOCKS and BLOCKS[variant].accuracy_level == ON_CPU else SINGLE_FILE_BYTES


#: What float16 needs of a graph first.
SOFTEN: Step = {"pass": "soften_masks"}
#: Where float16 loses most: sums that a whole model's answers go through, each rounded.
ROUNDED_OFTEN = half_bounds.NORMALIZATIONS | half_bounds.SUMS | {"Add", "Softmax"}
#: What takes nearly all of a model's time, and all of its weights.
HEAVY = {"Attention", "Conv", "ConvTranspose", "FusedMatMul", "Gather", "Gemm", "MatMul"} | half_bounds.ATTENTIONS


@dataclass(frozen=True)
class Effort:
    """How much a search may cost: calibration inputs, compensated rounding, nodes that the last rungs leave in float.

    Compensation takes a quarter of an hour for weights with 4096 inputs in 24 layers. To find the most sensitive nodes,
    each is quantized alone: a session a node, hours for a large model.
    """

    inputs: int
    widest: int
    float_nodes: tuple[int, ...]


def limit_effort(weights: int) -> Effort | None:
    """Return the limits for a model with this many bytes of weights; None where it is small enough to have none.

    They depend on the model alone, so that the same model gets the same recipe on every machine.
    """
    if weights < SINGLE_FILE_BYTES:
        return None
    return Effort(max(FEWEST_INPUTS, LARGE_MODEL_INPUTS * SINGLE_FILE_BYTES // weights), LARGE_MODEL_WIDEST, ())


@dataclass(frozen=True)
class Candidate:
    """A recipe to try: the steps that prepare the float model, what they make of it, and the step that quantizes that.

    ``is_screened`` says that it is tried with the nearest rounding first. ``bounds`` are those of the prepared model's
    nodes, by their names, where the recipe makes it compute in float16.
    """

    preparation: list[Step]
    prepared: onnx.ModelProto
    quantize: Step
    is_screened: bool = False
    bounds: Mapping[str, Bound] = field(default_factory=dict)


def candidates_of(
    variant: str, model: onnx.ModelProto, judge: Judge, effort: Effort | None, progress: Callable[[str], None]
) -> Iterator[Candidate]:
    """Return the recipes to try for a variant, in order."""
    if variant == "fp16":
        return _half_candidates(model, judge)
    if variant == "q4f16":
        return _half_block_candidates(model, judge, effort, progress)
    if variant in FIXED:
        return _static_candidates(model, judge, variant, effort, progress)
    if variant in BLOCKS:
        return _block_candidates(model, judge, BLOCKS[variant], effort, progress)
    return _int8_candidates(model, judge, QUANTIZE[variant], effort, progress)


def _prepare(
    model: onnx.ModelProto, judge: Judge, preparation: list[Step], quantize: Step, *, is_screened: bool = False
) -> Candidate:
    """Return the candidate of these steps."""
    return Candidate(preparation, apply_recipe(model, preparation, judge.calibration), quantize, is_screened)


def _widest(effort: Effort | None) -> Step:
    """Return the parameter of compensated rounding that a large model needs."""
    return {"widest": effort.widest} if effort else {}


def _int8_candidates(
    model: onnx.ModelProto,
    judge: Judge,
    step: Step,
    effort: Effort | None,
    progress: Callable[[str], None],
) -> Iterator[Candidate]:
    """Yield the recipes to try, the fastest first."""
    quantize = step | _widest(effort)
    *first, last = PREPARATIONS
    for preparation in first:
        yield _prepare(model, judge, preparation, quantize, is_screened=True)
    # No better preparation follows, so that it is worth the time to round with compensation.
    most_careful = _prepare(model, judge, last, quantize)
    yield most_careful
    yield from _sparing(most_careful, judge, effort, progress)


def _static_candidates(
    model: onnx.ModelProto,
    judge: Judge,
    variant: str,
    effort: Effort | None,
    progress: Callable[[str], None],
) -> Iterator[Candidate]:
    """Yield the recipes with fixed scales, the fastest first; only the last ones compute attention scores in float."""
    quantize = QUANTIZE[variant] | _widest(effort)
    preparation = prepare_fixed(variant, len(judge.inputs.items) if judge.inputs.is_alike else 0)
    candidate = _prepare(model, judge, preparation, quantize, is_screened=True)
    yield candidate
    for narrowing in _narrowing(candidate, judge, effort, progress):
        candidate = _prepare(model, judge, [narrowing, *preparation], quantize)
        yield candidate
    most_careful = replace(candidate, quantize=quantize | {"scores": False})
    if most_careful.quantize != quantize and has_integer_scores(candidate.prepared):
        yield most_careful
    yield from _sparing(most_careful, judge, effort, progress)


def prepare_fixed(variant: str, alike: int) -> list[Step]:
    """Return what prepares a graph for fixed scales of a variant.

    Args:
        variant: a key of ``FIXED``.
        alike: the number of calibration inputs that are like real ones. From ``FEWEST_CENTERED`` on, channels are
            centered. A channel that lies elsewhere than calibration showed is cut off by it: with spectrograms that
            were drawn, the lowest cosine of a tiny Whisper's encoder was 0.913 with it and 0.996 without.
    """
    return [step for step in FIXED[variant] if alike >= FEWEST_CENTERED or step != CENTER]


def _narrowing(
    candidate: Candidate, judge: Judge, effort: Effort | None, progress: Callable[[str], None]
) -> Iterator[Step]:
    """Yield what keeps the outliers of more and more products in float; of all at once where the model is large."""
    narrow = _narrow_products(candidate.prepared)
    if effort:
        yield FIXED_OUTLIERS | {"include": narrow}
        return
    ranking = [name for name in _rank_by_sensitivity(candidate, judge, progress) if name in narrow]
    for count in dict.fromkeys(math.ceil(share * len(ranking)) for share in NARROWED if ranking):
        yield FIXED_OUTLIERS | {"include": sorted(ranking[:count])}


def _narrow_products(model: onnx.ModelProto) -> list[str]:
    """Return, sorted, the names of the products whose outliers may stay in float where scales are fixed.

    They are those that do not widen and read their activation alone. Queries, keys and values read one rounded tensor,
    which would have to be rounded once more.
    """
    targets = find_targets(GraphEditor(model))
    readers = Counter(target.activation for target in targets)
    return sorted(
        target.name for target in targets if target.shape[0] >= target.shape[1] and readers[target.activation] == 1
    )


def _block_candidates(
    model: onnx.ModelProto,
    judge: Judge,
    ladder: BlockLadder,
    effort: Effort | None,
    progress: Callable[[str], None],
) -> Iterator[Candidate]:
    """Yield the recipes to try, the smallest first."""
    is_in_place = ladder.in_place and _is_in_place(model, judge, progress)
    rounding: Step = {"rounding": "compensated"} | _widest(effort)
    ranking: list[str] | None = None
    for table, rungs in itertools.groupby(ladder.rungs, key=lambda rung: rung.table):
        preparation = ladder.prepare(table, is_in_place)
        prepared = apply_recipe(model, preparation)
        wide = _wide_products(prepared) if effort else []
        tried: list[list[str]] = []
        for rung in rungs:
            # Not screened: with so few bits, compensation makes a quarter of the error.
            quantize = {"pass": "block_weights"} | rung.weights | rounding | ladder.level
            candidate = Candidate(preparation, prepared, quantize)
            if not rung.spared:
                yield candidate
                continue
            if ranking is None and not effort:
                ranking = _rank_by_sensitivity(candidate, judge, progress)
            spared = wide if ranking is None else sorted(ranking[: rung.spared])
            if spared and spared not in tried and len(spared) <= MOST_SPARED * len(ranking or spared):
                yield replace(candidate, quantize=candidate.quantize | {"eight_bit": spared})
            tried.append(spared)


def _is_in_place(model: onnx.ModelProto, judge: Judge, progress: Callable[[str], None]) -> bool:
    """Tell whether new keys and values can be written into the cache; where not, why is recorded."""
    if not has_cache(model):
        return False
    reason = why_not_in_place(model, judge.inputs)
    if reason:
        judge.left_out[IN_PLACE["pass"]] = reason
        progress(f"the cache is not written in place: {reason}")
    return not reason


def _sparing(
    candidate: Candidate, judge: Judge, effort: Effort | None, progress: Callable[[str], None]
) -> Iterator[Candidate]:
    """Yield a recipe that leaves more and more of the most sensitive products in float."""
    counts = effort.float_nodes if effort else FLOAT_NODES
    if not counts:
        return
    ranking = _rank_by_sensitivity(candidate, judge, progress)
    for count in counts:
        if count <= len(ranking) // 3:
            yield replace(candidate, quantize=candidate.quantize | {"exclude": sorted(ranking[:count])})


def _half_candidates(model: onnx.ModelProto, judge: Judge) -> Iterator[Candidate]:
    """Yield the recipes to try for float16, from the fastest to the most exact one."""
    preparation: list[Step] = [SOFTEN, {"pass": "share_tied_tables"}]
    prepared = apply_recipe(model, preparation)
    bounds = measure_bounds(prepared, judge.calibration)
    kinds = {node.name: node.op_type for node in GraphEditor(prepared).nodes}
    tried: list[list[str]] = []
    for chosen in (set(), ROUNDED_OFTEN, set(kinds.values()) - HEAVY, set(kinds.values())):
        keep = [name for name, bound in bounds.items() if not bound.fits or kinds[name] in chosen]
        if keep not in tried:
            yield Candidate(preparation, prepared, {"pass": "halve", "keep": keep}, bounds=bounds)
        tried.append(keep)


def _half_block_candidates(
    model: onnx.ModelProto, judge: Judge, effort: Effort | None, progress: Callable[[str], None]
) -> Iterator[Candidate]:
    """Yield the recipes of ``q4``, computed in float16 as far as its range allows."""
    for candidate in _block_candidates(model, judge, BLOCKS["q4"], effort, progress):
        prepared = apply_recipe(candidate.prepared, [candidate.quantize, SOFTEN], judge.calibration)
        bounds = measure_bounds(prepared, judge.calibration)
        keep = [name for name, bound in bounds.items() if not bound.fits]
        preparation = [*candidate.preparation, candidate.quantize, SOFTEN]
        yield Candidate(preparation, prepared, {"pass": "halve", "keep": keep}, bounds=bounds)


def _rank_by_sensitivity(candidate: Candidate, judge: Judge, progress: Callable[[str], None]) -> list[str]:
    """Return the names of the products that a recipe quantizes, the most sensitive one first."""
    few = judge.on_fewer(candidate.prepared, SENSITIVITY_INPUTS)
    # Without compensation the nodes rank alike, in a fraction of the time.
    return list(measure_sensitivity(candidate.prepared, candidate.quantize | ROUGHLY, few, progress))


def _wide_products(model: onnx.ModelProto) -> list[str]:
    """Return the products that suffer most from 4 bits, by their shapes alone: for models too large to measure it.

    They are those that end a feed-forward block, which have more inputs than outputs, and the one with the most
    outputs, which is the head of a language model.
    """
    targets = find_targets(GraphEditor(model))
    most = max((target.shape[1] for target in targets), default=0)
    heads = [target.name for target in targets if target.shape[1] == most]
    wide = {target.name for target in targets if target.shape[0] > target.shape[1]}
    return sorted(wide | set(heads if len(heads) == 1 else ()))
