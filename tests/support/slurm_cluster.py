"""A Slurm cluster of one node, this machine, made of Debian's packages and gone without a trace afterwards.

Needs root, and: apt-get install slurmctld slurmd slurm-client slurmdbd munge mariadb-server
All daemons listen on 127.0.0.1, and everything they write lies in one folder; only /etc/slurm, where Slurm's
commands look for their configuration, is replaced by a link to it for as long as the cluster lives.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sbatch", "sacctmgr")
SYSTEM_CONFIG = Path("/etc/slurm")
ACCOUNT = "onnxproof"
CPUS = 2
#: What the node is asked for by: to the scheduler it is of both kinds.
FEATURES = ("icelake", "genoa")

SLURM_CONF = """\
ClusterName=onnxproof
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/munge.socket
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={accounting_port}
AccountingStoragePass={folder}/munge/munge.socket
AccountingStoreFlags=job_comment
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MpiDefault=none
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Feature={features} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""
SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={accounting_port}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm
"""
CGROUP_CONF = """\
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=no
ConstrainRAMSpace=yes
"""


def why_not() -> str | None:
    """Return why no cluster can be started here, or None."""
    if os.geteuid() != 0:
        return "starting Slurm's daemons needs root"
    missing = [name for name in PROGRAMS if shutil.which(name, path=search_path()) is None]
    if missing:
        return f"{', '.join(missing)} not found (Debian: slurmctld slurmd slurm-client slurmdbd munge mariadb-server)"
    if not Path("/sys/fs/cgroup/memory").is_dir():
        return "Slurm 22.05 bounds memory through cgroup v1, which this system does not have"
    if SYSTEM_CONFIG.is_symlink() or (SYSTEM_CONFIG / "slurm.conf").exists():
        return f"{SYSTEM_CONFIG} belongs to another cluster"
    return None


def search_path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class SlurmCluster:
    """A running cluster, as a context manager."""

    def __init__(self, folder: Path, memory_mb: int):
        self.folder = folder
        self.host = socket.gethostname()
        self.daemons: list[tuple[str, subprocess.Popen]] = []
        self.saved_config = folder / "etc-slurm-of-the-package"
        names = ("controller_port", "node_port", "accounting_port", "database_port")
        self.settings = dict(zip(names, free_ports(len(names)), strict=True)) | {
            "folder": folder,
            "host": self.host,
            "cpus": CPUS,
            "features": ",".join(FEATURES),
            "memory": memory_mb,
            "password": secrets.token_hex(8),
        }

    def __enter__(self) -> Self:
        try:
            self._configure()
            self._start_munge()
            self._start_accounting()
            self._daemon("slurmctld", "-D", "-i")
            self._until("the controller answers", lambda: self.run("scontrol", "ping").returncode == 0)
            self._daemon("slurmd", "-D")
            self._until("the node is idle", lambda: "idle" in self.run("sinfo", "-h", "-o", "%T").stdout)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, process in reversed(self.daemons):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if SYSTEM_CONFIG.is_symlink():
            SYSTEM_CONFIG.unlink()
        if self.saved_config.exists():
            shutil.move(self.saved_config, SYSTEM_CONFIG)

    def run(self, *command: str) -> subprocess.CompletedProcess:
        """Run one of Slurm's commands."""
        return subprocess.run(
            command, env=os.environ | {"PATH": search_path()}, capture_output=True, text=True, timeout=60, check=False
        )

    def drain(self) -> None:
        self.run("scontrol", "update", f"NodeName={self.host}", "State=DRAIN", "Reason=test").check_returncode()

    def resume(self) -> None:
        self.run("scontrol", "update", f"NodeName={self.host}", "State=RESUME").check_returncode()

    def jobs(self) -> list[dict[str, str]]:
        """Return what the accounting knows of each job: memory in bytes where it is memory."""
        names = ("JobID", "State", "ReqCPUS", "ReqMem", "MaxRSS", "Timelimit", "ElapsedRaw", "Comment", "Constraints")
        table = self.run("sacct", "-a", "-n", "-P", "--noconvert", "-o", ",".join(names), "-S", "now-1day")
        return [dict(zip(names, line.split("|"), strict=True)) for line in table.stdout.splitlines()]

    def _configure(self) -> None:
        for name in ("state", "spool", "munge", "conf"):
            (self.folder / name).mkdir(parents=True)
        for name, text in (
            ("slurm.conf", SLURM_CONF),
            ("slurmdbd.conf", SLURMDBD_CONF),
            ("cgroup.conf", CGROUP_CONF),
        ):
            path = self.folder / "conf" / name
            path.write_text(text.format(**self.settings))
            path.chmod(0o600)
        if SYSTEM_CONFIG.exists():
            shutil.move(SYSTEM_CONFIG, self.saved_config)
        SYSTEM_CONFIG.symlink_to(self.folder / "conf")

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        self._daemon(
            "munged",
            "--foreground",
            "--force",
            f"--socket={folder}/munge.socket",
            f"--key-file={key}",
            f"--pid-file={folder}/munged.pid",
            f"--seed-file={folder}/munged.seed",
            f"--log-file={folder}/munged.log",
        )
        self._until("munge answers", (folder / "munge.socket").exists)

    def _start_accounting(self) -> None:
        data, begin = self.folder / "database", self.folder / "begin.sql"
        password = self.settings["password"]
        begin.write_text(
            "CREATE DATABASE IF NOT EXISTS slurm;\n"
            f"CREATE USER IF NOT EXISTS 'slurm'@'%' IDENTIFIED BY '{password}';\n"
            f"CREATE USER IF NOT EXISTS 'slurm'@'localhost' IDENTIFIED BY '{password}';\n"
            "GRANT ALL ON slurm.* TO 'slurm'@'%';\nGRANT ALL ON slurm.* TO 'slurm'@'localhost';\n"
        )
        self.run("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}").check_returncode()
        self._daemon(
            "mariadbd",
            "--no-defaults",
            "--user=root",
            f"--datadir={data}",
            f"--socket={data}/socket",
            f"--pid-file={data}/pid",
            "--bind-address=127.0.0.1",
            f"--port={self.settings['database_port']}",
            f"--init-file={begin}",
        )
        self._until("the database answers", lambda: self._listens("database_port"))
        self._daemon("slurmdbd", "-D")
        self._until("the accounting answers", lambda: self._listens("accounting_port"))
        for entity in (
            ("cluster", "onnxproof"),
            ("account", ACCOUNT, "Description=test", "Organization=test"),
            ("user", "root", f"Account={ACCOUNT}"),
        ):
            self._until(
                f"the accounting knows the {entity[0]}",
                lambda entity=entity: self.run("sacctmgr", "-i", "add", *entity).returncode in (0, 1),
            )

    def _listens(self, port: str) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.settings[port])) == 0

    def _daemon(self, *command: str) -> None:
        log = (self.folder / f"{command[0]}.out").open("w")
        process = subprocess.Popen(
            command, env=os.environ | {"PATH": search_path()}, stdout=log, stderr=subprocess.STDOUT
        )
        self.daemons.append((command[0], process))

    def _until(self, what: str, is_so: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            for name, process in self.daemons:
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended: {(self.folder / f'{name}.out').read_text()[-2000:]}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"waited {seconds} s in vain until {what}; see {self.folder}")
            time.sleep(0.2)
