"""What an audit tells from names, files and shapes, without a model; and a user's mistakes."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import audit
from audit_public_tools import keep_times
from hub_server import HubServer
from messages import raises
from onnx_folder import write_onnx_folder
from onnxproof.audit.alignment import AlignedSession, NotAlignedError, pool
from onnxproof.audit.encoder_decoders import RenamedSession, StartingDecoder, open_encoder_decoder
from onnxproof.audit.inspection import compare_with_promise, inspect
from onnxproof.audit.repository import OnnxModel, onnx_models, promised_precision
from onnxproof.audit.speed import contender_of
from onnxproof.audit.tokenizing import limit_of
from onnxproof.checkpoint.reading import Checkpoint, Module
from onnxproof.cli import UserError
from onnxproof.inputs.model_inputs import ModelInputs

PROMISES = {
    "model.onnx": None,
    "onnx/model_fp16.onnx": "fp16",
    "onnx/model_quantized.onnx": "int8",
    "onnx/model_int8.onnx": "int8",
    "onnx/model_uint8.onnx": "uint8",
    "onnx/model_q4.onnx": "q4",
    "onnx/model_q4f16.onnx": "q4f16",
    "onnx/model_bnb4.onnx": "q4",
    "onnx/model_O4.onnx": "fp16",
    "onnx/model_O2.onnx": None,
    "onnx/model_qint8_avx512_vnni.onnx": "int8",
    "onnx/model_quint8_avx2.onnx": "uint8",
    "cpu_and_mobile/cpu-int4-rtn-block-32-acc-level-4/model.onnx": "q4",
    "cuda/cuda-fp16/model.onnx": "fp16",
    "fp16/model_int8.onnx": "int8",
    "onnx/decoder_model_merged_q4f16.onnx": "q4f16",
}


@pytest.mark.parametrize("name", PROMISES)
def test_what_a_name_promises(name):
    assert promised_precision(name) == PROMISES[name]


def test_graphs_of_an_encoder_decoder_are_one_model():
    names = [
        "onnx/encoder_model_fp16.onnx",
        "onnx/decoder_model_merged_fp16.onnx",
        "onnx/encoder_model.onnx",
        "onnx/decoder_model.onnx",
        "onnx/decoder_with_past_model.onnx",
        "model.onnx",
        "model.onnx_data",
        "README.md",
    ]
    assert [model.graphs for model in onnx_models(names)] == [
        {"model.onnx": "model.onnx"},
        {
            "encoder_model.onnx": "onnx/encoder_model.onnx",
            "decoder_model.onnx": "onnx/decoder_model.onnx",
            "decoder_with_past_model.onnx": "onnx/decoder_with_past_model.onnx",
        },
        {
            "encoder_model.onnx": "onnx/encoder_model_fp16.onnx",
            "decoder_model_merged.onnx": "onnx/decoder_model_merged_fp16.onnx",
        },
    ]


def test_parts_of_an_encoder_decoder_under_other_names():
    names = [
        "genai/encoder.onnx",
        "genai/decoder.onnx",
        "ort/tiny_encoder_fp16.onnx",
        "ort/tiny_decoder_fp16.onnx",
        "ort/tiny_decoder_model_fp16.onnx",
        "ort/tiny-decoder_with_past.onnx",
        "olive/encoder/model.onnx",
        "olive/decoder_model_merged/model.onnx",
        "clip/text_encoder.onnx",
        "clip/vision_encoder.onnx",
        "sentence-encoder.onnx",
    ]
    assert [model.graphs for model in onnx_models(names)] == [
        {"model.onnx": "clip/text_encoder.onnx"},
        {"model.onnx": "clip/vision_encoder.onnx"},
        {"encoder_model.onnx": "genai/encoder.onnx", "decoder_model.onnx": "genai/decoder.onnx"},
        {
            "encoder_model.onnx": "olive/encoder/model.onnx",
            "decoder_model_merged.onnx": "olive/decoder_model_merged/model.onnx",
        },
        {"model.onnx": "ort/tiny-decoder_with_past.onnx"},
        {"model.onnx": "ort/tiny_decoder_model_fp16.onnx"},
        {"encoder_model.onnx": "ort/tiny_encoder_fp16.onnx", "decoder_model.onnx": "ort/tiny_decoder_fp16.onnx"},
        {"model.onnx": "sentence-encoder.onnx"},
    ]


def write_weights(path: Path, dtypes: list[int]) -> Path:
    """Write a graph of products with matrices of these types."""
    nodes, weights, last = [], [], "x"
    for number, dtype in enumerate(dtypes):
        values = np.zeros((64, 64), dtype=helper.tensor_dtype_to_np_dtype(dtype))
        weights.append(numpy_helper.from_array(values, f"w{number}"))
        nodes.append(helper.make_node("Cast", [f"w{number}"], [f"f{number}"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("MatMul", [last, f"f{number}"], [f"y{number}"]))
        last = f"y{number}"
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 64]) for name in ("x", last)]
    graph = helper.make_graph(nodes, "weights", values[:1], values[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("promised", "dtypes", "wrong"),
    [
        ("fp16", [TensorProto.FLOAT16] * 4, False),
        ("fp16", [TensorProto.FLOAT] * 4, True),
        ("fp16", [TensorProto.FLOAT16] * 3 + [TensorProto.FLOAT], True),
        ("int8", [TensorProto.INT8] * 3 + [TensorProto.FLOAT], False),
        ("int8", [TensorProto.INT8] + [TensorProto.FLOAT] * 3, True),
        ("uint8", [TensorProto.UINT8], False),
        ("fp32", [TensorProto.FLOAT], False),
        ("fp32", [TensorProto.FLOAT16], True),
        (None, [TensorProto.FLOAT16], False),
    ],
)
def test_a_name_and_what_the_file_holds(tmp_path, promised, dtypes, wrong):
    seen = inspect([write_weights(tmp_path / "model.onnx", dtypes)])
    compare_with_promise(seen, promised)
    assert any(each["severity"] == "wrong" and each["kind"] == "name" for each in seen.findings) == wrong


def test_a_sound_file_has_no_findings(tmp_path):
    seen = inspect([write_onnx_folder(tmp_path / "onnx") / "model.onnx"])
    assert seen.findings == []
    assert seen.is_readable


def test_weights_that_nothing_reads_are_told_and_are_no_weights(tmp_path):
    """As Olive's pass HQQ leaves the floats beside the 4 bits that it makes of them."""
    path = write_weights(tmp_path / "model.onnx", [TensorProto.INT8])
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1024, 512), np.float32), "left over"))
    onnx.save(model, path)
    seen = inspect([path])
    assert seen.shares == {"int8": 1.0}
    told = [each for each in seen.findings if each["kind"] == "unread"]
    assert told == [{"severity": "note", "kind": "unread", "message": "No operator reads 2.1 MB of its weights."}]


