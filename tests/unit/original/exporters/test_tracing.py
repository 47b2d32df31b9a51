"""One graph traced by transformers' exporter: its names, its bytes, and the proof on shapes that were not traced."""

import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import onnx
import pytest

from messages import raises
from onnxproof.cli import UserError
from onnxproof.original.exporters.tracing import (
    check_generalizes,
    let_go_of_weights,
    relative_difference,
    save_graph,
    share_equal_weights,
    trace,
)

AXES = {"values": ["batch_size", "sequence_length", None]}


def module(forward):
    """Return a torch module with one weight, and ``forward`` as what it computes from it and its input."""
    import torch

    class Tiny(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(4, 3))

        def forward(self, values):
            return {"answer": forward(values, self.weight), "unused": values}

    return Tiny().eval()


def traced(forward, path: Path) -> Path:
    import torch

    example = {"values": torch.ones(2, 5, 4)}
    save_graph(trace(module(forward), example, AXES, ("answer", "absent")), path)
    return path


def product(values, weight):
    return values @ weight


def frozen(values, weight):
    """Multiply by the length of the traced example, as code does that counts in Python."""
    return values @ weight * float(values.shape[1])


def feeds():
    generator = np.random.default_rng(0)
    return [{"values": generator.normal(size=shape).astype(np.float32)} for shape in ((1, 9, 4), (3, 2, 4))]


def answers_of(forward):
    import torch

    weight = module(forward).weight.detach()
    return [{"answer": forward(torch.from_numpy(feed["values"]), weight).numpy()} for feed in feeds()]


def test_axes_weights_and_outputs_have_the_names_that_clients_look_for(tmp_path):
    model = onnx.load(traced(product, tmp_path / "model.onnx"))
    (value,) = model.graph.input
    sizes = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
    assert (value.name, sizes) == ("values", ["batch_size", "sequence_length", 4])
    assert [output.name for output in model.graph.output] == ["answer"]
    assert [tensor.name for tensor in model.graph.initializer] == ["weight"]
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_weights_are_shared_where_all_their_values_are_equal_however_they_lie():
    import onnx_ir

    weight = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    other = weight.copy()
    other[1, 1] += 1  # none of the few values that are looked at first
    arrays = {"first": weight, "equal": np.asfortranarray(weight), "other": other, "flat": weight.reshape(30, 40)}
    values = [onnx_ir.Value(name=name, const_value=onnx_ir.tensor(array)) for name, array in arrays.items()]
    nodes = [onnx_ir.node("Identity", [value]) for value in values]
    graph = onnx_ir.Graph([], [node.outputs[0] for node in nodes], nodes=nodes, initializers=values)
    share_equal_weights(graph)
    assert [node.inputs[0].name for node in nodes] == ["first", "first", "other", "flat"]
    assert list(graph.initializers) == ["first", "other", "flat"]


def test_the_browser_can_load_it(tmp_path):
    model = onnx.load(traced(product, tmp_path / "model.onnx"))
    assert model.ir_version <= 10
    assert all(entry.version <= 21 for entry in model.opset_import)
    onnx.checker.check_model(model)


def test_nothing_in_it_tells_where_it_was_made(tmp_path):
    content = traced(product, tmp_path / "model.onnx").read_bytes()
    assert str(Path(__file__).parent).encode() not in content
    assert b"stack_trace" not in content
    assert b"site-packages" not in content


def test_no_line_of_python_is_looked_up_for_its_nodes(tmp_path, monkeypatch):
    import torch
    from torch.fx.proxy import TracerBase

    asked = []
    monkeypatch.setattr(TracerBase, "_filter_traceback_frames", lambda self, summary: asked.append(summary))

    traced(product, tmp_path / "model.onnx")

    assert not asked
    assert not torch.fx.config.do_not_emit_stack_traces  # others may want them


@pytest.mark.slow
def test_the_bytes_are_the_same_with_another_hash_seed(tmp_path):
    script = f"import sys; sys.path[:0] = {sys.path!r}; from test_tracing import *; "
    script += "traced(product, Path(sys.argv[1]))"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", script, str(tmp_path / f"{seed}.onnx")]
        subprocess.run(command, env=environment, cwd=Path(__file__).parent, check=True, capture_output=True)
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes()


def test_a_graph_that_answers_other_shapes_passes(tmp_path):
    check_generalizes(traced(product, tmp_path / "model.onnx"), feeds(), answers_of(product))


def test_weights_are_let_go_of_while_others_still_refer_to_them():
    import torch

    network = module(product)
    values = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    network.weight.data = torch.from_numpy(values)
    parameter, held = network.weight, weakref.ref(values)
    del values
    graph = trace(network, {"values": torch.ones(2, 5, 4)}, AXES, ("answer",))
    assert held() is not None
    let_go_of_weights(network, graph)
    assert network.weight is parameter
    assert held() is None


def test_a_frozen_axis_is_refused(tmp_path):
    path = traced(lambda values, weight: values @ weight * 5.0, tmp_path / "model.onnx")
    with raises(UserError):
        check_generalizes(path, feeds(), answers_of(frozen))


def test_a_graph_that_does_not_run_is_refused(tmp_path):
    path = traced(product, tmp_path / "model.onnx")
    with raises(UserError):
        check_generalizes(path, [{"values": np.ones((1, 9, 5), np.float32)}], [{}])


def test_a_graph_that_does_not_load_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with raises(UserError):
        check_generalizes(tmp_path / "model.onnx", [], [])


def test_what_cannot_be_traced_is_told_in_one_line(tmp_path):
    def depends_on_data(values, weight):
        return values @ weight if float(values.sum()) > 0 else values[..., :3]

    with raises(UserError) as raised:
        traced(depends_on_data, tmp_path / "model.onnx")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("expected", "actual", "difference"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0),
        ([1.0, 2.0], [1.0, 2.2], 0.1),
        ([1.0, 2.0], [1.0, np.nan], np.inf),
        ([1.0, -np.inf], [1.0, -np.inf], 0),
        ([1.0, -np.inf], [1.0, np.inf], np.inf),
        ([1.0], [1.0, 2.0], np.inf),
        ([], [], 0),
    ],
)
def test_the_difference_is_over_the_largest_value(expected, actual, difference):
    found = relative_difference(np.array(expected, np.float32), np.array(actual, np.float32))
    assert found == pytest.approx(difference, rel=1e-5)
