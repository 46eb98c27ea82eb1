"""Real daemon processes for tests: started, killed, and always ended by their own process id."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peernode.client import Client

from ..waiting import wait_until


class Daemon:
    """One `peernode run`, with a log and the line that it printed when it was ready."""

    def __init__(self, home: Path, name: str, cluster: str = "dev") -> None:
        self.home, self.name, self.cluster = home, name, cluster
        self.out, self.log = home / f"{name}.out", home / f"{name}.log"
        self.folder = home / cluster / name
        self.faults = home / f"{name}.faults"
        """What it does wrong on purpose (peernode/daemon/faults.py), if that file is there when it starts."""
        self.process: subprocess.Popen[bytes] | None = None
        self.ready = ""

    def launch(self, *options: str, listen: str = "127.0.0.1:0", prefix: tuple[str, ...] = ()) -> None:
        """Start it without waiting."""
        command = [*prefix, sys.executable, "-P", "-m", "peernode", "run", "--name", self.name]
        command += ["--cluster", self.cluster, "--listen", listen, *options]
        with self.log.open("a") as log, self.out.open("w") as out:
            env = environment(self.home)
            if self.faults.exists():
                env["PEERNODE_FAULTS"] = str(self.faults)
            self.process = subprocess.Popen(command, stdout=out, stderr=log, env=env)

    def start(self, *options: str, listen: str = "127.0.0.1:0", prefix: tuple[str, ...] = ()) -> Daemon:
        """Start it and wait until it is ready."""
        self.launch(*options, listen=listen, prefix=prefix)
        self.ready = wait_until(self._ready_line, what=f"{self.name} to be ready: {self.log.read_text()}")
        return self

    @property
    def address(self) -> str:
        return self.ready.split(" peers ")[1].split()[0]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def connect(self, timeout_s: float = 5.0) -> Client:
        return Client(self.folder / "sock", timeout_s=timeout_s)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)

    def wait(self, timeout_s: float = 15) -> int:
        assert self.process is not None
        return self.process.wait(timeout_s)

    def state_of(self, name: str) -> str | None:
        """What this daemon says of another."""
        with self.connect() as node:
            return next((m["state"] for m in node.members() if m["name"] == name), None)

    def _ready_line(self) -> str:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.name} ended: {self.log.read_text()}"
        line = self.out.read_text()
        return line.strip() if line.endswith("\n") else ""


def environment(home: Path) -> dict[str, str]:
    """The environment of a command on the daemons of one test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PEERNODE_")}
    return {**kept, "PEERNODE_HOME": str(home)}


class Daemons:
    """Makes daemons in one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.all: list[Daemon] = []

    def __call__(self, name: str, cluster: str = "dev") -> Daemon:
        daemon = Daemon(self.home, name, cluster)
        self.all.append(daemon)
        return daemon

    def command(self, *arguments: str, timeout_s: float = 15) -> subprocess.CompletedProcess[str]:
        """One call of the command line."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "peernode", *arguments],
            capture_output=True,
            text=True,
            env=environment(self.home),
            timeout=timeout_s,
            check=False,
        )


@contextmanager
def daemons_in(home: Path) -> Iterator[Daemons]:
    """Daemons that do not outlive the test."""
    made = Daemons(home)
    try:
        yield made
    finally:
        for daemon in made.all:
            if daemon.process is not None and daemon.process.poll() is None:
                daemon.kill()
