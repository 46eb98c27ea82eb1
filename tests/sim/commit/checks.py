"""What must hold in every run of the model.

C1  at most one answer is chosen for a shard of a transaction
C2  a transaction has one outcome: COMMIT if all its shards are prepared, ABORT if one is not
C3  the commits of a key form a chain: none is based on a version that another replaced
C4  what a client was told to be committed is so, durably, and what committed is held
C5  single keys are linearizable; transactions and snapshots are strictly serializable
C6  when the faults are over everything is decided, unlocked, known to all and forgotten, and all hold the same
C7  what a client wants is done at most once, whatever its retries, and not at all if it was told of a conflict
C8  nothing stays locked for long while a majority lives (patience.py)
C10 an epoch has one successor at most, its voters come to know what they must, and C1 to C7 hold across epochs
C9  most of what is asked is done: a third while the faults last, four fifths afterwards (runs.py)

What counts as chosen is reckoned from what is durable on the disks, never from what the nodes say of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from protocol.commit.messages import Prepare, Steps
from protocol.commit.task import Committed, Found
from protocol.commit.transaction import TXN_RECORD, Header, Op, Record, Shard, Slot, TxnId, majority, slots_of
from protocol.effects import Entry, RecordRow, StoreRow
from protocol.epochs import decode as decode_successor
from protocol.epochs import place_of
from protocol.errors import Refused
from protocol.keyspaces import SYSTEM_KEYSPACE
from protocol.types import NodeId
from protocol.voters import FIRST_EPOCH, Voter

from .order import Event, find_cycle

if TYPE_CHECKING:
    from .peers import Peer

Answer = tuple[TxnId, int]
decode = msgspec.msgpack.Decoder(Record).decode


class Violation(AssertionError):
    """An invariant does not hold."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)


def name_of(txid: TxnId) -> str:
    """Short, as `--trace` takes it: node, run, counter."""
    return f"n{txid.node[0]}.{txid.run}.{txid.counter}"


