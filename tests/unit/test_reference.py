"""Writing the recorded reference and reading it again."""

import numpy as np

from onnxproof.files import write_json
from onnxproof.inputs import ModelInputs
from onnxproof.reference import read_reference, save_reference


def test_what_is_saved_is_read_again(tmp_path):
    items = [{"input_ids": np.arange(length), "values": np.ones((length, 2), np.float32)} for length in (1, 3, 2)]
    shared = {"captions": np.arange(6).reshape(2, 3)}
    outputs = [{"logits": np.full((length, 4), length, np.float32), "pooled": np.ones(5)} for length in (1, 3, 2)]
    save_reference(tmp_path, ModelInputs(items, shared), outputs)
    write_json(tmp_path / "reference.json", {"padding": {"side": "left", "values": {"input_ids": 9}}})
    reference = read_reference(tmp_path, tmp_path / "reference.json")
    assert (reference.inputs.padding_side, reference.inputs.padding_values) == ("left", {"input_ids": 9})
    np.testing.assert_equal(list(reference.inputs.items), items)
    np.testing.assert_equal(dict(reference.inputs.shared), shared)
    np.testing.assert_equal(reference.outputs["logits"], [output["logits"] for output in outputs])
    assert reference.outputs["pooled"][1].shape == (5,)
