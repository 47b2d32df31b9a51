"""Files that anyone may have written are told apart without running, allocating or following what they say."""

import copy
import json
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from messages import raises
from onnxproof.checkpoint.snapshot import snapshot_problem
from onnxproof.checkpoint.untrusted import archive_problem, safetensors_problem, size_problem, stays_inside
from onnxproof.cli import UserError
from onnxproof.files import read_manifest
from onnxproof.graph.folder import check_external_data

#: `make fuzz` looks this many times longer.
FUZZ = int(os.environ.get("FUZZ", "1"))
RELAXED = settings(deadline=None, max_examples=100 * FUZZ, suppress_health_check=[HealthCheck.function_scoped_fixture])


def header_bytes(header: object, body: int = 0, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(body)


def tensor(begin: int, end: int, **other: object) -> dict:
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]} | other


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (header_bytes(b"{}", length=10**10), "with a header of 10000000000"),
        (header_bytes(b"[" * 100_000), "describes no tensors"),
        (header_bytes(b'{"a": ' + b"9" * 5000 + b"}"), "describes no tensors"),
        (header_bytes({"a": tensor(0, 8), "b": tensor(4, 12)}, 12), "'b' begins at byte 4, where 8 was expected"),
        (header_bytes({"a": tensor(0, 4), "b": tensor(8, 12)}, 12), "'b' begins at byte 8, where 4 was expected"),
        (header_bytes({"a": tensor(0, 8, shape=[10**15])}, 8), "'a' has 8 bytes, its shape and type need 1" + "0" * 15),
        (header_bytes({"a": tensor(0, 8, dtype="F64", shape=[])}, 8) + b"x", "damaged: it has"),
        (header_bytes({"a": tensor(0, 8, shape=[-8])}, 8), "describes no tensors"),
        (header_bytes({"a": tensor(8, 0)}, 8), "describes no tensors"),
        (header_bytes({"a": tensor(0, 8, shape=[10**4000] * 200)}, 8), "describes no tensors"),
        (header_bytes({"a": tensor(0, 8, dtype="OBJECT")}, 8), "describes no tensors"),
        (header_bytes({"a": tensor(0, 8, data_offsets=[0, True])}, 8), "describes no tensors"),
        (header_bytes({"a" * 10_000: tensor(1, 9)}, 9), "(10002 characters) begins at byte 1"),
    ],
)
def test_a_hostile_header_is_refused_before_memory_is_spent(tmp_path: Path, content: bytes, told: str):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    tracemalloc.start()
    problem = safetensors_problem(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert told in str(problem)
    assert len(str(problem)) < 300
    assert peak < 50 * len(content) + 100_000


@given(st.dictionaries(st.text(min_size=1, max_size=4), st.lists(st.integers(0, 3), max_size=3), min_size=1))
def test_whatever_the_library_writes_is_accepted(tmp_path_factory: pytest.TempPathFactory, shapes: dict):
    path = tmp_path_factory.mktemp("sound") / "model.safetensors"
    types = (np.float32, np.int64, np.bool_, np.float16)
    save_file({name: np.zeros(shape, types[i % 4]) for i, (name, shape) in enumerate(shapes.items())}, path)
    assert safetensors_problem(path) is None


SOUND = header_bytes({"a": tensor(0, 8), "b": tensor(8, 12)}, 12)
CHANGES = st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), min_size=1, max_size=4)


@settings(RELAXED, max_examples=300 * FUZZ)
@given(CHANGES)
def test_what_passes_the_check_is_read_by_the_library(tmp_path: Path, changes: list):
    content = bytearray(SOUND)
    for place, value in changes:
        content[place] = value
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    if safetensors_problem(path) is None:
        assert sum(array.nbytes for array in load_file(path).values()) <= len(content)


@RELAXED
@given(st.binary(max_size=200))
@example(b"PK")
@example(b"PK\x05\x06" + bytes(18))
def test_any_bytes_are_accepted_or_refused_in_words(tmp_path: Path, content: bytes):
    path = tmp_path / "weights"
    path.write_bytes(content)
    for problem in (safetensors_problem(path), archive_problem(path)):
        assert problem is None or "\n" not in problem


# A snapshot as a whole, its JSON files mutated

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["..", "/", 10**30]),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=6), parts, max_size=3),
    max_leaves=8,
)
FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}
SNAPSHOT = {
    "config.json": {"vocab_size": 2, "hidden_size": 3, "auto_map": {}, "text_config": {"d_ff": 1}},
    "modules.json": [
        {"name": "0", "type": "sentence_transformers.models.Transformer", "path": ""},
        {"name": "1", "type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
        {"name": "2", "type": "sentence_transformers.models.Dense", "path": "2_Dense"},
    ],
    "1_Pooling/config.json": {"pooling_mode": ["mean"], "include_prompt": True},
    "sentence_bert_config.json": {"max_seq_length": 8, "modality_config": {"text": FORWARD}},
    "config_sentence_transformers.json": {"prompts": {"query": "q: "}, "truncate_dim": 2, "similarity_fn_name": "dot"},
    "2_Dense/config.json": {"in_features": 1, "out_features": 1, "activation_function": "torch.nn.Tanh"},
    "tokenizer_config.json": {"vocab_file": "vocab.txt", "auto_map": None, "pad_token": {"content": "a"}},
    "tokenizer.json": {"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1, "content": "b", "special": True}]},
    "special_tokens_map.json": {"cls_token": "b"},
    "model.safetensors.index.json": {"weight_map": {"a": "model-00001-of-00001.safetensors"}},
}


def places(value, path=()):
    yield path
    for key, part in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else []):
        yield from places(part, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    value = copy.copy(value)
    value[path[0]] = replaced(value[path[0]], path[1:], new)
    return value


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("snapshot")
    for name in ("1_Pooling", "2_Dense"):
        (folder / name).mkdir()
    (folder / "2_Dense/model.safetensors").write_bytes(header_bytes({"linear.weight": tensor(0, 8)}, 8))
    (folder / "model-00001-of-00001.safetensors").write_bytes(header_bytes({"a": tensor(0, 8)}, 8))
    write_snapshot(folder, SNAPSHOT)
    assert snapshot_problem(folder) is None
    return folder


def write_snapshot(folder: Path, contents: dict) -> None:
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content))


