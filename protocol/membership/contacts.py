"""Links and dials: to whom this node talks, whom it dials next, and which of two links stays.

One link a pair. Both ends may dial; the higher id waits a little so that mostly only one does. When two
links come up all the same, both ends keep the one that the lower id dialled. A link of a newer run, or one
that takes the place of a silent one, or of one dialled by the same end (which would not have dialled had it
still been up there), wins at once.

Dials back off exponentially with full jitter, and never end: seeds and dead members are tried for ever, so that
a healed network finds itself again. For a dead member the rate is the cluster's, shared by those who dial it. A
broken link is dialled again at once, but after several in a row that did not last this backs off too: two ends that
cannot agree must not spend their time on it. Early dials are given little time, since a verdict may wait for what
they find; later ones more, so that slow networks connect too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..config import Config
from ..effects import Dial
from ..errors import Fault
from ..turn import Turn
from ..types import LinkId, NodeId
from .table import Member

if TYPE_CHECKING:
    from random import Random


class Idle(msgspec.Struct, frozen=True):
    """No link; the next dial is due at `dial_s`."""

    dial_s: float
    attempts: int = 0


class Dialling(msgspec.Struct, frozen=True):
    attempts: int
    since_s: float


class Up(msgspec.Struct):
    """A link, and what is measured on it."""

    link: LinkId
    run: int
    address: str | None  # where we dialled; None: the peer dialled us
    last_rx_s: float
    since_s: float
    stamp_ms: int = 0  # of its last heartbeat, to be echoed
    stamp_at_s: float = 0.0
    rtt_ms: float | None = None
    lag_ms: int = 0
    probed_s: float | None = None  # a probe is under way since then
    probe_due_s: float = 0.0  # no further one before then
    pongs: int = 0  # answered probes since the last byte


Contact = Idle | Dialling | Up


class Seed(msgspec.Struct):
    """An address to try. `node`: who answered there last."""

    contact: Idle | Dialling
    node: NodeId | None = None


class Contacts:
    """`random` spreads dials in time."""

    def __init__(self, config: Config, me: NodeId, random: Random) -> None:
        self._config, self._me, self._random = config, me, random
        self.by_node: dict[NodeId, Contact] = {}
        self.by_link: dict[LinkId, NodeId] = {}
        self.seeds: dict[str, Seed] = {}
        self._brief: dict[NodeId, int] = {}
        """How many links in a row did not last."""

    def linked(self) -> list[tuple[NodeId, Up]]:
        """Links that are up, in the order of ids."""
        ups = [(node, contact) for node, contact in self.by_node.items() if isinstance(contact, Up)]
        return sorted(ups, key=lambda pair: pair[0])

    def up(self, node: NodeId) -> Up | None:
        contact = self.by_node.get(node)
        return contact if isinstance(contact, Up) else None

    def links(self) -> list[LinkId]:
        return [up.link for _, up in self.linked()]

    @property
    def deadline_s(self) -> float:
        idle = [contact.dial_s for contact in self.by_node.values() if isinstance(contact, Idle)]
        idle += [self._seed_due_s(seed) for seed in self.seeds.values()]
        return min(idle, default=float("inf"))

    def add_seed(self, address: str, now_s: float) -> None:
        self.seeds.setdefault(address, Seed(Idle(now_s)))

    def know(self, node: NodeId, now_s: float, *, at_once: bool = False) -> None:
        """Dial this member if there is no link to it; the higher id leaves the lower one time to."""
        contact = self.by_node.get(node)
        due_s = now_s if at_once or self._me < node else now_s + self._config.yield_dial_s
        if contact is None or (isinstance(contact, Idle) and contact.dial_s > due_s):
            self.by_node[node] = Idle(due_s)

    def link_up(self, turn: Turn, link: LinkId, node: NodeId, run: int, dialled: str | None) -> bool:
        """Whether this link is now the one to `node`; the other one, if there is one, is cut."""
        new = Up(link, run, dialled, turn.now.mono_s, turn.now.mono_s)
        old = self.up(node)
        if old is not None and not self._replaces(new, old, node):
            turn.cut(link, Fault.DUPLICATE, "there is a link already")
            return False
        if old is not None:
            del self.by_link[old.link]
            turn.cut(old.link, Fault.DUPLICATE, "another link takes its place")
        self.by_node[node] = new
        self.by_link[link] = node
        return True

    def link_down(self, link: LinkId, now_s: float, delay_s: float) -> NodeId | None:
        """The node that this was the link to, if it was the current one."""
        node = self.by_link.pop(link, None)
        up = self.up(node) if node is not None else None
        if node is not None and up is not None:
            self.by_node[node] = Idle(now_s + max(delay_s, self._brief_pause_s(node, now_s - up.since_s)))
        return node

    def dialling_since_s(self, node: NodeId) -> float | None:
        """When the dial or the probe that is under way to this node began."""
        match self.by_node.get(node):
            case Dialling(since_s=since_s):
                return since_s
            case Up(probed_s=probed_s):
                return probed_s
            case _:
                return None

    def dial_failed(self, node: NodeId, now_s: float, pause_max_s: float) -> None:
        """Dial again after the usual pause, `pause_max_s` at most."""
        contact = self.by_node.get(node)
        if isinstance(contact, Dialling):
            pause_s = min(pause_max_s, self._pause_s(contact.attempts))
            self.by_node[node] = Idle(now_s + pause_s, contact.attempts + 1)

    def dial_failed_dead(self, node: NodeId, now_s: float, dialling: int) -> None:
        """The same for a dead member that so many others dial too."""
        contact = self.by_node.get(node)
        if isinstance(contact, Dialling):
            shared_s = min(self._config.redial_dead_max_s, self._config.redial_dead_s * dialling)
            self.by_node[node] = Idle(
                now_s + shared_s * self._random.uniform(0.75, 1.25), contact.attempts + 1
            )

    def seed_answered(self, address: str, node: NodeId | None, now_s: float) -> None:
        """Somebody is at a seed's address (or, with None, nobody is)."""
        seed = self.seeds.get(address)
        if seed is None:
            return
        attempts = seed.contact.attempts if node is None else 0
        seed.node = node or seed.node
        seed.contact = Idle(now_s + self._pause_s(attempts), attempts + 1)

    def patience_s(self, rtt_ms: float | None, attempts: int = 0) -> float:
        """How long to wait for a connection, when the least round trip was `rtt_ms`."""
        first_s = max(self._config.probe_s, 4 * (rtt_ms or 0.0) / 1000)
        return min(self._config.patience_max_s, first_s * 2.0 ** min(attempts, 16))

    def dial_due(self, turn: Turn, members: dict[NodeId, Member]) -> None:
        """Dial every member and seed whose time has come."""
        now_s = turn.now.mono_s
        for node, contact in sorted(self.by_node.items()):
            if not isinstance(contact, Idle) or contact.dial_s > now_s:
                continue
            member = members.get(node)
            if member is None:
                del self.by_node[node]  # it was gone before its record came
                continue
            self.by_node[node] = Dialling(contact.attempts, now_s)
            turn.do(Dial(member.record.address, node, self.patience_s(member.rtt_ms, contact.attempts)))
        for address, seed in self.seeds.items():
            if self._seed_due_s(seed) <= now_s:
                seed.contact = Dialling(seed.contact.attempts, now_s)
                turn.do(Dial(address, None, self._config.patience_max_s))

    def _brief_pause_s(self, node: NodeId, lasted_s: float) -> float:
        """How long to wait after a link that lasted so long: never so long that others take the node for dead."""
        before = self._brief.pop(node, 0)
        if lasted_s >= self._config.redial_max_s:
            return 0.0
        self._brief[node] = before + 1
        return min(self._config.redial_brief_max_s, self._pause_s(before)) if before else 0.0

    def _seed_due_s(self, seed: Seed) -> float:
        """Not while the node that answered there has a link, nor before that node's own time."""
        known = self.by_node.get(seed.node) if seed.node is not None else None
        if isinstance(known, Up) or not isinstance(seed.contact, Idle):
            return float("inf")
        return max(seed.contact.dial_s, known.dial_s) if isinstance(known, Idle) else seed.contact.dial_s

    def _replaces(self, new: Up, old: Up, node: NodeId) -> bool:
        if new.run != old.run:
            return new.run > old.run
        silent = new.last_rx_s - old.last_rx_s > self._config.silence_s
        mine_newly, mine_before = new.address is not None, old.address is not None
        by_lower_id = mine_newly == (self._me < node)
        return silent or by_lower_id or mine_newly == mine_before

    def _pause_s(self, attempts: int) -> float:
        config = self._config
        bound_s = min(config.redial_max_s, config.redial_min_s * 2 ** min(attempts + 1, 16))
        return self._random.uniform(config.redial_min_s / 2, bound_s)
