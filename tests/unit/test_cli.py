"""What ends a script becomes one line where the user can mend it, and keeps its traceback where we must."""

import errno

import pytest

from onnxproof.cli import UserError, run_script


def ending(error: BaseException, capsys) -> tuple[int, str]:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        run_script(main)
    return caught.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (UserError("m: mend this"), "error: m: mend this\n"),
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "error: a/b: No space left on device: make room"),
        (OSError(errno.EROFS, "Read-only file system", "a/b"), "error: a/b: Read-only file system: this file system"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "error: a/b: Permission denied: you may not"),
        (MemoryError(), "error: the memory did not suffice: close other programs"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: x\nat y"),
            "allocate memory: x: close",
        ),
        (RuntimeError("std::bad_alloc"), "error: std::bad_alloc: close other programs"),
        (ValueError('I/O error: Os { code: 28, message: "No space left on device" }'), "make room on this disk"),
    ],
)
def test_what_the_user_can_mend_is_one_line(error, told, capsys):
    status, text = ending(error, capsys)
    assert status == 1
    assert told in text
    assert text.count("\n") == 1


def test_an_interruption_is_told(capsys):
    assert ending(KeyboardInterrupt(), capsys) == (130, "error: interrupted; the next run goes on from here\n")


def test_our_own_mistakes_keep_their_traceback():
    with pytest.raises(KeyError):
        run_script(lambda: {}["absent"])


def test_a_status_is_passed_on():
    with pytest.raises(SystemExit, match="3"):
        run_script(lambda: 3)
