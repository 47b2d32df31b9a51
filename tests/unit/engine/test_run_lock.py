"""The lock of a folder, where the system has none to give."""

import sys

from messages import raises
from onnxproof.cli import UserError
from onnxproof.engine.run_lock import lock_folder


def test_windows_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows, where Python has no such module
    with raises(UserError):
        lock_folder(tmp_path / ".snakemake/onnxproof.lock")
    assert not (tmp_path / ".snakemake").exists()
