"""How an empty folder becomes a member: it founds a cluster, or joins one with a ticket.

A ticket comes from the command line, or from a daemon of the same user on this machine: its socket carries that
right already. Such a daemon gives one only if the seed is an address of its own cluster.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import trio

from protocol.errors import Refused
from protocol.identity.certificates import found
from protocol.identity.tickets import Ticket, parse
from protocol.types import node_text

from ..client import PeernodeError, connect_sync
from ..log import Log
from ..net.enrol import NotReached, TicketRefused, join
from ..registry import Registration
from .folder import Folder
from .world import World

RETRY_MIN_S, RETRY_MAX_S = 0.2, 5.0
LOCAL_TICKET_TTL_MS = 60_000
INVITE_HINT = "on any member: peernode invite"


class NotAllowed(Exception):
    """Nobody lets this node in; `hint` says how to get a ticket."""

    def __init__(self, message: str, hint: str = INVITE_HINT) -> None:
        super().__init__(message)
        self.hint = hint


def found_cluster(folder: Folder, world: World) -> None:
    """Make a cluster whose only member is this node. Its key stays in the folder until it is moved away."""
    cluster_key = folder.make_cluster_key(world.entropy(32))
    node_key = folder.node_key(world.entropy(32))
    folder.enrol(found(cluster_key.private, node_key.node_id))


def read_ticket(text: str) -> Ticket:
    """Raises NotAllowed with what is wrong with it."""
    ticket = parse(text)
    if isinstance(ticket, Refused):
        raise NotAllowed(ticket.message, ticket.hint)
    return ticket


def local_ticket(seeds: tuple[str, ...], daemons: Iterable[Registration]) -> Ticket:
    """Ask the daemons of this user on this machine. Raises NotAllowed."""
    asked: list[str] = []
    for daemon in daemons:
        try:
            with connect_sync(daemon.socket) as client:
                made = client.call("ticket.create", ttl_ms=LOCAL_TICKET_TTL_MS, uses=1, seeds=list(seeds))
                return read_ticket(made["ticket"])
        except PeernodeError as error:
            asked.append(f"{daemon.name}: {error.message}")
    told = f" ({'; '.join(asked)})" if asked else ""
    raise NotAllowed(f"joining through {', '.join(seeds)} needs a ticket{told}")


async def join_cluster(
    folder: Folder, ticket: Ticket, addresses: tuple[str, ...], seeds: tuple[str, ...], world: World, log: Log
) -> None:
    """Redeem the ticket, trying the addresses until one answers; `seeds` are kept for later starts too.

    Raises NotAllowed when the issuer refuses.
    """
    key = folder.node_key(world.entropy(32))
    random = world.random()
    pause_s = RETRY_MIN_S
    while True:
        for address in addresses:
            try:
                joined = await join(ticket, address, key, world.entropy(16))
            except TicketRefused as refused:
                raise NotAllowed(f"the ticket was refused: {refused}") from None
            except NotReached as missed:
                log.event("join.retry", address=address, why=str(missed))
            else:
                members = tuple(dict.fromkeys((*seeds, address, *joined.addresses)))
                folder.enrol(joined.grant, members)
                log.event("join.enrolled", address=address, id=node_text(key.node_id)[:8])
                return
        await trio.sleep(spread(pause_s, random))
        pause_s = min(RETRY_MAX_S, pause_s * 2)


def spread(pause_s: float, random: Random) -> float:
    return random.uniform(pause_s / 2, pause_s)
