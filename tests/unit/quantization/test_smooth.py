import numpy as np
import pytest
from onnx import TensorProto, helper

from graphs import FLOAT, attention_model, build, constants_of, linear_model, mask_of, op_types, run
from messages import raises
from onnxproof.graph.editor import GraphEditor
from onnxproof.quantization.activations import Activation, Calibration
from onnxproof.quantization.passes.dynamic_matmul import quantize_dynamic_matmul
from onnxproof.quantization.passes.smooth import Smoothing, round_scales, smooth_activations
from onnxproof.quantization.passes.static_matmul import quantize_static_matmul
from onnxproof.quantization.recipe import RecipeError, apply_recipe
from onnxproof.quantization.targets import Target, find_targets

HIDDEN = 8
SMOOTH = {"pass": "smooth"}


def outlier_input(seed, tokens=20):
    x = np.random.default_rng(seed).normal(size=(1, tokens, HIDDEN)).astype(np.float32)
    x[..., 2] *= 50
    return x


def chain(*nodes, **constants):
    spec = (FLOAT, ["batch", "tokens", HIDDEN])
    return build(list(nodes), {"x": spec}, {"y": spec}, constants)


def square(seed, size=HIDDEN):
    return np.random.default_rng(seed).normal(size=(HIDDEN, size)).astype(np.float32)


def matmul(source, weight, output):
    return helper.make_node("MatMul", [source, weight], [output], name=output)


def normalized(operator="LayerNormalization"):
    """A normalization (with an outlier channel) → two products, added."""
    has_beta = operator == "LayerNormalization"
    gamma = np.ones(HIDDEN, dtype=np.float32)
    gamma[2] = 50
    return chain(
        helper.make_node(operator, ["x", "gamma", *(["beta"] if has_beta else [])], ["n"]),
        matmul("n", "w1", "a"),
        matmul("n", "w2", "b"),
        helper.make_node("Add", ["a", "b"], ["y"]),
        gamma=gamma,
        **({"beta": np.full(HIDDEN, 0.5, dtype=np.float32)} if has_beta else {}),
        w1=square(1),
        w2=square(2),
    )


def attended():
    """Attention with an outlier value channel → output projection."""
    rng = np.random.default_rng(3)
    model = attention_model(rng, HIDDEN)
    weight = constants_of(model)["qkv_weight"].copy()
    weight[:, 2 * HIDDEN + 2] *= 50
    model = attention_model(rng, HIDDEN, weight=weight)
    model.graph.node[0].output[0] = "heads"
    model.graph.node.append(matmul("heads", "w", "y"))
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT, [HIDDEN, HIDDEN], square(4).ravel()))
    return model


def scores_of(model, feeds):
    return run(model, feeds)[0]


@pytest.mark.parametrize(
    ("model", "inserted"),
    [
        (normalized(), []),
        (normalized("SimplifiedLayerNormalization"), []),
        (chain(helper.make_node("Erf", ["x"], ["e"]), matmul("e", "w", "y"), w=square(1)), ["Mul"]),
        (
            chain(matmul("x", "w1", "h"), matmul("h", "w2", "t"), helper.make_node("Add", ["t", "h"], ["y"]),
                  w1=square(1) * np.float32(50) ** (np.arange(HIDDEN) == 5).astype(np.float32), w2=square(2)),
            ["Mul", "Mul"],
        ),
    ],
    ids=["folded into the normalization", "into one without a mean", "behind a function", "read by a residual too"],
)  # fmt: skip
def test_the_float_answer_stays_and_scales_go_where_they_cost_least(model, inserted):
    feeds = {"x": outlier_input(0)}
    expected, before = scores_of(model, feeds), op_types(model)

    smooth_activations(model, [feeds], strength=0.5)

    np.testing.assert_allclose(scores_of(model, feeds), expected, rtol=1e-4, atol=1e-4)
    assert sorted(op_types(model)) == sorted(before + inserted)


def test_smoothing_moves_an_outlier_out_of_the_normalization():
    model = normalized()
    smooth_activations(model, [{"x": outlier_input(0)}], strength=0.5)
    gamma = np.abs(constants_of(model)["gamma_1"])
    assert gamma.max() / np.median(gamma) < 50 / 3


def test_the_output_projection_smooths_into_the_value_columns():
    model = attended()
    feeds = {"x": outlier_input(0)[:, :6] / 50, "mask_index": mask_of(6)}
    [expected] = run(model, feeds)

    smooth_activations(model, [feeds], strength=0.5)

    assert op_types(model).count("Mul") <= 1  # for attention's own input, never for its output
    assert model.graph.node[-1].op_type == "MatMul"
    assert model.graph.node[-1].input[0] == "heads"
    np.testing.assert_allclose(run(model, feeds)[0], expected, rtol=1e-3, atol=1e-3)


def test_an_outlier_channel_costs_int8_less_afterwards():
    model = chain(helper.make_node("Erf", ["x"], ["e"]), helper.make_node("Mul", ["e", "gain"], ["g"]),
                  matmul("g", "w", "y"), w=square(1), gain=np.float32([1, 1, 60, 1, 1, 1, 1, 1]))  # fmt: skip
    feeds = {"x": np.random.default_rng(5).normal(size=(1, 64, HIDDEN)).astype(np.float32)}
    expected = scores_of(model, feeds)

    def int8_error(smooth):
        copy = type(model).FromString(model.SerializeToString())
        if smooth:
            smooth_activations(copy, [feeds])
        quantize_dynamic_matmul(copy)
        return np.square(scores_of(copy, feeds) - expected).mean()

    assert int8_error(smooth=True) < int8_error(smooth=False) / 4


