"""A Slurm cluster on this machine: munge, a controller and two nodes of one core each."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

COMMANDS = {
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
}
"""What it needs, and Debian's packages of it."""

NODES = ("n1", "n2")

SETTINGS = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
# Without control groups, which a container may not have; the machine may have fewer cores.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0
KillWait=5
ReturnToService=2
# As on most clusters jobs begin again by themselves unless they ask not to.
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[2]}] CPUs=1
PartitionName=main Nodes=ALL Default=YES PriorityTier=1
PartitionName=urgent Nodes=ALL PriorityTier=2
"""


class Cluster:
    """Its daemons; ``SLURM_CONF`` in the environment makes Slurm's commands speak to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start everything.

        Raises:
            TimeoutError: if it does not come up.
        """
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self._run(
            "munged",
            *("--foreground", "--force", f"--socket={self.folder}/munge.socket"),
            *(
                f"--{name}-file={self.folder}/munge.{name}"
                for name in ("key", "pid", "log", "seed")
            ),
        )
        wait(lambda: (self.folder / "munge.socket").exists())
        settings = SETTINGS.format(
            host=socket.gethostname().split(".")[0],
            user=getpass.getuser(),
            folder=self.folder,
            ports=_free_ports(3),
        )
        (self.folder / "slurm.conf").write_text(settings)
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        wait(lambda: self.say("sinfo", "--noheader", "--format=%T") == "idle")

    def start_controller(self) -> None:
        """Start slurmctld, with what it knew."""
        self._run("slurmctld", "-D")
        wait(lambda: "UP" in self.say("scontrol", "ping"))

    def start_node(self, node: str) -> None:
        """Start its slurmd."""
        self._run("slurmd", "-D", "-N", node, called=node)

    def stop_controller(self) -> None:
        """Have slurmctld write down what it knows, and end."""
        self._running["slurmctld"].terminate()
        self._running.pop("slurmctld").wait()

    def kill(self, called: str) -> None:
        """Kill a daemon; a node's jobs live on."""
        daemon = self._running.pop(called)
        daemon.kill()
        daemon.wait()

    def revive(self, node: str) -> None:
        """Have a node that was downed back."""
        if node not in self._running:
            self.start_node(node)
        self.say("scontrol", "update", f"nodename={node}", "state=resume")

    def jobs(self, states: str = "RUNNING") -> list[tuple[str, str]]:
        """Jobs and their nodes."""
        said = self.say("squeue", "--noheader", "--array", f"--states={states}", "--format=%i|%N")
        return [(job, node) for job, node in (line.split("|") for line in said.splitlines())]

    def say(self, *command: str) -> str:
        """What a command of Slurm's answers; nothing if it fails."""
        answer = subprocess.run(command, capture_output=True, text=True)
        return answer.stdout.strip() if answer.returncode == 0 else ""

    def stop(self) -> None:
        """End all jobs and daemons."""
        if "slurmctld" in self._running:
            for job, _ in self.jobs("all"):
                self.say("scancel", "--signal=KILL", "--full", job)
                self.say("scancel", job)
            wait(lambda: not self.jobs("RUNNING,COMPLETING,PENDING"))
        for called in reversed(list(self._running)):
            self.kill(called)

    def _run(self, *command: str, called: str | None = None) -> None:
        name = called or command[0]
        with (self.folder / f"{name}.said").open("ab") as said:
            self._running[name] = subprocess.Popen(command, stdout=said, stderr=said)


def missing() -> list[str]:
    """Debian's packages that a cluster lacks here."""
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
    return [debian for name, debian in COMMANDS.items() if not shutil.which(name, path=path)]


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster for the block, in which Slurm's commands speak to it."""
    before = os.environ.copy()
    # A socket's path is short; pytest's folders are not.
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        os.environ["SLURM_CONF"] = f"{folder}/slurm.conf"
        os.environ["PATH"] += os.pathsep + "/usr/sbin"
        made = Cluster(Path(folder))
        try:
            made.start()
            yield made
        finally:
            made.stop()
            os.environ.clear()
            os.environ.update(before)


def wait(until: Callable[[], object], seconds: float = 30) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: if it does not in time.
    """
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} seconds")
        time.sleep(0.05)


def _free_ports(count: int) -> list[int]:
    """Ports in a row that nobody listens on."""
    for first in range(17820, 18820, count):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for port, opened in enumerate(sockets, first):
                opened.bind(("127.0.0.1", port))
            return list(range(first, first + count))
        except OSError:
            continue
        finally:
            for opened in sockets:
                opened.close()
    raise TimeoutError("no free ports")


if __name__ == "__main__" and (lacking := missing()):
    sys.exit(f"no Slurm cluster can be had here; Debian: apt install {' '.join(lacking)}")
