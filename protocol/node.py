"""The parts joined: everything one peer decides. `handle(event, now) -> effects`, and nothing else moves.

The order of duties in one call: an event reaches the one sub-protocol that owns it, which writes what it
wants into a `Turn`; rows of the turn become one `Stage`; what must not be said before they are durable is held
back until `Durable` comes for them; messages are signed when they leave, one signature however many links they
go to. What a remote does wrong ends its link and is counted; nothing a remote sends raises out of here.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from . import invalidation
from .clock import HybridClock
from .config import Config
from .effects import Effect, Entry, Invalidated, RecordRow, Reply, Send, Stage
from .errors import Fault, Refused, RemoteFault
from .inputs import (
    Barrier,
    CreateTicket,
    Delete,
    DialFailed,
    Durable,
    Event,
    Invalidate,
    Join,
    Leave,
    LinkDown,
    LinkUp,
    Nothing,
    PersistFailed,
    Probed,
    Put,
    Received,
    Redeem,
    RevokeTicket,
    Settled,
    Start,
    Tick,
    Written,
)
from .invalidation import Invalidation
from .limits import (
    HEARTBEAT_HEADS_MAX,
    KEY_BYTES_MAX,
    LINK_FRAMES_BURST_MAX,
    LINK_FRAMES_PER_S_MAX,
    SEEDS_MAX,
    TTL_MS_MAX,
    VALUE_BYTES_MAX,
)
from .membership import record
from .membership.invitations import TICKET_RECORD, Invitations
from .membership.membership import MEMBER_RECORD, Membership
from .membership.record import Goodbye, Heartbeat, MemberRecord
from .membership.table import decode_member
from .replica import replica as replication
from .replica import sync as syncing
from .replica.entry import keyspace_id
from .replica.replica import HLC_MARK, Batch, Page, Replica
from .replica.store import DamagedRow, Origin, Store
from .replica.sync import Chunk, More, Pull, Sync
from .turn import Held, Say, Turn
from .types import CommitNumber, Instant, Keys, LinkId, NodeId, Payload
from .wire import hello
from .wire.envelope import Sealer, Unopened, check_header, check_signature, read_header
from .wire.fields import Head
from .wire.frames import Kind, frame
from .wire.hello import Established
from .wire.registry import Registry, Stream

if TYPE_CHECKING:
    from random import Random


SEED_RECORD = "seed"


def build_registry() -> Registry:
    """Every message of this build."""
    routes = (hello.ROUTES, record.ROUTES, replication.ROUTES, syncing.ROUTES, invalidation.ROUTES)
    return Registry(route for rows in routes for route in rows)


class Link(msgspec.Struct):
    """What the node keeps of one authenticated link."""

    id: LinkId
    established: Established
    frames_left: float
    refilled_s: float
    last_seq: int = -1

    @property
    def peer(self) -> NodeId:
        return self.established.peer


class Identity(msgspec.Struct, frozen=True):
    """The two counters of a node, durable before it starts: they are never mixed.

    `run` orders its membership and messages, `lineage` is part of the dots of its entries.
    """

    run: int
    previous_run: int
    lineage: int


class Node:
    """Everything this peer decides. No I/O, no clock, no randomness of its own."""

    def __init__(
        self, config: Config, keys: Keys, store: Store, random: Random, identity: Identity, now: Instant
    ) -> None:
        self.config, self.identity, self._keys, self._store = config, identity, keys, store
        self.registry = build_registry()
        self._sealer = Sealer(keys, self.registry, config.protocol_max, identity.run)
        self.clock = HybridClock(int.from_bytes(store.mark(HLC_MARK) or b"", "big"))
        self.origin: Origin = (keys.node_id, identity.lineage)
        self.replica = Replica(self.origin, store, self.clock)
        self.sync = Sync(config, self.replica, store)
        known = [decode_member(stored) for stored in store.records(MEMBER_RECORD).values()]
        self.membership = Membership(config, keys, identity.run, now.wall_ms, random, known)
        self.invitations = Invitations(config, keys, store.records(TICKET_RECORD))
        self.refused: Counter[Fault] = Counter()
        """How often a link was cut, by reason."""
        self.store_failed = ""
        """Why the last commit failed; empty once one has succeeded since."""
        self.lag_ms = 0
        """How late the runtime was lately, told in heartbeats."""
        self._links: dict[LinkId, Link] = {}
        self._staged = self._settled = CommitNumber(0)
        self._held: deque[tuple[CommitNumber, Held]] = deque()
        self._link_seq = self._gossip_seq = 0
        self._announce_until_s: dict[Origin, float] = {}
        self._leaving: Leave | None = None
        self._handover_until_s = float("inf")
        self._handlers: dict[type, Callable[[Turn, Any], None]] = {
            Start: self._on_start,
            Tick: self._on_tick,
            LinkUp: self._on_link_up,
            LinkDown: self._on_link_down,
            Probed: self._on_probed,
            DialFailed: self._on_dial_failed,
            Received: self._on_received,
            Durable: self._on_durable,
            PersistFailed: self._on_persist_failed,
            Put: self._on_put,
            Delete: self._on_delete,
            Barrier: self._on_barrier,
            Invalidate: self._on_invalidate,
            Join: self._on_join,
            Leave: self._on_leave,
            CreateTicket: self.invitations.create,
            RevokeTicket: self.invitations.revoke,
            Redeem: self.invitations.redeem,
        }
        self._messages: dict[type[Payload], Callable[[Turn, Link, Unopened, Any], None]] = {
            MemberRecord: self._on_record,
            Heartbeat: self._on_heartbeat,
            Goodbye: self._on_goodbye,
            Batch: self._on_batch,
            Invalidation: self._on_invalidation,
            Pull: lambda turn, link, _, pull: self.sync.on_pull(turn, link.id, pull),
            Chunk: lambda turn, link, _, chunk: self.sync.on_chunk(turn, link.id, chunk),
            More: lambda turn, link, _, more: self.sync.on_more(turn, link.id, more),
        }

    @property
    def is_leaving(self) -> bool:
        return self._leaving is not None

    @property
    def deadline_s(self) -> float:
        """Call `handle(Tick(), now)` no later than this."""
        return min(self.membership.deadline_s, self.sync.deadline_s, self._handover_until_s)

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """Decide what follows from one event. The effects are to be performed in their order."""
        turn = Turn(now, CommitNumber(self._staged + 1))
        self.membership.wake(now.mono_s)
        self._handlers[type(event)](turn, event)
        self.membership.judge(turn)
        while turn.cut_links:
            link, why = turn.cut_links.popitem()
            self._forget_link(turn, link, why)
            self.membership.judge(turn)
        return self._finish(turn)

    # Local reads: plain queries, no event, no effect

    def get(self, keyspace: str, key: bytes, now: Instant) -> Entry | Refused | None:
        """The committed live entry. Where `is_staged`, pass a `Barrier` first to see the newest."""
        try:
            return self.replica.read((keyspace_id(keyspace), key), self.clock.time_ms(now.wall_ms))
        except DamagedRow as damaged:
            return damaged_row(damaged)

    def is_staged(self, keyspace: str, key: bytes) -> bool:
        return self.replica.is_staged((keyspace_id(keyspace), key))

    def scan(
        self, keyspace: str, prefix: bytes, after: bytes | None, limit: int, now: Instant
    ) -> Page | Refused:
        """A page of committed live entries; `after` is the `next` of the page before."""
        time_ms = self.clock.time_ms(now.wall_ms)
        try:
            return self.replica.scan(keyspace_id(keyspace), prefix, after, limit, time_ms)
        except DamagedRow as damaged:
            return damaged_row(damaged)

    # The end of a turn

    def _finish(self, turn: Turn) -> list[Effect]:
        self.membership.save(turn)
        self.replica.seal(turn)
        effects = [self._leaving_as(effect) for effect in turn.effects]
        if turn.rows:
            self._staged = turn.number
            effects.append(Stage(turn.number, tuple(turn.rows)))
        for held in turn.held:
            if self._staged == self._settled:
                effects.append(self._leaving_as(held))
            else:
                self._held.append((self._staged, held))
        return effects

    def _leaving_as(self, effect: Effect | Say) -> Effect:
        if not isinstance(effect, Say):
            return effect
        route = self.registry.route_of(effect.payload)
        seq = self._next_seq(route.stream) if effect.seq is None else effect.seq
        return Send(effect.links, self._sealer.seal(effect.payload, seq, self.clock.last), route.bulk)

    def _next_seq(self, stream: Stream) -> int:
        if stream is Stream.GOSSIP:
            self._gossip_seq += 1
            return self._gossip_seq
        self._link_seq += 1
        return self._link_seq

    # Time and commits

    def _on_start(self, turn: Turn, event: Start) -> None:
        self.membership.start(turn.now)
        known = tuple(address.decode() for address in self._store.records(SEED_RECORD))
        self._on_join(turn, Join((*event.seeds, *known)))
        self._on_tick(turn, Tick())

    def _on_tick(self, turn: Turn, _: Tick) -> None:
        self.replica.sweep(self.clock.time_ms(turn.now.wall_ms))
        self.sync.tick(turn)
        heads = self._heads_to_announce(turn.now) if self.membership.is_beat_due(turn.now.mono_s) else []
        self.membership.tick(turn, heads, self.lag_ms)
        self._go_when_handed_over(turn)

    def _on_durable(self, turn: Turn, event: Durable) -> None:
        self._settled = event.number
        self.store_failed = ""
        own, heads = self.replica.committed(event.number)
        for batch in self.replica.batches(own):
            turn.say(self.membership.contacts.links(), batch)
        for origin in heads:
            self._announce_until_s[origin] = turn.now.mono_s + self.config.head_announce_s
        while self._held and self._held[0][0] <= event.number:
            turn.effects.append(self._held.popleft()[1])

    def _on_persist_failed(self, turn: Turn, event: PersistFailed) -> None:
        self._settled = self._staged
        self.store_failed = event.why
        self.replica.failed()
        self.membership.save_failed(turn.now)
        self.invitations.save_failed(self._store.records(TICKET_RECORD))
        turn.log("store.failed", why=event.why)
        held, self._held = self._held, deque()
        for _, what in held:
            if isinstance(what, Reply):
                is_barrier = isinstance(what.outcome, Settled)
                turn.do(what if is_barrier else Reply(what.ref, storage_full(event.why)))

    def _heads_to_announce(self, now: Instant) -> list[Head]:
        """Heads that changed lately; those that do not fit wait for the next heartbeat."""
        for origin in [o for o, until_s in self._announce_until_s.items() if until_s < now.mono_s]:
            del self._announce_until_s[origin]
        chosen = list(self._announce_until_s)[:HEARTBEAT_HEADS_MAX]
        for origin in chosen:
            self._announce_until_s[origin] = self._announce_until_s.pop(origin)
        return [(*origin, self.replica.vector[origin]) for origin in chosen]

    # Links

    def _on_link_up(self, turn: Turn, event: LinkUp) -> None:
        established = event.established
        if event.seed and event.dialled is not None:
            self.membership.seed_answered(turn, event.dialled, established.peer)
        kept = self.membership.link_up(turn, event.link, established.peer, established.run, event.dialled)
        if kept:
            self._links[event.link] = Link(event.link, established, LINK_FRAMES_BURST_MAX, turn.now.mono_s)
            self.sync.link_up(turn, event.link, established.peer)

    def _on_link_down(self, turn: Turn, event: LinkDown) -> None:
        self._forget_link(turn, event.link, event.why, duplicate=event.fault is Fault.DUPLICATE)

    def _forget_link(self, turn: Turn, link: LinkId, why: str, *, duplicate: bool = False) -> None:
        self._links.pop(link, None)
        self.sync.link_down(turn, link)
        self.membership.link_down(turn, link, why, duplicate=duplicate)

    def _on_probed(self, turn: Turn, event: Probed) -> None:
        self.membership.probed(turn, event.node, event.run, event.address)

    def _on_dial_failed(self, turn: Turn, event: DialFailed) -> None:
        self.membership.dial_failed(turn, event)

    def _on_received(self, turn: Turn, event: Received) -> None:
        link = self._links.get(event.link)
        if link is None:
            return  # it was cut; what it had sent before is void
        try:
            self._take_quota(link, len(event.envelopes), turn.now.mono_s)
            self.membership.heard(turn, link.id)
            for envelope in event.envelopes:
                self._receive(turn, link, envelope)
        except RemoteFault as fault:
            self.refused[fault.fault] += 1
            turn.cut(link.id, fault.fault, fault.detail)

    def _receive(self, turn: Turn, link: Link, envelope: bytes) -> None:
        """The cheapest refusal first; the signature is the dearest."""
        unopened = read_header(envelope)
        header = unopened.header
        self._check_version(link, header.v)
        check_header(unopened, self._keys.cluster_id)
        route = self.registry.find(header.type, link.established.version)
        if route.stream is Stream.LINK:
            self._check_link_stream(link, unopened)
        elif route.stream is Stream.RECORD:
            if self.membership.is_known(unopened.origin, header.run, header.seq):
                return
        elif unopened.origin != link.peer:
            raise RemoteFault(Fault.NOT_A_MEMBER, "gossip is taken from its author only")
        check_signature(unopened, self._keys)
        payload = self.registry.decode(route, header.payload)
        handler = self._messages.get(route.payload)
        if handler is None:
            raise RemoteFault(Fault.MALFORMED, f"{route.payload.__name__} does not belong here")
        handler(turn, link, unopened, payload)

    def _check_version(self, link: Link, version: int) -> None:
        if version != link.established.version:
            theirs, ours = link.established.protocol, (self.config.protocol_min, self.config.protocol_max)
            raise RemoteFault(
                Fault.UNSUPPORTED_VERSION,
                f"a message of version {version}: we speak protocol versions {ours[0]} to {ours[1]}, "
                f"the peer said it speaks {theirs[0]} to {theirs[1]}",
            )

    def _check_link_stream(self, link: Link, unopened: Unopened) -> None:
        header = unopened.header
        if unopened.origin != link.peer or header.run != link.established.run:
            raise RemoteFault(Fault.NOT_A_MEMBER, "a message of this link is signed by somebody else")
        if header.seq <= link.last_seq:
            raise RemoteFault(Fault.REPLAYED, f"message {header.seq} after {link.last_seq}")
        link.last_seq = header.seq

    def _take_quota(self, link: Link, frames: int, now_s: float) -> None:
        """A token bucket: LINK_FRAMES_PER_S_MAX on the long run, LINK_FRAMES_BURST_MAX at once."""
        refill = (now_s - link.refilled_s) * LINK_FRAMES_PER_S_MAX
        link.frames_left = min(LINK_FRAMES_BURST_MAX, link.frames_left + refill) - frames
        link.refilled_s = now_s
        if link.frames_left < 0:
            raise RemoteFault(Fault.QUOTA, f"more than {LINK_FRAMES_PER_S_MAX} messages a second")

    # Messages

    def _on_record(self, turn: Turn, link: Link, unopened: Unopened, payload: MemberRecord) -> None:
        header, envelope = unopened.header, unopened.envelope
        original = frame(Kind.ENVELOPE, msgspec.msgpack.encode(envelope))
        self.membership.on_record(turn, link.id, unopened.origin, header.run, header.seq, payload, original)

    def _on_heartbeat(self, turn: Turn, link: Link, _: Unopened, beat: Heartbeat) -> None:
        self.membership.on_heartbeat(turn, link.id, link.peer, beat)
        self.sync.announced(turn, link.id, beat.heads)
        self._go_when_handed_over(turn)

    def _on_goodbye(self, turn: Turn, link: Link, _: Unopened, goodbye: Goodbye) -> None:
        self.membership.on_goodbye(turn, link.peer, goodbye)

    def _on_batch(self, turn: Turn, link: Link, unopened: Unopened, batch: Batch) -> None:
        if batch.last < batch.first or any(not batch.first <= row.seq <= batch.last for row in batch.rows):
            raise RemoteFault(Fault.MALFORMED, "a batch with rows outside its range")
        if not self.replica.merge_batch(turn, unopened.origin, batch):
            self.sync.announced(turn, link.id, [(unopened.origin, batch.lineage, batch.last)])

    def _on_invalidation(self, turn: Turn, _: Link, unopened: Unopened, stale: Invalidation) -> None:
        turn.do(Invalidated(unopened.origin, stale.subject, stale.is_glob))

    # Local requests

    def _on_put(self, turn: Turn, put: Put) -> None:
        slot = (keyspace_id(put.keyspace), put.key)
        time_ms = self.clock.time_ms(turn.now.wall_ms)
        refusal = check_write(put.key, put.value, put.ttl_ms)
        refusal = refusal or self.replica.refuse(slot, put.if_version, put.if_absent, time_ms)
        if refusal is not None:
            turn.reply_after_commit(put.ref, refusal)
            return
        expires_ms = time_ms + put.ttl_ms if put.ttl_ms else 0
        turn.reply_after_commit(put.ref, Written(self.replica.put(turn, slot, put.value, expires_ms)))

    def _on_delete(self, turn: Turn, delete: Delete) -> None:
        slot = (keyspace_id(delete.keyspace), delete.key)
        time_ms = self.clock.time_ms(turn.now.wall_ms)
        refusal = self.replica.refuse(slot, delete.if_version, False, time_ms)
        if refusal is not None:
            turn.reply_after_commit(delete.ref, refusal)
        elif self.replica.exists(slot, time_ms):
            turn.reply_after_commit(delete.ref, Written(self.replica.put(turn, slot, None, 0)))
        else:
            turn.reply_after_commit(delete.ref, Nothing())

    def _on_barrier(self, turn: Turn, barrier: Barrier) -> None:
        turn.reply_after_commit(barrier.ref, Settled())

    def _on_invalidate(self, turn: Turn, stale: Invalidate) -> None:
        turn.say(self.membership.contacts.links(), Invalidation(stale.subject, stale.is_glob))

    def _on_join(self, turn: Turn, join: Join) -> None:
        """Seeds are stored: a node that is killed before it met anybody must find its cluster again."""
        contacts = self.membership.contacts
        for address in join.seeds:
            if address not in contacts.seeds and len(contacts.seeds) < SEEDS_MAX:
                contacts.add_seed(address, turn.now.mono_s)
                turn.stage(RecordRow(SEED_RECORD, address.encode(), b""))

    def _on_leave(self, turn: Turn, leave: Leave) -> None:
        if self._leaving is None:
            self._leaving = leave
            self._handover_until_s = turn.now.mono_s + leave.handover_s
            self._go_when_handed_over(turn)

    def _go_when_handed_over(self, turn: Turn) -> None:
        """Say goodbye once every linked peer holds what this node wrote, or the time for that is over."""
        if self._leaving is None or self.membership.is_leaving:
            return
        lacking = self.sync.lacking(self.origin, self.replica.own_head)
        if not lacking or turn.now.mono_s >= self._handover_until_s:
            self._handover_until_s = float("inf")
            self.membership.leave(turn, self._leaving.goodbye_s)


def check_write(key: bytes, value: bytes, ttl_ms: int | None) -> Refused | None:
    """The bounds of one write."""
    if not key:
        return Refused("invalid", "the key is empty")
    if len(key) > KEY_BYTES_MAX:
        return Refused("too_large", f"the key has {len(key)} bytes; the limit is {KEY_BYTES_MAX}")
    if len(value) > VALUE_BYTES_MAX:
        return Refused("too_large", f"the value has {len(value)} bytes; the limit is {VALUE_BYTES_MAX}")
    if ttl_ms is not None and not 0 < ttl_ms <= TTL_MS_MAX:
        return Refused("invalid", f"a TTL of {ttl_ms} ms; it must be above 0 and at most {TTL_MS_MAX}")
    return None


def storage_full(why: str) -> Refused:
    return Refused(
        "storage_full",
        f"nothing was written: {why}",
        "free space on the daemon's disk, then try again; reads and membership go on",
        retryable=True,
    )


def damaged_row(damaged: DamagedRow) -> Refused:
    return Refused(
        "internal", f"the stored entry is damaged: {damaged}", "write the key again, or ask another member"
    )