class Checks:
    def __init__(self, first: dict[int, tuple[Voter, ...]]) -> None:
        self._voters = {(keyspace, FIRST_EPOCH): voters for keyspace, voters in first.items()}
        """Of every shard that ever was, once it is durable anywhere."""
        self._headers: dict[TxnId, Header] = {}
        self._ops: dict[TxnId, list[list[Op]]] = {}
        self._yes: dict[Answer, set[NodeId]] = {}
        self._no: dict[Answer, set[NodeId]] = {}
        self._accepted: dict[tuple[TxnId, int, int, bool], set[NodeId]] = {}
        self._chosen: dict[Answer, bool] = {}
        self._outcomes: dict[TxnId, bool] = {}
        self._told: dict[TxnId, tuple[float, float]] = {}
        self._snapshots: list[Event] = []
        self._seen: list[tuple[Slot, Found]] = []
        self._by_request: dict[bytes, TxnId] = {}
        self._refused: set[bytes] = set()
        self.tried = {True: 0, False: 0}
        self.done = {True: 0, False: 0}
        self.refusals: dict[str, int] = {}

    # As it happens

    def said(self, steps: Steps) -> None:
        for step in steps.steps:
            if isinstance(step, Prepare):
                self._headers[step.header.txid] = step.header
                self._ops[step.header.txid] = step.ops

    def stored(self, node: NodeId, rows: list[StoreRow]) -> list[TxnId]:
        """Rows are durable. Returns what a majority has accepted at ballot 1 by that."""
        for row in rows:
            if isinstance(row, Entry) and row.keyspace == SYSTEM_KEYSPACE:
                self._succeed(row)
        records = [
            decode(row.value)
            for row in rows
            if isinstance(row, RecordRow) and row.kind == TXN_RECORD and row.value is not None
        ]
        return [record.header.txid for record in records if self._note(node, record)]

    def voters(self, shard: Shard) -> tuple[NodeId, ...]:
        return tuple(voter.node for voter in self._voters[shard])

    @property
    def all_voters(self) -> list[tuple[Voter, ...]]:
        return list(self._voters.values())

    def _succeed(self, entry: Entry) -> None:
        place, successor = place_of(entry.key), decode_successor(entry.value)
        assert place is not None and successor is not None
        before = self._voters.setdefault(place, successor.voters)
        require(
            before == successor.voters,
            f"C10: epoch {place} has two successions: {before}, {successor.voters}",
        )

    def _note(self, node: NodeId, record: Record) -> bool:
        header, is_news = record.header, False
        self._headers.setdefault(header.txid, header)
        if record.ops:
            self._ops.setdefault(header.txid, record.ops)
        for index, instance in enumerate(record.instances):
            answer = (header.txid, index)
            voters = self.voters(header.shards[index])
            if instance.vote is not None:
                (self._yes if instance.vote else self._no).setdefault(answer, set()).add(node)
            if instance.accepted is not None:
                ballot, prepared = instance.accepted
                takers = self._accepted.setdefault((*answer, ballot, prepared), set())
                is_new_taker = node not in takers
                takers.add(node)
                if len(takers) >= majority(len(voters)):
                    self._choose(answer, prepared)
                is_news |= is_new_taker and ballot == 1 and len(takers) == majority(len(voters))
            if len(self._yes.get(answer, ())) == len(voters):
                self._choose(answer, True)
            if len(self._no.get(answer, ())) >= majority(len(voters)):
                self._choose(answer, False)
        if record.outcome is not None:
            self._decide(header, record.outcome)
        return is_news

    def _choose(self, answer: Answer, prepared: bool) -> None:
        before = self._chosen.setdefault(answer, prepared)
        name = name_of(answer[0])
        require(before == prepared, f"C1: {before} and {prepared} are chosen for shard {answer[1]} of {name}")

    def _decide(self, header: Header, committed: bool) -> None:
        name = name_of(header.txid)
        before = self._outcomes.setdefault(header.txid, committed)
        require(before == committed, f"C2: {name} has two outcomes")
        answers = self._answers(header)
        rightly = all(answers) if committed else False in answers
        require(rightly, f"C2: {name} is said to be committed: {committed}, but chosen are {answers}")
        if committed and header.request is not None:
            self._done_once(header.request, header.txid)

    def _answers(self, header: Header) -> list[bool | None]:
        return [self._answer(header, index) for index in range(len(header.shards))]

    def _answer(self, header: Header, index: int) -> bool | None:
        """What was not prepared before others voted there never will be."""
        (keyspace, epoch), chosen = header.shards[index], self._chosen.get((header.txid, index))
        return False if chosen is None and (keyspace, epoch + 1) in self._voters else chosen

    def _done_once(self, what: bytes, txid: TxnId) -> None:
        other = self._by_request.setdefault(what, txid)
        require(other == txid, f"C7: {what.decode()} was done twice, by {name_of(other)} and {name_of(txid)}")

    def committed(self, began_s: float, now_s: float, outcome: Committed, request: bytes | None) -> None:
        """A client was told so."""
        header = self._headers.get(outcome.txid)
        if header is not None:  # else it is new, and its only voter is its coordinator
            answers = self._answers(header)
            require(all(answers), f"C4: {name_of(outcome.txid)} was acknowledged with {answers}")
        if request is not None:
            self._done_once(request, outcome.txid)
        self._told[outcome.txid] = (began_s, now_s)

    def read(self, began_s: float, now_s: float, found: dict[Slot, Found]) -> None:
        """A client was told what was there at one moment."""
        self._seen += found.items()
        stamps = {slot: value.stamp for slot, value in found.items()}
        self._snapshots.append(Event(f"read at {now_s:.3f}", began_s, now_s, stamps, {}))

    def refused(self, request: bytes | None) -> None:
        """A conflict is final: the request did not commit, and will not."""
        if request is not None:
            self._refused.add(request)

    def count(self, done: bool, *, faults: bool) -> None:
        self.tried[faults] += 1
        self.done[faults] += done

    def count_refusal(self, outcome: object) -> None:
        kind = outcome.code if isinstance(outcome, Refused) else "unknown"
        self.refusals[kind] = self.refusals.get(kind, 0) + 1

    # At rest

    def at_rest(self, peers: list[Peer]) -> None:
        for peer in peers:
            self._check_peer(peer, {peer.id for peer in peers if peer.lost_store})
        contents = {tuple(sorted(peer.disk.entries.items())) for peer in peers}
        require(len(contents) == 1, "C6: nodes hold different values")
        for request in sorted(self._refused & self._by_request.keys()):
            raise Violation(f"C7: {request.decode()} committed after its client was told of a conflict")
        for txid in self._told:
            require(self._outcomes.get(txid, True), f"C4: {name_of(txid)} was acknowledged and aborted")
        self._check_values()
        self._check_reads()
        self._check_chains(peers)
        self._check_order()

    def _check_peer(self, peer: Peer, lost: set[NodeId]) -> None:
        commit, records = peer.commit, peer.commit.voter.records.values()
        if not peer.lost_store:
            doubtful = [
                r.header for r in records if r.outcome is None and (r.has_voted or not self._excused(r, lost))
            ]
            require(not doubtful, f"C6: {peer} is in doubt about {[name_of(h.txid) for h in doubtful[:3]]}")
            require(len(commit.voter.locks) == 0, f"C6: {peer} holds locks")
        require(
            not peer.seats.to_install(),
            f"C10: {peer} does not know what it must as a voter of {peer.seats.to_install()}",
        )
        kept = [
            r.header.txid for r in records if r.outcome is not None and not (r.outcome and r.header.request)
        ]
        require(not kept, f"C6: {peer} has not forgotten {[name_of(txid) for txid in kept[:3]]}")
        require(not commit.coordinator.attempts, f"C6: {peer} has undecided attempts")
        require(len(commit.recoveries) == 0, f"C6: {peer} has unfinished recoveries")
        require(len(commit.spreading) == 0, f"C6: {peer} still spreads outcomes")
        require(len(commit.reads) == 0, f"C6: {peer} has unanswered reads")

    def _excused(self, record: Record, lost: set[NodeId]) -> bool:
        """A mere promise stays where a voter is gone for good: nobody can say what that one knew."""
        return any(not lost.isdisjoint(self.voters(shard)) for shard in record.header.shards)

    def _commits(self) -> list[TxnId]:
        return sorted(txid for txid, committed in self._outcomes.items() if committed)

    def _ops_of(self, txid: TxnId) -> list[tuple[Slot, Op]]:
        return slots_of(self._headers[txid], self._ops.get(txid, []))

    def _check_values(self) -> None:
        """Each thing that a client wants writes values of its own."""
        for txid in self._commits():
            if self._headers[txid].succession:
                continue  # the same voters may come back
            for value in sorted({op.value for _, op in self._ops_of(txid) if op.value is not None}):
                self._done_once(b"value " + value, txid)

    def _check_reads(self) -> None:
        """What was read was written, by something that committed."""
        ops = [(self._headers[txid].stamp, *op) for txid in self._commits() for op in self._ops_of(txid)]
        written = {(slot, stamp): op.value for stamp, slot, op in ops if op.writes}
        for (keyspace, key), found in self._seen:
            there = written.get(((keyspace, key), found.stamp), b"nothing") if found.stamp else None
            require(
                there == found.value,
                f"C5: {keyspace}/{key!r} was read as {found}, but {there!r} was there",
            )

    def _check_chains(self, peers: list[Peer]) -> None:
        held = peers[0].disk.entries
        for (keyspace, key), chain in sorted(self._chains().items()):
            what = f"{keyspace}/{key!r}"
            stamps = [stamp for stamp, _, _ in chain]
            require(len(set(stamps)) == len(stamps), f"C3: two commits of {what} have one stamp")
            for before, (_, base, txid) in zip([0, *stamps], chain, strict=False):
                is_next = base is None or base == before
                require(is_next, f"C3: {name_of(txid)} is based on {base} at {what}, but {before} was there")
            newest = held.get((keyspace, key))
            is_held = newest is not None and newest.hlc == stamps[-1]
            require(is_held, f"C4: the newest commit of {what} is nowhere")

    def _chains(self) -> dict[Slot, list[tuple[int, int | None, TxnId]]]:
        chains: dict[Slot, list[tuple[int, int | None, TxnId]]] = {}
        for txid in self._commits():
            for slot, op in self._ops_of(txid):
                if op.writes:
                    chains.setdefault(slot, []).append((self._headers[txid].stamp, op.base, txid))
        return {slot: sorted(chain, key=lambda link: link[0]) for slot, chain in chains.items()}

    def _check_order(self) -> None:
        """C5: versions give the order of reads and writes; with real time, it must have no cycle."""
        events = [*self._snapshots]
        for txid in self._commits():
            ops, stamp = self._ops_of(txid), self._headers[txid].stamp
            began_s, ended_s = self._told.get(txid, (0.0, float("inf")))
            reads = {slot: op.base for slot, op in ops if op.base is not None}
            writes = {slot: stamp for slot, op in ops if op.writes}
            events.append(Event(name_of(txid), began_s, ended_s, reads, writes))
        cycle = find_cycle(events)
        require(cycle is None, f"C5: no order fits {' before '.join(event.name for event in cycle or [])}")
