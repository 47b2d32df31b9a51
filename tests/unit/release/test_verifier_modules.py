"""A release carries the gate's own modules, all of them, and they need only three packages and Python 3.10."""

import ast
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from onnxproof.engine.code_digest import SCRIPTS, files_of_script
from onnxproof.files import describe_files, read_json, write_json
from onnxproof.inputs.final_answers import FinalAnswers
from onnxproof.inputs.model_inputs import ModelInputs, Reference
from onnxproof.parity.metrics import log_probabilities
from onnxproof.release.card import usage_examples
from onnxproof.release.golden import write_golden
from records import make_gate, make_manifest, make_reference, make_released_variant
from release import copy_verifier, write_sums

PACKAGES = ("numpy", "onnxruntime", "tokenizers")
#: What is imported only for a release whose own program needs it too.
ONLY_FOR_IMAGES = {"card_programs.py": ("PIL",)}
WORDS = ("[UNK]", "good", "bad", "very")
LABELS = ("sad", "calm", "glad")


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(log_probabilities(logits[None]))[0]


@pytest.mark.parametrize("path", [Path(file) for file in files_of_script("verify_release")], ids=lambda path: path.name)
def test_a_shipped_file_needs_only_three_packages_and_python_3_10(path):
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    packages = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert packages <= {*PACKAGES, "onnxproof", *ONLY_FOR_IMAGES.get(path.name, ())}
    newer = {"tomllib", "datetime.UTC", "typing.Self", "typing.assert_never", "enum.StrEnum", "hashlib.file_digest"}
    used = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    used |= {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)} | names
    assert not newer & used


def test_few_modules_are_shipped():
    modules = [path for path in files_of_script("verify_release")[1:] if not path.endswith("__init__.py")]
    assert len(modules) <= 24, "more than what measures and judges"


@pytest.fixture
def release(tmp_path) -> Path:
    """A release of a classifier that looks its logits up by the first token."""
    folder = tmp_path / "release"
    (folder / "onnx").mkdir(parents=True)
    logits = np.random.default_rng(0).normal(size=(len(WORDS), 3)).astype(np.float32)
    texts = ["good", "bad very", "very good good"]
    ids = [np.array([WORDS.index(word) for word in text.split()]) for text in texts]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["input_ids", "zero"], ["first"], axis=1),
            helper.make_node("Gather", ["table", "first"], ["logits"], axis=0),
        ],
        "g",
        [helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 3])],
        [
            onnx.numpy_helper.from_array(logits, "table"),
            onnx.numpy_helper.from_array(np.array(0, dtype=np.int64), "zero"),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "onnx" / "model.onnx")
    reference = Reference(
        manifest=make_reference(label_count=3),
        inputs=ModelInputs([{"input_ids": values} for values in ids]),
        outputs={"logits": [logits[values[0]] for values in ids]},
        texts=texts,
        final=FinalAnswers(
            "text-classification",
            "pipeline",
            texts,
            [dict(zip(LABELS, softmax(logits[values[0]]).tolist(), strict=True)) for values in ids],
            {"activation": "softmax"},
        ),
    )
    (program,) = [
        example["code"]
        for example in usage_examples("text-classification", "onnx/model.onnx", {"pads": False})
        if example["file"] == "onnxruntime.py"
    ]
    (folder / "README.md").write_text(f"### onnxruntime and tokenizers alone\n\n```python\n{program}\n```\n")
    write_json(folder / "config.json", {"id2label": dict(zip("012", LABELS, strict=True))})
    write_golden(reference, folder)
    copy_verifier(folder)
    limits = {"top1_agreement": 1.0, "max_relative_diff": 1e-6, "max_probability_diff": 1e-6}
    gate = make_gate(limits | {"batch_cosine_min": 0.99999})
    gate["thresholds"]["label_agreement"] = 1.0  # which is only measured on raw inputs
    facts = make_released_variant(gate=gate)
    facts["parity"]["batch_invariance"]["batch_size"] = 2
    write_json(folder / "manifest.json", make_manifest({"fp32": facts}))
    sign(folder)
    return folder


def sign(folder: Path) -> None:
    """List the files of a release as they are now."""
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    manifest = read_json(folder / "manifest.json")
    (folder / "manifest.json").unlink()
    write_json(folder / "manifest.json", manifest | {"files": describe_files(folder)})
    write_sums(folder)


