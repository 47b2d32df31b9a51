"""Start a script of ours without importing PyTorch for it: as a child of the process that has done so for all jobs.

A rule runs ``python fork_client.py SCRIPT ARGUMENT…``. Without such a process, see ``fork_server``, and wherever it is
not the one for this job, Python starts the script as if its name had been the first: nothing depends on it.

Standard library only, and little of it: every job of some rules starts here.
"""

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import sys
from typing import Any

#: Names the process, in the environment of jobs. Set to ``OFF`` by the user, no such process is started.
VARIABLE = "ONNXPROOF_FORK_SERVER"
OFF = "off"
#: What ends a job, or tells it to end itself.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
#: What a shell sets for itself, and where temporary files go, which Python asks for when it needs one.
OF_NO_MATTER = frozenset({"_", "SHLVL", "PWD", "OLDPWD", "TMPDIR", "TMP", "TEMP", "TEMPDIR"})
#: Comes before a request: its length in bytes, and with it the standard streams.
LENGTH = struct.Struct("!I")
STARTED = b"+"
#: What Linux tells of the other end of a connection: its process, user and group.
PEER = struct.Struct("3i")


def circumstances() -> dict[str, Any]:
    """Return what must be the same of two processes, for one to do the other's work."""
    settings = {name: value for name, value in os.environ.items() if name not in OF_NO_MATTER}
    mask = os.umask(0o77)
    os.umask(mask)
    folder = os.getcwd()  # noqa: PTH109 - the start of pathlib takes longer than all else here
    return {"python": sys.executable, "folder": folder, "umask": mask, "environment": settings}


def address_of(name: str) -> str:
    """Return the address of a server's socket: in Linux's abstract name space, where nothing is left behind."""
    return f"\0onnxproof-{name}"


def job_name(client: int) -> str:
    """Return what a forked process is called in lists of processes, by the process id of its client."""
    return f"job of {client}"


def own_peer(connection: socket.socket) -> int | None:
    """Return the id of the process at the other end, if it is the same user's: an abstract address has no owner."""
    pid, user, _ = PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
    return pid if user == os.getuid() else None


def ask_server(arguments: list[str]) -> socket.socket | None:
    """Ask the server to run a script; return the connection to it, or None where there is no server for this job."""
    name = os.environ.get(VARIABLE, OFF)
    if name == OFF:
        return None
    own = {name: os.environ[name] for name in OF_NO_MATTER & os.environ.keys()}
    request = {"arguments": arguments, "environment": own, "circumstances": circumstances()}
    content = json.dumps(request).encode()
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address_of(name))
        if own_peer(connection) is not None:
            socket.send_fds(connection, [LENGTH.pack(len(content))], [0, 1, 2])
            connection.sendall(content)
            if connection.recv(1) == STARTED:  # until then, the server may be importing
                return connection
    except OSError:  # it has ended, or a stream is closed
        pass
    connection.close()
    return None


def wait_for(connection: socket.socket) -> int:
    """Pass on signals until the job has ended; return its exit status, or end as it was ended: by a signal."""

    def pass_on(number: int, _: Any) -> None:
        with contextlib.suppress(OSError):  # the server has ended
            connection.send(bytes([number]))

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    answer = b""
    with contextlib.suppress(OSError):
        answer = connection.recv(16)
    if not answer:
        print("error: the process that had imported PyTorch was ended; the next run goes on from here", file=sys.stderr)
        return 1
    status = os.waitstatus_to_exitcode(int(answer))
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the job itself has left one, where they are wanted
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def main(arguments: list[str]) -> int:
    """Run a script with its arguments; return its exit status."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing has begun: end without a traceback
    connection = ask_server(arguments)
    if connection is None:
        os.execv(sys.executable, [sys.executable, *arguments])
    return wait_for(connection)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
