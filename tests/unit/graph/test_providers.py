"""What execution providers refuse: the tables, and the nodes that are named."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType
from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config
from onnxruntime.tools.onnx_model_utils import make_dim_param_fixed

from graphs import linear_model
from onnxproof.graph.providers import judge_graph, provider_names, read_provider
from onnxproof.places import SCHEMAS

#: The list that onnxruntime's own package has of what CoreML takes.
COREML_LIST = Path(onnxruntime.__file__).parent / "tools" / "mobile_helpers" / "coreml_supported_mlprogram_ops.md"
#: What that list calls otherwise than ONNX does.
MISSPELT = {"Argmax": "ArgMax"}


class NoInputs(CalibrationDataReader):
    """No calibration inputs: only the plan of a quantizer is asked for."""

    def get_next(self) -> None:
        return None


def make_model(nodes, constants, **opsets) -> onnx.ModelProto:
    """Return a model that reads ``x``, float32 (batch, length, 4)."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length", 4])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    imports = [helper.make_opsetid("", 21)] + [helper.make_opsetid(*each) for each in opsets.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def rounded(activations, zero_point: int, weights=np.int8, output=None, scales=1) -> onnx.ModelProto:
    """Return a product of an activation and a weight, both behind DequantizeLinear.

    It is rounded to integers of the type ``output``, where one is given. The weight has so many ``scales``.
    """
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "round"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["a"], "back"),
        helper.make_node("DequantizeLinear", ["w_q", "scales"], ["w"], "weight"),
        helper.make_node("MatMul", ["a", "w"], ["y"], "product"),
    ]
    if output is not None:
        nodes.append(helper.make_node("QuantizeLinear", ["y", "scale", "zero_y"], ["y_q"], "round_product"))
        nodes.append(helper.make_node("DequantizeLinear", ["y_q", "scale", "zero_y"], ["z"], "back_product"))
    constants = {
        "scale": np.array(0.1, np.float32),
        "scales": np.full(scales, 0.1, np.float32) if scales > 1 else np.array(0.1, np.float32),
        "zero_y": np.array(0, output or np.uint8),
        "zero": np.array(zero_point, activations),
        "w_q": np.ones((4, 3), weights),
    }
    return make_model(nodes, constants)


def refused(model: onnx.ModelProto, provider: str) -> list[str]:
    return list(map(str, judge_graph(model, read_provider(provider)).refused))


def test_tables_name_operators_of_onnx_and_the_schema_names_the_tables():
    known = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
    #: Older operators, one that onnxruntime adds to ONNX's domain, and some of PyTorch's and Caffe2's exporters.
    others = {"Inverse", "SimplifiedLayerNormalization", "Upsample", "Scatter"}
    for name in provider_names():
        provider = read_provider(name)
        own = {operator.removeprefix("ai.onnx:") for operator in provider.operators if operator.startswith("ai.onnx:")}
        assert own - known - others == set(), name
        assert all(source.startswith("https://") for source in provider.sources)
        assert provider.documented
    schema = yaml.safe_load((SCHEMAS / "config.schema.yaml").read_text())
    assert schema["$defs"]["release"]["properties"]["targets"]["items"]["enum"] == provider_names()


def test_coremls_table_is_onnxruntimes_list():
    listed = re.findall(r"^\|((?:ai\.onnx|com\.microsoft):\w+)\|", COREML_LIST.read_text(), re.MULTILINE)
    expected = {f"{domain}:{MISSPELT.get(name, name)}" for domain, name in (entry.split(":") for entry in listed)}
    assert len(expected) > 50
    assert read_provider("coreml").operators == expected


def test_asymmetric_integers_are_refused_by_tensorrt():
    types = "its values are uint8, allowed are int8, int4, float8e4m3fn, float4e2m1"
    assert refused(rounded(np.uint8, 128), "tensorrt") == [
        f"QuantizeLinear round: {types}; its zero point is not 0",
        f"DequantizeLinear back: {types}; its zero point is not 0",
    ]
    assert refused(rounded(np.int8, 3), "tensorrt") == [
        "QuantizeLinear round: its zero point is not 0",
        "DequantizeLinear back: its zero point is not 0",
    ]
    assert refused(rounded(np.int8, 0), "tensorrt") == []


