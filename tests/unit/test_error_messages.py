"""What a user reads where a step cannot go on: each message whole."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import release
from onnxproof.benchmark.runtimes import load_contender, load_onnx
from onnxproof.cli import UserError
from onnxproof.files import sha256_of, write_json
from onnxproof.graph.sessions import open_session
from onnxproof.inputs.model_inputs import ModelInputs, Reference
from onnxproof.original.exporters import export_graphs, optimum
from onnxproof.original.exporters.caches import cache_argument
from onnxproof.original.final_answers import chat_parts
from onnxproof.original.used_tokenizer import settle_padding
from onnxproof.parity.measure import Sessions, measure_sessions
from publish_release import check_release
from record_reference import check_finite
from show_summary import read_rows


def told(call, *arguments, **options):
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ measured graphs


def graph_of(folder: Path, inputs=("input_ids",), output="logits", width=2):
    """Write a graph that makes float rows of a fixed width out of its first input."""
    values = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", width]) for name in inputs]
    answer = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", width])
    nodes = [helper.make_node("Cast", [inputs[0]], [output], to=TensorProto.FLOAT)]
    graph = helper.make_graph(nodes, "tiny", values, [answer])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    return Sessions(open_session(folder / "model.onnx", 1))


@pytest.fixture
def reference():
    items = [{"input_ids": np.array([1, 2])}]
    manifest = {"task": "text-classification", "judged_as": "text-classification", "label_count": 2, "padding": {}}
    return Reference(manifest, ModelInputs(items), {"logits": [np.array([[1.0, 2.0]], np.float32)]})


def test_a_graph_without_a_recorded_output(reference, tmp_path):
    sessions = graph_of(tmp_path, output="scores")
    assert told(measure_sessions, "m int8", sessions, reference, 2) == "m int8: the graph has no output logits"


def test_a_graph_that_wants_what_was_not_recorded(reference, tmp_path):
    sessions = graph_of(tmp_path, inputs=("input_ids", "bbox"))
    assert told(measure_sessions, "m int8", sessions, reference, 2) == (
        "m int8: the graph wants bbox, which was not recorded"
    )


def test_a_graph_that_does_not_run(reference, tmp_path):
    sessions = graph_of(tmp_path, width=3)
    assert told(measure_sessions, "m int8", sessions, reference, 2).startswith(
        "onnxruntime cannot run the graph on input_ids (1, 2): [ONNXRuntimeError] : 2 : INVALID_ARGUMENT : "
    )


# ------------------------------------------------------------------------------------------------- the original


@pytest.mark.parametrize("values", [[1.0, np.nan], [np.inf, -np.inf]])
def test_an_original_that_answers_no_numbers(values):
    assert told(check_finite, "m", [{"logits": np.array([1.0])}, {"logits": np.array(values)}]) == (
        "m: the original itself answers with values that are no numbers (logits): its weights, or the numbers in its "
        "configuration files, are damaged"
    )


def test_an_infinity_among_numbers_is_an_answer():
    check_finite("m", [{"logits": np.array([1.0, -np.inf])}])


class WithHead:
    config = SimpleNamespace(pad_token_id=None, vocab_size=10)
    config.get_text_config = lambda: WithHead.config

    def forward(self, input_ids):
        return self.config.pad_token_id


class OneToken:
    pad_token, eos_token = None, "</s>"

    def __call__(self, text):
        return {"input_ids": [3, 7]}

    def convert_tokens_to_ids(self, token):
        return 7


def test_a_classifier_without_a_token_that_could_be_padding():
    assert told(settle_padding, "m", WithHead(), OneToken()) == (
        "m: config.json: 'pad_token_id' is not given, and the tokenizer has no token that could be padding: its head "
        "could answer one text at a time alone; save the model with a padding token"
    )


def test_a_chat_template_that_says_a_message_twice():
    def apply_chat_template(messages, **_):
        return "<{0}|{0}>".format(messages[0]["content"])

    tokenizer = SimpleNamespace(chat_template="x", apply_chat_template=apply_chat_template)
    assert told(chat_parts, tokenizer) == (
        r"its chat template makes '< ␂\n| ␂\n>' of a message of one sign, which the programs of a card cannot make"
    )


def test_a_network_without_a_cache():
    network = SimpleNamespace(forward=lambda input_ids: input_ids)
    assert told(cache_argument, network) == "SimpleNamespace takes no cache of keys and values"


# ------------------------------------------------------------------------------------------- the second exporter


def test_the_second_exporter_does_not_serve_images_with_prompts(tmp_path):
    assert told(export_graphs, "m", tmp_path, "image-text-to-text", "optimum", tmp_path) == (
        "m: Optimum's exporter does not serve image-text-to-text: use transformers' own exporter"
    )


@pytest.mark.parametrize(
    ("status", "last", "message"),
    [
        (1, "error: m: too odd", "m: too odd"),
        (-9, "", "m: Optimum's exporter was ended by signal 9: the memory may not have sufficed"),
        (1, "KeyError: 3", "m: Optimum's exporter cannot export it: KeyError: 3 (the traceback is in this job's log)"),
    ],
)
def test_an_exporter_that_fails(status, last, message):
    assert optimum.explain_failure("m", status, last) == message


def test_an_interpreter_that_is_named_and_absent(monkeypatch):
    monkeypatch.setenv(optimum.INTERPRETER_VARIABLE, "/no/python")
    assert told(optimum.find_interpreter, "m") == "m: ONNXPROOF_OPTIMUM_PYTHON names /no/python, which is no file"


@pytest.mark.parametrize(
    ("makefile", "end"),
    [
        (None, " where the pipeline's Makefile is"),
        ("setup-optimum:\n\tfalse\n", " (it could not be made now; the reason is in this job's log)"),
    ],
)
def test_an_environment_that_cannot_be_made(makefile, end, monkeypatch, tmp_path):
    monkeypatch.delenv(optimum.INTERPRETER_VARIABLE, raising=False)
    for name, place in (("PROJECT", ""), ("_ENVIRONMENT", "e"), ("_COMPLETE", "e/done")):
        monkeypatch.setattr(optimum, name, tmp_path / place)
    if makefile is not None:
        (tmp_path / "Makefile").write_text(makefile)
    assert told(optimum.find_interpreter, "m") == (
        f"m: Optimum's exporter needs an environment of its own: run 'make setup-optimum'{end}"
    )


# ------------------------------------------------------------------------------------- benchmark, release, summary


def test_a_provider_that_is_not_there(tmp_path):
    assert told(load_onnx, tmp_path, 1, provider="NoSuchProvider").startswith(
        "the execution provider 'NoSuchProvider' (benchmark.providers) is not in the onnxruntime installed here, "
        "which offers: "
    )


def test_a_task_that_pytorch_is_not_timed_for(tmp_path):
    assert told(load_contender, "pytorch", tmp_path, 1, "summarization", {}).startswith(
        "task 'summarization': PyTorch is timed for "
    )


def test_weights_that_were_not_proven(tmp_path):
    folder = tmp_path / "onnx/int8"
    folder.mkdir(parents=True)
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2], np.ones(2, np.float32).tobytes(), raw=True)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "tiny", values[:1], values[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx_data", size_threshold=0)
    digest = sha256_of(folder / "model.onnx")
    write_json(tmp_path / "onnx/int8.json", {"files": {"model.onnx": {"sha256": digest, "size": 1}}})
    write_json(tmp_path / "parity/int8.json", {"model_sha256": digest})
    assert told(release.copy_proven_model, "int8", tmp_path, tmp_path / "release/model.onnx") == (
        f"{folder / 'model.onnx'} reads model.onnx_data, which was not proven; delete {folder} and run again"
    )


def test_a_release_that_was_changed_is_not_published(tmp_path):
    (tmp_path / "release").mkdir()
    (tmp_path / "parity").mkdir()
    write_json(tmp_path / "release/manifest.json", {"variants": {"int8": {"gate": {"passed": True}}}})
    write_json(tmp_path / "release.json", {"variants": ["int8"], "files": {}})
    assert told(check_release, "m", tmp_path) == "m: the gate of int8 did not pass; only proven releases are published"
    (tmp_path / "parity/int8.ok").touch()
    write_json(tmp_path / "verified.json", {"passed": False})
    assert told(check_release, "m", tmp_path) == (
        f"m: {tmp_path / 'verified.json'} does not say that the release was verified"
    )
    write_json(tmp_path / "verified.json", {"passed": True})
    assert told(check_release, "m", tmp_path) == (
        f"m: {tmp_path / 'release'} is not what {tmp_path / 'release.json'} says: manifest.json; delete it and run "
        "again"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "No columns to parse from file"),
        ("model,variant\na,b\nc,d,e\n", "Error tokenizing data. C error: Expected 2 fields in line 3, saw 3"),
    ],
)
def test_a_summary_that_is_no_table(text, reason, tmp_path):
    (tmp_path / "summary.csv").write_text(text)
    assert told(read_rows, tmp_path / "summary.csv") == f"{tmp_path / 'summary.csv'}: not a summary table: {reason}"


def test_a_summary_that_is_not_there(tmp_path):
    assert told(read_rows, tmp_path / "summary.csv") == (
        f"{tmp_path / 'summary.csv'}: no such file; `snakemake` writes it"
    )
