"""Whatever happens to a node, in whatever state it is: `handle` answers with effects, and keeps its word.

Members say anything that can be said, in any order and out of bounds; links come and go, commits succeed and
fail, clients ask. After each event: no exception, known effects only, nothing told that is not on the disk,
and a deadline that lies ahead.
"""

from __future__ import annotations

from typing import get_args

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from protocol.effects import DialOutcome, Effect, Entry, Reply
from protocol.errors import Fault
from protocol.identity.tickets import JoinRequest
from protocol.inputs import (
    Assign,
    Barrier,
    CreateKeyspace,
    CreateTicket,
    Delete,
    DialFailed,
    DropKeyspace,
    Durable,
    Event,
    Expect,
    Inquire,
    Invalidate,
    Join,
    Leave,
    LinkDown,
    LinkUp,
    PersistFailed,
    Probed,
    Put,
    PutMany,
    QuorumRead,
    Received,
    Redeem,
    RevokeTicket,
    SetVoters,
    Start,
    Tick,
    Transact,
    Written,
)
from protocol.keyspaces import POLICIES, define
from protocol.membership.record import Heartbeat
from protocol.replica.coverage import NOTHING
from protocol.replica.messages import Batch, Chunk, Holding, Pull
from protocol.replica.replica import RESERVED_MARK, Block
from protocol.types import LinkId, Payload

from ..sim.swarm.fakes import Authority
from .rig import Peer, Rig, of, said
from .samples import payloads as any_payload
from .samples import texts


def new_peers() -> list[Peer]:
    """Two members, one of them in two runs, and a stranger."""
    return [Peer("b"), Peer("c"), Peer("b", run=2_000), Peer("d", authority=Authority(b"elsewhere"))]


addresses = st.sampled_from(["b:1", "c:1", "me:1", "moved:1"])
seeds = st.lists(addresses, max_size=2).map(tuple)
some_keys = st.sampled_from([b"", b"a", b"b"])
which = st.integers(0, len(new_peers()) - 1)
links = st.integers(1, 6).map(LinkId)
node_ids = st.sampled_from([peer.node_id for peer in new_peers()])
ref, ticket_id, nonce = st.none(), st.just(b"8 bytes."), st.just(bytes(16))
NAMES = ("default", "bank")
keyspace = st.sampled_from(NAMES)
IN_MEMORY = "may be answered before it is durable"
acks, waits_ms = st.integers(0, 2), st.sampled_from([0, 300])
requests = st.none() | st.sampled_from([b"short", b"sixteen bytes a.", b"sixteen bytes b."])
b32s, b64s = st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64)
ttls_ms = st.integers(-1, 500)
EVENTS: dict[type[Event], st.SearchStrategy[Event]] = {
    Start: st.builds(Start, seeds),
    Tick: st.builds(Tick),
    LinkDown: st.builds(LinkDown, links, texts, st.none() | st.sampled_from(Fault)),
    Probed: st.builds(Probed, addresses, node_ids, st.sampled_from([1_000, 2_000])),
    DialFailed: st.builds(
        DialFailed, addresses, ref | node_ids, st.sampled_from(DialOutcome), texts, st.booleans()
    ),
    Received: st.builds(Received, links, st.lists(st.binary(max_size=60), max_size=2).map(tuple)),
    Put: st.builds(
        Put,
        ref,
        keyspace,
        some_keys,
        st.binary(max_size=2),
        ref | ttls_ms,
        ref | st.just("x"),
        st.booleans(),
        acks,
        waits_ms,
        requests,
    )
    | st.builds(Put, st.just(IN_MEMORY), keyspace, some_keys, st.binary(max_size=2), in_memory=st.just(True)),
    PutMany: st.builds(
        PutMany,
        ref,
        keyspace,
        st.lists(st.tuples(some_keys, st.binary(max_size=2), ref | ttls_ms), min_size=1, max_size=3).map(
            tuple
        ),
        acks,
        waits_ms,
        requests,
    ),
    Delete: st.builds(Delete, ref, keyspace, some_keys, ref, acks, waits_ms, requests),
    Transact: st.builds(
        Transact,
        ref,
        st.lists(st.builds(Expect, keyspace, some_keys, st.just("version"), texts), max_size=2).map(tuple),
        st.lists(st.builds(Assign, keyspace, some_keys, ref | st.binary(max_size=2)), max_size=2).map(tuple),
        waits_ms,
        requests,
    ),
    QuorumRead: st.builds(
        QuorumRead, ref, st.lists(st.tuples(keyspace, some_keys), max_size=2).map(tuple), waits_ms
    ),
    Inquire: st.builds(Inquire, ref, ref | texts),
    CreateKeyspace: st.builds(
        CreateKeyspace,
        ref,
        keyspace | texts,
        st.sampled_from([*POLICIES, "none"]),
        st.lists(st.sampled_from(["me", "b", "c"]), max_size=3).map(tuple),
    ),
    SetVoters: st.builds(
        SetVoters,
        ref,
        keyspace | texts,
        st.lists(st.sampled_from(["me", "b", "c"]), max_size=3).map(tuple),
        st.booleans(),
        waits_ms,
    ),
    DropKeyspace: st.builds(
        DropKeyspace, ref, keyspace, st.sampled_from([define(name).id for name in NAMES])
    ),
    Barrier: st.builds(Barrier, ref),
    Invalidate: st.builds(Invalidate, st.just(b"k*"), st.booleans()),
    Join: st.builds(Join, seeds),
    Leave: st.builds(Leave, st.floats(0, 1), st.floats(0, 1)),
    CreateTicket: st.builds(CreateTicket, ref, ticket_id, nonce, ttls_ms, st.integers(0, 2)),
    RevokeTicket: st.builds(RevokeTicket, ref, ticket_id),
    Redeem: st.builds(Redeem, ref, st.builds(JoinRequest, ticket_id, b32s, nonce, b32s, b64s), nonce),
}
BY_RULES: set[type[Event]] = {LinkUp, Durable, PersistFailed}


