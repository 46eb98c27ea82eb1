"""Nodes started side by side, each until it is ready, and until they all see each other.

Members start at once. A new node joins through a member that runs, with a ticket from it; only where there is no
member at all the first one founds the cluster and the others wait for it.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Collection, Sequence

from .. import registry
from ..client import Client, PeernodeError
from .cuts import write_faults
from .errors import ClusterError
from .node import Node
from .process import POLL_S, spawn, uninterrupted
from .state import State

READY_S = 60.0
"""A daemon needs half a second; a loaded machine that starts many of them at once far more."""

TICKET_TTL_MS = 300_000

LOG_BYTES_MAX = 16 << 20
"""A log that is longer is put aside at the next start, and the one before that is gone."""

READY = re.compile(r"^ready \S+ \S+ peers (\S+) .*\n", re.MULTILINE)
LAST_WORDS = re.compile(r"^peernode: error: (.*)$", re.MULTILINE)

Say = Callable[[str], None]


def start(state: State, nodes: Sequence[Node], say: Say) -> list[str]:
    """Start these and wait until they are ready. Returns the names of those with another address than before.

    Raises ClusterError; what was started is the caller's to end.
    """
    members = [node for node in nodes if node.is_enrolled]
    new = [node for node in nodes if not node.is_enrolled]
    moved = _start_all(state, members, say)
    if new and not any(node.is_enrolled for node in state.nodes.values()):
        moved += _start_all(state, [new.pop(0)], say)
    if new:
        sponsor, ticket = _invite(state, len(new))
        moved += _start_all(state, new, say, ("--seed", sponsor.address), {"PEERNODE_TICKET": ticket})
    return moved


def await_met(state: State, nodes: Collection[Node]) -> None:
    """Wait until each of these has reached all the others, but for those that it is cut from.

    Raises ClusterError.
    """
    until_s = time.monotonic() + READY_S
    for node in nodes:
        others = {other.name for other in nodes} - {node.name, *state.cut_from(node.name)}
        with node.connect() as client:
            while missing := others - _reached(client):
                if time.monotonic() > until_s:
                    raise ClusterError(
                        f"{node.name} does not see {', '.join(sorted(missing))} after {READY_S:.0f} s",
                        hint=state.command(f"logs {node.name}"),
                    )
                time.sleep(POLL_S)


def _reached(client: Client) -> set[str]:
    return {member["name"] for member in client.members() if member["state"] == "alive" and member["reached"]}


def _invite(state: State, uses: int) -> tuple[Node, str]:
    """A running member and a ticket from it."""
    members = [node for node in state.nodes.values() if node.is_enrolled and node.state == "running"]
    why = "none of them runs"
    for node in members:
        try:
            with node.connect() as client:
                made = client.call("ticket.create", ttl_ms=TICKET_TTL_MS, uses=uses)
            return node, str(made["ticket"])
        except PeernodeError as error:
            why = f"{node.name}: {error.message}"
    raise ClusterError(
        f"no member of the cluster lets a new node in ({why})", hint=state.command("restart n1")
    )


def _start_all(
    state: State,
    nodes: Sequence[Node],
    say: Say,
    options: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
) -> list[str]:
    began_s = time.monotonic()
    waiting = {node.name: _launch(state, node, options, environment or {}) for node in nodes}
    moved: list[str] = []
    while waiting:
        for name, log_from in list(waiting.items()):
            node = state.nodes[name]
            address = _ready_address(state, node, log_from)
            if address is not None:
                del waiting[name]
                if address != node.address:
                    moved.append(name)
                node.address = address
                say(f"{name} is ready at {address} ({time.monotonic() - began_s:.1f} s)")
        if time.monotonic() - began_s > READY_S:
            late = ", ".join(waiting)
            raise ClusterError(
                f"{late} not ready after {READY_S:.0f} s", hint=state.command(f"logs {' '.join(waiting)}")
            )
        time.sleep(POLL_S)
    return moved


def _launch(state: State, node: Node, options: tuple[str, ...], environment: dict[str, str]) -> int:
    """Start the daemon. Returns where in the log its words begin."""
    registry.make_private(node.folder)
    write_faults(state, node)
    if node.log.exists() and node.log.stat().st_size > LOG_BYTES_MAX:
        node.log.rename(node.log.with_suffix(".log.old"))
    log_from = node.log.stat().st_size if node.log.exists() else 0
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PEERNODE_")}
    own = {"PEERNODE_HOME": str(registry.home()), "PEERNODE_FAULTS": str(node.faults)}
    command = [sys.executable, "-P", "-m", "peernode", "run", "--cluster", state.cluster]
    command += ["--name", node.name, "--listen", "127.0.0.1:0", *options]
    with uninterrupted():
        node.process = spawn(command, {**kept, **own, **environment}, node.log)
        state.save()
    return log_from


def _ready_address(state: State, node: Node, log_from: int) -> str | None:
    """Where it listens, once it says that it is ready. Raises ClusterError when it has ended instead."""
    assert node.process is not None
    has_ended = not node.process.is_alive  # asked first: its last words are in the log by then
    with node.log.open("rb") as log:
        log.seek(log_from)
        said = log.read().decode(errors="replace")
    if ready := READY.search(said):
        return ready[1]
    if has_ended:
        errors = LAST_WORDS.findall(said)
        why = errors[-1] if errors else "see its log"
        hint = state.command(f"logs {node.name}")
        raise ClusterError(f"{node.name} ended instead of starting: {why}", hint=hint)
    return None
