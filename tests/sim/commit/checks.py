"""What must hold in every run of the model (the names C1 to C7 are those of protocol/commit's design).

C1 at most one answer is chosen for a shard of a transaction; C2 a transaction has one outcome, COMMIT iff all its
shards are prepared; C3 the commits of a key form a chain: none is based on a version that another replaced; C4 what a
client was told to be committed is so, durably; C5 single keys are linearizable, transactions and snapshots strictly
serializable; C6 when the faults are over everything is decided, unlocked and forgotten, and all hold the same; C7 a
request commits at most once, whatever its retries.

What counts as chosen is reckoned from what is durable on the disks, never from what the nodes say of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from protocol.commit.messages import Prepare, Steps
from protocol.commit.task import Change, Committed, Found
from protocol.commit.transaction import Header, Op, Record, Slot, TxnId, majority
from protocol.effects import RecordRow, StoreRow
from protocol.types import NodeId

if TYPE_CHECKING:
    from .model import Peer

Answer = tuple[TxnId, int]
decode = msgspec.msgpack.Decoder(Record).decode


class Violation(AssertionError):
    """An invariant does not hold."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)


class Event(msgspec.Struct, frozen=True):
    """A committed transaction or a snapshot, as clients saw it: between `began_s` and `ended_s`."""

    name: str
    began_s: float
    ended_s: float
    reads: dict[Slot, int]
    writes: dict[Slot, int]


