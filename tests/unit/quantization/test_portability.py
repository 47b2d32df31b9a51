import numpy as np
import pytest
from onnx import TensorProto, helper

from graphs import build, linear_model, run
from onnxproof.quantization import portability
from onnxproof.quantization.passes.dynamic_matmul import quantize_dynamic_matmul
from onnxproof.quantization.passes.per_token import quantize_per_token
from onnxproof.quantization.portability import check_portability, instruction_set, try_on_this_cpu
from onnxproof.quantization.weights import quantize_columns

AVX2, AVX512 = "x86 with AVX2", "x86 with AVX-512, without VNNI"


def quantized(weight_range, per_token=False):
    weight = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    weight[:2] = 4  # a pair of the largest values
    model = linear_model(weight)
    if per_token:
        quantize_per_token(model, [{"x": weight.T[:, :64]}], weight_range=weight_range)
    else:
        quantize_dynamic_matmul(model, weight_range=weight_range)
    return model


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize(
    ("weight_range", "expected"), [("full", "may saturate"), ("pair_safe", "exact"), ("reduced", "exact")]
)
def test_the_verdict_follows_the_weights(weight_range, expected, per_token):
    report = check_portability(quantized(weight_range, per_token))

    assert report["integer_products"] == 1
    assert report["instruction_sets"][AVX2] == report["instruction_sets"][AVX512] == expected
    assert report["instruction_sets"]["x86 with VNNI or AMX"] == "exact"
    assert report["may_saturate"] == (["linear_quant"] if expected == "may saturate" else [])
    if weight_range == "full":
        assert report["worst_pair_sum"] == 255 * 254
    else:
        assert report["worst_pair_sum"] <= report["pair_sum_limit"] == 32767


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 64])
def test_pair_safe_weights_are_exact_on_this_cpu_whatever_it_is(rows):
    rng = np.random.default_rng(1)
    integers, _ = quantize_columns(rng.normal(size=(385, 70)).astype(np.float32), "pair_safe")
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    model = build(
        [node], {"x": (TensorProto.UINT8, ["rows", 385])}, {"y": (TensorProto.INT32, ["rows", 70])}, {"w": integers}
    )
    x = np.full((rows, 385), 255, dtype=np.uint8)
    x[:, rng.permutation(385)[:100]] = 0

    [y] = run(model, {"x": x})

    np.testing.assert_array_equal(y, x.astype(np.int64) @ integers.astype(np.int64))
    assert check_portability(model)["instruction_sets"][AVX2] == "exact"


@pytest.mark.parametrize("per_token", [False, True])
def test_safe_weights_pass_the_trial_on_this_cpu_whatever_it_is(per_token):
    trial = try_on_this_cpu(quantized("pair_safe", per_token))
    assert (trial["products"], trial["wrong"]) == (1, [])


def test_unsigned_weights_saturate_nowhere():
    model = linear_model(np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32))
    quantize_dynamic_matmul(model, weight_range="full", unsigned=True)

    report, trial = check_portability(model), try_on_this_cpu(model)

    assert (report["integer_products"], report["may_saturate"]) == (1, [])
    assert set(report["instruction_sets"].values()) == {"exact"}
    assert (trial["products"], trial["wrong"]) == (1, [])


def test_the_trial_finds_what_saturates_where_it_does(monkeypatch):
    def saturating_product(inputs, weight):
        pairs = inputs.astype(np.int32)[:, :, None] * weight.astype(np.int32)[None]
        return np.clip(pairs.reshape(len(inputs), -1, 2, weight.shape[1]).sum(axis=2), -32768, 32767).sum(axis=1)

    monkeypatch.setattr(portability, "_integer_product", saturating_product)
    assert try_on_this_cpu(quantized("full"))["wrong"] == ["linear_quant"]
    assert try_on_this_cpu(quantized("pair_safe"))["wrong"] == []


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (["avx2", "avx512_vnni", "avx512bw"], "x86 with VNNI or AMX"),
        (["avx2", "avx512bw"], AVX512),
        (["avx2", "avx_vnni"], "x86 with VNNI or AMX"),
        (["avx2", "fma"], AVX2),
        (["asimd", "asimddp"], "ARM with dot product"),
        (["asimd"], None),
    ],
)
def test_the_kind_of_a_cpu_is_told_from_its_flags(flags, name):
    assert instruction_set(flags) == name


def test_a_float_model_has_nothing_to_saturate():
    model = linear_model(np.eye(2, dtype=np.float32))
    assert check_portability(model)["integer_products"] == 0