class FakeSession:
    """A session that answers with zeros of given shapes."""

    def __init__(self, inputs: dict[str, str], outputs: dict[str, tuple[int, ...]]):
        self.inputs, self.outputs = inputs, outputs

    def get_inputs(self):
        return [SimpleNamespace(name=name, type=kind, shape=[None, None]) for name, kind in self.inputs.items()]

    def get_outputs(self):
        return [SimpleNamespace(name=name, type="tensor(float16)", shape=[]) for name in self.outputs]

    def run(self, names, feed, /):
        self.fed = feed
        return [np.zeros((1, *self.outputs[name]), dtype=np.float16) for name in names]


TOKENS, LONG, INT = np.arange(5), "tensor(int64)", "tensor(int32)"
INPUTS = ModelInputs([{"input_ids": TOKENS, "attention_mask": np.ones(5, dtype=np.int64)}])
LOGITS = {"logits": np.zeros(3, dtype=np.float32)}
POOLING = [
    Module("Transformer", "", "", "", {}),
    Module("Pooling", "", "1_Pooling", "", {"pooling_mode": "mean"}),
    Module("Normalize", "", "2_Normalize", "", {}),
]


def test_integers_and_floats_are_converted():
    session = FakeSession({"input_ids:0": INT, "input_mask:0": INT}, {"scores": (3,)})
    aligned = AlignedSession(session, INPUTS, LOGITS, [])
    (answer,) = aligned.run(["logits"], INPUTS.feed([0], ["input_ids", "attention_mask"]))
    assert {name: values.dtype for name, values in session.fed.items()} == {
        "input_ids:0": np.int32,
        "input_mask:0": np.int32,
    }
    assert answer.dtype == np.float32