def test_types_of_a_product_are_checked_for_qnn():
    allowed = "allowed is uint8 by uint8 or uint8 by uint16 or uint16 by uint8"
    assert refused(rounded(np.uint8, 128, output=np.uint8), "qnn") == [
        f"MatMul product: it multiplies uint8 by int8, {allowed}"
    ]
    assert refused(rounded(np.uint16, 0, np.uint8, np.uint16), "qnn") == []
    assert refused(rounded(np.uint8, 128, np.uint8, np.uint8), "qnn") == []


def test_qnn_needs_a_rounded_output_and_one_scale():
    assert refused(rounded(np.uint8, 128, np.uint8), "qnn") == ["MatMul product: its output is not rounded to uint8"]
    assert refused(rounded(np.uint16, 0, np.uint8, np.uint8), "qnn") == [
        "MatMul product: its output is not rounded to uint16"
    ]
    assert refused(rounded(np.uint8, 128, np.uint8, np.uint8, scales=3), "qnn") == [
        "MatMul product: its input number 2 has a scale per channel, allowed is one scale"
    ]


def test_onnxruntimes_quantizer_gives_the_weight_of_a_product_one_scale_for_qnn():
    """It is asked for a scale per channel, and overrides that for MatMul."""
    model = linear_model(np.ones((4, 3), np.float32))
    overrides = get_qnn_qdq_config(model, NoInputs(), per_channel=True).extra_options["TensorQuantOverrides"]
    assert overrides["w"] == [{"quant_type": QuantType.QUInt8, "symmetric": False}]


def test_quantizing_at_run_time_is_taken_in_qnns_pattern_alone():
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"], "ranges"),
        helper.make_node("MatMulInteger", ["q", "w", "zero"], ["i"], "product"),
        helper.make_node("MatMulInteger", ["w", "w"], ["j"], "other"),
        helper.make_node("Cast", ["i"], ["y"], "float", to=TensorProto.FLOAT),
    ]
    nodes.insert(0, helper.make_node("Cast", ["x"], ["own"], "own", to=TensorProto.UINT8))
    nodes[3].input[0] = "own"
    model = make_model(nodes, {"w": np.ones((4, 4), np.int8)})
    assert refused(model, "qnn") == ["MatMulInteger other: its input does not come from DynamicQuantizeLinear"]
    assert refused(model, "tensorrt") == [
        "DynamicQuantizeLinear ranges: the operator is not listed",
        "MatMulInteger product: the operator is not listed",
        "MatMulInteger other: the operator is not listed",
    ]


def test_an_operator_of_another_domain_and_one_in_a_subgraph_are_named():
    erf = helper.make_node("Erf", ["x"], ["e"], "inner")
    branch = helper.make_graph([erf], "b", [], [helper.make_tensor_value_info("e", TensorProto.FLOAT, None)])
    nodes = [
        helper.make_node("QuickGelu", ["x"], ["g"], "gelu", domain="com.microsoft"),
        helper.make_node("ReduceMax", ["g"], ["m"], "largest", keepdims=0),
        helper.make_node("Cast", ["m"], ["c"], "flag", to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], "choice", then_branch=branch, else_branch=branch),
    ]
    model = make_model(nodes, {}, **{"com.microsoft": 1})
    told = list(map(str, judge_graph(model, read_provider("tensorrt")).refused))
    assert told == ["com.microsoft:QuickGelu gelu: the operator is not listed"]
    told = list(map(str, judge_graph(model, read_provider("qnn")).refused))
    assert told == [
        "If choice: the operator is not listed",
        "Erf inner: the operator is not listed",
        "Erf inner: the operator is not listed",
    ]


