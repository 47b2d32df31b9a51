"""Each change to another library is needed, does what it says, is taken back, and tells an unknown version."""

import inspect
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from onnxproof.cli import UserError
from onnxproof.original import patches
from onnxproof.original.patches import PATCHES, attribute_of, patch

SCRIPTS = Path(__file__).parents[3] / "workflow" / "scripts"


def printed_alone(code: str, python: Path | str = sys.executable) -> str:
    """Return what a program prints in a process that has imported nothing yet."""
    run = subprocess.run([python, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


# ------------------------------------------------------------------------------------------------ the list


def test_every_change_of_another_library_is_in_the_list():
    """Assignments into another library's modules and classes stand in one file. A script is no other library."""
    libraries = "torch|transformers|sentence_transformers|onnxruntime|onnxscript|onnx_ir|onnx|optimum|sys\\.modules"
    assigned = re.compile(
        rf"^\s*(?:(?:{libraries})\.[\w.]+(?: = )|sys\.modules\[(?!\"__main__\").*\] = )", re.MULTILINE
    )
    found = {path.name for path in SCRIPTS.rglob("*.py") if assigned.search(path.read_text(encoding="utf-8"))}
    assert found == {"patches.py"}


def test_each_of_the_list_has_a_test_of_its_own():
    tests = {name.removeprefix("test_").partition("_is_needed")[0] for name in globals() if name.endswith("_is_needed")}
    assert tests == PATCHES.keys()


@pytest.mark.parametrize("name", [name for name in PATCHES if PATCHES[name].library != "optimum-onnx"])
def test_the_installed_versions_are_known(name):
    assert PATCHES[name].unknown_version() is None


def test_an_unknown_version_is_told_once_in_one_line(monkeypatch, capsys):
    monkeypatch.setitem(PATCHES, "changed", None)
    done = []

    @patch("pytest", "1.0", "1.1", reason="It does not know better.")
    def changed(value):
        done.append(value)
        yield value
        done.append("taken back")

    for value in (1, 2):
        with changed(value) as given:
            assert given == value
    assert done == [1, "taken back", 2, "taken back"]
    assert capsys.readouterr().out == (
        f"note: pytest {version('pytest')} is installed, but changed changes it as 1.0 and 1.1 needed it: install the "
        "version of the lock, or check that the change is still needed\n"
    )


@pytest.mark.parametrize(("release", "known"), [("5.2", False), ("5.24", True), ("5", True), ("4.57", False)])
def test_a_release_stands_for_all_of_its_patch_versions(release, known, monkeypatch):
    monkeypatch.setattr(patches, "version", lambda library: "5.24.3")
    assert (patches.Patch("x", (release,), "").unknown_version() is None) is known


def test_nothing_left_to_change_is_told():
    with pytest.raises(UserError) as caught:
        attribute_of(inspect, "no_such_function", "python")
    assert str(caught.value) == (
        "python has no no_such_function in inspect, which this pipeline changes: install the version of the lock"
    )


# ------------------------------------------------------------------------------------------- each of the list


def test_what_the_optimizer_of_onnxruntime_imports():
    """It needed torch to be hidden until 1.32."""
    assert printed_alone("import onnxruntime.transformers.optimizer, sys; print('torch' in sys.modules)") == "False"


@pytest.mark.slow
def test_metrics_imported_late_is_needed():
    assert printed_alone("import sentence_transformers, sys; print('sklearn' in sys.modules)") == "True"
    late = "from onnxproof.original.lean_imports import import_sentence_transformers as load\nload()\n"
    assert printed_alone(f"{late}import sys; print('sklearn' in sys.modules)") == "False"


@pytest.mark.slow
def test_recorded_reports_is_needed(tiny_models):
    import sentence_transformers
    import transformers

    original = vars(transformers.PreTrainedModel)["from_pretrained"]
    load = sentence_transformers.SentenceTransformer
    folder = str(tiny_models / "sentences")
    with pytest.raises(Exception, match="tuple"):  # what from_pretrained answers if it is asked for a report
        load(folder, device="cpu", model_kwargs={"output_loading_info": True})
    with patches.recorded_reports() as reports:
        load(folder, device="cpu")
    ((network, report),) = reports
    assert isinstance(network, transformers.PreTrainedModel)
    assert {"missing_keys", "unexpected_keys", "mismatched_keys"} <= report.keys()
    assert vars(transformers.PreTrainedModel)["from_pretrained"] is original


def test_without_stack_traces_is_needed():
    import torch

    def traces():
        program = torch.export.export(torch.nn.Linear(2, 3), (torch.zeros(1, 2),))
        return [node for node in program.graph.nodes if node.meta.get("stack_trace")]

    assert traces()
    with patches.without_stack_traces():
        assert not traces()
    assert traces()


@pytest.mark.slow
def test_lengths_in_integers_is_needed():
    import torch
    import transformers

    config = transformers.MoonshineConfig(hidden_size=32, intermediate_size=64, encoder_num_hidden_layers=1)
    encoder = transformers.MoonshineModel(config).encoder

    class Count(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = encoder

        def forward(self, sound):
            return sound.new_zeros(encoder._get_feat_extract_output_lengths(sound.shape[1]))

    def counts(length):
        sizes = {"sound": {1: torch.export.Dim.AUTO}}
        traced = torch.export.export(Count(), (torch.zeros(1, 4000),), dynamic_shapes=sizes, strict=False)
        return len(traced.module()(torch.zeros(1, length)))

    expected = int(encoder._get_feat_extract_output_lengths(8000))
    with pytest.raises(Exception):  # noqa: B017, PT011 - the traced length is a constant
        assert counts(8000) == expected
    with patches.lengths_in_integers(encoder):
        assert counts(8000) == expected
    assert "_get_feat_extract_output_lengths" not in vars(encoder)
    with patches.lengths_in_integers(torch.nn.Linear(1, 1)):  # another encoder stays as it is
        pass


@pytest.mark.slow
def test_attention_by_masks_is_needed():
    import torch
    import transformers

    settings = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "patch_size": 4}
    config = transformers.Qwen2VLConfig(vision_config=settings).vision_config
    config._attn_implementation = "eager"
    visual = transformers.models.qwen2_vl.modeling_qwen2_vl.Qwen2VisionTransformerPretrainedModel(config).eval()
    layer = visual.blocks[0].attn

    class Attend(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, hidden, cosines, sines, ends):
            return self.layer(hidden, cu_seqlens=ends, position_embeddings=(cosines, sines))

    def images(*sizes):
        """Return vectors, angles and where images end, of so many patches each, and which image each is of."""
        hidden = torch.randn(sum(sizes), 32, generator=torch.Generator().manual_seed(0))
        angles = torch.ones(len(hidden), 8), torch.zeros(len(hidden), 8)
        of = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        return (hidden, *angles, torch.tensor([0, *sizes]).cumsum(0).int()), of

    many = {name: {0: torch.export.Dim.AUTO} for name in ("hidden", "cosines", "sines", "ends")}
    two, three = images(2, 4)[0], images(3, 2, 3)[0]
    with torch.inference_mode():
        expected = Attend()(*three)
    with pytest.raises(Exception):  # noqa: B017, PT011 - it walks over a list of images, and their number is frozen
        torch.export.export(Attend(), two, dynamic_shapes=many, strict=False).module()(*three)
    of = images(3, 2, 3)[1]
    mask = torch.zeros(8, 8).masked_fill(of[:, None] != of[None], torch.finfo(torch.float32).min)
    with torch.inference_mode(), patches.attention_by_masks(visual, [mask]):
        assert torch.allclose(Attend()(*three), expected, atol=1e-6)
    assert "forward" not in vars(layer)


@pytest.mark.slow
def test_weights_left_apart_is_needed(optimum_python):
    code = """
import inspect
from optimum.exporters.onnx import convert
from onnxproof.original.patches import PATCHES, weights_left_apart
original = convert.check_model_uses_external_data
assert PATCHES["weights_left_apart"].unknown_version() is None
assert "if model_uses_external_data or FORCE_ONNX_EXTERNAL_DATA" in inspect.getsource(convert)
assert "model_uses_external_data = check_model_uses_external_data(onnx_model)" in inspect.getsource(convert)
with weights_left_apart(convert):
    assert convert.check_model_uses_external_data(None) is False
assert convert.check_model_uses_external_data is original
print("done")
"""
    assert printed_alone(code, optimum_python).splitlines()[-1] == "done"
