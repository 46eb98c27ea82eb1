"""One node of a local cluster: its folder, its process, and which of the two tells what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from .. import registry
from ..client import Client
from .process import Process


class NodeView(TypedDict):
    """A node as `cluster status` shows it; `state` is one of running, paused, dead, stopped."""

    name: str
    pid: int | None
    address: str
    socket: str
    data_dir: str
    state: str
    cut_from: list[str]


@dataclass(slots=True)
class Node:
    """`process`: the one started last, whether it lives or not; None once it was told to end."""

    name: str
    folder: Path
    process: Process | None = None
    address: str = ""

    @property
    def state(self) -> str:
        """A daemon that ends by itself removes its socket; one that is killed cannot."""
        if self.process is None:
            return "stopped"
        if self.process.is_alive:
            return "paused" if self.process.is_paused else "running"
        return "dead" if self.socket.exists() else "stopped"

    @property
    def socket(self) -> Path:
        return registry.socket_path(self.folder)

    @property
    def log(self) -> Path:
        return self.folder / "daemon.log"

    @property
    def faults(self) -> Path:
        return self.folder / "faults.json"

    @property
    def is_enrolled(self) -> bool:
        """Whether it is a member already, and needs nobody to start."""
        return (self.folder / "chain.pem").exists()

    def connect(self, timeout_s: float = 5.0) -> Client:
        """Raises NoDaemon."""
        return Client(self.socket, timeout_s=timeout_s)
