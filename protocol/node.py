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

from . import gossip as gossiping
from . import invalidation
from .clock import ClusterTime, HybridClock
from .commit import messages as commit_messages
from .commit.messages import Steps
from .config import Config
from .effects import (
    Effect,
    Entry,
    Halt,
    Invalidated,
    MarkRow,
    RecordRow,
    Reply,
    Stage,
    StartAgain,
)
from .errors import Fault, Refused, RemoteFault
from .gossip import Gossip, Want
from .gossip import Held as HeldStreams
from .inputs import (
    Barrier,
    CreateKeyspace,
    CreateTicket,
    Delete,
    DialFailed,
    DropKeyspace,
    Durable,
    Event,
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
    Settled,
    SetVoters,
    Start,
    Tick,
    Transact,
)
from .invalidation import Invalidation
from .limits import HEARTBEAT_HEADS_MAX, SEEDS_MAX
from .membership import record
from .membership.invitations import TICKET_RECORD, Invitations
from .membership.membership import MEMBER_RECORD, Membership
from .membership.record import Goodbye, Heartbeat, MemberRecord, News
from .membership.table import decode_member
from .opening import Opener
from .peerlink import PeerLink
from .replica import messages as replication
from .replica.defining import Defining
from .replica.mending import Mending
from .replica.messages import Batch, Chunk, Holding, More, Pull
from .replica.reading import Reading
from .replica.replica import HLC_MARK, Page, Replica
from .replica.serving import Serving
from .replica.settling import RUN_MARK, Identity, Settling, fresh_lineage
from .replica.store import Origin, Store
from .replica.sync import Sync
from .replica.writing import Writing, storage_full
from .signing import Signer
from .transactions import Transactions
from .turn import Held, Turn
from .types import CommitNumber, Instant, Keys, LinkId, Payload
from .wire import hello
from .wire.envelope import Unopened
from .wire.fields import Head
from .wire.registry import Registry, Stream

if TYPE_CHECKING:
    from random import Random


SEED_RECORD = "seed"


def build_registry() -> Registry:
    """Every message of this build."""
    parts = (hello, record, replication, gossiping, invalidation, commit_messages)
    return Registry(route for part in parts for route in part.ROUTES)


