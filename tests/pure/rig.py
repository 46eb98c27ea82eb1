"""A pure node on a test rig: a disk, a clock that stands until it is moved, and members that tests speak for."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any, TypeVar

import msgspec

from protocol.config import Config
from protocol.effects import Dial, DialOutcome, Effect, Reply, Send, Stage
from protocol.errors import Fault
from protocol.inputs import (
    DialFailed,
    Durable,
    Event,
    LinkDown,
    LinkUp,
    PersistFailed,
    Received,
    Start,
    Tick,
)
from protocol.membership.record import Heartbeat, MemberRecord, own_record
from protocol.membership.table import Member
from protocol.node import Node, build_registry
from protocol.replica.settling import Identity
from protocol.types import Instant, LinkId, NodeId, Payload
from protocol.wire.envelope import DOMAIN, Envelope, Sealer, read_header
from protocol.wire.fields import Head
from protocol.wire.frames import HEADER
from protocol.wire.hello import Established

from ..sim.swarm.fakes import Authority, Disk, FakeKeys

EPOCH_MS = 1_700_000_000_000
AUTHORITY = Authority(b"rig")
REGISTRY = build_registry()
E = TypeVar("E", bound=Effect)
encode = msgspec.msgpack.encode


class SigningKeys(FakeKeys):
    """Keys that count how often they sign."""

    signatures = 0

    def sign(self, message: bytes) -> bytes:
        self.signatures += 1
        return super().sign(message)


class Peer:
    """Another member, in one run of it, for whom the test speaks."""

    def __init__(self, name: str, run: int = 1_000, authority: Authority = AUTHORITY) -> None:
        self.name, self.run, self.address = name, run, f"{name}:1"
        self.keys = FakeKeys(authority, name)
        self.node_id = self.keys.node_id
        self._seq = 0

    def established(self) -> Established:
        return Established(self.node_id, 1, (1, 1), self.run, 0, False)

    def record(self, **changes: object) -> MemberRecord:
        record = own_record(Config(self.name, self.address), self.keys, EPOCH_MS, [], store_id(self.name))
        return msgspec.structs.replace(record, **changes)

    def says(self, payload: Payload, seq: int | None = None, version: int = 1) -> bytes:
        """One envelope, numbered on."""
        self._seq += 1
        sealer = Sealer(self.keys, REGISTRY, version, self.run)
        return sealer.seal(payload, self._seq if seq is None else seq, 0)[HEADER.size :]

    def announces(self, incarnation: int = 0, **changes: object) -> bytes:
        """Its member record."""
        return self.says(self.record(**changes), seq=incarnation)

    def announces_more(self, field: object) -> bytes:
        """Its member record as a later version would write it: longer."""
        header = read_header(self.announces()).header
        payload = [*msgspec.msgpack.decode(header.payload), field]
        body = encode(msgspec.structs.replace(header, payload=msgspec.Raw(encode(payload))))
        return encode(Envelope(body, self.keys.sign(DOMAIN + body)))


class Rig:
    """`staged` is what the node wants stored and the test has not yet let the disk have."""

    def __init__(
        self,
        name: str = "me",
        disk: Disk | None = None,
        run: int = 1,
        identity: Identity | None = None,
        **config: Any,
    ) -> None:
        self.disk = disk or Disk()
        self.now_s = 100.0
        self.keys = SigningKeys(AUTHORITY, name)
        self.staged: deque[Stage] = deque()
        self.links: dict[str, LinkId] = {}
        self._link_ids = 0
        identity = identity or Identity(run, run - 1, 1, store_id(name))
        self.node = Node(
            Config(name, f"{name}:1", **config), self.keys, self.disk, Random(1), identity, self.now
        )

    @property
    def now(self) -> Instant:
        return Instant(self.now_s, EPOCH_MS + int(self.now_s * 1000))

    def handle(self, *events: Event) -> list[Effect]:
        """Several are a burst: one turn."""
        turn = self.node.begin(self.now)
        for event in events:
            self.node.take(turn, event)
        effects = self.node.finish(turn)
        self.staged += of(effects, Stage)
        return effects

    def start(self, *seeds: str) -> Rig:
        self.handle(Start(seeds))
        self.commit()
        return self

    def commit(self, stages: int | None = None) -> list[Effect]:
        """Everything staged, or so many stages of it, is durable now."""
        group = [self.staged.popleft() for _ in range(len(self.staged) if stages is None else stages)]
        for stage in group:
            self.disk.apply(stage.rows)
        return self.handle(Durable(group[-1].number)) if group else []

    def fail(self, why: str = "disk full") -> list[Effect]:
        self.staged.clear()
        return self.handle(PersistFailed(why))

    def wait(self, seconds: float) -> list[Effect]:
        """Let time pass as a runtime would: a tick at every deadline; what is staged becomes durable."""
        effects = []
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s = min(until_s, max(self.node.deadline_s, self.now_s + 0.001))
            effects += self.handle(Tick()) + self.commit()
        return effects

    # Peers

    def measure(self, peer: Peer, ahead_ms: int = 0, round_trip_ms: int = 10) -> list[Effect]:
        """A heartbeat that echoes the node's own, held for 200 ms, from a peer whose clock is so far ahead."""
        echo = (self.keys.node_id[:8], int(self.now_s * 1000) - 200 - round_trip_ms, 200)
        steady_ms = self.node.time.steady_ms(self.now) + ahead_ms - round_trip_ms // 2
        return self.receive(peer, peer.says(Heartbeat(0, 1, steady_ms, 0, b"", [], [], [echo], [])))

    def link(self, peer: Peer, dialled: str | None = None, *, seed: bool = False) -> list[Effect]:
        self._link_ids += 1
        self.links[peer.name] = LinkId(self._link_ids)
        return self.handle(LinkUp(self.links[peer.name], peer.established(), dialled, seed))

    def join(self, peer: Peer, dialled: str | None = None) -> list[Effect]:
        """A link to a member, and its record; all durable."""
        effects = self.link(peer, dialled) + self.receive(peer, peer.announces())
        return effects + self.commit()

    def receive(self, peer: Peer, *envelopes: bytes) -> list[Effect]:
        return self.handle(Received(self.links[peer.name], envelopes))

    def lose(self, peer: Peer, why: str = "reset", fault: Fault | None = None) -> list[Effect]:
        return self.handle(LinkDown(self.links.pop(peer.name), why, fault))

    def dial_fails(
        self, peer: Peer, outcome: DialOutcome = DialOutcome.REFUSED, address: str | None = None
    ) -> list[Effect]:
        return self.handle(DialFailed(address or peer.address, peer.node_id, outcome, "test"))

    def member(self, peer: Peer) -> Member:
        return self.node.membership.table.members[peer.node_id]

    def state(self, peer: Peer) -> tuple[str, str]:
        """A member's state, and the first words of the reason."""
        member = self.member(peer)
        return member.state.value, member.why


