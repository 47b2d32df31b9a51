"""Files are whole or absent."""

import json

import pytest

from onnxproof.cli import UserError
from onnxproof.files import describe_files, read_json, staged_folder, write_json


def test_a_folder_appears_only_when_its_block_ends_well(tmp_path):
    target = tmp_path / "out"

    def fail_half_way():
        with staged_folder(target) as stage:
            (stage / "part").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []
    with staged_folder(target) as stage:
        (stage / "new").write_text("whole")
    with staged_folder(target) as stage:
        (stage / "newer").write_text("whole")
    assert [path.name for path in target.iterdir()] == ["newer"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_bad_json_is_one_clear_error(tmp_path, content):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.json: not a JSON file"):
        read_json(path)
    with pytest.raises(UserError, match="no such file"):
        read_json(tmp_path / "absent.json")


def test_files_are_described_by_size_and_sha256(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.txt").write_bytes(b"abc")
    assert describe_files(tmp_path) == {
        "b/c.txt": {"size": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    }