class Checks:
    def __init__(self, voters: dict[int, tuple[NodeId, ...]]) -> None:
        self._voters = voters
        self.headers: dict[TxnId, Header] = {}
        self._ops: dict[TxnId, list[list[Op]]] = {}
        self._yes: dict[Answer, set[NodeId]] = {}
        self._no: dict[Answer, set[NodeId]] = {}
        self._accepted: dict[tuple[TxnId, int, int, bool], set[NodeId]] = {}
        self._chosen: dict[Answer, bool] = {}
        self.outcomes: dict[TxnId, bool] = {}
        self._told: dict[TxnId, tuple[float, float]] = {}
        self._snapshots: list[Event] = []
        self._by_request: dict[bytes, TxnId] = {}
        self._refused: set[bytes] = set()
        self.tried = {True: 0, False: 0}
        self.done = {True: 0, False: 0}

    # As it happens

    def said(self, steps: Steps) -> None:
        for step in steps.steps:
            if isinstance(step, Prepare):
                self.headers[step.header.txid] = step.header
                self._ops[step.header.txid] = step.ops

    def stored(self, peer: Peer, rows: list[StoreRow]) -> None:
        for row in rows:
            if isinstance(row, RecordRow) and row.value is not None:
                self._note(peer.id, decode(row.value))

    def _note(self, node: NodeId, record: Record) -> None:
        header = record.header
        self.headers.setdefault(header.txid, header)
        if record.ops:
            self._ops.setdefault(header.txid, record.ops)
        for index, instance in enumerate(record.instances):
            answer = (header.txid, index)
            voters = self._voters[header.shards[index][0]]
            if instance.vote is not None:
                (self._yes if instance.vote else self._no).setdefault(answer, set()).add(node)
            if instance.accepted is not None:
                ballot, prepared = instance.accepted
                takers = self._accepted.setdefault((*answer, ballot, prepared), set())
                takers.add(node)
                if len(takers) >= majority(len(voters)):
                    self._choose(answer, prepared)
            if len(self._yes.get(answer, ())) == len(voters):
                self._choose(answer, True)
            if len(self._no.get(answer, ())) >= majority(len(voters)):
                self._choose(answer, False)
        if record.outcome is not None:
            self._decide(header, record.outcome)

    def _choose(self, answer: Answer, prepared: bool) -> None:
        before = self._chosen.setdefault(answer, prepared)
        require(
            before == prepared, f"C1: {before} and {prepared} are chosen for shard {answer[1]} of {answer[0]}"
        )

    def _decide(self, header: Header, committed: bool) -> None:
        before = self.outcomes.setdefault(header.txid, committed)
        require(before == committed, f"C2: {header.txid} has two outcomes")
        answers = [self._chosen.get((header.txid, index)) for index in range(len(header.shards))]
        rightly = all(answers) if committed else False in answers
        require(rightly, f"C2: {header.txid} is said to be committed: {committed}, but chosen are {answers}")
        if committed and header.request is not None:
            other = self._by_request.setdefault(header.request, header.txid)
            require(other == header.txid, f"C7: {header.request!r} committed twice")

    def committed(
        self,
        began_s: float,
        now_s: float,
        outcome: Committed,
        changes: tuple[Change, ...],
        request: bytes | None,
    ) -> None:
        header = self.headers.get(outcome.txid)
        if header is not None:  # else it is new, and its only voter is its coordinator
            answers = [self._chosen.get((outcome.txid, index)) for index in range(len(header.shards))]
            require(all(answers), f"C4: {outcome.txid} was acknowledged with {answers}")
        if request is not None:
            other = self._by_request.setdefault(request, outcome.txid)
            require(other == outcome.txid, f"C7: {request!r} was answered with two transactions")
        self._told[outcome.txid] = (began_s, now_s)

    def read(self, began_s: float, now_s: float, found: dict[Slot, Found]) -> None:
        stamps = {slot: value.stamp for slot, value in found.items()}
        self._snapshots.append(Event(f"read at {now_s:.3f}", began_s, now_s, stamps, {}))

    def refused(self, request: bytes | None) -> None:
        """A conflict is final: the request did not commit, and will not."""
        if request is not None:
            self._refused.add(request)

    def count(self, done: bool, *, faults: bool) -> None:
        self.tried[faults] += 1
        self.done[faults] += done

    # At rest

    def at_rest(self, peers: list[Peer]) -> None:
        for peer in peers:
            doubtful = [r.header.txid for r in peer.commit.voter.records.values() if r.outcome is None]
            if not peer.lost_store:
                require(not doubtful, f"C6: node {peer.index} is in doubt about {doubtful[:3]}")
                require(len(peer.commit.voter.locks) == 0, f"C6: node {peer.index} holds locks")
            require(not peer.commit.coordinator.attempts, f"C6: node {peer.index} has undecided attempts")
            require(len(peer.commit.reads) == 0, f"C6: node {peer.index} has unanswered reads")
        require(
            len({tuple(sorted(peer.disk.entries.items())) for peer in peers}) == 1,
            "C6: nodes hold different values",
        )
        for request in self._refused & self._by_request.keys():
            raise Violation(f"C7: {request!r} committed after its client was told of a conflict")
        for txid in self._told:
            require(self.outcomes.get(txid, True), f"C4: {txid} was acknowledged and aborted")
        self._check_chains(peers)
        self._check_order()

    def _check_chains(self, peers: list[Peer]) -> None:
        held = peers[0].disk.entries
        for slot, chain in self._chains().items():
            stamps = [stamp for stamp, _, _ in chain]
            require(len(set(stamps)) == len(stamps), f"C3: two commits of {slot} have one stamp")
            for before, (_, base, txid) in zip([0, *stamps], chain, strict=False):
                require(
                    base is None or base == before, f"C3: {txid} is based on {base}, but {before} was there"
                )
            newest = held.get(slot)
            require(
                newest is not None and newest.hlc == stamps[-1], f"C4: the newest commit of {slot} is nowhere"
            )

    def _chains(self) -> dict[Slot, list[tuple[int, int | None, TxnId]]]:
        chains: dict[Slot, list[tuple[int, int | None, TxnId]]] = {}
        for txid in sorted(self._commits()):
            header = self.headers[txid]
            for (keyspace, _), ops in zip(header.shards, self._ops.get(txid, []), strict=False):
                for op in ops:
                    if op.writes:
                        chains.setdefault((keyspace, op.key), []).append((header.stamp, op.base, txid))
        return {slot: sorted(chain, key=lambda link: link[0]) for slot, chain in chains.items()}

    def _commits(self) -> set[TxnId]:
        return {txid for txid, committed in self.outcomes.items() if committed}

    def _check_order(self) -> None:
        """C5: versions give the order of reads and writes; with real time, it must have no cycle."""
        events = [*self._snapshots]
        for txid in sorted(self._commits()):
            header, ops = self.headers[txid], self._ops.get(txid, [])
            slots = [
                ((keyspace, op.key), op)
                for (keyspace, _), some in zip(header.shards, ops, strict=False)
                for op in some
            ]
            began_s, ended_s = self._told.get(txid, (0.0, float("inf")))
            reads = {slot: op.base for slot, op in slots if op.base is not None}
            writes = {slot: header.stamp for slot, op in slots if op.writes}
            events.append(Event(str(txid.counter), began_s, ended_s, reads, writes))
        cycle = find_cycle(events)
        require(cycle is None, f"C5: no order fits {' before '.join(event.name for event in cycle or [])}")


def find_cycle(events: list[Event]) -> list[Event] | None:
    """Events that each must come before the next, and the last before the first."""
    after = [
        [other for other in range(len(events)) if other != one and _precedes(events[one], events[other])]
        for one in range(len(events))
    ]
    done: set[int] = set()
    for start in range(len(events)):
        path, on_path, stack = [start], {start}, [iter(after[start])]
        if start in done:
            continue
        while stack:
            step = next(stack[-1], None)
            if step is None:
                stack.pop()
                on_path.discard(path[-1])
                done.add(path.pop())
            elif step in on_path:
                return [events[place] for place in path[path.index(step) :]]
            elif step not in done:
                path.append(step)
                on_path.add(step)
                stack.append(iter(after[step]))
    return None


def _precedes(one: Event, other: Event) -> bool:
    """Whether `one` must come first: in real time, or by what one wrote and the other saw."""
    if one.ended_s < other.began_s:
        return True
    for slot, stamp in one.writes.items():
        if other.reads.get(slot, -1) >= stamp or other.writes.get(slot, -1) > stamp:
            return True
    return any(other.writes.get(slot, -1) > stamp for slot, stamp in one.reads.items())