class AnyEvent(RuleBasedStateMachine):
    """One node, driven at random."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig()
        self.peers = new_peers()
        self.up = 0

    def _check(self, effects: list[Effect]) -> None:
        assert all(isinstance(effect, get_args(Effect)) for effect in effects)
        for reply in of(effects, Reply):
            if isinstance(reply.outcome, Written):
                for entry in reply.outcome.entries:
                    assert self._is_durable(entry) or (reply.ref == IN_MEMORY and self._is_reserved(entry))
        durable = self.rig.disk.coverage()
        for _, payload in said(effects):
            match payload:
                case (
                    Heartbeat(heads=heads)
                    | Pull(vector=heads)
                    | Chunk(cut=list(heads))
                    | Holding(heads=heads)
                ):
                    assert all(head <= durable[node, lineage].head for node, lineage, head in heads)
                case Batch(lineage=lineage, last=last):
                    assert last <= durable[self.rig.keys.node_id, lineage].head

    def _is_durable(self, entry: Entry) -> bool:
        """Stored, or superseded by what is; where something was taken back, that may be an older version."""
        is_covered = self.rig.disk.coverage().get((entry.node, entry.lineage), NOTHING).has(entry.seq)
        held = self.rig.disk.get(entry.keyspace, entry.key)
        is_held = held is not None and held.version >= entry.version
        return is_covered and (is_held or self.rig.node.replica.void_above > 0)

    def _is_reserved(self, entry: Entry) -> bool:
        block = Block.decode(self.rig.disk.mark(RESERVED_MARK))
        return block.lineage == entry.lineage and block.seq >= entry.seq and block.hlc >= entry.hlc

    def _handle(self, event: Event) -> None:
        self._check(self.rig.handle(event))

    @initialize(seeds=seeds)
    def it_starts(self, seeds: tuple[str, ...]) -> None:
        self._handle(Start(seeds))

    @rule(event=st.one_of(EVENTS.values()))
    def something_happens(self, event: Event) -> None:
        self._handle(event)

    @rule(write=st.one_of(EVENTS[Put], EVENTS[PutMany], EVENTS[Delete]))
    def a_client_writes(self, write: Event) -> None:
        self._handle(write)

    @rule(seconds=st.sampled_from([0.1, 0.3, 1.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.rig.now_s += seconds
        self._handle(Tick())
        assert self.rig.node.deadline_s > self.rig.now_s

    @rule(peer=which, dialled=st.none() | addresses, seed=st.booleans())
    def a_link_comes_up(self, peer: int, dialled: str | None, seed: bool) -> None:
        self.up += 1
        self._handle(LinkUp(LinkId(self.up), self.peers[peer].established(), dialled, seed))

    @rule(peer=which, link=links, incarnation=st.integers(0, 2), left=st.booleans(), address=addresses)
    def a_record_comes(self, peer: int, link: LinkId, incarnation: int, left: bool, address: str) -> None:
        envelope = self.peers[peer].announces(incarnation, left=left, address=address)
        self._handle(Received(link, (envelope,)))

    @rule(peer=which, link=links, messages=st.lists(any_payload, max_size=3), version=st.integers(1, 9))
    def messages_come(self, peer: int, link: LinkId, messages: list[Payload], version: int) -> None:
        says = self.peers[peer].says
        self._handle(Received(link, tuple(says(message, version=1 + version // 9) for message in messages)))

    @rule(link=links, run=st.integers(1, 3))
    def its_own_record_comes_back(self, link: LinkId, run: int) -> None:
        self._handle(Received(link, (Peer("me", run).announces(),)))

    @precondition(lambda self: self.rig.staged)
    @rule(stages=st.integers(1, 3))
    def commits_succeed(self, stages: int) -> None:
        self._check(self.rig.commit(min(stages, len(self.rig.staged))))

    @precondition(lambda self: self.rig.staged)
    @rule()
    def commits_fail(self) -> None:
        self._check(self.rig.fail())


TestAnyEvent = AnyEvent.TestCase
TestAnyEvent.settings = settings(max_examples=60, stateful_step_count=40)


def test_every_event_is_among_them() -> None:
    """A new kind of event must be given to the machine above."""
    assert EVENTS.keys() | BY_RULES == set(get_args(Event))