def test_a_weight_shared_by_two_layers_is_left_alone():
    model = chain(matmul("x", "w", "h"), helper.make_node("Relu", ["h"], ["r"]), matmul("r", "w", "y"), w=square(1))
    smooth_activations(model, [{"x": outlier_input(0)}], strength=0.5)
    assert op_types(model) == ["MatMul", "Relu", "MatMul"]
    assert len(model.graph.initializer) == 1


def test_scales_are_those_of_the_paper():
    weight = np.array([[1, -4], [0.25, 0.25], [0, 0]], dtype=np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    largest = np.array([16, 1, 3], dtype=np.float32)
    activation = Activation(np.ones((1, 3), dtype=np.float32), -largest, largest)
    smoothing = Smoothing(activation, [Target(node, "x", weight.shape, lambda: weight)], "full")

    # max|X|^0.5 / max|W|^0.5 = 2, 2, and 1 where a channel of zeros leaves nothing to balance; median 2
    np.testing.assert_array_equal(smoothing.by_strength(0.5), [1, 1, 0.5])
    np.testing.assert_array_equal(smoothing.by_cap(0.5), [16 / 3 // (1 / 8) / 8, 1, 1])


def test_the_error_with_fixed_scales_is_that_of_the_graph():
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(8, 5)).astype(np.float32), rng.normal(size=5).astype(np.float32)
    rows = (rng.normal(size=(6, 8)) * [9, 1, 1, 1, 1, 1, 1, 1]).astype(np.float32)
    scales = np.array([4, 1, 1, 1, 1, 1, 1, 1], dtype=np.float32)
    activation = Activation(rows, np.minimum(rows.min(axis=0), 0), np.maximum(rows.max(axis=0), 0))
    target = Target(helper.make_node("MatMul", ["x", "w"], ["y"]), "x", weight.shape, lambda: weight)
    smoothed = linear_model(weight * scales[:, None], bias, "Gemm")
    quantize_static_matmul(smoothed, [{"x": rows / scales}])

    [y] = run(smoothed, {"x": rows / scales})

    expected = rows @ weight
    error = np.square(y - bias - expected).sum() / np.square(expected).sum()
    assert Smoothing(activation, [target], "pair_safe", fixed_scales=True).error(scales) == pytest.approx(error, 1e-3)


def test_scales_are_rounded_to_five_significant_bits():
    np.testing.assert_array_equal(
        round_scales(np.array([1.03, 1.04, 33, 0.999], dtype=np.float32)), np.float32([1, 1.0625, 32, 1])
    )


def test_gather_of_channels_is_no_target():
    model = build(
        [helper.make_node("Gather", ["x", "ids"], ["s"], axis=-1), matmul("s", "w", "y")],
        {"x": (FLOAT, ["n", 4])}, {"y": (FLOAT, ["n", 3])},
        {"ids": np.array([0, 2]), "w": np.ones((2, 3), dtype=np.float32)},
    )  # fmt: skip
    assert find_targets(GraphEditor(model)) == []


def test_fused_attention_is_smoothed_too():
    rng = np.random.default_rng(6)
    model = attention_model(rng)
    x = rng.normal(size=(2, 3, 8)).astype(np.float32)
    x[..., 5] *= 50
    feeds = {"x": x, "mask_index": mask_of(3, 2)}
    [expected] = run(model, feeds)

    smooth_activations(model, [feeds], strength=0.65)

    assert op_types(model) == ["Mul", "Attention"]
    np.testing.assert_allclose(run(model, feeds)[0], expected, rtol=1e-3, atol=1e-3)


def test_the_same_inputs_give_the_same_bytes():
    recipe = [{"pass": "smooth"}, {"pass": "dynamic_matmul"}]
    feeds = [{"x": outlier_input(0)}, {"x": outlier_input(1)}]
    first, second = (apply_recipe(normalized(), recipe, feeds) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_scales_are_chosen_once_for_what_another_recipe_leaves_as_it_is(monkeypatch):
    """The outliers of h stay in float in the second recipe: its rest is smoothed in another way, x in the same."""
    weight = square(1) * np.float32(50) ** (np.arange(HIDDEN) == 5).astype(np.float32)
    model = chain(matmul("x", "w1", "h"), matmul("h", "w2", "y"), w1=weight, w2=square(2))
    split = {"pass": "outlier_channels", "include": ["y"]}
    inputs = [{"x": outlier_input(0)}]
    expected = [apply_recipe(model, recipe, inputs) for recipe in ([SMOOTH], [split, SMOOTH])]
    chosen = []
    best = Smoothing.best
    monkeypatch.setattr(Smoothing, "best", lambda search: chosen.append(search.targets[0].name) or best(search))
    calibration = Calibration(inputs)
    assert [apply_recipe(model, recipe, calibration) for recipe in ([SMOOTH], [split, SMOOTH])] == expected
    assert chosen == ["h", "y", "y"]
    apply_recipe(model, [SMOOTH | {"fixed_scales": True}], calibration)
    assert chosen == ["h", "y", "y", "h", "y"]


def test_smoothing_without_calibration_inputs_is_an_error():
    with raises(RecipeError):
        apply_recipe(normalized(), [{"pass": "smooth"}])
