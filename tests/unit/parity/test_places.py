"""Where transformers.js runs: jobs in Node, with a stand-in for the library, and what is told where one is missing."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import measure_browser
from messages import raises
from onnxproof.cli import UserError
from onnxproof.parity.browser import BrowserError, Node, version_of_program

#: A library whose only model doubles what it is given.
LIBRARY = """
export const env = { version: "4.0", backends: { onnx: { versions: { node: "1.0" } } } };
export class Tensor {
  constructor(type, data, dims) { Object.assign(this, { type, data, dims, ort_tensor: this }); }
  async getData() { return this.data; }
}
const value = (name) => ({ name, type: "float32", shape: ["batch", 2] });
const run = async ({ x }) => ({ y: new Tensor("float32", x.data.map((each) => 2 * each), x.dims) });
const session = { inputMetadata: [value("x")], outputMetadata: [value("y")], run };
export const AutoModel = {
  from_pretrained: async (folder, options) => {
    const { model_file_name: name, device } = options;
    if (name !== "model") throw new Error(`${folder}/${name} on ${device}`);
    return { sessions: { model: session } };
  },
};
export const AutoModelForCausalLM = AutoModel;
"""


@pytest.fixture
def node_modules(tmp_path) -> Path:
    for folder in ("@huggingface/transformers", "onnxruntime-web"):
        (tmp_path / "node_modules" / folder / "dist").mkdir(parents=True)
    (tmp_path / "node_modules/@huggingface/transformers/dist/transformers.node.mjs").write_text(LIBRARY)
    return tmp_path / "node_modules"


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_a_graph_in_node_is_used_as_a_session_here(node_modules, tmp_path):
    folder = tmp_path / "int8"
    folder.mkdir()
    with Node(shutil.which("node"), node_modules, folder) as place:
        assert place.ask("about") == {"library": "4.0", "runtime": "1.0"}
        session = place.open_graph(folder / "model.onnx", "cpu")
        assert [value.name for value in session.get_inputs()] == ["x"]
        [answer] = session.run(None, {"x": np.array([[1.5, -2.0]], dtype=np.float32)})
        np.testing.assert_array_equal(answer, np.array([[3.0, -4.0]], dtype=np.float32))
        with pytest.raises(BrowserError) as error:
            place.open_graph(folder / "other.onnx", "cpu")
        assert str(error.value) == "int8/other on cpu"


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_version_of_node_is_told_without_its_letter():
    assert version_of_program("node")[0].isdigit()


@pytest.mark.parametrize("lacking", ["node", "chromium"])
def test_what_is_not_installed_is_told(lacking, tmp_path, monkeypatch):
    monkeypatch.setattr(measure_browser.shutil, "which", lambda name: None if name == lacking else name)
    monkeypatch.setattr(measure_browser, "find_chromium", lambda: None if lacking == "chromium" else "chromium")
    arguments = ["--model", "m", "--results", str(tmp_path), "--variants", "fp32", "--output", str(tmp_path / "x.json")]
    with raises(UserError):
        measure_browser.main(arguments)