def test_an_output_is_told_by_its_shape():
    session = FakeSession({"input_ids": LONG}, {"Identity_1": (3,), "other": (5, 8)})
    assert AlignedSession(session, INPUTS, LOGITS, []).given == {"logits": "Identity_1"}


def test_two_outputs_of_one_shape_are_not_guessed():
    session = FakeSession({"input_ids": LONG}, {"first": (3,), "second": (3,)})
    with raises(NotAlignedError):
        AlignedSession(session, INPUTS, LOGITS, [])


def test_the_pooler_is_no_vector_of_a_text():
    outputs = {"sentence_embedding": np.zeros(3, dtype=np.float32)}
    session = FakeSession({"input_ids": LONG}, {"pooler_output": (3,)})
    with raises(NotAlignedError):
        AlignedSession(session, INPUTS, outputs, POOLING)


def test_a_pooler_under_any_name_is_no_vector_of_a_text():
    """torch.onnx's newer exporter, which Olive uses, names an output after its operator."""
    outputs = {
        name: np.zeros(shape, np.float32) for name, shape in (("sentence_embedding", 3), ("last_hidden_state", (5, 3)))
    }
    for tokens in ("last_hidden_state", "layer_norm_12"):
        aligned = AlignedSession(
            FakeSession({"input_ids": LONG}, {"tanh": (3,), tokens: (5, 3)}), INPUTS, outputs, POOLING
        )
        assert aligned.given == {"last_hidden_state": tokens}
        assert aligned.computed == {"sentence_embedding": "last_hidden_state, pooled by mean, normalized"}


def test_an_unknown_input_is_not_guessed():
    session = FakeSession({"input_ids": LONG, "left": LONG}, {"logits": (3,)})
    with raises(NotAlignedError):
        AlignedSession(session, INPUTS, LOGITS, [])


def test_a_graph_that_writes_by_itself_is_not_compared():
    session = FakeSession({"input_ids": LONG, "max_length": INT}, {"sequences": (1, 20)})
    with raises(NotAlignedError):
        AlignedSession(session, INPUTS, LOGITS, [])


class StepDecoder:
    """A decoder of one token at a time, as onnxruntime converts a T5: the logit is the sum of what it was fed."""

    def get_inputs(self):
        shapes = {"input_ids": ["batch", 1], "past_key_self_0": ["batch", 1, "past", 1]}
        return [SimpleNamespace(name=name, type=INT, shape=shape) for name, shape in shapes.items()]

    def get_outputs(self):
        return [SimpleNamespace(name=name, type="tensor(float)", shape=[]) for name in ("logits", "present_key_self_0")]

    def run(self, names, feed, /):
        assert feed["input_ids"].shape[1] == 1
        present = np.concatenate([feed["past_key_self_0"], feed["input_ids"][:, None, :, None]], axis=2)
        found = {"logits": present.sum(axis=2), "present_key_self_0": present}
        return [found[name] for name in names]


def test_a_decoder_of_one_token_at_a_time_starts_from_an_empty_cache():
    session = StepDecoder()
    names = {
        "input_ids": "input_ids",
        "past_key_self_0": "past_key_values.0.decoder.key",
        "logits": "logits",
        "present_key_self_0": "present.0.decoder.key",
    }
    decoder = StartingDecoder(RenamedSession(session, names))
    assert [value.name for value in decoder.get_inputs()] == ["input_ids"]
    logits, cache = decoder.run(None, {"input_ids": np.array([[1, 2, 3], [4, 5, 6]])})
    assert logits[..., 0].tolist() == [[1, 3, 6], [4, 9, 15]]
    assert cache.shape == (2, 1, 3, 1)


