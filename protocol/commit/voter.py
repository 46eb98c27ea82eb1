"""The voter: locks, votes and promises of one store, each durable before it is said.

A shard's voters are the acceptors of one single-decree consensus per transaction, on the question "is this shard
prepared?". Its value is chosen

- at ballot 0, if *every* voter votes YES;
- at ballot 1, which belongs to the coordinator's run alone;
- at a higher ballot, which anybody may run (recovery.py),

when a majority accepted it. A transaction commits iff all its shards are prepared. This is Paxos Commit (Gray and
Lamport, "Consensus on Transaction Commit", 2006) with one instance per shard instead of one per participant, and with
the votes of the shard's voters as ballot 0.

Why two transactions never both commit on top of the same version: prepared is chosen only where a majority voted YES
at ballot 0. Two majorities share a voter, which held the first one's lock until it knew the outcome, and then holds
its values. A voter that has missed a commit may say YES to what is based on it: somebody in the majority has not.

A NO binds, too: a coordinator that has seen one may put it to the vote that the shard is not prepared. Silence does
not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from ..clock import AHEAD_MAX_MS, HybridClock, stamp_ms
from ..config import Config
from ..limits import (
    COMMIT_STEPS_BYTES_MAX,
    TXN_RECORDS_MAX,
)
from ..turn import Turn
from ..types import NodeId
from .locks import Locks
from .messages import (
    Abstain,
    Accept,
    Accepted,
    Ask,
    Lapsed,
    Outcome,
    Outrun,
    Prepare,
    Promise,
    Read,
    Reason,
    Values,
    Vote,
    Waiting,
)
from .ports import Electorate, Ledger, Timers, Unreadable
from .post import Post
from .records import Records, fresh
from .stragglers import QUESTION
from .transaction import (
    Header,
    Instance,
    Op,
    Record,
    Shard,
    Slot,
    TxnId,
    coordinator_of,
    slots_of,
)

Seen = tuple[tuple[int, int], ...]
Place = tuple[TxnId | NodeId, int]
"""In the queue: (transaction, shard) that wants to be prepared, or (node, number) that wants to read."""


class Queued(msgspec.Struct, frozen=True):
    """A PREPARE, or a read, that waits for a transaction to end."""

    sender: NodeId
    step: Prepare | Read
    shard: int
    until_s: float


class No(msgspec.Struct, frozen=True):
    why: Reason
    seen: Seen = ()
    other: Header | None = None


class Voter:
    """`doubtful` is called with what was in doubt here for too long: somebody has to finish it."""

    def __init__(
        self,
        config: Config,
        clock: HybridClock,
        ledger: Ledger,
        electorate: Electorate,
        post: Post,
        timers: Timers,
        doubtful: Callable[[Turn, Header], None],
        rank: Callable[[Header], int],
    ) -> None:
        self._config, self._clock = config, clock
        self._ledger, self._electorate = ledger, electorate
        self._post, self._timers = post, timers
        self._doubtful, self._rank = doubtful, rank
        self.records = Records(clock, post, rank)
        self.locks = Locks()
        self._queue: dict[Place, Queued] = {}
        self._behind: dict[TxnId, list[Place]] = {}
        """Who waits for a transaction, in the order in which they came."""

    def load(self, stored: Iterable[bytes]) -> None:
        """Take up what is stored, in the place of all that is in memory."""
        self.records.load(stored)
        self.locks = Locks()
        self._queue.clear()
        self._behind.clear()
        for record in self.records.in_doubt():
            self.locks.take(record.header.txid, record.locked)

    def start(self, turn: Turn) -> None:
        """Look after what was in doubt, or not known to everybody, when this node stopped."""
        self.records.start(turn)
        for record in self.records.in_doubt():
            self._hasten(turn, record.header)

    def disown(self, turn: Turn) -> None:
        """Drop everything, outcomes too: others have them, or never asked this store."""
        self.records.clear(turn)
        self.load([])

    # Voting

    def on_prepare(self, turn: Turn, sender: NodeId, step: Prepare) -> None:
        if self._is_over(sender, step.header):
            return
        record = self.records.get(step.header.txid)
        if record is not None and record.header != step.header:
            return  # its sender contradicts itself
        is_full = record is None and len(self.records) >= TXN_RECORDS_MAX
        # Without all who vote nobody could finish it from here.
        may_hang = not all(map(self._electorate.voters, step.header.shards))
        for index in range(len(step.header.shards)):
            if is_full or may_hang or not self._electorate.is_voter(step.header.shards[index]):
                self._post.send(sender, Abstain(step.header.txid, index))
            elif record is not None and record.instances[index].vote is not None:
                self._post.send_durably(sender, _repeated(record, index))
            else:
                self._vote(turn, Queued(sender, step, index, turn.now.mono_s + self._config.lock_wait_s))

    def _vote(self, turn: Turn, queued: Queued) -> None:
        """Say YES or NO, or wait for a lock."""
        step, index = queued.step, queued.shard
        assert isinstance(step, Prepare)
        header = step.header
        try:
            no = self._judge(turn, step, index)
        except Unreadable:  # the others know what was there
            self._queue.pop((header.txid, index), None)
            self._post.send(queued.sender, Abstain(header.txid, index))
            return
        if no is not None and no.why == "locked" and turn.now.mono_s < queued.until_s:
            assert no.other is not None
            self._wait(turn, queued, (header.txid, index), no.other)
            self._post.send(queued.sender, Waiting(header.txid, index))
            return
        self._queue.pop((header.txid, index), None)
        if no is None:
            self._prepare(turn, step, index)
            self._post.send_durably(queued.sender, Vote(header.txid, index, True))
        else:
            self._put(
                turn, header, index, msgspec.structs.replace(self.records.instance(header, index), vote=False)
            )
            self._post.send_durably(queued.sender, Vote(header.txid, index, False, no.why, no.seen))
            if no.why == "repeated" and no.other is not None:
                self._is_over(queued.sender, no.other)

    def _judge(self, turn: Turn, step: Prepare, index: int) -> No | None:
        header = step.header
        no = self._judge_header(turn, header, index)
        if no is not None:
            return no
        slots = [header.slot(index, op) for op in step.ops[index]]
        newest = [self.stamp_of(slot) for slot in slots]
        seen = tuple(enumerate(newest))
        if any(op.base is not None and at > op.base for op, at in zip(step.ops[index], newest, strict=True)):
            return No("conflict", seen)
        if any(op.writes and at >= header.stamp for op, at in zip(step.ops[index], newest, strict=True)):
            return No("stale", seen)
        for slot, op in zip(slots, step.ops[index], strict=True):
            holder = self.locks.in_the_way(slot, writes=op.writes)
            if holder is not None and holder != header.txid:
                return No("locked", seen, self.records[holder].header)
        return None

    def _judge_header(self, turn: Turn, header: Header, index: int) -> No | None:
        if self.records.instance(header, index).promised > 0:
            return No("ballot")
        if self._is_sealed(header.shards[index]):
            return No("epoch")
        age_ms = self._clock.time.time_ms(turn.now) - stamp_ms(header.stamp)
        if age_ms > self._config.txn_s * 1000:
            return No("late")
        if age_ms < -AHEAD_MAX_MS:
            return No("clock")
        earlier = self._earlier(turn, header.request)
        return No("repeated", (), earlier) if earlier is not None and earlier.txid != header.txid else None

    def _is_sealed(self, shard: Shard) -> bool:
        """Whether others vote in its place by now: then this epoch gets no further YES here, and is not read."""
        return self._electorate.epoch(shard[0]) > shard[1]

    def _earlier(self, turn: Turn, request: bytes | None) -> Header | None:
        """What this request was voted YES for, or has committed as. Whoever asks wants to know how it ends."""
        record = self.records.named(request)
        if record is None:
            return None
        if record.outcome is None:
            self._hasten(turn, record.header)
        return record.header

    def _prepare(self, turn: Turn, step: Prepare, index: int) -> None:
        header = step.header
        self._clock.observe(header.stamp)
        instance = msgspec.structs.replace(self.records.instance(header, index), vote=True)
        self._put(turn, header, index, instance, step.ops)
        self.locks.take(header.txid, self.records[header.txid].locked)

    # Consensus on the shard's answer

    def on_accept(self, turn: Turn, sender: NodeId, step: Accept) -> None:
        instance = self._standing(sender, step)
        if instance is None:
            return
        if step.ballot < instance.promised:
            self._post.send_durably(sender, Outrun(step.header.txid, step.shard, instance.promised))
            return
        accepted = (step.ballot, step.prepared)
        if accepted != instance.accepted:
            instance = msgspec.structs.replace(instance, promised=step.ballot, accepted=accepted)
            self._put(turn, step.header, step.shard, instance)
        self._post.send_durably(sender, Accepted(step.header.txid, step.shard, step.ballot, step.prepared))

    def on_ask(self, turn: Turn, sender: NodeId, step: Ask) -> None:
        if step.ballot > QUESTION and self._is_lapsed(step.header, step.shard):
            self._post.send_durably(sender, Lapsed(step.header.txid, step.shard))
            return
        instance = self._standing(sender, step)
        if instance is None:
            return
        if QUESTION < step.ballot < instance.promised:
            self._post.send_durably(sender, Outrun(step.header.txid, step.shard, instance.promised))
            return
        if step.ballot > instance.promised:
            instance = msgspec.structs.replace(instance, promised=step.ballot)
            self._put(turn, step.header, step.shard, instance)
        if step.ballot > QUESTION:
            self._queue.pop((step.header.txid, step.shard), None)
        txid = step.header.txid
        promise = Promise(txid, step.shard, step.ballot, instance.vote, instance.accepted)
        self._post.send_durably(sender, promise)

    def _is_lapsed(self, header: Header, index: int) -> bool:
        """Whether its voters have been replaced before it was prepared: this store would know of a commit."""
        return (
            index < len(header.shards)
            and self.records.outcome_of(header.txid) is None
            and self._electorate.is_succeeded_here(header.shards[index])
        )

    def _standing(self, sender: NodeId, step: Accept | Ask) -> Instance | None:
        """What was promised so far; None: there is nothing to be promised any more, or not by this store."""
        if self._is_over(sender, step.header):
            return None
        record = self.records.get(step.header.txid)
        if record is not None and record.header != step.header:
            return None
        if step.shard >= len(step.header.shards) or not self._electorate.is_named(
            step.header.shards[step.shard]
        ):
            self._post.send(sender, Abstain(step.header.txid, step.shard))
            return None
        return self.records.instance(step.header, step.shard)

    # Outcomes

    def learn(self, turn: Turn, header: Header, committed: bool) -> None:
        """A transaction is decided: with its outcome, its values are stored here if this voter has them."""
        record = self.records.get(header.txid)
        if record is None and self.records.outcome_of(header.txid) is not None:
            return
        if record is None and not any(self._electorate.is_named(shard) for shard in header.shards):
            return
        record = record or fresh(header)
        if record.header != header:
            return
        if record.outcome is not None:
            assert record.outcome == committed, f"two outcomes of {header.txid}"
            return
        self.locks.release(header.txid, record.locked)
        if committed:
            for slot, op in slots_of(header, record.ops):
                if op.writes and self._stamp_or_none(slot) < header.stamp:
                    self._ledger.record(turn, slot, op.value, header.stamp)
        self.records.store(turn, Record(header, [], record.instances, committed))
        self._ended(turn, header.txid)

    def stamp_of(self, slot: Slot) -> int:
        """Raises Unreadable."""
        newest = self._ledger.newest(slot)
        return newest.hlc if newest is not None else 0

    def _stamp_or_none(self, slot: Slot) -> int:
        """0 for what is damaged: what was decided takes its place."""
        try:
            return self.stamp_of(slot)
        except Unreadable:
            return 0

    def abandon(self, turn: Turn, header: Header) -> None:
        """Its voters were replaced by force, and nobody can say any more how it ends: what it holds here is free."""
        record = self.records.get(header.txid)
        if record is not None and record.outcome is None:
            self.locks.release(header.txid, record.locked)
            self.records.drop_doubtful(turn, header.txid)
            for place in self._behind.pop(header.txid, ()):
                self._retry(turn, place)

    # Reads

    def on_read(self, turn: Turn, sender: NodeId, step: Read) -> None:
        """Answer when no transaction in doubt writes to any of these keys: it may be committed already."""
        if self._electorate.is_voter(step.shard) and not self._is_sealed(step.shard):
            self._read(turn, Queued(sender, step, 0, turn.now.mono_s + self._config.read_wait_s))

    def _read(self, turn: Turn, queued: Queued) -> None:
        step = queued.step
        assert isinstance(step, Read)
        slots = [(step.shard[0], key) for key in step.keys]
        holder = self._writer_of(slots)
        if holder is not None:
            if turn.now.mono_s < queued.until_s:
                self._wait(turn, queued, (queued.sender, step.number), self.records[holder].header)
            return
        values: list[tuple[int, bytes | None]] = []
        size = 0
        try:
            entries = [self._ledger.newest(slot) for slot in slots]
        except Unreadable:
            return  # a majority of the others can answer
        for entry in entries:
            size += len(entry.value or b"") + 16 if entry is not None else 16
            if values and size > COMMIT_STEPS_BYTES_MAX:
                break
            values.append((entry.hlc, entry.value) if entry is not None else (0, None))
        earlier = self._earlier(turn, step.request)
        if earlier is not None:
            self._is_over(queued.sender, earlier)
        self._post.send_durably(queued.sender, Values(step.number, values, earlier is not None))

    def _writer_of(self, slots: list[Slot]) -> TxnId | None:
        holders = (self.locks.in_the_way(slot, writes=False) for slot in slots)
        return next((holder for holder in holders if holder is not None), None)

    # Waiting

    def _wait(self, turn: Turn, queued: Queued, place: Place, other: Header) -> None:
        self._behind.setdefault(other.txid, []).append(place)
        if place not in self._queue:
            self._queue[place] = queued
            delay_s = queued.until_s - turn.now.mono_s
            self._timers.after(turn.now, delay_s, lambda turn: self._retry(turn, place))
            self._hasten(turn, other)

    def _retry(self, turn: Turn, place: tuple[TxnId | NodeId, int]) -> None:
        queued = self._queue.get(place)
        if queued is None:
            return
        if isinstance(queued.step, Read):
            del self._queue[place]
            self._read(turn, queued)
        else:
            self._vote(turn, queued)

    def _ended(self, turn: Turn, txid: TxnId) -> None:
        """Its locks are free: those who waited may go on, in the order in which they came."""
        for index in range(len(self.records[txid].instances)):
            self._queue.pop((txid, index), None)
        for place in self._behind.pop(txid, ()):
            self._retry(turn, place)

    def _hasten(self, turn: Turn, header: Header) -> None:
        """Somebody waits for it: look after it sooner."""
        delay_s = self._config.hasten_s * (1 + self._rank(header))
        self._timers.after(turn.now, delay_s, lambda turn: self._look_after(turn, header), coarse=True)

    def _look_after(self, turn: Turn, header: Header) -> None:
        """See to it that it ends, if this voter has voted (see stragglers.py if it has not)."""
        record = self.records.get(header.txid)
        if record is None or record.outcome is not None or not record.has_voted:
            return
        is_known = all(self._electorate.voters(shard) for shard in header.shards)
        if is_known and any(map(self._electorate.is_named, header.shards)):
            self._doubtful(turn, header)
        else:  # not sure yet that this store is the one that promised, or a keyspace was dropped
            self._timers.after(
                turn.now, self._config.doubt_s, lambda turn: self._look_after(turn, header), coarse=True
            )

    def coordinator_lost(self, turn: Turn, node: NodeId) -> None:
        """The link to a coordinator is gone: most likely nobody decides what it began."""
        for record in self.records.in_doubt():
            if coordinator_of(record.header) == node:
                self._hasten(turn, record.header)

    # Records

    def _put(
        self, turn: Turn, header: Header, index: int, instance: Instance, ops: list[list[Op]] | None = None
    ) -> None:
        record = self.records.get(header.txid) or fresh(header)
        if not record.has_voted:
            delay_s = self._config.doubt_s * (1 + 0.2 * self._rank(header))
            self._timers.after(turn.now, delay_s, lambda turn: self._look_after(turn, header), coarse=True)
        instances = [*record.instances]
        instances[index] = instance
        self.records.store(turn, Record(header, ops or record.ops, instances, record.outcome))

    def _is_over(self, sender: NodeId, header: Header) -> bool:
        """Whether the outcome is known here: then the sender is told, whatever it wanted."""
        outcome = self.records.outcome_of(header.txid)
        if outcome is not None:
            self._post.send_durably(sender, Outcome(header, outcome))
        return outcome is not None


def _repeated(record: Record, index: int) -> Vote:
    vote = record.instances[index].vote
    assert vote is not None
    return Vote(record.header.txid, index, vote)
