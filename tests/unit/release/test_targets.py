"""What a release says of execution providers: in its manifest, and on its card."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxproof.formatting import format_figure
from onnxproof.graph.providers import read_provider
from onnxproof.release.card import render_model_card, target_lines
from records import make_prepared, make_released_variant
from release import judge_files


@pytest.fixture
def release(tmp_path):
    """A folder with a graph that quantizes at run time, and with one that does not."""
    (tmp_path / "onnx").mkdir()
    weight = numpy_helper.from_array(np.ones((4, 2), np.int8), "w")
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], "ranges"),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"], "first"),
        helper.make_node("MatMulInteger", ["q", "w"], ["y"], "second"),
    ]
    for file, made, kind in (
        ("model.onnx", [helper.make_node("Erf", ["x"], ["y"], "erf")], TensorProto.FLOAT),
        ("model_quantized.onnx", nodes, TensorProto.INT32),
    ):
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])]
        outputs = [helper.make_tensor_value_info("y", kind, None)]
        graph = helper.make_graph(made, "g", inputs, outputs, [weight])
        opsets = [helper.make_opsetid("", 20)]
        onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "onnx" / file)
    return tmp_path


DOCUMENTED = {
    name: {"documented": provider.documented, "sources": list(provider.sources)}
    for name, provider in ((name, read_provider(name)) for name in ("webnn", "tensorrt"))
}
VARIANTS = {
    "fp32": make_released_variant(),
    "int8": make_released_variant("onnx/model_quantized.onnx"),
}


def test_files_are_held_against_each_provider(release):
    found = judge_files(release, VARIANTS, ["webnn", "tensorrt"])
    assert found == {
        "onnx/model.onnx": {
            "webnn": {
                "nodes": 1,
                "refused": [],
                "not_fixed": ["x"],
                **DOCUMENTED["webnn"],
            },
            "tensorrt": {
                "nodes": 1,
                "refused": [],
                "not_fixed": [],
                **DOCUMENTED["tensorrt"],
            },
        },
        "onnx/model_quantized.onnx": {
            "webnn": {
                "nodes": 3,
                "refused": [],
                "not_fixed": ["x"],
                **DOCUMENTED["webnn"],
            },
            "tensorrt": {
                "nodes": 3,
                "refused": [
                    {"operator": "DynamicQuantizeLinear", "reason": "the operator is not listed", "nodes": ["ranges"]},
                    {"operator": "MatMulInteger", "reason": "the operator is not listed", "nodes": ["first", "second"]},
                ],
                "not_fixed": [],
                **DOCUMENTED["tensorrt"],
            },
        },
    }
    assert target_lines(found) == [
        "`onnx/model.onnx` on WebNN: it takes all 1 nodes once the shapes of `x` are fixed.",
        "`onnx/model.onnx` on TensorRT: it takes all 1 nodes.",
        "`onnx/model_quantized.onnx` on WebNN: it takes all 3 nodes once the shapes of `x` are fixed.",
        "`onnx/model_quantized.onnx` on TensorRT: it refuses 3 of 3 nodes: "
        "1 DynamicQuantizeLinear, 2 MatMulInteger (the operator is not listed).",
    ]


def test_every_graph_of_a_variant_is_judged(release):
    files = {"encoder_model.onnx": "onnx/model.onnx", "decoder_model.onnx": "onnx/model_quantized.onnx"}
    variants = {"fp32": make_released_variant("onnx/model_quantized.onnx", files=files)}
    assert judge_files(release, variants, ["qnn"]).keys() == set(files.values())


def test_the_card_says_it_where_providers_are_named(release):
    verdicts = judge_files(release, VARIANTS, ["tensorrt"])
    card = render_model_card(make_prepared(VARIANTS, targets=verdicts), {})
    assert "## On other execution providers" in card
    for line in target_lines(verdicts):
        assert f"- {line}\n" in card
    assert "execution providers" not in render_model_card(make_prepared(VARIANTS), {})


@pytest.mark.parametrize(
    ("missed", "words"),
    [
        ([], "within all its limits"),
        (["mean_kl"], "beyond its limits for mean_kl, so it is not recommended there"),
    ],
)
def test_the_card_says_how_far_answers_are_with_another_provider(missed, words):
    answers = {
        "file": "onnx/model.onnx",
        "variant": "fp32",
        "provider": "OpenVINOExecutionProvider",
        "task_metrics": {"top1_agreement": 0.999},
        "missed": missed,
    }
    choice = {
        "file": "onnx/model.onnx",
        "purpose": "latency",
        "in_float": True,
        "variant": "fp32",
        "provider": "CPUExecutionProvider",
        "session": {"intra_op_threads": 2},
        "shapes": ["1x128"],
        "speedup": 1.0,
    }
    card = render_model_card(make_prepared(VARIANTS, recommended=[choice], other_providers=[answers]), {})
    line = f"`onnx/model.onnx` with OpenVINOExecutionProvider: `top1_agreement` {format_figure(0.999)}, {words}."
    assert f"\n\n{line}\n" in card
