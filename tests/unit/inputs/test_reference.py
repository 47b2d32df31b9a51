"""Writing the recorded reference and reading it again."""

import numpy as np
import pytest

from messages import raises
from onnxproof.cli import UserError
from onnxproof.files import write_json
from onnxproof.inputs.model_inputs import ModelInputs
from onnxproof.inputs.reference import read_reference, save_reference
from record_reference import answer_all


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


class Pooling:
    """Stands for a model that answers with the mean of a text's tokens, or, as some do, of the padding's too."""

    task = "feature-extraction"

    def __init__(self, leaks: bool):
        self.leaks, self.runs = leaks, []

    def run(self, inputs, indices):
        self.runs.append(list(indices))
        longest = max(len(inputs.items[index]["input_ids"]) for index in indices)
        sizes = [longest if self.leaks else len(inputs.items[index]["input_ids"]) for index in indices]
        return [{"last_hidden_state": np.array([[1, size]], np.float32)} for size in sizes]


def make_inputs(lengths):
    return ModelInputs([{"input_ids": np.ones(length), "attention_mask": np.ones(length)} for length in lengths])


def answers_of(model, inputs):
    return answer_all(model, "m", inputs, model.task, labels=2, batch_size=2)


@pytest.mark.parametrize("leaks", [False, True])
def test_every_input_has_its_answer_without_padding(leaks):
    lengths = [1 + index % 7 for index in range(32)]
    answers, _ = answers_of(Pooling(leaks), make_inputs(lengths))
    assert [int(answer["last_hidden_state"][0, 1]) for answer in answers] == lengths


@pytest.mark.parametrize(("leaks", "looked_at"), [(False, 18), (True, 32)])
def test_all_inputs_are_run_in_padded_batches_and_alone_only_where_padding_leaks(leaks, looked_at):
    lengths = [1 + index % 7 for index in range(32)]
    model = Pooling(leaks)
    found = answers_of(model, make_inputs(lengths))[1]
    assert (found["batch_size"], found["inputs"]) == (2, looked_at)
    assert (found["cosine_min"] < 0.99) is leaks
    alone = {run[0] for run in model.runs if len(run) == 1}
    shared = [run for run in model.runs if len(run) == 2 and lengths[run[0]] == lengths[run[1]]]
    assert (len(alone) < 32) is bool(shared) is not leaks, "texts of one length share a run where nothing leaks"
    assert alone | {index for run in shared for index in run} == set(range(32))


def test_the_batch_with_the_most_padding_is_among_the_first():
    lengths = [3] * 32
    lengths[2] = 1  # in the second batch of two, which an even spread leaves out
    found = answers_of(Pooling(leaks=True), make_inputs(lengths))[1]
    assert found["inputs"] == 32
    assert found["cosine_min"] < 0.99


@pytest.mark.parametrize("most", [0, 1])
def test_a_message_says_whether_the_original_fails_alone_or_in_a_batch(most):
    class Failing(Pooling):
        def run(self, inputs, indices):
            if len(indices) > most:
                raise RuntimeError("no such shape")
            return super().run(inputs, indices)

    with raises(UserError):
        answers_of(Failing(leaks=False), make_inputs([1, 2, 3, 4]))
