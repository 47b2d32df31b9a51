"""Files are whole or absent."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from messages import raises
from onnxproof.cli import UserError
from onnxproof.files import describe_files, read_json, staged_folder, write_json

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"


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


def test_a_text_that_a_killed_process_left_is_replaced(tmp_path):
    (tmp_path / ".a.json.partial").write_text("a longer text that was never finished")
    write_json(tmp_path / "a.json", {"a": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_what_a_killed_process_left_is_cleared(tmp_path):
    left_over = tmp_path / ".out.partial"
    (left_over / "scratch").mkdir(parents=True)
    (left_over / "model.onnx").write_text("half")
    with staged_folder(tmp_path / "out") as stage:
        assert list(stage.iterdir()) == []
        (stage / "new").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_process_that_still_writes_is_waited_for(tmp_path):
    """As after a run that was killed without its jobs: the left-over job ends, then the new one does its work."""
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom onnxproof.files import staged_folder\n"
        "with staged_folder(Path(sys.argv[1])) as stage:\n"
        "    print('in', flush=True)\n    time.sleep(float(sys.argv[3]))\n    (stage / sys.argv[2]).touch()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "out")]
    options = {"stdout": subprocess.PIPE, "text": True, "env": os.environ | {"PYTHONPATH": str(SCRIPTS)}}
    with subprocess.Popen([*command, "old", "0.5"], **options) as old:
        assert old.stdout.readline() == "in\n"
        with subprocess.Popen([*command, "new", "0"], **options) as new:
            output = new.communicate()[0]
    assert "another process is writing here; waiting for it" in output
    assert (old.returncode, new.returncode) == (0, 0)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
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
    with raises(UserError):
        read_json(path)
    with raises(UserError):
        read_json(tmp_path / "absent.json")


def test_files_are_described_by_size_and_sha256(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.txt").write_bytes(b"abc")
    assert describe_files(tmp_path) == {
        "b/c.txt": {"size": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    }