def store_id(name: str) -> bytes:
    """The store that a node of this name has, if nothing else is told."""
    return name.encode().ljust(16, b".")


def heartbeat(*heads: Head, streams: list[Head] | None = None) -> Heartbeat:
    """What a peer says every quarter second: of an unknown table and without an echo."""
    return Heartbeat(0, 1, 1, 0, b"", list(heads), streams or [], [], [])


def of(effects: list[Effect], kind: type[E]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


def said(effects: list[Effect]) -> list[tuple[tuple[LinkId, ...], Payload]]:
    """The messages that leave, opened: on which links, and what."""
    found = []
    for send in of(effects, Send):
        header = read_header(send.frame[HEADER.size :]).header
        found.append((send.links, REGISTRY.decode(REGISTRY.find(header.type, 1), header.payload)))
    return found


def payloads(effects: list[Effect], kind: type[Payload]) -> list[Payload]:
    return [payload for _, payload in said(effects) if isinstance(payload, kind)]


def outcomes(effects: list[Effect]) -> list[object]:
    return [reply.outcome for reply in of(effects, Reply)]


def dialled(effects: list[Effect]) -> list[tuple[str, NodeId | None]]:
    """Where a link is wanted to, and to whom."""
    return [(dial.address, dial.node) for dial in of(effects, Dial) if not dial.probe]
