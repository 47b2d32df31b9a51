"""Imports PyTorch and transformers once, and forks a process for each job that needs them.

Most of what a job of a small model takes is these imports. ``start_server`` is called by the process of Snakemake, and
``fork_client`` in place of each job. A forked process is what the job's own would have been, apart from what is
imported:

- it has the arguments, standard streams and environment of the client; the server takes no job whose interpreter,
  folder or environment differ from its own: Python's hash seed, numbers of threads and settings of libraries are read
  when they start;
- our own code is imported after the fork, so that it is what lies on the disk then;
- the server has one thread, so that no lock is held and no pool of threads is lost at the fork.

A job ends with its client, and all jobs with the server; the server ends with the process that started it, which holds
the other end of its standard input, and after the last job that it was started for.
"""

import atexit
import builtins
import contextlib
import ctypes
import gc
import importlib
import json
import os
import secrets
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(SCRIPTS)  # as in the jobs

from onnxproof.engine.fork_client import LENGTH, OFF, STARTED, VARIABLE, address_of, circumstances, job_name, own_peer  # noqa: E402

#: What the jobs import.
MODULES = ("onnxproof.original.preloaded",)
#: What jobs of a script import besides, once the first of them is asked for: the others need not wait for it.
MODULES_OF_SCRIPTS = {"score_evaluation.py": ("scipy.stats", "sklearn.metrics")}
#: For the allocator of Arrow, which scikit-learn imports with pandas: it would start a thread.
ARROW_ALLOCATOR = ("JE_ARROW_MALLOC_CONF", "background_thread:false")
#: Read by libraries when they are loaded; Snakemake sets them for each job.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
#: A client sends its request at once; one that does not is stopped, or no client.
REQUEST_TIMEOUT_S = 5
#: Of prctl(2): the signal that a process gets when its parent ends.
PR_SET_PDEATHSIG = 1

#: Servers that this process has started; each ends when its standard input does.
_HELD: list[subprocess.Popen[bytes]] = []


@dataclass
class Job:
    """A forked process, a file descriptor that can be read once it has ended, and the connection to its client."""

    pid: int
    ended: int
    client: socket.socket | None

    def obey(self) -> None:
        """Pass on a signal from the client; where it is the client that has ended, kill the process."""
        assert self.client is not None
        number = b""
        with contextlib.suppress(OSError):
            number = self.client.recv(1)
        if not number:
            self.client.close()
            self.client = None
        self.kill(number[0] if number else signal.SIGKILL)

    def kill(self, number: int) -> None:
        """Send a signal to the process and to those that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def finish(self) -> None:
        """Tell the client how the process has ended."""
        status = os.waitpid(self.pid, 0)[1]
        if self.client is not None:
            tell(self.client, str(status).encode())
        self.close()

    def close(self) -> None:
        """Let go of the process and of the client."""
        os.close(self.ended)
        if self.client is not None:
            self.client.close()


@dataclass(frozen=True)
class Request:
    """What a client asks for: its process id and standard streams, the script and its arguments, and variables."""

    client: int
    streams: list[int]
    arguments: list[str]
    environment: dict[str, str]


def start_server(jobs: int, threads: int, modules: tuple[str, ...] = MODULES) -> int | None:
    """Start a server for the jobs that this process will start; return its process id.

    It is named in this process's environment. Where it cannot be had, or the user does not want it, nothing happens.

    Args:
        jobs: after how many of them it ends.
        threads: what each of them is allowed to use.
        modules: what it imports.
    """
    wanted = os.environ.get(VARIABLE) != OFF  # any other value is that of a run that started this one
    os.environ[VARIABLE] = OFF
    if not wanted or sys.platform != "linux":
        return None
    name = secrets.token_hex(16)
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address_of(name))
        listener.listen(1024)
        server = subprocess.Popen(
            ["python", __file__, str(listener.fileno()), str(jobs), *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, VARIABLE: name, **dict.fromkeys(THREAD_VARIABLES, str(threads))},
            pass_fds=[listener.fileno()],
            start_new_session=True,  # Ctrl-C reaches the clients, which pass it on
        )
        os.environ[VARIABLE] = name
        _HELD.append(server)
        return server.pid
    return None


def receive_request(client: socket.socket, own: dict[str, Any]) -> Request | None:
    """Return what a client asks for; None where its circumstances are not the server's own."""
    streams: list[int] = []
    try:
        client.settimeout(REQUEST_TIMEOUT_S)
        pid = own_peer(client)
        if pid is None:
            return None
        length, streams, *_ = socket.recv_fds(client, LENGTH.size, 3)
        with client.makefile("rb") as content:
            request = json.loads(content.read(*LENGTH.unpack(length)))
        if request["circumstances"] == own:
            return Request(pid, streams, request["arguments"], request["environment"])
    except (OSError, ValueError, struct.error):
        pass
    for stream in streams:
        os.close(stream)
    return None


