"""Files with weights, written and read by our own hand, beside what protobuf makes of the same models."""

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from onnxproof.graph.external_data import join_weights
from onnxproof.graph.single_file import SMALLEST_LEFT_OUT, read_apart, read_without_weights, write_whole
from onnxproof.original.exporters.tracing import save_graph


def some_model():
    """A model with all that a graph may have beside its weights, fields before and behind them."""
    random = np.random.default_rng(0)
    large = random.normal(size=(300, 200)).astype(np.float32)
    constants = [
        numpy_helper.from_array(large, "large"),
        numpy_helper.from_array(np.int64([1, -1]), "shape"),
        numpy_helper.from_array(random.integers(-128, 128, (400, 700)).astype(np.int8), "integers"),
        helper.make_tensor("numbers", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]),
        helper.make_tensor("texts", TensorProto.STRING, [2], [b"a", b"b"]),
        numpy_helper.from_array(np.zeros((0, 4), np.float32), "nothing"),
    ]
    constants[0].doc_string = "behind the weight"
    constants[2].metadata_props.add(key="a", value="b")
    branch = helper.make_graph([helper.make_node("Identity", ["large"], ["y"])], "branch", [], [])
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch, doc_string="x" * 300)]
    inputs = [helper.make_tensor_value_info("c", TensorProto.BOOL, [])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 200])]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, constants, doc_string="of the graph", value_info=outputs)
    function = helper.make_function("own", "f", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, functions=[function], opset_imports=opsets, producer_name="tests", model_version=7)
    helper.set_model_props(model, {"key": "value"})
    return model


def moved_outside(model):
    """The model with weights outside, and these by their names."""
    outside, weights = onnx.ModelProto(), {}
    outside.CopyFrom(model)
    for tensor in outside.graph.initializer:
        if len(tensor.raw_data) > 1000:
            weights[tensor.name] = tensor.raw_data
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="elsewhere")
    return outside, weights


@pytest.mark.parametrize(
    ("smallest", "names"), [(1000, {"large", "integers"}), (250_000, {"integers"}), (1 << 20, set())]
)
def test_a_model_taken_apart_is_whole_with_its_weights(tmp_path, smallest, names):
    onnx.save(some_model(), tmp_path / "model.onnx")

    model, weights = read_apart(tmp_path / "model.onnx", smallest)

    constants = model.graph.initializer
    assert {constants[place].name for place in weights} == names
    assert not any(constants[place].HasField("raw_data") for place in weights)
    for place, weight in weights.items():
        constants[place].raw_data = bytes(weight)
    assert model == some_model()


def test_what_is_written_are_the_bytes_of_protobuf(tmp_path):
    model = some_model()
    outside, weights = moved_outside(model)
    assert set(weights) == {"large", "integers"}

    def weight_of(tensor):
        content = weights[tensor.name]
        return len(content), (content[start : start + 1000] for start in range(0, len(content), 1000))

    write_whole(outside, tmp_path / "ours.onnx", weight_of)
    onnx.save(model, tmp_path / "model.onnx")
    assert (tmp_path / "ours.onnx").read_bytes() == (tmp_path / "model.onnx").read_bytes()


def test_a_traced_graph_becomes_the_file_that_onnx_ir_writes(tmp_path):
    import onnx_ir

    values = np.random.default_rng(0).normal(size=(600, 600)).astype(np.float32)
    weights = [numpy_helper.from_array(values, "w"), numpy_helper.from_array(values.astype(np.float16), "small")]
    inputs, outputs = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 600]) for name in "xy")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "main_graph", [inputs], [outputs], weights
    )
    model = onnx_ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    onnx_ir.save(model, tmp_path / "expected.onnx")
    weight = model.graph.initializers["w"].const_value
    save_graph(model, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx_data").stat().st_size >= values.nbytes
    join_weights(tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx_data").exists()
    assert (tmp_path / "model.onnx").read_bytes() == (tmp_path / "expected.onnx").read_bytes()
    assert model.graph.initializers["w"].const_value is weight, "the graph still has its weights"


def test_a_model_without_weights_outside_is_written_too(tmp_path):
    for model in (some_model(), helper.make_model(helper.make_graph([], "empty", [], [])), onnx.ModelProto()):
        write_whole(model, tmp_path / "ours.onnx", lambda tensor: pytest.fail("none is outside"))
        written = onnx.load(tmp_path / "ours.onnx")
        assert written.graph == model.graph
        assert written.opset_import == model.opset_import


def test_a_file_is_read_but_for_the_content_of_its_large_constants(tmp_path):
    model = some_model()
    onnx.save(model, tmp_path / "model.onnx")
    read = read_without_weights(tmp_path / "model.onnx")
    left_out = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= SMALLEST_LEFT_OUT]
    assert [tensor.name for tensor in left_out] == ["large", "integers"]
    for tensor in left_out:
        tensor.ClearField("raw_data")
    assert read == model


def test_references_to_other_files_are_kept(tmp_path):
    outside, _ = moved_outside(some_model())
    onnx.save(outside, tmp_path / "model.onnx")
    assert read_without_weights(tmp_path / "model.onnx") == outside


def test_a_damaged_file_is_no_model(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(some_model(), path)
    whole = path.read_bytes()
    for damaged in (
        whole[:-1],
        whole[: len(whole) // 2],
        whole[:3],
        b"\x0f",
        b"\xff",
        b"\x08\xff",
        b"\x08" + b"\xff" * 1000 + b"\x01",
    ):
        path.write_bytes(damaged)
        with pytest.raises(DecodeError):
            read_without_weights(path)
        with pytest.raises(DecodeError):
            onnx.load(path)
    path.write_bytes(b"")
    assert read_without_weights(path) == onnx.ModelProto()


def test_protobuf_judges_a_file_with_a_wrong_byte(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(some_model(), path)
    whole = path.read_bytes()
    refused = 0
    for place in [*range(600), *range(len(whole) - 600, len(whole))]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x05]) + whole[place + 1 :])
        try:
            onnx.load(path)
        except DecodeError:
            refused += 1
            with pytest.raises(DecodeError):
                read_without_weights(path)
        else:
            read_without_weights(path)
    assert refused > 100, "bytes of fields within the graph are among them"
