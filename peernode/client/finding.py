"""Which daemon a client means: by socket, by name, or the only one that runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from .. import registry
from .errors import NoDaemon


def find_socket(
    socket: str | Path | None = None,
    *,
    node: str | None = None,
    cluster: str | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Path:
    """The socket file to connect to. `note` hears which daemon was chosen among several.

    Raises NoDaemon, naming those that do run.
    """
    if socket is not None:
        return Path(socket)
    if node is None and cluster is None and (given := os.environ.get("PEERNODE_SOCKET")):
        return Path(given)
    found = [daemon for daemon in registry.running() if cluster in (None, daemon.cluster)]
    if node is not None:
        return _by_name(found, node, cluster)
    if not found:
        where = f" in cluster {cluster}" if cluster else ""
        raise NoDaemon(f"no daemon runs here{where}", hint="start one with: peernode run")
    if len(found) > 1:
        others = ", ".join(daemon.name for daemon in found[1:])
        note(f"using node {found[0].name} (others: {others}); choose with --node")
    return Path(found[0].socket)


def _by_name(found: list[registry.Registration], node: str, cluster: str | None) -> Path:
    for daemon in found:
        if daemon.name == node:
            return Path(daemon.socket)
    others = ", ".join(daemon.name for daemon in found)
    hint = f"running here: {others}" if others else "start one with: peernode run"
    raise NoDaemon(f"no daemon named {node} runs here", hint=hint)