ALL_PLACES = [(name, path) for name, content in SNAPSHOT.items() for path in places(content)]


@settings(RELAXED, max_examples=300 * FUZZ)
@given(st.sampled_from(ALL_PLACES), JSON)
@example(("config.json", ("vocab_size",)), float("inf"))
@example(("config.json", ("auto_map",)), {"AutoModel": [[1]]})
@example(("2_Dense/config.json", ("in_features",)), 10**30)
@example(("modules.json", (1, "path")), "a\0b")
@example(("model.safetensors.index.json", ("weight_map", "a")), "..")
@example(("model.safetensors.index.json", ("weight_map", "a")), ["unhashable"])
def test_a_mutated_snapshot_is_accepted_or_refused_in_words(snapshot: Path, place: tuple, value: object):
    name, path = place
    write_snapshot(snapshot, SNAPSHOT | {name: replaced(SNAPSHOT[name], path, value)})
    for allowed in (False, True):
        problem = snapshot_problem(snapshot, allow_pickle=allowed, allow_remote_code=allowed)
        assert problem is None or ("\n" not in problem and len(problem) < 1000)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "\ud800", '{"a": NaN}', "null"])
def test_json_that_breaks_readers_is_refused_in_words(snapshot: Path, text: str):
    write_snapshot(snapshot, SNAPSHOT)
    (snapshot / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    problem = snapshot_problem(snapshot)
    assert problem is None or problem.startswith("config.json ")


@RELAXED
@given(JSON, st.integers(0, 10**12))
def test_any_sizes_are_accepted_or_refused_in_words(config: object, weight_bytes: int):
    problem = size_problem(config, weight_bytes)
    assert problem is None or "\n" not in problem


@pytest.mark.parametrize("path", ["/a", "../a", "a/../b", "..", "a\\b", "..\\a", "C:/a", "c:a", "a\0b"])
def test_paths_that_leave_are_told(path: str):
    assert not stays_inside(path)


@pytest.mark.parametrize("path", ["a", "a/b", "1_Pooling/config.json", "a..b", "model.onnx_data", ""])
def test_paths_that_stay_are_told(path: str):
    assert stays_inside(path)


# ONNX files


@pytest.mark.parametrize("place", ["initializer", "constant", "branch"])
@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "link", "absent", "", "..\\secret"])
def test_weights_of_a_graph_come_from_its_own_folder(tmp_path: Path, place: str, location: str):
    folder = tmp_path / "onnx"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(4))
    (folder / "model.onnx_data").write_bytes(bytes(4))
    (folder / "link").symlink_to(tmp_path / "secret")
    check_external_data(graph_with_data_in("model.onnx_data", place), folder)
    with raises(UserError):
        check_external_data(graph_with_data_in(location, place), folder)


def graph_with_data_in(location: str, place: str) -> onnx.ModelProto:
    weights = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[1])
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    if place == "initializer":
        return onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [output], [weights]))
    node = onnx.helper.make_node("Constant", [], ["y"], value=weights)
    if place == "branch":
        branch = onnx.helper.make_graph([node], "branch", [], [output])
        node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    return onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [output]))


# Manifests

MANIFEST = {"model": "m", "files": {"model.onnx": {"size": 1, "sha256": "0" * 64}}, "task": "t"}


@settings(RELAXED, max_examples=300 * FUZZ)
@given(st.sampled_from(list(places(MANIFEST))), JSON)
@example((), None)
@example(("files",), [])
@example(("files", "model.onnx"), {"size": "1", "sha256": "0"})
def test_a_mutated_manifest_is_read_or_refused_in_words(tmp_path: Path, path: tuple, value: object):
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(replaced(MANIFEST, path, value)))
    manifest, refusal = read_or_refuse(file, "model", "files", "task")
    if manifest is None:
        assert "delete it and run again" in refusal
    else:
        assert all(len(entry["sha256"]) >= 0 and entry["size"] + 1 for entry in manifest["files"].values())


def read_or_refuse(file: Path, *keys: str) -> tuple[dict | None, str]:
    try:
        return read_manifest(file, *keys), f"{file}: "
    except UserError as error:
        return None, str(error)


@RELAXED
@given(st.binary(max_size=100) | st.text('[]{}",:0123456789eE.-nulltrue \n', max_size=100).map(str.encode))
@example(b"[" * 100_000)
@example(b"9" * 5000)
def test_any_bytes_as_a_manifest_are_read_or_refused_in_words(tmp_path: Path, content: bytes):
    file = tmp_path / "manifest.json"
    file.write_bytes(content)
    manifest, refusal = read_or_refuse(file)
    assert manifest is None or isinstance(manifest, dict)
    assert refusal.startswith(f"{file}: ")
