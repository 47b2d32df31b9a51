"""What Snakemake's records of cost are told of a process, without counting its pages at each look."""

import subprocess
import sys

import psutil
import pytest

from onnxproof.engine import patches

#: Takes so many bytes more for each line that it reads, and answers.
GROWING = (
    "import sys\nheld = []\nfor line in sys.stdin:\n    held.append(bytearray(int(line)))\n    print(flush=True)\n"
)


@pytest.fixture
def grow():
    command = [sys.executable, "-c", GROWING]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def take(size: int) -> psutil.Process:
            process.stdin.write(f"{size}\n")
            process.stdin.flush()
            process.stdout.readline()
            return psutil.Process(process.pid)

        yield take
        process.kill()


def test_pages_are_counted_where_a_process_has_grown(grow, monkeypatch):
    counted = []
    count = psutil.Process.memory_full_info
    monkeypatch.setattr(psutil.Process, "memory_full_info", lambda each: counted.append(each) or count(each))
    [process] = patches.watched([grow(50_000_000)])
    for size, times in ((0, 1), (0, 1), (100_000_000, 2), (0, 2)):
        exact = count(grow(size))
        told = process.memory_full_info()
        assert told.rss == pytest.approx(exact.rss, rel=0.01)
        assert told.uss == pytest.approx(exact.uss, rel=0.03)
        assert len(counted) == times


def test_a_process_that_has_ended_is_left_out():
    process = subprocess.Popen([sys.executable, "-c", ""])
    seen = psutil.Process(process.pid)
    process.wait()
    assert patches.watched([seen]) == []
