"""Who takes part in the comparison: the files of each contender, and the runtime and settings it is run with."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from comparison.limit import PEAK_KINDS, save_peak_model
from comparison.peers import quantize_with_optimum, quantize_with_sentence_transformers
from comparison.static_peers import calibration_items, quantize_statically
from onnxproof.benchmark.timing import Contender
from onnxproof.files import sha256_of, staged_folder
from onnxproof.graph.files import MODEL_FILE
from onnxproof.graph.support_files import copy_support_files
from onnxproof.hardware import cpu_description

BASELINE = "fp32"
#: Our int8 with fixed scales, which other runtimes compute with integers too.
STATIC = "int8-static"
#: How many calibration inputs static quantization gets.
STATIC_INPUTS = 64


@dataclass(frozen=True)
class Environments:
    """The interpreters of the peers' environments; None leaves their contenders out."""

    openvino: Path | None
    onnxruntime_openvino: Path | None


@dataclass(frozen=True)
class Entry:
    """One contender: its name in the tables, whether it is ``ours``, and which peak it is held against.

    ``other_settings_of`` names the contender whose file this is under other session settings.
    """

    name: str
    contender: Contender
    ours: bool = False
    arithmetic: str = "float"
    other_settings_of: str | None = None


def optimum_preset() -> str:
    """Return the preset that Optimum's documentation names for this CPU."""
    flags = cpu_description()["flags"]
    if "asimd" in flags:
        return "arm64"
    return next((f"avx512{'_vnni' * ('avx512_vnni' in flags)}" for flag in flags if flag == "avx512f"), "avx2")


def make_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return ``folder`` after ``make`` has filled it, unless an earlier run has done so."""
    if not folder.is_dir():
        with staged_folder(folder) as stage:
            make(stage)
        print(f"made {folder.name}", flush=True)
    return folder


def save_recipe_variant(source: Path, task: str, variant: str, folder: Path, most: int = 4) -> None:
    """Write our int8 of a model with random weights: the first recipe of the ladder, weights rounded to nearest.

    There is nothing to search for: any recipe is as good for such a model. A trained model takes ``quantize.py``.
    With fixed scales, where quality is compared too, weights are rounded with compensation, as those of a trained model
    are. At most ``most`` calibration inputs are used.
    """
    import onnx

    from onnxproof.quantization.recipe import apply_recipe
    from onnxproof.quantization.search.candidates import FIXED, PREPARATIONS, QUANTIZE, prepare_fixed

    feeds = calibration_items(source, task, most)
    recipe = [*PREPARATIONS[0], QUANTIZE[variant] | {"rounding": "nearest"}]
    if variant in FIXED:
        recipe = [*prepare_fixed(variant, len(feeds)), QUANTIZE[variant]]
    onnx.save(apply_recipe(onnx.load(source / MODEL_FILE), recipe, feeds), folder / MODEL_FILE)
    copy_support_files(source, folder)


def save_peer(source: Path, quantize: Callable[[Path, Path], None], folder: Path) -> None:
    """Write what a public tool makes of the fp32 file; a copy of it, because some write beside their input."""
    with tempfile.TemporaryDirectory() as scratch:
        quantize(shutil.copytree(source, Path(scratch) / "source"), folder)
    copy_support_files(source, folder)


def make_entries(model: str, task: str, ours: dict[str, Path], folder: Path, environments: Environments) -> list[Entry]:
    """Return all contenders of one model, the fp32 baseline first, their files made where they are missing.

    Public tools that write the same bytes are one contender with both names.
    """
    fp32, optimized, source, static = ours[BASELINE], ours["optimized"], ours["source"], ours.get(STATIC)

    def onnx_entry(name: str, path: Path, **facts: Any) -> Entry:
        options = facts.pop("options", {})
        return Entry(name, Contender(model, name, "onnx", path, options=options), **facts)

    def pytorch_entry(name: str, **options: Any) -> Entry:
        return Entry(name, Contender(model, name, "pytorch", source, task, options))

    entries = [
        onnx_entry("onnxruntime fp32", fp32),
        onnx_entry("optimized", optimized, ours=True),
        onnx_entry("int8", ours["int8"], ours=True, arithmetic="integer"),
        onnx_entry("int8-invariant", ours["int8-invariant"], ours=True, arithmetic="integer"),
        *([onnx_entry(STATIC, static, ours=True, arithmetic="integer")] if static is not None else []),
        pytorch_entry("PyTorch eager"),
        pytorch_entry("PyTorch bf16", bfloat16=True),
        pytorch_entry("torch.compile", compiled=True),
    ]
    preset = optimum_preset()
    peers = {f"Optimum int8 ({preset})": quantize_with_optimum(preset, per_channel=False)}
    if task == "sentence-similarity":
        peers[f"sentence-transformers int8 ({preset})"] = quantize_with_sentence_transformers(preset)
    made: dict[str, tuple[str, Path]] = {}
    for number, (name, quantize) in enumerate(peers.items()):
        path = make_once(folder / f"public-{number}", partial(save_peer, fp32, quantize))
        digest = sha256_of(path / MODEL_FILE)
        made[digest] = (f"{made[digest][0]} = {name}" if digest in made else name, path)
    entries += [onnx_entry(name, path, arithmetic="integer") for name, path in made.values()]
    return entries + openvino_entries(model, task, fp32, static, folder, environments)


def _save_nncf(python: Path, source: Path, task: str, folder: Path) -> None:
    quantize_statically("nncf", python, source, calibration_items(source, task, STATIC_INPUTS), folder)


def openvino_entries(
    model: str, task: str, fp32: Path, static: Path | None, folder: Path, environments: Environments
) -> list[Entry]:
    """Return OpenVINO's contenders, as far as there are environments to run them in."""
    entries = []
    if environments.openvino is not None:
        nncf = make_once(folder / "nncf", partial(_save_nncf, environments.openvino, fp32, task))
        for name, path, options, arithmetic in (
            ("OpenVINO, its default precision", fp32, {}, "float"),
            ("OpenVINO f32", fp32, {"precision": "f32"}, "float"),
            ("OpenVINO NNCF int8", nncf, {}, "integer"),
            *([(f"OpenVINO, {STATIC}", static, {}, "integer")] if static is not None else []),
        ):
            contender = Contender(model, name, "openvino", path, options=options, python=str(environments.openvino))
            entries.append(Entry(name, contender, ours=path == static, arithmetic=arithmetic))
    if environments.onnxruntime_openvino is not None:
        name = "onnxruntime fp32, OpenVINO provider"
        provider = {"provider": "OpenVINOExecutionProvider"}
        python = environments.onnxruntime_openvino
        entries.append(Entry(name, Contender(model, name, "onnx", fp32, options=provider, python=str(python))))
    return entries


def settings_entries(model: str, int8: Path) -> list[Entry]:
    """Return our int8 file under other session settings, one changed at a time."""
    settings: dict[str, dict[str, Any]] = {
        "int8, idle threads do not spin": {"spinning": False},
        "int8, no memory arena": {"arena": False},
        "int8, parallel execution": {"parallel": True},
    }
    return [
        Entry(name, Contender(model, name, "onnx", int8, options=options), True, "integer", "int8")
        for name, options in settings.items()
    ]


def peak_entries(folder: Path) -> list[Entry]:
    """Return the two products that show the limit, float and integer."""
    entries = []
    for kind in PEAK_KINDS:
        make_once(folder / f"peak-{kind}", partial(save_peak_model, kind))
        name = f"peak {kind}"
        entries.append(Entry(name, Contender("peak", name, "onnx", folder / f"peak-{kind}"), arithmetic=kind))
    return entries
