"""The examples do what they say."""

import http.client
import importlib.util
import json
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml

from onnxproof.config.checks import check_config
from onnxproof.config.resolve import resolve_models
from onnxproof.release.tokenizer import settle_tokenizer

EXAMPLES = Path(__file__).parents[2] / "examples"


def load_example(name: str):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


serve_release = load_example("serve_release")


class Classifier:
    """Stands for a model: answers with the text's length, and fails when told to."""

    def __init__(self):
        self.go = threading.Event()

    def answer(self, texts: list[str]) -> list[int]:
        self.go.wait(10)
        if "fail" in texts:
            raise ValueError("told to")
        return [len(text) for text in texts]


def test_texts_that_wait_together_share_a_batch():
    model = Classifier()
    batcher = serve_release.Batcher(model, max_batch=4, max_wait_s=0.001)
    first = batcher.submit("x")
    while not batcher.sizes:  # until the first is with the model
        pass
    others = [batcher.submit("x" * length) for length in range(2, 9)]
    model.go.set()
    assert [first.result(10), *(future.result(10) for future in others)] == list(range(1, 9))
    assert batcher.sizes == [1, 4, 3]


def test_an_error_goes_to_its_batch_and_the_next_one_is_answered():
    model = Classifier()
    model.go.set()
    batcher = serve_release.Batcher(model, max_batch=1)
    with pytest.raises(ValueError, match="told to"):
        batcher.submit("fail").result(10)
    assert batcher.submit("fine").result(10) == 4


@pytest.fixture
def star_model(tmp_path):
    """The bundled tokenizer and a graph that takes its inputs: the sums of ids, of masks, as two logits."""
    import onnx
    from onnx import TensorProto, helper

    source = EXAMPLES / "star-rating-tiny"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, tmp_path / name)
    settle_tokenizer(tmp_path, 64, {"side": "right", "values": {"input_ids": 0, "token_type_ids": 0}})
    (tmp_path / "config.json").write_text('{"id2label": {"0": "short", "1": "long"}}')
    nodes = [
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["mask", "axis"], ["long"], keepdims=1),
        helper.make_node("Neg", ["long"], ["short"]),
        helper.make_node("Concat", ["short", "long"], ["scores"], axis=1),
        helper.make_node("Mul", ["scores", "scale"], ["logits"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    constants = [
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        helper.make_tensor("scale", TensorProto.FLOAT, [1], [0.1]),
    ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "lengths", values, [output], constants)
    (tmp_path / "onnx").mkdir()
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "onnx/model.onnx")
    return serve_release.Model(tmp_path, threads=1)


@pytest.fixture
def port(star_model):
    server = serve_release.make_server(serve_release.Batcher(star_model), 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def ask(port: int, body: bytes, path: str = "/predict", method: str = "POST") -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def test_requests_at_once_get_each_its_own_answers(port, star_model):
    texts = ["good " * count for count in range(1, 13)]
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda text: ask(port, json.dumps({"texts": [text, "bad"]}).encode()), texts))
    for text, (status, reply) in zip(texts, replies, strict=True):
        assert status == 200
        for found, expected in zip(reply["answers"], star_model.answer([text, "bad"]), strict=True):
            assert found.keys() == {"short", "long"}
            assert np.isclose(found["long"], expected["long"])


@pytest.mark.parametrize(
    "body", [b"", b"no json", b"[]", b'{"texts": []}', b'{"texts": "one"}', b'{"texts": [1]}', b'{"text": ["a"]}']
)
def test_a_bad_request_is_told_and_the_next_one_answered(port, body):
    status, reply = ask(port, body)
    assert status == 400
    assert "texts" in reply["error"]
    assert ask(port, b"", "/health", "GET") == (200, {"status": "ok"})


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(monkeypatch, tmp_path):
    import nbclient
    import nbformat

    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the notebook makes its folder
    notebook = nbformat.read(EXAMPLES / "tutorial.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are of one machine: clear them"
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    [work] = tmp_path.glob("tutorial.*")
    assert (work / "int8.ok").is_file()
    fp32, int8 = ((work / variant / "model.onnx").stat().st_size for variant in ("fp32", "int8"))
    assert int8 < 0.35 * fp32
    table = next(cell.outputs[-1].data["text/html"] for cell in notebook.cells if "swaplevel" in cell.source)
    assert table.count("PyTorch") == table.count("int8") == 5


def test_the_tutorials_configuration_is_one(tmp_path):
    config = yaml.safe_load((EXAMPLES / "tutorial.yaml").read_text())
    check_config(config, tmp_path)
    assert [settings["source"]["hub"] for settings in resolve_models(config).values()] == [
        "nlptown/bert-base-multilingual-uncased-sentiment",
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
    ]
