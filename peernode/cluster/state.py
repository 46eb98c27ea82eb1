"""What is kept of a local cluster between two commands: one JSON file, and a lock against a second command.

CLUSTER/cluster.json     its nodes, their processes and addresses, and the cuts
CLUSTER/NAME/            a node's folder, the same that `run --cluster CLUSTER --name NAME` uses
CLUSTER/NAME/daemon.log  all that it said
CLUSTER/NAME/faults.json the peers that it is deaf to
run/CLUSTER.lock         held while a command works (not in CLUSTER, which `down --purge` may remove)
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from .. import registry
from .errors import ClusterError
from .node import Node, NodeView
from .process import POLL_S, Process

LOCK_PATIENCE_S = 120.0
"""An `up` of many nodes on a busy machine takes so long."""

Cut = frozenset[str]
"""Two nodes that do not hear each other."""


@dataclass(slots=True)
class State:
    """`load` reads it, `save` writes it; in between it has one owner, who holds the lock."""

    folder: Path
    nodes: dict[str, Node] = field(default_factory=dict)
    cuts: set[Cut] = field(default_factory=set)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """As it was left, with the daemons that `peernode run` started in the nodes' folders since.

        Empty when there is no file. Raises ClusterError when it cannot be read.
        """
        state = cls(folder)
        try:
            content = json.loads(state.file.read_text())
            for name, (pid, started, address) in content["nodes"].items():
                process = None if pid is None else Process(int(pid), str(started))
                state.nodes[name] = Node(name, folder / name, process, address)
            state.cuts = {frozenset(cut) for cut in content["cuts"]}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            hint = "end its daemons, then remove the file"
            raise ClusterError(f"{state.file} cannot be read: {error!r}", hint=hint) from None
        state.adopt()
        return state

    def save(self) -> None:
        if not self.nodes:
            self.file.unlink(missing_ok=True)
            return
        nodes = {
            node.name: (
                node.process and node.process.pid,
                node.process and node.process.started,
                node.address,
            )
            for node in self.nodes.values()
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.file, {"nodes": nodes, "cuts": sorted(sorted(cut) for cut in self.cuts)})

    @property
    def cluster(self) -> str:
        return self.folder.name

    @property
    def file(self) -> Path:
        return self.folder / "cluster.json"

    def cut_from(self, name: str) -> list[str]:
        """Whom this node does not hear."""
        return sorted(other for cut in self.cuts if name in cut for other in cut if other != name)

    def command(self, command: str) -> str:
        """What to type, for a hint."""
        option = "" if self.cluster == "dev" else f" --cluster {self.cluster}"
        return f"peernode cluster {command}{option}"

    def view(self, node: Node) -> NodeView:
        state = node.state
        return NodeView(
            name=node.name,
            pid=node.process.pid if node.process is not None and state in ("running", "paused") else None,
            address=node.address,
            socket=str(node.socket),
            data_dir=str(node.folder),
            state=state,
            cut_from=self.cut_from(node.name),
        )

    def adopt(self) -> None:
        """Take over daemons that `peernode run` started in the nodes' folders."""
        daemons = {daemon.data_dir: daemon for daemon in registry.running()}
        for node in self.nodes.values():
            daemon = daemons.get(str(node.folder))
            if daemon is not None and (node.process is None or not node.process.is_alive):
                node.process, node.address = Process(daemon.pid, daemon.started), daemon.address


def write(file: Path, content: object) -> None:
    """The file has the old content or the new one, whatever happens."""
    aside = file.with_suffix(".new")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as out:
        json.dump(content, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    aside.rename(file)


@contextmanager
def locked(cluster: str) -> Iterator[None]:
    """One command at a time works on a cluster. Raises ClusterError when another one does not end."""
    folder = registry.home() / "run"
    registry.make_private(folder)
    handle = os.open(folder / f"{cluster}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until_s = time.monotonic() + LOCK_PATIENCE_S
        while not _take(handle):
            if time.monotonic() > until_s:
                raise ClusterError(f"another command still works on cluster {cluster}")
            time.sleep(POLL_S)
        yield
    finally:
        os.close(handle)


def _take(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