def one_graph(path: Path, inputs: list[str], outputs: list[str]) -> Path:
    """Write a graph whose outputs are its first input."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "length"]) for name in inputs + outputs]
    nodes = [helper.make_node("Identity", [inputs[0]], [name]) for name in outputs]
    graph = helper.make_graph(nodes, "graph", values[: len(inputs)], values[len(inputs) :])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


RECORDED = ("input_ids", "attention_mask", "decoder_input_ids")
GRAPHS = {"encoder_model.onnx": (["input_ids"], ["hidden_states"]), "decoder_model.onnx": (["input_ids"], ["logits"])}


@pytest.mark.parametrize(
    ("change", "recorded"),
    [
        ({}, ("input_ids", "attention_mask")),
        ({"encoder_model.onnx": None}, RECORDED),
        ({"decoder_model.onnx": None}, RECORDED),
        ({"encoder_model.onnx": (["mel_left"], ["hidden_states"])}, RECORDED),
        ({"encoder_model.onnx": (["input_ids"], ["left", "right"])}, RECORDED),
        ({"decoder_model.onnx": (["input_ids", "decoder_input_ids"], ["logits"])}, RECORDED),
        ({"decoder_model.onnx": (["input_ids", "n_layer_self_k_cache"], ["logits"])}, RECORDED),
        ({"decoder_model.onnx": (["encoder_hidden_states"], ["logits"])}, RECORDED),
    ],
)
def test_graphs_that_are_no_encoder_decoder_of_the_original(tmp_path, change, recorded):
    kept = {name: values for name, values in (GRAPHS | change).items() if values is not None}
    files = {name: one_graph(tmp_path / name, *values) for name, values in kept.items()}
    with raises(NotAlignedError):
        open_encoder_decoder(files, 1, recorded)


@pytest.mark.parametrize(
    "graphs",
    [
        {"encoder_model.onnx": "encoder.onnx", "decoder_model.onnx": "decoder.onnx"},
        {"encoder_model.onnx": "encoder_model.onnx", "decoder_model_merged.onnx": "decoder_model_merged.onnx"},
    ],
)
def test_graphs_that_the_benchmark_does_not_run(graphs):
    with raises(UserError):
        contender_of(SimpleNamespace(), OnnxModel(graphs), {})


def test_the_page_keeps_times_of_the_same_bytes_alone():
    def entry(digest: str) -> dict:
        return {"name": "model.onnx", "files": {"model.onnx": {"size": 1, "sha256": digest}}}

    earlier = {"timing": {"seed": 0}, "files": [entry("a") | {"speed": [{"p50_ms": 1.0}]}]}
    same, other = {"files": [entry("a")]}, {"files": [entry("b")]}
    keep_times(same, earlier)
    keep_times(other, earlier)
    assert same == earlier
    assert other == {"timing": {"seed": 0}, "files": [entry("b")]}


def test_caches_and_positions_of_other_tools():
    names = ["input_ids", "position_ids", "past_key_values.0.key", "past_value_1", "past.2.key"]
    session = FakeSession(dict.fromkeys(names, LONG), {"logits": (3,), "present.0.key": (2, 5, 4)})
    aligned = AlignedSession(session, INPUTS, LOGITS, [])
    assert aligned.fed == {
        "input_ids": "input_ids",
        "position_ids": "made position_ids",
        "past_key_values.0.key": "past_key_values.0.key",
        "past_value_1": "past_key_values.1.value",
        "past.2.key": "past_key_values.2.key",
    }
    assert [value.name for value in aligned.get_outputs()] == ["logits", "present.0.key"]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("mean", [2.0, 1.0]),
        ("cls", [1.0, 2.0]),
        ("max", [3.0, 2.0]),
        ("lasttoken", [3.0, 0.0]),
        ("mean_sqrt_len_tokens", [4.0 / 2**0.5, 2.0 / 2**0.5]),
        ("weightedmean", [7.0 / 3, 2.0 / 3]),
    ],
)
def test_pooling(mode, expected):
    hidden = np.array([[[1.0, 2.0], [3.0, 0.0], [99.0, 99.0]]], dtype=np.float32)
    mask = np.array([[1, 1, 0]])
    modules = [Module("Pooling", "", "", "", {"pooling_mode": mode})]
    assert pool(hidden, mask, modules)[0] == pytest.approx(expected)


def test_vectors_are_normalized():
    vectors = pool(np.full((1, 2, 2), 3.0, dtype=np.float32), np.ones((1, 2), dtype=np.int64), POOLING)
    assert np.linalg.norm(vectors) == pytest.approx(1.0)


def test_sentence_transformers_limit_counts_most():
    files = {"config.json": b'{"max_position_embeddings": 512}', "tokenizer_config.json": b'{"model_max_length": 384}'}
    assert limit_of(Checkpoint(files=files)) == 384
    assert limit_of(Checkpoint(files=files | {"sentence_bert_config.json": b'{"max_seq_length": 128}'})) == 128


# A user's mistakes


def test_no_such_folder():
    with raises(UserError):
        audit.bring_repository("./no/such/folder", None, Path("unused"))


def test_a_folder_without_onnx(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with raises(UserError):
        audit.bring_repository("empty", None, Path("unused"))


def test_a_revision_of_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with raises(UserError):
        audit.bring_repository("empty", "main", Path("unused"))


@pytest.mark.parametrize("card", ["", "---\nlicense: mit\n---\n", "---\nbase_model: [a/b, c/d]\n---\n"])
def test_nobody_names_the_original(tmp_path, card):
    write_onnx_folder(tmp_path / "onnx")
    (tmp_path / "README.md").write_text(card)
    with raises(UserError):
        audit.find_original(audit.Repository("someone/files", tmp_path, {"kind": "path"}), None)


def test_an_original_that_is_none():
    with raises(UserError):
        audit.arguments_of("./no/such/folder")


def test_own_weights_on_the_hub_are_named_by_their_commit(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    place = {"kind": "hub", "repo": "owner/name", "requested_revision": None, "revision": "1" * 40}
    found, named_by = audit.find_original(audit.Repository("owner/name", tmp_path, place), None)
    assert found == ["--hub", "owner/name", "--revision", "1" * 40]
    assert named_by == "the repository's own weights"


def test_an_original_at_a_commit():
    assert audit.arguments_of("owner/name@abc") == [
        *("--hub", "owner/name", "--revision", "abc"),
        "--allow-floating-revision",
    ]


def test_a_repository_of_the_hub_is_fetched_with_its_weights(tmp_path):
    """The graphs and their files of weights are fetched; TensorFlow's weights are not."""
    source = tmp_path / "source"
    write_onnx_folder(source / "onnx")
    model = onnx.load(source / "onnx" / "model.onnx")
    onnx.save(
        model,
        source / "onnx" / "model.onnx",
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=0,
    )
    (source / "config.json").write_text("{}")
    (source / "README.md").write_text("---\nbase_model: someone/original\n---\n")
    (source / "tf_model.h5").write_bytes(b"weights")
    program = (
        "import audit, pathlib, sys\n"
        f"found = audit.bring_repository('someone/files', None, pathlib.Path({str(tmp_path)!r}))\n"
        "print(found.place['revision'], *audit.find_original(found, None)[0])\n"
    )
    with HubServer() as hub:
        hub.add("someone/files", source, "1" * 40)
        run = subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(audit.__file__).parent,
            env=os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == f"{'1' * 40} --hub someone/original --allow-floating-revision"
    fetched = {str(path.relative_to(tmp_path / "repository")) for path in (tmp_path / "repository").rglob("*.*")}
    assert fetched == {"README.md", "config.json", "onnx/config.json", "onnx/model.onnx", "onnx/model.onnx_data"}
    seen = inspect([tmp_path / "repository" / "onnx" / "model.onnx"])
    assert (seen.findings, seen.external) == ([], {"model.onnx_data"})
