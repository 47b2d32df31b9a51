"""Models by reference: the same graphs, the same files, whatever the sizes at which weights stay outside."""

import copy
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from messages import raises
from onnxproof.cli import UserError
from onnxproof.graph import external_data
from onnxproof.graph.external_data import (
    digest_of_model,
    gather_weights,
    join_weights,
    load_model,
    make_tensor,
    read_tensor,
    rename_weights,
    save_model,
)
from onnxproof.quantization.sessions import open_session


def chain(*nodes, **constants):
    """x → nodes → y."""
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", None])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def assert_constants(path, **expected):
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    assert constants.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(constants[name], values)


def matmul(left, right, output):
    return helper.make_node("MatMul", [left, right], [output])


@pytest.fixture
def scratch(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def weight():
    return np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


@pytest.fixture
def path(tmp_path, weight):
    """A graph with one large constant, two small ones, and metadata of its own."""
    model = chain(matmul("x", "w", "h"), helper.make_node("Add", ["h", "b"], ["y"]), w=weight, b=weight[0])
    model.metadata_props.add(key="author", value="a test")
    folder = tmp_path / "model"
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.fixture
def by_reference(monkeypatch):
    """Every model is large, and so is every constant of 64 bytes."""
    monkeypatch.setattr(external_data, "BY_REFERENCE_BYTES", 0)
    monkeypatch.setattr(external_data, "SMALLEST_OUTSIDE", 64)


@pytest.mark.parametrize("smallest", [64, 1 << 20])
def test_a_small_model_is_loaded_whole(path, scratch, smallest, monkeypatch):
    monkeypatch.setattr(external_data, "SMALLEST_OUTSIDE", smallest)
    assert load_model(path, scratch) == onnx.load(path)


def test_weights_outside_count_when_a_model_is_loaded(path, scratch, tmp_path, weight, by_reference, monkeypatch):
    model = load_model(path, scratch)
    save_model(model, tmp_path / "model.onnx", 0)
    size = (tmp_path / "model.onnx").stat().st_size + weight.nbytes

    for whole_below, is_whole in ((size + 1, True), (size, False)):
        again = load_model(tmp_path / "model.onnx", scratch, whole_below)
        assert (external_data.weights_folder(again) is None) == is_whole


def test_a_large_model_refers_to_its_weights(path, scratch, weight, by_reference):
    model = load_model(path, scratch)
    large, small = model.graph.initializer
    assert not large.HasField("raw_data")
    assert small.HasField("raw_data")
    np.testing.assert_array_equal(read_tensor(model, large), weight)
    assert external_data.weight_bytes(model) > model.ByteSize() + weight.nbytes - 1
    (actual,) = open_session(model).run(None, {"x": np.eye(6, dtype=np.float32)})
    np.testing.assert_allclose(actual, weight + weight[0], rtol=1e-6)


def test_one_file_holds_the_bytes_that_were_loaded(path, scratch, tmp_path, by_reference):
    save_model(load_model(path, scratch), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()
    assert not (tmp_path / "again.onnx_data").exists()


def test_what_one_file_cannot_hold_goes_beside_it(path, scratch, tmp_path, weight, by_reference, monkeypatch):
    monkeypatch.setattr(external_data, "SINGLE_FILE_BYTES", 0)
    model = load_model(path, scratch)
    model.graph.initializer.append(make_tensor(model, "more", weight * 2))
    save_model(model, tmp_path / "model.onnx")
    for file in scratch.iterdir():
        file.unlink()

    assert external_data.weight_files(onnx.load(tmp_path / "model.onnx", load_external_data=False)) == {
        "model.onnx_data"
    }
    assert [entry.key for entry in onnx.load(tmp_path / "model.onnx").metadata_props] == ["author"]
    assert_constants(tmp_path / "model.onnx", w=weight, b=weight[0], more=weight * 2)
    # What was written is loaded again, from its own folder.
    again = load_model(tmp_path / "model.onnx", scratch)
    np.testing.assert_array_equal(read_tensor(again, again.graph.initializer[-1]), weight * 2)


def test_weights_can_be_asked_to_be_in_a_file(path, scratch, tmp_path, weight, by_reference):
    model = load_model(path, scratch)
    size = external_data.weight_bytes(model)
    save_model(model, tmp_path / "one.onnx", size + 1)
    assert not (tmp_path / "one.onnx_data").exists()
    save_model(model, tmp_path / "two.onnx", size)
    assert (tmp_path / "two.onnx_data").read_bytes() == weight.tobytes()
    assert_constants(tmp_path / "two.onnx", w=weight, b=weight[0])


def test_files_of_single_tensors_are_joined(tmp_path, weight):
    folder = tmp_path / "parts"
    folder.mkdir()
    model = chain(matmul("x", "w", "h"), matmul("h", "v", "y"), w=weight, v=weight.T)
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0)
    gather_weights(folder / "model.onnx")
    assert {file.name for file in folder.iterdir()} == {"model.onnx", "model.onnx_data"}
    assert_constants(folder / "model.onnx", w=weight, v=weight.T)

    before = (folder / "model.onnx").read_bytes()
    gather_weights(folder / "model.onnx")
    assert (folder / "model.onnx").read_bytes() == before


def test_a_graph_and_its_file_become_one_file_branches_included(tmp_path, weight):
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    branches = {
        name: helper.make_graph(
            [helper.make_node("Identity", [f"{name}_w"], [f"{name}_y"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, weight.shape)],
            [numpy_helper.from_array(weight * factor, f"{name}_w")],
        )
        for name, factor in (("then_branch", 1), ("else_branch", 2))
    }
    nodes = [helper.make_node("If", ["is_so"], ["h"], **branches), helper.make_node("Add", ["h", "w"], ["y"])]
    inputs = [helper.make_tensor_value_info("is_so", TensorProto.BOOL, [])]
    model = helper.make_model(
        helper.make_graph(nodes, "graph", inputs, outputs, [numpy_helper.from_array(weight, "w")]),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    path = tmp_path / "model.onnx"
    whole = model.SerializeToString()
    onnx.save(model, path, save_as_external_data=True, location="model.onnx_data", size_threshold=0)
    join_weights(path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_bytes() == whole
    join_weights(path)
    assert path.read_bytes() == whole


def test_a_graph_can_be_told_another_name_of_its_weights(tmp_path, weight):
    model = chain(matmul("x", "w", "y"), w=weight)
    path = tmp_path / "model.onnx"
    external = {"save_as_external_data": True, "location": "model.onnx_data", "size_threshold": 0}
    onnx.save(copy.deepcopy(model), path, **external)
    (tmp_path / "model.onnx_data").rename(tmp_path / "other.onnx_data")
    rename_weights(path, "model.onnx_data", "other.onnx_data")
    assert_constants(path, w=weight)


def test_of_a_weight_inside_and_outside_the_one_outside_counts(path, scratch, tmp_path, weight, by_reference):
    save_model(load_model(path, scratch), tmp_path / "model.onnx", 0)
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    model.graph.initializer[0].raw_data = (weight * 2).tobytes()
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())  # onnx.save would move it outside

    for whole_below in (0, 1 << 20):
        again = load_model(tmp_path / "model.onnx", scratch, whole_below)
        np.testing.assert_array_equal(read_tensor(again, again.graph.initializer[0]), weight)


def test_weights_from_elsewhere_are_refused(tmp_path, weight, scratch):
    folder = tmp_path / "hostile"
    folder.mkdir()
    model = chain(matmul("x", "w", "y"), w=weight)
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="data", size_threshold=0)
    (folder / "data").rename(tmp_path / "data")
    rename_weights(folder / "model.onnx", "data", "../data")
    with raises(UserError):
        load_model(folder / "model.onnx", scratch)


def test_a_digest_does_not_depend_on_where_the_weights_are(path, tmp_path, weight, by_reference):
    for name in ("first", "second"):
        (tmp_path / name / "scratch").mkdir(parents=True)
        for file in path.parent.glob(f"{path.name}*"):
            shutil.copy(file, tmp_path / name)
    places = (tmp_path / name for name in ("first", "second"))
    first, second = (load_model(place / path.name, place / "scratch") for place in places)
    assert digest_of_model(first) == digest_of_model(second)
    first.graph.initializer.append(make_tensor(first, "new", 2 * weight))
    assert digest_of_model(first) != digest_of_model(second)
    second.graph.initializer.append(make_tensor(second, "new", 2 * weight))
    assert digest_of_model(first) == digest_of_model(second)
    second.graph.initializer[-1].CopyFrom(make_tensor(second, "new", 3 * weight))
    assert digest_of_model(first) != digest_of_model(second)


def test_equal_weights_are_stored_once(path, scratch, weight, by_reference):
    model = load_model(path, scratch)
    before = len(list(scratch.iterdir()))
    for name, values in (("a", 2 * weight), ("b", 2 * weight), ("c", 3 * weight)):
        model.graph.initializer.append(make_tensor(model, name, values))
    assert len(list(scratch.iterdir())) == before + 2