def shaped_by_input() -> onnx.ModelProto:
    """Return a model that reshapes its input by what it computes from the input's shape."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], "shape"),
        helper.make_node("Gather", ["s", "one"], ["n"], "length"),
        helper.make_node("Concat", ["first", "n", "last"], ["wanted"], "wanted", axis=0),
        helper.make_node("Reshape", ["x", "wanted"], ["r"], "reshape"),
        helper.make_node("Squeeze", ["n"], ["count"], "count"),
        helper.make_node("Range", ["start", "count", "step"], ["i"], "places"),
        helper.make_node("Cast", ["i"], ["f"], "float", to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["f", "axes"], ["u"], "column"),
        helper.make_node("Add", ["r", "u"], ["y"], "sum"),
    ]
    constants = {
        "one": np.array([1]),
        "first": np.array([-1]),
        "last": np.array([4]),
        "start": np.array(0),
        "step": np.array(1),
        "axes": np.array([1]),
    }
    return make_model(nodes, constants)


def test_what_depends_on_shapes_alone_is_gone_once_they_are_fixed(tmp_path):
    model = shaped_by_input()
    for name in ("qnn", "webnn"):
        judged = judge_graph(model, read_provider(name))
        assert (judged.nodes, judged.refused, judged.not_fixed) == (2, [], ["x"]), name
    assert "Range places: the operator is not listed" in refused(model, "coreml")
    # onnxruntime itself, told the shapes, is left with the same nodes.
    for axis, size in (("batch", 2), ("length", 5)):
        make_dim_param_fixed(model.graph, axis, size)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "fixed.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert [node.name for node in onnx.load(tmp_path / "fixed.onnx").graph.node] == ["reshape", "sum"]
    assert judge_graph(model, read_provider("qnn")).not_fixed == []


def test_a_shape_that_hangs_on_values_stays_open_for_webnn():
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"], "places"),
        helper.make_node("Shape", ["places"], ["s"], "shape"),
        helper.make_node("Expand", ["value", "s"], ["y"], "expand"),
    ]
    model = make_model(nodes, {"value": np.array(1, np.float32)})
    assert refused(model, "webnn") == [
        "NonZero places: the operator is not listed",
        "Expand expand: its input s is not constant",
    ]


def test_a_shape_that_is_computed_from_values_stays_open_too():
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], "largest", keepdims=0),
        helper.make_node("Cast", ["m"], ["count"], "count", to=TensorProto.INT64),
        helper.make_node("Range", ["zero", "count", "one"], ["places"], "places"),
        helper.make_node("Shape", ["places"], ["s"], "shape"),
        helper.make_node("Expand", ["value", "s"], ["y"], "expand"),
    ]
    constants = {"zero": np.array(0), "one": np.array(1), "value": np.array(1, np.float32)}
    assert refused(make_model(nodes, constants), "webnn") == [
        "Range places: the operator is not listed",
        "Expand expand: its input s is not constant",
    ]


def test_a_zero_point_of_a_constant_node_is_read():
    zero = numpy_helper.from_array(np.array(3, np.int8))
    nodes = [
        helper.make_node("Constant", [], ["zero"], "three", value=zero),
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"], "round"),
    ]
    model = make_model(nodes, {"scale": np.array(0.1, np.float32)})
    assert refused(model, "tensorrt") == ["QuantizeLinear round: its zero point is not 0"]


@pytest.mark.parametrize(
    ("node", "constants", "provider", "reason"),
    [
        (
            helper.make_node("LpNormalization", ["x"], ["y"], "norm", p=1),
            {},
            "qnn",
            "LpNormalization norm: p is 1, allowed is 2",
        ),
        (
            helper.make_node("Reshape", ["x", "s"], ["y"], "flat"),
            {"s": np.array([0, -1])},
            "webnn",
            "Reshape flat: its input s has a 0",
        ),
        (
            helper.make_node("LayerNormalization", ["x", "g"], ["y", "mean"], "norm"),
            {"g": np.ones(4, np.float32)},
            "tensorrt",
            "LayerNormalization norm: it has 2 outputs, allowed is 1",
        ),
        (
            helper.make_node(
                "MultiHeadAttention",
                ["x", "x", "x", "", "mask"],
                ["y"],
                "attention",
                domain="com.microsoft",
                num_heads=1,
            ),
            {"mask": np.ones((2, 5), np.int32)},
            "webnn",
            "com.microsoft:MultiHeadAttention attention: it has the input mask, number 5",
        ),
    ],
)
def test_a_condition_that_a_node_does_not_meet_is_told(node, constants, provider, reason):
    assert refused(make_model([node], constants), provider) == [reason]


def test_without_the_condition_nothing_is_told():
    node = helper.make_node("LpNormalization", ["x"], ["y"], "norm")
    assert refused(make_model([node], {}), "qnn") == []
    node = helper.make_node("ScatterND", ["x", "i", "u"], ["y"], "scatter", reduction="add")
    constants = {"i": np.zeros((1, 3), np.int64), "u": np.ones(1, np.float32)}
    assert refused(make_model([node], constants), "tensorrt") == [
        "ScatterND scatter: reduction is add, allowed is none"
    ]