class Node:
    """Everything this peer decides. No I/O, no clock, no randomness of its own."""

    def __init__(
        self, config: Config, keys: Keys, store: Store, random: Random, identity: Identity, now: Instant
    ) -> None:
        self.config, self.identity, self._keys, self._store = config, identity, keys, store
        self.registry = build_registry()
        self.time = ClusterTime(now)
        self.clock = HybridClock(self.time, int.from_bytes(store.mark(HLC_MARK) or b"", "big"))
        self.replica = Replica((keys.node_id, identity.lineage), store, self.clock)
        known = [decode_member(stored) for stored in store.records(MEMBER_RECORD).values()]
        for member in known:
            self.replica.void(member.node, member.record.voided)
        self.mending = Mending(
            self.replica,
            self.time,
            self.clock,
            store,
            lambda: self.membership.expected(),
            lambda: fresh_lineage(identity.run, random),
        )
        self.membership = Membership(
            config, keys, identity.run, now.wall_ms, random, known, self.mending.voided, identity.store_id
        )
        self.settling = Settling(config, identity, self.replica, self.time, self.membership.expected, random)
        self.sync = Sync(config, self.replica, store, self.settling)
        self.serving = Serving(config, self.replica, store)
        self.reading = Reading(self.replica)
        self.transactions = Transactions(
            config, identity, self.replica, self.settling, self.membership, self.clock, store, random
        )
        self.writing = Writing(
            config, self.replica, self.sync, self.settling, self.time, store, self.transactions.write
        )
        self.defining = Defining(self.replica, self.settling, self.time, self.membership.candidates)
        self.gossip = Gossip(config, (keys.node_id, identity.run))
        self._signer = Signer(keys, self.registry, config.protocol_max, identity.run, self.clock, self.gossip)
        self._opener = Opener(config, keys, identity.run, self.registry, self.membership, self.gossip)
        self.invitations = Invitations(config, keys, store.records(TICKET_RECORD))
        self.refused: Counter[Fault] = Counter()
        """How often a link was cut, by reason."""
        self.store_failed = ""
        """Why the last commit failed; empty once one has succeeded since."""
        self.lag_ms = 0
        """How late the runtime was lately, told in heartbeats."""
        self._links: dict[LinkId, PeerLink] = {}
        self._staged = self._settled = CommitNumber(0)
        self._held: deque[tuple[CommitNumber, Held]] = deque()
        self._announce_until_s: dict[Origin, float] = {}
        self._leaving: Leave | None = None
        self._handover_until_s = float("inf")
        self._handlers: dict[type, Callable[[Turn, Any], None]] = {
            Start: self._on_start,
            Tick: self._on_tick,
            LinkUp: self._on_link_up,
            LinkDown: self._on_link_down,
            Probed: lambda turn, it: self.membership.probed(turn, it.node, it.run, it.address),
            DialFailed: self.membership.dial_failed,
            Received: self._on_received,
            Durable: self._on_durable,
            PersistFailed: self._on_persist_failed,
            Put: self.writing.write,
            PutMany: self.writing.write,
            Delete: self.writing.write,
            Transact: lambda turn, it: self.writing.when_settled(turn, it, self.transactions.transact),
            QuorumRead: lambda turn, it: self.writing.when_settled(turn, it, self.transactions.read),
            Inquire: lambda turn, it: self.writing.when_settled(turn, it, self.transactions.inquire),
            CreateKeyspace: lambda turn, it: self.writing.when_settled(turn, it, self.defining.create),
            SetVoters: lambda turn, it: self.writing.when_settled(turn, it, self.transactions.set_voters),
            DropKeyspace: lambda turn, it: self.writing.when_settled(turn, it, self.defining.drop),
            Barrier: lambda turn, barrier: turn.reply_after_commit(barrier.ref, Settled()),
            Invalidate: self._on_invalidate,
            Join: self._on_join,
            Leave: self._on_leave,
            CreateTicket: self.invitations.create,
            RevokeTicket: self.invitations.revoke,
            Redeem: self.invitations.redeem,
        }
        self._messages: dict[type[Payload], Callable[[Turn, PeerLink, Unopened, Any], None]] = {
            MemberRecord: self._on_record,
            Heartbeat: self._on_heartbeat,
            Goodbye: lambda turn, link, _, goodbye: self.membership.on_goodbye(turn, link.peer, goodbye),
            Batch: self._on_batch,
            Invalidation: self._on_invalidation,
            Pull: self._on_pull,
            Chunk: lambda turn, link, _, chunk: self.sync.on_chunk(turn, link.id, chunk),
            More: lambda turn, link, _, more: self.serving.on_more(turn, link.id, more),
            Holding: self._on_holding,
            HeldStreams: lambda turn, link, _, held: self.gossip.on_held(turn, link.id, held),
            Want: lambda turn, link, _, want: self.gossip.on_want(turn, link.id, want),
            Steps: lambda turn, link, _, steps: self.transactions.on_steps(turn, link.peer, steps),
        }

    @property
    def origin(self) -> Origin:
        """What this node writes now is numbered under this."""
        return self.replica.me

    @property
    def is_leaving(self) -> bool:
        return self._leaving is not None

    @property
    def settled(self) -> CommitNumber:
        """What was staged up to here is durable or has failed; the vector changes with nothing else."""
        return self._settled

    @property
    def deadline_s(self) -> float:
        """Call `handle(Tick(), now)` no later than this."""
        parts = (self.membership, self.gossip, self.sync, self.writing, self.transactions)
        return min(self._handover_until_s, *(part.deadline_s for part in parts))

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """Decide what follows from one event. The effects are to be performed in their order."""
        turn = self.begin(now)
        self.take(turn, event)
        return self.finish(turn)

    def begin(self, now: Instant) -> Turn:
        """Several events that came together are one turn: one commit, one signature for what they say alike.

        A `PersistFailed` must be the first of its turn: it says that all that was staged before it is void.
        """
        self.membership.wake(now.mono_s)
        return Turn(now, CommitNumber(self._staged + 1))

    def take(self, turn: Turn, event: Event) -> None:
        self._handlers[type(event)](turn, event)

    def finish(self, turn: Turn) -> list[Effect]:
        """Nothing else may be decided between `begin` and this."""
        self.membership.judge(turn)
        while turn.cut_links:
            link, why = turn.cut_links.popitem()
            self._forget_link(turn, link, why)
            self.membership.judge(turn)
        return self._finish(turn)

    # Local reads: plain queries, no event, no effect

    def get(self, keyspace: str, key: bytes, now: Instant) -> Entry | Refused | None:
        """The committed live entry. Where `is_staged`, pass a `Barrier` first to see the newest."""
        return self.reading.get(keyspace, key, self.time.time_ms(now))

    def is_staged(self, keyspace: str, key: bytes) -> bool:
        return self.reading.is_staged(keyspace, key)

    def scan(
        self, keyspace: str, prefix: bytes, after: bytes | None, limit: int, now: Instant
    ) -> Page | Refused:
        """A page of committed live entries; `after` is the `next` of the page before."""
        return self.reading.scan(keyspace, prefix, after, limit, self.time.time_ms(now))

    # The end of a turn

    def _finish(self, turn: Turn) -> list[Effect]:
        self.membership.save(turn)
        self.transactions.commit.seal(turn)
        self.replica.seal(turn)
        effects = [self._signer.signed(effect, turn.now) for effect in turn.effects]
        if turn.rows:
            self._staged = turn.number
            effects.append(Stage(turn.number, tuple(turn.rows)))
        for held in turn.held:
            if self._staged == self._settled:
                effects.append(self._signer.signed(held, turn.now))
            else:
                self._held.append((self._staged, held))
        return effects

    # Time and commits

    def _on_start(self, turn: Turn, event: Start) -> None:
        self.membership.start(turn.now)
        known = tuple(address.decode() for address in self._store.records(SEED_RECORD))
        self._on_join(turn, Join((*event.seeds, *known)))
        alone = not self.membership.contacts.seeds and self.membership.is_alone()
        self.settling.start(turn.now, alone=alone)
        self._on_tick(turn, Tick())

    def _on_tick(self, turn: Turn, _: Tick) -> None:
        if self.time.watch(turn.now):
            turn.log("clock.jumped", by_ms=str(self.time.jump_ms), note="stamps follow the cluster's time")
        self.replica.sweep(self.time.time_ms(turn.now))
        self.gossip.tick(turn)
        self.sync.tick(turn)
        self.settling.tick(turn)
        self.mending.tick(turn)
        self.writing.tick(turn)
        self.transactions.tick(turn)
        heads = self._heads_to_announce(turn.now) if self.membership.is_beat_due(turn.now.mono_s) else []
        news = News(heads, self.gossip.to_announce(turn.now), self.time.steady_ms(turn.now), self.lag_ms)
        self.membership.tick(turn, news)
        self._go_when_handed_over(turn)

    def _on_durable(self, turn: Turn, event: Durable) -> None:
        self._settled = event.number
        self.store_failed = ""
        own, heads = self.replica.committed(event.number)
        if self.mending.committed(event.number):
            self.membership.declare_voided(turn, self.mending.voided)
            self.sync.audit(turn)
        if self.settling.committed(event.number):
            self.membership.declare_store(turn, self.settling.store_id)
        self.sync.committed(turn, event.number)
        self.writing.committed()
        self.writing.check(turn)
        for batch in self.replica.batches(own, confirm=self.writing.wants_confirmation):
            turn.say(self.membership.contacts.links(), batch)
        self.transactions.committed(turn, event.number)
        for origin in heads:
            self._announce_until_s[origin] = turn.now.mono_s + self.config.head_announce_s
        while self._held and self._held[0][0] <= event.number:
            turn.effects.append(self._held.popleft()[1])

    def _on_persist_failed(self, turn: Turn, event: PersistFailed) -> None:
        self._settled = self._staged
        self.store_failed = event.why
        self.replica.failed()
        self.sync.failed(turn.now.mono_s)
        self.settling.failed(turn.now.mono_s)
        self.mending.failed()
        self.membership.save_failed(turn.now)
        self.writing.failed(turn, storage_full(event.why))
        self.transactions.failed(turn)
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
        later = self.membership.later_record(established.peer, established.run)
        if later is not None:
            self._refuse_older_run(turn, event, later)
            return
        known_run = self.membership.known_run(established.peer, established.run)
        if event.seed and event.dialled is not None:
            self.membership.seed_answered(turn, event.dialled, established.peer)
        kept = self.membership.link_up(turn, event.link, established.peer, established.run, event.dialled)
        if kept:
            self._links[event.link] = PeerLink(event.link, established, turn.now.mono_s)
            self.gossip.link_up(turn, event.link)
            self.sync.link_up(turn, event.link, established.peer, known_run)
            self.transactions.commit.link_up(established.peer)

    def _refuse_older_run(self, turn: Turn, event: LinkUp, later: bytes) -> None:
        """A peer comes under an older run than it had: it is told which; unless both run now, then it is a copy."""
        peer, link = event.established.peer, event.link
        if self.membership.is_heard(peer, turn.now.mono_s):
            turn.cut(link, Fault.CLONED, "another process with this node's key is linked under a later run")
        else:
            turn.cut(link, Fault.STALE_RUN, "this node is known under a later run", later)

    def _on_own_record(self, turn: Turn, link: PeerLink, run: int) -> None:
        """Our own record, which we signed in a later run than this: a clock went back, or the folder did."""
        turn.log("run.outdated", known=str(run), link=str(link.id))
        turn.stage(MarkRow(RUN_MARK, run.to_bytes(8, "big")))
        self.settling.contradicted(turn)  # to the next start this run will look like its last
        turn.do_after_commit(StartAgain())

    def _on_link_down(self, turn: Turn, event: LinkDown) -> None:
        if event.fault is Fault.CLONED:
            turn.do(Halt(f"this node's folder is used twice: {event.why}"))
        self._forget_link(turn, event.link, event.why, duplicate=event.fault is Fault.DUPLICATE)

    def _forget_link(self, turn: Turn, link: LinkId, why: str, *, duplicate: bool = False) -> None:
        gone = self._links.pop(link, None)
        self.gossip.link_down(link)
        self.serving.stop(link)
        self.sync.link_down(turn, link)
        self.membership.link_down(turn, link, why, duplicate=duplicate)
        if gone is not None and self.membership.contacts.up(gone.peer) is None:
            self.transactions.commit.link_down(turn, gone.peer)

    def _on_received(self, turn: Turn, event: Received) -> None:
        link = self._links.get(event.link)
        if link is None:
            return  # it was cut; what it had sent before is void
        try:
            link.take_quota(len(event.envelopes), turn.now.mono_s)
            self.membership.heard(turn, link.id)
            for envelope in event.envelopes:
                self._receive(turn, link, envelope)
        except RemoteFault as fault:
            self.refused[fault.fault] += 1
            turn.cut(link.id, fault.fault, fault.detail)

    def _receive(self, turn: Turn, link: PeerLink, envelope: bytes) -> None:
        opened = self._opener.open(link, envelope)
        if opened is None:
            return
        unopened, payload = opened.unopened, opened.payload
        handler = self._messages.get(type(payload))
        if handler is None:
            raise RemoteFault(Fault.MALFORMED, f"{type(payload).__name__} does not belong here")
        handler(turn, link, unopened, payload)
        if (
            opened.route.stream is Stream.GOSSIP
        ):  # only now: whoever hands on what is faulty is cut off for it
            header = unopened.header
            self.gossip.keep(turn.now, unopened.origin, header.run, header.seq, unopened.frame)

    # Messages

    def _on_record(self, turn: Turn, link: PeerLink, unopened: Unopened, payload: MemberRecord) -> None:
        header, origin = unopened.header, unopened.origin
        if origin == self._keys.node_id:
            self._on_own_record(turn, link, header.run)
            return
        self.membership.on_record(turn, link.id, origin, header.run, header.seq, payload, unopened.frame)
        if self.replica.void(origin, payload.voided):
            self.sync.audit(turn)

    def _on_heartbeat(self, turn: Turn, link: PeerLink, _: Unopened, beat: Heartbeat) -> None:
        round_trip_ms = self.membership.on_heartbeat(turn, link.id, link.peer, beat)
        if round_trip_ms is not None:
            self.time.measured(link.peer, round_trip_ms, beat.steady_ms, turn.now)
        self.gossip.announced(turn, link.id, beat.streams)
        self.sync.announced(turn, link.id, beat.heads)
        self.writing.tick(turn)
        self._go_when_handed_over(turn)

    def _on_pull(self, turn: Turn, link: PeerLink, _: Unopened, pull: Pull) -> None:
        self.settling.on_pull(turn, pull)
        self.sync.announced(turn, link.id, pull.vector)
        self.serving.on_pull(turn, link.id, pull)

    def _on_batch(self, turn: Turn, link: PeerLink, unopened: Unopened, batch: Batch) -> None:
        if batch.last < batch.first or any(not batch.first <= row.seq <= batch.last for row in batch.rows):
            raise RemoteFault(Fault.MALFORMED, "a batch with rows outside its range")
        author = unopened.origin
        if not self.replica.merge_batch(turn, author, batch):
            self.sync.announced(turn, link.id, [(author, batch.lineage, batch.last)])
        elif batch.confirm and link.peer == author:
            turn.say_after_commit((link.id,), Holding([(author, batch.lineage, batch.last)]))

    def _on_holding(self, turn: Turn, link: PeerLink, _: Unopened, holding: Holding) -> None:
        self.sync.announced(turn, link.id, holding.heads)
        self.writing.check(turn)

    def _on_invalidation(self, turn: Turn, _: PeerLink, unopened: Unopened, stale: Invalidation) -> None:
        turn.do(Invalidated(unopened.origin, stale.subject, stale.is_glob))

    # Local requests

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