def import_modules(modules: Iterable[str]) -> None:
    """Import what a job would; nothing of it is ever collected as garbage, so that forked processes share it."""
    name, setting = ARROW_ALLOCATOR
    is_ours = name not in os.environ
    os.environ.setdefault(name, setting)
    for module in modules:
        importlib.import_module(module)
    if is_ours:
        del os.environ[name]
    gc.freeze()


def can_be_forked() -> bool:
    """Return whether this process has one thread: another would be missing in the forked one, and its locks held."""
    return len(list(Path("/proc/self/task").iterdir())) == 1


def prepare_for(script: str) -> bool:
    """Import what jobs of a script import besides; return whether this process can still be forked."""
    missing = [name for name in MODULES_OF_SCRIPTS.get(Path(script).name, ()) if name not in sys.modules]
    if missing:
        with contextlib.suppress(ModuleNotFoundError):  # the job will say so, if it needs it
            import_modules(missing)
    return can_be_forked()


def become_job(request: Request, server: int) -> None:
    """Make this process, which was just forked, what Python makes of a new one."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:  # it ended before it could be told
        os._exit(1)
    Path("/proc/self/comm").write_text(job_name(request.client))
    for number, stream in enumerate(request.streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    os.environ.update(request.environment)
    tempfile.tempdir = None
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # from the system, as at its import; random does so by itself
    gc.enable()


def tell(client: socket.socket, message: bytes) -> None:
    """Send a few bytes to a client, if it is still there."""
    with contextlib.suppress(OSError):
        client.send(message)


def fork() -> int | None:
    """Fork this process; return None if there is no room for another."""
    try:
        return os.fork()
    except OSError:
        return None


def serve(listener: socket.socket, jobs: int, own: dict[str, Any]) -> list[str] | None:
    """Fork a process for each client, and tell the client how it ended.

    Args:
        listener: where clients connect.
        jobs: after how many of them to end.
        own: the circumstances in which this process was started.

    Returns:
        In a forked process, the script to run and its arguments; in the server None, when it is to end.
    """
    server = os.getpid()
    running: list[Job] = []
    while jobs > 0 or running:
        clients = [job.client for job in running if job.client is not None]
        sources: list[Any] = [0, listener, *clients, *(job.ended for job in running)]
        ready = select.select(sources, [], [])[0]
        if 0 in ready:  # nobody writes to it: whoever started this process has ended
            break
        for job in running:
            if job.client in ready:
                job.obey()
            if job.ended in ready:
                job.finish()
        running = [job for job in running if job.ended not in ready]
        if listener not in ready:
            continue
        client = listener.accept()[0]
        request = receive_request(client, own)
        is_clean = request is None or prepare_for(request.arguments[0])
        if not is_clean:
            jobs = 0
        pid = fork() if request is not None and is_clean else None
        if request is not None and pid == 0:
            os.setpgid(0, 0)
            for job in running:
                job.close()
            listener.close()
            client.close()
            become_job(request, server)
            return request.arguments
        for stream in request.streams if request is not None else ():
            os.close(stream)
        if pid is None:
            client.close()  # it then does without
            continue
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)  # whichever of both comes first
        running.append(Job(pid, os.pidfd_open(pid), client))
        jobs -= 1
        tell(client, STARTED)
    for job in running:
        job.kill(signal.SIGKILL)
    return None


def run_as_main(arguments: list[str]) -> None:
    """Run a script as Python runs the one on its command line, with our own modules as they are on the disk now.

    The exceptions that leave this function are those that Python itself tells the user of.
    """
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(f"{SCRIPTS}{os.sep}"):
            del sys.modules[name]
    importlib.invalidate_caches()
    script = os.path.abspath(arguments[0])  # noqa: PTH100 - as Python does, which follows no link
    sys.argv = arguments
    sys.path[0] = str(Path(script).resolve().parent)
    sys.excepthook = show_exception
    main = types.ModuleType("__main__")
    loader = SourceFileLoader("__main__", script)
    vars(main).update(__file__=script, __loader__=loader, __builtins__=builtins, __cached__=None, __annotations__={})
    sys.modules["__main__"] = main
    status = 0
    try:
        exec(compile(loader.get_data(script), script, "exec", dont_inherit=True), vars(main))
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        status = ended.code or 0
    leave(status)


def leave(status: int) -> None:
    """End this process as Python does, but let its memory go as a whole: module by module that takes 0.4 s.

    As in the processes of ``multiprocessing``, files that nobody has closed are not flushed. Where standard output
    cannot be written, this function returns, and Python tells that.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):  # of which Python will tell
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def show_exception(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    """Show an exception that nobody caught as Python does, without the functions of this file."""
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)


def main(descriptor: int, jobs: int, modules: list[str]) -> None:
    """Import modules and serve; in a forked process, run the job."""
    own = circumstances()  # before an import sets a variable
    gc.disable()  # what is imported stays
    import_modules(modules)
    if not can_be_forked():
        os._exit(1)
    arguments = serve(socket.socket(fileno=descriptor), jobs, own)
    if arguments is None:
        os._exit(0)  # nothing is to be tidied up
    run_as_main(arguments)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
