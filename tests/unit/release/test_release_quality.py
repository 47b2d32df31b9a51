"""The quality of a release, measured again by a person who has the labelled data."""

import ast
import json
import sys
from pathlib import Path

import pytest
from test_verifier_modules import LABELS, PACKAGES, release, sign  # noqa: F401 - release is a fixture

import verify_release
from messages import check_message
from onnxproof.engine.code_digest import files_of_script
from onnxproof.files import read_json, sha256_of, write_json
from onnxproof.release.quality import compare_again
from release import QUALITY_MODULE, copy_verifier, recorded_scores

TEXTS = ("good", "bad very", "very good good", "bad", "very", "good bad")


@pytest.fixture
def evaluated(release, tmp_path):  # noqa: F811
    """The release of a model that was evaluated, and its labelled data: it answers two thirds of them rightly."""
    data = tmp_path / "rows.jsonl"
    rows, right = [], []
    told = verify_answers(release)
    for number, text in enumerate(TEXTS * 3):
        label = told[text] if number % 3 else LABELS[(LABELS.index(told[text]) + 1) % 3]
        rows.append(json.dumps({"review": text, "label": label}) + "\n")
        right.append(float(number % 3 > 0))
    data.write_text("".join(rows))
    described = {"file": "rows.jsonl", "sha256": sha256_of(data), "inputs": len(rows), "documents": None}
    quality = {
        "use": "text-classification",
        "task": "text-classification",
        "labels": list(LABELS),
        "rate": None,
        "new_tokens": 128,
        "settings": {"data": "rows.jsonl", "input": "review"},
        "data": described,
        "scores": {"fp32": right},
    }
    copy_verifier(release, with_quality=True)
    edit(release, "evaluation.json", lambda _: quality)
    judged = {"metric": "accuracy", "value": sum(right) / len(right), "allowed": 0.01, "data": described}
    edit(release, "manifest.json", lambda manifest: with_quality(manifest, judged))
    sign(release)
    return release, data


def with_quality(manifest, quality):
    manifest["variants"]["fp32"]["evaluation"] = quality
    manifest["reference"]["usage"] |= {"use": "text-classification", "takes": "texts"}
    return manifest


def edit(folder: Path, name: str, change):
    before = read_json(folder / name) if (folder / name).is_file() else None
    (folder / name).unlink(missing_ok=True)
    write_json(folder / name, change(before))


def verify_answers(folder):
    """What the release's own program says of the texts."""
    from onnxproof.inputs.final_answers import USES
    from onnxproof.parity.card_programs import load_function, program_of

    use = USES["text-classification"]
    program = program_of((folder / "README.md").read_text(), use.heading)
    answers = load_function(program, use.function, folder)(list(TEXTS))
    return {text: max(answer, key=answer.get) for text, answer in zip(TEXTS, answers, strict=True)}


def verify(folder, capsys, *arguments):
    status = verify_release.main([str(folder), "--threads", "1", *map(str, arguments)])
    printed = capsys.readouterr()
    return status, printed.out + printed.err


def test_a_recorded_figure_holds(evaluated, capsys):
    folder, data = evaluated
    status, text = verify(folder, capsys, "--labelled", data)
    assert status == 0, text
    line = "onnx/model.onnx: accuracy 0.6667 on 18 inputs, 0 of them with another score: the recorded figure holds"
    assert line in text.splitlines()
    status, text = verify(folder, capsys, "--labelled", data, "--max-inputs", 4)
    assert status == 0, text
    assert "accuracy 0.5 on 4 inputs, 0 of them with another score: the recorded figure holds" in text


def test_without_the_option_nothing_is_asked(evaluated, capsys):
    status, text = verify(evaluated[0], capsys)
    assert status == 0, text
    assert "accuracy" not in text


def test_a_figure_that_does_not_hold_fails(evaluated, capsys):
    folder, data = evaluated
    edit(folder, "evaluation.json", lambda quality: quality | {"scores": {"fp32": [1.0] * 18}})
    sign(folder)
    status, text = verify(folder, capsys, "--labelled", data, "--max-inputs", 9)
    assert status == 1
    assert "accuracy 0.6667 on 9 inputs, 3 of them with another score: the recorded figure does not hold" in text
    assert "FAIL: 1 of" in text


def test_other_data_are_measured_and_not_compared(evaluated, capsys):
    folder, data = evaluated
    data.write_text(data.read_text() + json.dumps({"review": "good", "label": "sad"}) + "\n")
    status, text = verify(folder, capsys, "--labelled", data)
    assert status == 0, text
    assert "on 19 inputs of another file than was recorded: not compared" in text


def test_an_altered_release_is_not_asked(evaluated, capsys):
    folder, data = evaluated
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\n")
    status, text = verify(folder, capsys, "--labelled", data)
    assert status == 1
    assert "accuracy" not in text


def test_a_release_without_labelled_data(release, tmp_path, capsys):  # noqa: F811
    status, text = verify(release, capsys, "--labelled", tmp_path / "rows.jsonl")
    assert status == 2
    check_message(text.splitlines()[-1])


def test_a_metric_of_a_whole_corpus_needs_all_inputs():
    labels, answers = [1.0, 2.0, 3.0], [0.1, 0.3, 0.2]
    assert compare_again("f", "pairs_spearman", labels, answers, 0.5, None, 0.01).holds
    assert not compare_again("f", "pairs_spearman", labels, answers, 0.8, None, 0.01).holds
    part = compare_again("f", "pairs_spearman", labels, answers, None, None, 0.01)
    assert (part.holds, part.seen) == (None, "0.5 on 3 inputs; only all inputs can be compared")


def test_of_few_inputs_one_may_change():
    answers = [{"scores": [0.9, 0.1]}] * 3 + [{"scores": [0.1, 0.9]}]
    assert compare_again("f", "accuracy", [0] * 4, answers, None, [1.0] * 4, 0.01).holds
    assert not compare_again("f", "accuracy", [0, 0, 1, 0], answers, None, [1.0] * 4, 0.01).holds


def test_scores_come_from_what_was_measured(tmp_path):
    file = tmp_path / "int8.jsonl"
    file.write_text('{"row": 1, "score": 0.123456789}\n{"row": 2, "score": 1.0}\n')
    assert recorded_scores(file) == [0.123457, 1.0]
    file.write_text('{"row": 1, "label": 3}\n')
    assert recorded_scores(file) is None


@pytest.mark.parametrize("path", [Path(file) for file in files_of_script(QUALITY_MODULE)], ids=lambda path: path.name)
def test_what_measures_again_loads_with_three_packages_and_python_3_10(path):
    """The libraries of metrics are imported where one is computed."""
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))
    first = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in first if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in first if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) <= {*PACKAGES, "onnxproof"}
    assert not any(name.startswith("onnxproof.records") for name in names)


def test_a_release_without_labelled_data_carries_nothing_of_it(release):  # noqa: F811
    assert not (release / "verifier/onnxproof/evaluation").exists()
