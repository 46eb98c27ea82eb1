"""The servers that are measured: real processes, started here and ended by their own process id.

`peernode` daemons of this checkout, of another one where asked for (to see what a change brought), and Redis where it
is installed. All of one round write to the same file system.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from typing import Protocol

from ..e2e.daemons import Daemon
from ..waiting import wait_until
from .wires import MessagePackRpc, Resp, Wire

ROOT = Path(__file__).parents[2]
REDIS = "redis-server"
START_S = 60.0


class Server(Protocol):
    """One running process. `path`: its Unix socket."""

    @property
    def path(self) -> Path: ...
    @property
    def pid(self) -> int: ...


class Kind(Protocol):
    """One kind of server, a column of the tables."""

    @property
    def name(self) -> str: ...
    @property
    def wire(self) -> Wire: ...

    def start(self, home: Path, count: int, started: list[Server]) -> None:
        """Add as many as asked for, in an empty folder: what the first one takes reaches all others."""
        ...

    def stop(self, server: Server) -> None: ...
    def start_command(self, home: Path) -> tuple[list[str], str]:
        """A command that starts one and the word in the line on stdout that says that it is ready."""
        ...

    def get_command(self, server: Server, key: str) -> list[str]:
        """What a shell user types to read a key."""
        ...


@dataclass(frozen=True)
class Peernode:
    """`tree`: the checkout that it runs from."""

    name: str
    tree: Path
    wire: Wire = field(default_factory=MessagePackRpc)

    @property
    def _prefix(self) -> tuple[str, ...]:
        return ("env", f"PYTHONPATH={self.tree}")

    def start(self, home: Path, count: int, started: list[Server]) -> None:
        nodes = [Node(home, f"n{number}") for number in range(1, count + 1)]
        started += nodes
        nodes[0].start(prefix=self._prefix)
        for node in nodes[1:]:
            node.launch("--seed", nodes[0].address, prefix=self._prefix)
        wait_until(lambda: all(alive_in(node) == count for node in nodes), START_S, "the cluster")

    def stop(self, server: Server) -> None:
        assert isinstance(server, Daemon)
        if server.process is not None:
            server.kill()

    def start_command(self, home: Path) -> tuple[list[str], str]:
        command = [*self._prefix, f"PEERNODE_HOME={home}", sys.executable, "-P", "-m", "peernode", "run"]
        return [*command, "--name", "n1", "--listen", "127.0.0.1:0"], "ready "

    def get_command(self, server: Server, key: str) -> list[str]:
        python = [*self._prefix, sys.executable, "-P", "-m", "peernode"]
        return [*python, "get", key, "--socket", str(server.path)]


class Node(Daemon):
    """A daemon, addressed like every server here."""

    @property
    def path(self) -> Path:
        return self.folder / "sock"


def alive_in(node: Node) -> int:
    """How many members this node says are alive."""
    assert node.process is not None and node.process.poll() is None, node.log.read_text()
    if not node.path.exists():
        return 0
    with node.connect(timeout_s=30) as client:
        return sum(1 for member in client.members() if member["state"] == "alive")


class RedisProcess:
    """`port` 0: no replication."""

    def __init__(self, folder: Path, port: int, primary_port: int | None) -> None:
        folder.mkdir(parents=True)
        self.path = folder / "sock"
        self._sign = b"role:master" if primary_port is None else b"master_link_status:up"
        options = redis_options(folder, port)
        if primary_port is not None:
            options += ["--replicaof", "127.0.0.1", str(primary_port)]
        with (folder / "log").open("w") as log:
            self._process = subprocess.Popen([REDIS, *options], stdout=log, stderr=log)

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_ready(self) -> bool:
        assert self._process.poll() is None, (self.path.parent / "log").read_text()
        try:
            return self._sign in self._ask(b"INFO replication\r\n")
        except (FileNotFoundError, ConnectionRefusedError):
            return False

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _ask(self, question: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(self.path))
            sock.sendall(question)
            return sock.recv(1 << 16)


def redis_options(folder: Path, port: int) -> list[str]:
    """Durable as peernode is: an answer to a write comes after the sync of its log."""
    return [
        *("--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(folder / "sock")),
        *("--dir", str(folder), "--save", "", "--appendonly", "yes", "--appendfsync", "always"),
        *("--repl-diskless-sync-delay", "0"),
    ]


@dataclass(frozen=True)
class Redis:
    name: str
    wire: Wire = field(default_factory=Resp)

    def start(self, home: Path, count: int, started: list[Server]) -> None:
        ports = free_ports(count) if count > 1 else [0]
        for number, port in enumerate(ports):
            process = RedisProcess(home / f"redis{number}", port, ports[0] if number else None)
            started.append(process)
            wait_until(process.is_ready, START_S, "Redis")

    def stop(self, server: Server) -> None:
        assert isinstance(server, RedisProcess)
        server.stop()

    def start_command(self, home: Path) -> tuple[list[str], str]:
        return [REDIS, *redis_options(home, 0)], "to accept connections"

    def get_command(self, server: Server, key: str) -> list[str]:
        return ["redis-cli", "-s", str(server.path), "get", key]


def kinds(other_tree: Path | None) -> list[Kind]:
    """This build, the other one if there is one, and Redis if it is there."""
    found: list[Kind] = [Peernode("peernode", ROOT)]
    if other_tree is not None:
        found.append(Peernode(f"peernode in {other_tree.name}", other_tree))
    if shutil.which(REDIS) is not None:
        found.append(Redis(f"Redis {redis_version()}"))
    return found


def redis_version() -> str:
    told = subprocess.run([REDIS, "--version"], capture_output=True, text=True, check=True).stdout
    return next(word[2:] for word in told.split() if word.startswith("v="))


@contextmanager
def running(kind: Kind, home: Path, count: int = 1) -> Iterator[list[Server]]:
    """Servers of one kind in an empty folder, which is gone afterwards."""
    home.mkdir(parents=True)
    servers: list[Server] = []
    try:
        kind.start(home, count, servers)
        yield servers
    finally:
        for server in servers:
            kind.stop(server)
        shutil.rmtree(home)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


# What the kernel says of a process


def cpu_s(pid: int) -> float:
    """CPU time of all threads of a process, to the nanosecond (clock_getcpuclockid(3): `MAKE_PROCESS_CPUCLOCK`)."""
    return time.clock_gettime((~pid << 3) | 2)


def resident_mib(pid: int) -> float:
    """Resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} has no VmRSS")


def seconds_until(command: list[str], word: str) -> float:
    """Start a command, wait for a line with this word, and end it."""
    began_s = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        patience = Timer(START_S, process.kill)
        patience.start()
        try:
            assert process.stdout is not None
            is_ready = any(word in line for line in process.stdout)
            took_s = time.perf_counter() - began_s
        finally:
            patience.cancel()
            process.kill()
    assert is_ready, f"{command} ended, or did not say {word!r}"
    return took_s