def run_bare(release: Path, packages: Path, installed=PACKAGES) -> subprocess.CompletedProcess[str]:
    """Run the release's script where nothing but the standard library and some packages can be imported."""
    packages.mkdir()
    for name in installed:
        for place in find_spec(name).submodule_search_locations:
            (packages / name).symlink_to(place)
    code = "import runpy, sys; sys.path.append(sys.argv.pop(1)); runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, packages, release / "verify_release.py"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=packages,
        env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
    )


def test_a_release_verifies_itself_with_three_packages(release, tmp_path):
    before = describe_files(release)
    run = run_bare(release, tmp_path / "packages")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "PASS: 12 checks, 0 skipped" in run.stdout
    assert run.stdout.count("raw inputs in batches") == 3
    assert describe_files(release) == before, "verifying leaves the folder as it was released"


def test_batches_are_not_asked_of_a_model_whose_original_depends_on_them(release, tmp_path):
    manifest = read_json(release / "manifest.json")
    (limit,) = [
        limit for limit in manifest["variants"]["fp32"]["gate"]["limits"] if limit["metric"] == "batch_cosine_min"
    ]
    limit["allowed"] = 0.9997  # the gate's limit, less what PyTorch itself loses
    (release / "manifest.json").unlink()
    write_json(release / "manifest.json", manifest)
    sign(release)
    run = run_bare(release, tmp_path / "packages")
    assert run.returncode == 0, run.stdout
    assert "raw inputs alone" in run.stdout
    assert "raw inputs in batches" not in run.stdout


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("np.exp(logits - ", "np.exp2(logits - ", "raw inputs alone: max_probability_diff"),
        ("def classify(", "def sort(", "raw inputs: the card's program runs"),
        ("### onnxruntime and tokenizers alone", "### Another", "the card's program is gone"),
    ],
)
def test_a_card_whose_program_answers_otherwise_fails(release, tmp_path, right, wrong, told):
    card = (release / "README.md").read_text()
    assert right in card
    (release / "README.md").write_text(card.replace(right, wrong))
    sign(release)
    run = run_bare(release, tmp_path / "packages")
    assert run.returncode == 1
    assert any(told in line and "FAIL" in line for line in run.stdout.splitlines()), run.stdout


def test_an_altered_card_is_not_run(release, tmp_path):
    written = tmp_path / "written"
    card = (release / "README.md").read_text()
    program = f"answers = Path({str(written)!r}).write_text('run')"
    (release / "README.md").write_text(card.replace("answers = classify(texts)", program))
    run = run_bare(release, tmp_path / "packages")
    assert run.returncode == 1
    assert "not asked: a file is not as released" in run.stdout
    assert not written.exists()
    sign(release)
    run_bare(release, tmp_path / "again")
    assert written.exists(), "the program is one that would have run"


def test_a_wrong_weight_fails_there_too(release, tmp_path):
    model = onnx.load(release / "onnx" / "model.onnx")
    table = next(tensor for tensor in model.graph.initializer if tensor.name == "table")
    table.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(table), "table"))
    onnx.save(model, release / "onnx" / "model.onnx")
    run = run_bare(release, tmp_path / "packages")
    assert run.returncode == 1
    lines = [line for line in run.stdout.splitlines() if line.endswith("FAIL")]
    assert any("top1_agreement" in line for line in lines)


def test_an_edited_module_of_the_verifier_is_found(release, tmp_path):
    gate = release / "verifier" / "onnxproof" / "parity" / "gate.py"
    gate.write_text(gate.read_text() + "# edited\n")
    run = run_bare(release, tmp_path / "packages")
    assert run.returncode == 1
    assert any(line.startswith("verifier/onnxproof/parity/gate.py ") for line in run.stdout.splitlines())


@pytest.mark.parametrize("missing", PACKAGES)
def test_a_missing_package_is_told_in_one_line(release, tmp_path, missing):
    run = run_bare(release, tmp_path / "packages", [name for name in PACKAGES if name != missing])
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith("error: No module named")
    assert "onnxruntime, numpy and tokenizers" in line


def test_a_missing_module_of_the_verifier_is_told_in_one_line(release, tmp_path):
    (release / "verifier" / "onnxproof" / "parity" / "gate.py").unlink()
    run = run_bare(release, tmp_path / "packages")
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert "onnxproof.parity.gate" in line


def test_the_shipped_modules_are_those_of_the_gate(release):
    shipped = json.loads((release / "manifest.json").read_text())["files"]
    for path in map(Path, files_of_script("verify_release")[1:]):
        name = path.relative_to(SCRIPTS).as_posix()
        assert (release / "verifier" / name).read_bytes() == path.read_bytes()
        assert f"verifier/{name}" in shipped
