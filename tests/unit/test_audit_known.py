"""Files that are another model's, told by their digests."""

import json
from pathlib import Path
from typing import Any

import pytest

import audit
from messages import raises
from onnxproof.audit.known import identity_of, look_up, read_known
from onnxproof.cli import UserError

WEIGHTS, GRAPH, OTHER = "a" * 64, "b" * 64, "c" * 64
OWN = {"kind": "hub", "repo": "someone/own", "requested_revision": None, "revision": "1" * 40}
THEIRS = OWN | {"repo": "someone/other"}


def entry(size: int, sha256: str) -> dict[str, Any]:
    return {"size": size, "sha256": sha256}


def audited(verdict: str, files: dict[str, Any] | None = None) -> dict[str, Any]:
    files = {"model.onnx": entry(10, GRAPH), "model.onnx_data": entry(1000, WEIGHTS)} if files is None else files
    return {"name": "model.onnx", "files": files, "verdict": verdict, "findings": []}


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_audit(path: Path, original: dict[str, Any], name: str = "someone/other-onnx") -> Path:
    return write(path, {"name": name, "repository": {}, "original": original, "files": [audited("sound")]})


def found(file: dict[str, Any], known: Any) -> list[tuple[str, str]]:
    look_up([file], OWN, known)
    assert all(each["kind"] == "other-model" for each in file["findings"])
    return [(each["severity"], each["message"]) for each in file["findings"]]


@pytest.mark.parametrize("verdict", ["wrong", "not judged"])
def test_a_file_of_another_audited_model_is_wrong(tmp_path, verdict):
    file = audited(verdict)
    message = "model.onnx_data is, byte for byte, model.onnx of someone/other-onnx, made from someone/other."
    assert found(file, read_known([write_audit(tmp_path / "audit.json", THEIRS)])) == [("wrong", message)]
    assert file["verdict"] == "wrong"


def test_answers_that_are_right_are_no_other_models(tmp_path):
    """One model under two names has the same bytes twice."""
    file = audited("sound")
    assert [severity for severity, _ in found(file, read_known([write_audit(tmp_path / "a.json", THEIRS)]))] == ["note"]
    assert file["verdict"] == "sound"


def test_other_repositories_with_files_of_the_same_model_tell_nothing(tmp_path):
    same = OWN | {"revision": "2" * 40}
    assert found(audited("wrong"), read_known([write_audit(tmp_path / "a.json", same)])) == []


def test_a_graph_that_many_models_share_tells_nothing(tmp_path):
    file = audited("wrong", {"model.onnx": entry(10, GRAPH), "model.onnx_data": entry(1000, OTHER)})
    assert found(file, read_known([write_audit(tmp_path / "a.json", THEIRS)])) == []
    assert found(audited("wrong", {}), read_known([write_audit(tmp_path / "a.json", THEIRS)])) == []


def test_what_a_run_of_this_project_made(tmp_path):
    """The largest graph or file of weights counts, not a large vocabulary."""
    files = {"model.onnx": entry(1000, WEIGHTS), "tokenizer.json": entry(5000, OTHER)}
    record = {"model": "mine", "variant": "int8", "files": files}
    path = write(tmp_path / "results" / "mine" / "onnx" / "int8.json", record)
    assert found(audited("wrong"), read_known([path])) == [
        ("wrong", "model.onnx_data is, byte for byte, int8 of this project's mine.")
    ]
    source = {**OWN, "model": "mine", "files": {}, "total_bytes": 0, "versions": {}}
    write(tmp_path / "results" / "mine" / "source.json", source)
    assert found(audited("wrong"), read_known([path])) == []


def test_a_list_of_digests(tmp_path):
    path = write(tmp_path / "known.json", {WEIGHTS: "int8 of the older release"})
    assert found(audited("wrong"), read_known([path])) == [
        ("wrong", "model.onnx_data is, byte for byte, int8 of the older release.")
    ]


@pytest.mark.parametrize("content", [{}, [], {"abc": "too short"}, {WEIGHTS: 1}, {WEIGHTS.upper(): "a name"}])
def test_a_file_that_tells_no_digests(tmp_path, content):
    with raises(UserError):
        read_known([write(tmp_path / "known.json", content)])


@pytest.mark.parametrize("change", [{"original": {}}, {"files": [{"name": "model.onnx"}]}, {"files": None}])
def test_an_audit_that_is_not_whole(tmp_path, change):
    path = write_audit(tmp_path / "audit.json", THEIRS)
    with raises(UserError):
        read_known([write(path, json.loads(path.read_text()) | change)])


def test_no_such_file(tmp_path):
    with raises(UserError):
        read_known([tmp_path / "absent.json"])


def test_models_are_told_apart_by_where_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert identity_of(OWN) == "someone/own"
    assert identity_of({"kind": "package", "package": "p", "package_version": "1", "package_path": "a/b"}) == "p/a/b"
    assert identity_of({"kind": "path", "path": "models/x"}) == str(tmp_path / "models" / "x")


def test_audits_of_other_repositories_are_known_without_being_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own, other = (audit.AUDITS / name / "audit.json" for name in ("own", "other"))
    for path in (own, other):
        write_audit(path, THEIRS)
    assert audit.other_audits(own.parent) == [other]
    assert audit.other_audits(tmp_path / "elsewhere") == [other, own]
