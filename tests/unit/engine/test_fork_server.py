"""A forked job is what its own process would have been, ends with whatever it depends on, and is not needed."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from snakemake import benchmark

from onnxproof.engine import fork_client, fork_server, patches
from onnxproof.places import SCRIPTS

#: Imported by the servers here in place of PyTorch: a script can tell whether that has happened.
MODULE = "this_is_preloaded"
#: How long a test waits for what should be there at once.
PATIENCE_S = 30
CLIENT = Path(fork_client.__file__)

START = f"""
import os, sys
sys.path[0] = {str(SCRIPTS)!r}
from onnxproof.engine.fork_client import VARIABLE
from onnxproof.engine.fork_server import start_server
print(start_server(int(sys.argv[1]), 1, tuple(sys.argv[2:])), os.environ[VARIABLE], flush=True)
sys.stdin.read()
"""

#: What a script can see of how it was started; lists are sorted where their order has no meaning.
SEEN = """
import atexit, gc, json, os, random, signal, sys, tempfile, threading
atexit.register(print, "at the end", flush=True)
open_files = sorted(os.listdir("/proc/self/fd"))
print(json.dumps({
    "name": __name__, "file": __file__, "spec": __spec__, "package": __package__, "globals": sorted(globals()),
    "argv": sys.argv, "path": sys.path, "flags": list(sys.flags), "folder": os.getcwd(), "umask": os.umask(0),
    "environment": dict(os.environ), "temporary": tempfile.gettempdir(),
    "own modules": [name for name in sys.modules if name.startswith("onnxproof")], "open": open_files,
    "main": sys.modules["__main__"].__file__, "threads": threading.active_count(), "gc": gc.isenabled(),
    "input": sys.stdin.read(), "terminal": os.isatty(1), "buffered": sys.stdout.line_buffering,
    "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)],
}))
"""

#: How a script can end, and what it says then.
ENDS = {
    "well": "print('done')",
    "with a status": "import sys; print('unflushed', end=''); sys.exit(3)",
    "with a message": "import sys; sys.exit('no such model')",
    "with an exception": "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise OSError(2) from error",
    "interrupted": "raise KeyboardInterrupt",
    "before it begins": "print('begun')\ndef :\n",
    "killed": "import os; print('begun', flush=True); os.kill(os.getpid(), 9)",
    "aborted": "import os, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()",
    "with a thread": "import threading, time; threading.Thread(target=lambda: (time.sleep(.1), print('last'))).start()",
    "with a full disk": "import os, sys; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); print('lost')",
    "with a status of no number": "import sys; sys.exit([1])",
    "with a temporary folder": "import tempfile; folder = tempfile.TemporaryDirectory(dir='.', prefix='left')",
    "with a warning": "import warnings; warnings.warn('old')",
}


class Starter:
    """A process that has started a server, in a folder of its own, as Snakemake's does."""

    def __init__(self, folder: Path, jobs: int = 100, modules: tuple[str, ...] = (MODULE,)) -> None:
        self.folder = folder
        (folder / f"{MODULE}.py").touch()
        (folder / "starts_a_thread.py").write_text("import threading\nthreading.Thread(target=input).start()\n")
        self.environment = {name: value for name, value in os.environ.items() if name != fork_client.VARIABLE}
        self.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment["PYTHONPATH"] = str(folder)
        self.process = subprocess.Popen(
            ["python", "-c", START, str(jobs), *modules],
            cwd=folder,
            env=self.environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        pid, name = self.process.stdout.readline().split()
        self.server = psutil.Process(int(pid))
        self.environment |= dict.fromkeys(fork_server.THREAD_VARIABLES, "1")
        self.alone = self.environment | {fork_client.VARIABLE: fork_client.OFF}
        self.environment[fork_client.VARIABLE] = name

    def end(self) -> None:
        self.process.communicate()

    def command(self, script: str, *arguments: str) -> list[str]:
        """Write a script and return the command of its job."""
        name = f"script{zlib.crc32(script.encode())}.py"
        (self.folder / name).write_text(script)
        return ["python", str(CLIENT), name, *arguments]

    def run(self, script: str, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
        options = {"cwd": self.folder, "env": self.environment, "input": "given", "timeout": PATIENCE_S} | options
        return subprocess.run(self.command(script, *arguments), text=True, capture_output=True, check=False, **options)

    def start(self, script: str, **options) -> subprocess.Popen[str]:
        """Start a job whose first line is its process id."""
        script = f"import os\nprint(os.getpid(), flush=True)\n{script}"
        options = {"env": self.environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen(self.command(script), cwd=self.folder, text=True, **options)

    def score(self, script: str) -> list[str]:
        """Run a script as the one that scores labelled data; return its parent's process id and what it prints."""
        (self.folder / "score_evaluation.py").write_text(f"import os\nprint(os.getppid())\n{script}")
        command = ["python", str(CLIENT), "score_evaluation.py"]
        options = {"cwd": self.folder, "env": self.environment, "timeout": PATIENCE_S}
        return subprocess.run(command, text=True, capture_output=True, check=True, **options).stdout.split()

    def forks(self, **options) -> bool:
        """Tell whether the server runs a job, and not the job's own process."""
        script = f"import os, sys\nprint(os.getppid(), {MODULE!r} in sys.modules)"
        parent, imported = self.run(script, **options).stdout.split()
        assert (int(parent) == self.server.pid) == (imported == "True")
        return imported == "True"


@pytest.fixture
def starter(tmp_path) -> Iterator[Starter]:
    starter = Starter(tmp_path)
    yield starter
    starter.end()


def pid_of(job: subprocess.Popen[str]) -> int:
    assert job.stdout is not None
    return int(job.stdout.readline())


def wait_until_gone(*pids: int) -> None:
    """Wait until processes have ended; one that nobody has asked for its status counts as ended."""
    deadline = time.monotonic() + PATIENCE_S
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < deadline, f"{pid} is still there"
                time.sleep(0.01)


def wait_until_caught(number: signal.Signals, pid: int) -> None:
    """Wait until a process has a handler for a signal."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        (caught,) = re.findall("SigCgt:\\s+(\\w+)", Path(f"/proc/{pid}/status").read_text())
        if int(caught, 16) >> (number - 1) & 1:
            return
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ------------------------------------------------------------------------------------------- what a job is


def test_a_job_sees_what_it_would_see_alone(starter, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    seen = []
    for environment in (starter.environment, starter.alone):
        job = starter.run(SEEN, "--model", "ä b", env=environment | {"TMPDIR": str(temporary)})
        first, last = job.stdout.splitlines()
        assert (job.stderr, last) == ("", "at the end")
        seen.append(json.loads(first))
        del seen[-1]["environment"][fork_client.VARIABLE]
    assert seen[0] == seen[1]
    assert starter.forks()


@pytest.mark.parametrize("end", ENDS)
def test_a_job_ends_as_it_would_alone(starter, end):
    forked, alone = (starter.run(ENDS[end], env=environment) for environment in (starter.environment, starter.alone))
    assert (forked.returncode, forked.stdout, forked.stderr) == (alone.returncode, alone.stdout, alone.stderr)
    assert list(starter.folder.glob("left*")) == []
    assert starter.forks()


def test_jobs_draw_different_numbers(tmp_path):
    starter = Starter(tmp_path, modules=("random", "numpy", "numpy.random"))
    script = "import numpy, os, random\nprint(random.random(), numpy.random.random(), os.getppid())"
    first, second = (starter.run(script).stdout.split() for _ in range(2))
    starter.end()
    assert int(first[2]) == int(second[2]) == starter.server.pid
    assert first[0] != second[0]
    assert first[1] != second[1]


def test_jobs_run_side_by_side(starter):
    """Each waits for what the other writes."""
    write = "open({!r}, 'w').close()\nwhile not os.path.exists({!r}):\n    pass"
    jobs = [starter.start(write.format(*names)) for names in (("a", "b"), ("b", "a"))]
    assert [job.wait(PATIENCE_S) for job in jobs] == [0, 0]


# ------------------------------------------------------------------------------------- when there is no server


@pytest.mark.parametrize("name", ["PYTHONHASHSEED", "OMP_NUM_THREADS", "HF_HOME"])
def test_a_job_with_another_environment_runs_alone(starter, name):
    assert not starter.forks(env=starter.environment | {name: "2"})
    assert starter.forks()


def test_a_job_with_another_mask_of_permissions_runs_alone(starter):
    assert not starter.forks(umask=0o27)


def test_a_job_in_another_folder_runs_alone(starter, tmp_path):
    command = [*starter.command(f"import sys\nprint({MODULE!r} in sys.modules)")]
    command[2] = str(tmp_path / command[2])
    other = tmp_path / "other"
    other.mkdir()
    job = subprocess.run(command, cwd=other, env=starter.environment, text=True, capture_output=True, check=True)
    assert job.stdout == "False\n"


def test_a_job_with_the_name_of_a_server_that_is_gone_runs_alone(starter):
    starter.end()
    wait_until_gone(starter.server.pid)
    assert not starter.forks()


@pytest.mark.parametrize("modules", [("starts_a_thread",), ("no_such_module",)])
def test_a_server_that_cannot_fork_cleanly_is_not_used(tmp_path, modules):
    starter = Starter(tmp_path, modules=modules)
    assert not starter.forks()
    starter.end()


def test_scoring_imports_more_once_the_first_job_of_it_comes(starter):
    """Arrow, which scikit-learn imports with pandas, would start a thread, and the process could not be forked on."""
    variable, _ = fork_server.ARROW_ALLOCATOR
    tell = f"import os, sys\nprint('sklearn.metrics' in sys.modules, {variable!r} in os.environ)"
    assert starter.run(tell).stdout == "False False\n"
    for _ in range(2):
        assert starter.score("print(len(os.listdir('/proc/self/task')))") == [str(starter.server.pid), "1"]
    assert starter.run(tell).stdout == "True False\n"


def test_a_server_with_a_second_thread_leaves_jobs_to_themselves(starter):
    (starter.folder / "scipy").mkdir()
    (starter.folder / "scipy/__init__.py").touch()
    (starter.folder / "starts_a_thread.py").rename(starter.folder / "scipy/stats.py")
    assert starter.score("print('alone')") == [str(os.getpid()), "alone"]
    wait_until_gone(starter.server.pid)


def test_a_user_can_do_without(monkeypatch):
    monkeypatch.setenv(fork_client.VARIABLE, fork_client.OFF)
    assert fork_server.start_server(3, 1, ()) is None
    assert os.environ[fork_client.VARIABLE] == fork_client.OFF


def test_a_run_within_a_run_has_no_part_in_the_server(monkeypatch):
    """Where it cannot have one of its own, it uses none."""
    monkeypatch.setenv(fork_client.VARIABLE, "of another run")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert fork_server.start_server(3, 1, ()) is None
    assert os.environ[fork_client.VARIABLE] == fork_client.OFF


def test_another_user_neither_gives_jobs_nor_takes_them(monkeypatch):
    """The kernel tells each end who is at the other; to this process, the user at both ends is another one."""
    client, server = socket.socketpair()
    own = fork_client.circumstances()
    content = json.dumps({"arguments": ["script.py"], "environment": {}, "circumstances": own}).encode()

    def request() -> fork_server.Request | None:
        socket.send_fds(client, [fork_client.LENGTH.pack(len(content))], [0, 1, 2])
        client.sendall(content)
        return fork_server.receive_request(server, own)

    taken = request()
    assert taken is not None
    assert (taken.client, taken.arguments) == (os.getpid(), ["script.py"])
    for stream in taken.streams:
        os.close(stream)
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    assert fork_client.own_peer(client) is None
    assert request() is None


# ---------------------------------------------------------------------------------------------- how all ends


def test_a_server_ends_after_its_last_job(tmp_path):
    starter = Starter(tmp_path, jobs=2)
    assert starter.forks()
    assert starter.forks()
    wait_until_gone(starter.server.pid)
    assert not starter.forks()
    starter.end()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_ends_a_job_as_it_would_alone(starter, number):
    script = "import time\ntry:\n    print(1, flush=True)\n    time.sleep(60)\nexcept:\n    print(2)\n    raise"
    ends = []
    for environment in (starter.environment, starter.alone):
        job = starter.start(script, env=environment)
        pid, _ = pid_of(job), pid_of(job)
        wait_until_caught(signal.SIGINT, job.pid)
        time.sleep(0.1)  # until it sleeps
        job.send_signal(number)
        output, errors = job.communicate(timeout=PATIENCE_S)
        wait_until_gone(pid)
        ends.append((job.returncode, output, errors))
    assert ends[0] == ends[1]


def test_a_signal_that_a_job_ignores_does_not_reach_it(starter):
    ignoring = ["bash", "-c", 'trap "" INT; exec "$@"', "-"]
    script = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(.5)\nprint('slept')"
    job = subprocess.Popen(
        [*ignoring, *starter.command(script)],
        cwd=starter.folder,
        env=starter.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    pid_of(job)
    job.send_signal(signal.SIGINT)
    assert job.communicate(timeout=PATIENCE_S)[0] == "slept\n"
    assert job.returncode == 0


def test_a_job_ends_with_its_command_and_so_does_what_it_has_started(starter):
    job = starter.start(
        "import subprocess\nprint((other := subprocess.Popen(['sleep', '60'])).pid, flush=True)\nother.wait()"
    )
    pids = pid_of(job), pid_of(job)
    job.kill()
    wait_until_gone(*pids)
    assert starter.forks()


def test_a_job_ends_with_the_server_and_says_so(starter):
    job = starter.start("import time\ntime.sleep(60)")
    pid = pid_of(job)
    starter.server.kill()
    errors = job.communicate(timeout=PATIENCE_S)[1]
    wait_until_gone(pid)
    assert job.returncode == 1
    assert errors == "error: the process that had imported PyTorch was ended; the next run goes on from here\n"
    assert not starter.forks()


def test_server_and_jobs_end_with_the_process_that_started_it(starter):
    job = starter.start(
        "import subprocess\nprint((other := subprocess.Popen(['sleep', '60'])).pid, flush=True)\nother.wait()"
    )
    pids = pid_of(job), pid_of(job)
    starter.process.kill()
    wait_until_gone(*pids, starter.server.pid)
    assert job.wait(PATIENCE_S) != 0


# ------------------------------------------------------------------------------------------ what it is counted as


def test_snakemake_counts_what_a_forked_job_takes(starter, monkeypatch):
    monkeypatch.setattr(benchmark, "BenchmarkTimer", benchmark.BenchmarkTimer)  # to be put back
    assert patches.count_forked_jobs()
    script = "import time\nfilled = bytearray(200_000_000)\nwhile time.process_time() < 1:\n    pass"
    record = benchmark.BenchmarkRecord()
    job = subprocess.Popen(
        ["bash", "-c", 'python "$@" && true', "-", *starter.command(script)[1:]],
        cwd=starter.folder,
        env=starter.environment,
    )
    with benchmark.benchmarked(job.pid, record):
        assert job.wait(PATIENCE_S) == 0
    assert record.max_rss > 200_000_000 / 2**20
    assert record.cpu_time > 0.1


def test_in_another_version_of_snakemake_nothing_would_be_counted(monkeypatch):
    before = benchmark.BenchmarkTimer
    monkeypatch.setattr(patches, "SNAKEMAKE", "9.28.0")
    assert not patches.count_forked_jobs()
    assert benchmark.BenchmarkTimer is before
