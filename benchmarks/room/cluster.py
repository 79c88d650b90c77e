"""A Ray cluster of plain processes on this machine: a head and nodes that can be killed like machines, nothing of which
outlives the program that has started it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

MARK = "RAY_ROOM_MARK"  # in the environment of every process of a cluster: it also finds those whose parent is gone
STORE_BYTES = 100 << 20  # of each node's object store
HOST = "127.0.0.1"


class Cluster:
    """A head without logical CPUs, so that it computes nothing, and any number of nodes; use `with`.

    Everything that it has started ends with it, and with this program, however that ends.
    """

    def __init__(self, variables: Mapping[str, str] | None = None):
        """Starts the head.

        Args:
          variables: more of the environment of everything that runs in the cluster.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="room-", dir="/tmp"))  # short: it is in the names of sockets
        self.mark, self._nodes = secrets.token_hex(8), 0
        token = self.folder / "token"
        token.write_text(secrets.token_hex(32))
        own = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": str(self.folder),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        self.environment = os.environ | own | dict(variables or {})
        self._watch = watch(self.mark, self.folder)
        try:
            self.address = f"{HOST}:{free_port()}"
            port = self.address.rpartition(":")[2]
            self._start("head", "--head", "--port", port, "--num-cpus", "0", "--include-dashboard", "false")
        except BaseException:
            self.close()
            raise

    def add_node(self, cpus: int) -> str:
        """Starts a node of so many logical CPUs and waits until it has joined; its name."""
        self._nodes += 1
        name = f"node-{self._nodes}"
        self._start(name, "--address", self.address, "--num-cpus", str(cpus))
        return name

    def popen(self, command: list[str], log: Path) -> subprocess.Popen:
        """A program of the cluster, such as a driver."""
        with log.open("ab") as file:
            environment = self.environment | {MARK: f"{self.mark}:driver"}
            return subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)

    def kill_node(self, name: str) -> int:
        """Kills all processes of a node at once, as when its machine fails; how many there were."""
        pids = list(marked(f"{self.mark}:{name}"))
        kill(pids)
        return len(pids)

    def processes(self) -> dict[int, str]:
        """Every process of the cluster, and of which part it is: "head", "node-1", ..., "driver"."""
        return {pid: mark.partition(":")[2] for pid, mark in marked(self.mark).items()}

    def close(self) -> None:
        self._watch.communicate()  # closes its input

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, name: str, *options: str) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options]
        command += ["--node-ip-address", HOST, "--object-store-memory", str(STORE_BYTES), "--num-gpus", "0"]
        command += ["--disable-usage-stats", "--include-log-monitor", "false"]
        if name == "head":
            command += ["--temp-dir", str(self.folder)]
        environment = self.environment | {MARK: f"{self.mark}:{name}"}
        log = self.folder / f"{name}.log"
        with log.open("wb") as file:
            done = subprocess.run(command, env=environment, stdout=file, stderr=file, start_new_session=True)
        if done.returncode:
            raise RuntimeError(f"{name} did not start:\n{log.read_text()}")


def marked(mark: str) -> dict[int, str]:
    """The processes with this beginning of a mark, and their whole marks."""
    wanted, found = f"{MARK}={mark}".encode(), {}
    for pid in running():
        try:
            variables = Path("/proc", str(pid), "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        for variable in variables:
            if variable.startswith(wanted):
                found[pid] = variable.partition(b"=")[2].decode()
    return found


def running() -> Iterator[int]:
    return (int(process.name) for process in Path("/proc").glob("[0-9]*"))


def kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def free_port() -> int:
    with socket.socket() as server:
        server.bind((HOST, 0))
        return server.getsockname()[1]


def watch(mark: str, folder: Path) -> subprocess.Popen:
    """A process that kills all that have the mark, and removes the folder, as soon as its standard input ends: when
    this program closes it, or has ended in whatever way."""
    return subprocess.Popen(
        [sys.executable, __file__, mark, str(folder)], stdin=subprocess.PIPE, start_new_session=True
    )


def keep_watch(mark: str, folder: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdin.read()
    while left := list(marked(mark)):
        kill(left)
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    keep_watch(sys.argv[1], Path(sys.argv[2]))
