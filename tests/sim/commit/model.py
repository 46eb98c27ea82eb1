"""A discrete-event model round `protocol.commit`: some nodes with a disk each, a bad network, clients.

One seed makes one run, always the same: how many nodes, voters and keyspaces, what clients want, and every fault.
Messages are delayed, reordered, repeated and lost; rows become durable later, and a crash takes what is not; disks are
set back or wiped (the store is then another one and votes no more, as the daemon sees to); splits come and go. The
faults stop after `FAULTS_S`, and everything must come to rest. What must hold is in checks.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random


from protocol.clock import ClusterTime, HybridClock
from protocol.commit.commit import Commit
from protocol.commit.messages import Steps
from protocol.commit.task import Change, Check, Committed, Conflicted, Found, ReadTask, Task, Undecided
from protocol.commit.transaction import Shard, Slot
from protocol.config import Config
from protocol.effects import Entry, RecordRow, Reply, StoreRow
from protocol.errors import Refused
from protocol.turn import Say, Turn
from protocol.types import CommitNumber, Instant, LinkId, NodeId

from .checks import Checks

FAULTS_S = 8.0
REST_S = 20.0
WALL_MS = 1_700_000_000_000
KEYS = (b"a", b"b", b"c")


class Disk:
    """What is durable."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}
        self.entries: dict[Slot, Entry] = {}
        self.run = 0
        self.high_water = 0

    def copy(self) -> Disk:
        other = Disk()
        other.records, other.entries = dict(self.records), dict(self.entries)
        other.run, other.high_water = self.run, self.high_water
        return other

    def apply(self, rows: list[StoreRow]) -> None:
        for row in rows:
            if isinstance(row, RecordRow):
                if row.value is None:
                    self.records.pop(row.key, None)
                else:
                    self.records[row.key] = row.value
            else:
                assert isinstance(row, Entry)
                self.merge(row)

    def merge(self, entry: Entry) -> None:
        slot = (entry.keyspace, entry.key)
        known = self.entries.get(slot)
        self.high_water = max(self.high_water, entry.hlc)
        if known is None or entry.version > known.version:
            self.entries[slot] = entry


class Peer:
    """One node: a run of `Commit` over a disk. It is the ledger of its own commit."""

    def __init__(self, model: Model, index: int) -> None:
        self.model, self.index = model, index
        self.id = NodeId(bytes([index + 1]) * 32)
        self.disk = Disk()
        self.backup = Disk()
        self.lost_store = False
        """Its store is another one than the voters were named with."""
        self.is_up = False
        self.skew_ms = model.random.choice([0, 0, 0, 40, -40])
        self.boot()

    def boot(self) -> None:
        model = self.model
        self.is_up = True
        self.disk.run += 1
        self.overlay: dict[Slot, tuple[int, Entry]] = {}
        self.staged: deque[tuple[CommitNumber, list[StoreRow]]] = deque()
        self.number = CommitNumber(0)
        self.is_committing = False
        self.seq = self.disk.run << 20
        self.boots = getattr(self, "boots", 0) + 1
        clock = HybridClock(ClusterTime(self.now()), self.disk.high_water)
        self.commit = Commit(
            model.config,
            self.id,
            self.disk.run,
            clock,
            self,
            Seats(model, self),
            Random(f"{model.seed}/{self.index}/{self.boots}"),
            lambda node: LinkId(model.index_of(node)) if model.is_open(self, model.of(node)) else None,
            lambda node, _: model.is_open(self, model.of(node)),
            lambda txid: model.of(NodeId(txid.node)).disk.run > txid.run,
            list(self.disk.records.values()),
        )
        self.turn(self.commit.start)
        if self.lost_store:
            model.after(model.random.choice([0.0, 0.5]), lambda boots=self.boots: self.disown(boots))  # type: ignore[misc]

    def disown(self, boots: int) -> None:
        """Others have told it that it is not the store they know."""
        if self.is_up and self.boots == boots:
            self.turn(self.commit.disown)

    def now(self) -> Instant:
        return Instant(self.model.now, WALL_MS + self.skew_ms + int(self.model.now * 1000))

    # The ledger

    def newest(self, slot: Slot) -> Entry | None:
        staged = self.overlay.get(slot)
        return staged[1] if staged is not None else self.disk.entries.get(slot)

    def record(self, turn: Turn, slot: Slot, value: bytes | None, stamp: int) -> None:
        self.seq += 1
        self.stage(turn, Entry(*slot, stamp, self.id, 1, self.seq, value))

    def stage(self, turn: Turn, entry: Entry) -> None:
        slot = (entry.keyspace, entry.key)
        known = self.newest(slot)
        if known is None or entry.version > known.version:
            self.overlay[slot] = (turn.number, entry)
            turn.stage(entry)

    # Turns

    def turn(self, decide: Callable[[Turn], None]) -> None:
        """What the node does with one event."""
        turn = Turn(self.now(), CommitNumber(self.number + 1))
        decide(turn)
        self.commit.seal(turn)
        for effect in turn.effects:
            if isinstance(effect, Say):
                assert isinstance(effect.payload, Steps)
                for link in effect.links:
                    self.model.send(self, self.model.peers[link], effect.payload)
            elif isinstance(effect, Reply):
                assert callable(effect.ref)
                effect.ref(effect.outcome)
        if turn.rows:
            self.number = turn.number
            self.staged.append((turn.number, turn.rows))
            self.write()
        self.model.wake(self)

    def write(self) -> None:
        """One commit at a time: what is staged meanwhile goes with the next."""
        if not self.is_committing and self.staged:
            self.is_committing = True
            last, boots = self.staged[-1][0], self.boots
            self.model.after(self.model.disk_delay(), lambda: self.durable(last, boots))

    def durable(self, last: CommitNumber, boots: int) -> None:
        if not self.is_up or self.boots != boots:
            return
        self.is_committing = False
        if self.model.random.random() < self.model.full_disk:
            self.staged.clear()
            self.overlay.clear()
            self.turn(lambda turn: self.commit.failed(turn, list(self.disk.records.values())))
            return
        rows: list[StoreRow] = []
        while self.staged and self.staged[0][0] <= last:
            rows += self.staged.popleft()[1]
        self.disk.apply(rows)
        self.overlay = {slot: at for slot, at in self.overlay.items() if at[0] > last}
        self.model.checks.stored(self, rows)
        self.model.spread(self, [row for row in rows if isinstance(row, Entry) and row.node == self.id])
        self.turn(lambda turn: self.commit.committed(turn, last))
        self.write()

    def crash(self) -> None:
        self.is_up = False


class Seats:
    """The electorate, as one node knows it."""

    def __init__(self, model: Model, peer: Peer) -> None:
        self._model, self._peer = model, peer

    def epoch(self, keyspace: int) -> int:
        return 1

    def voters(self, shard: Shard) -> tuple[NodeId, ...]:
        return self._model.voters.get(shard[0], ())

    def is_voter(self, shard: Shard) -> bool:
        return self._peer.id in self.voters(shard) and not self._peer.lost_store


class Model:
    """One run."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random = Random(f"commit/{seed}")
        self.now = 0.0
        self.config = Config("n", "n:1")
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.faults_on = True
        self.loss = random.choice([0.0, 0.02, 0.1])
        self.repeats = random.choice([0.0, 0.05])
        self.slow = random.choice([0.0, 0.05, 0.2])
        self.full_disk = random.choice([0.0, 0.0, 0.0, 0.01])
        self.cut: set[frozenset[int]] = set()
        self._wakes: dict[int, float] = {}
        nodes = random.choice([1, 2, 3, 3, 3, 4, 5, 5])
        ids = [NodeId(bytes([index + 1]) * 32) for index in range(nodes)]
        self.voters = {
            keyspace: tuple(sorted(random.sample(ids, random.choice([n for n in (1, 3, 3, 5) if n <= nodes]))))
            for keyspace in range(1, 1 + random.choice([1, 1, 2]))
        }
        self.checks = Checks(self.voters)
        self.peers: list[Peer] = []
        for index in range(nodes):
            self.peers.append(Peer(self, index))
        for client in range(random.choice([2, 4, 6])):
            self.after(random.random(), lambda client=client: Client(self, client).next())  # type: ignore[misc]
        for _ in range(random.choice([0, 2, 5, 8])):
            self.after(random.uniform(0.5, FAULTS_S), self.fault)
        self.after(0.3, self.exchange)
        self.after(FAULTS_S, self.rest)

    def of(self, node: NodeId) -> Peer:
        return self.peers[self.index_of(node)]

    def index_of(self, node: NodeId) -> int:
        return node[0] - 1

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._events, (self.now + delay_s, self._count, call))

    def run(self) -> None:
        """To the end, or to the first Violation."""
        while self._events and self._events[0][0] <= FAULTS_S + REST_S:
            self.now, _, call = heappop(self._events)
            call()
        self.checks.at_rest(self.peers)

    def wake(self, peer: Peer) -> None:
        """Have the peer's timers fire in time."""
        due_s = peer.commit.deadline_s
        if due_s >= self._wakes.get(peer.index, float("inf")):
            return
        self._wakes[peer.index] = due_s

        def tick() -> None:
            if self._wakes.get(peer.index) == due_s:
                del self._wakes[peer.index]
                if peer.is_up:
                    peer.turn(peer.commit.tick)

        self.after(max(0.0, due_s - self.now), tick)

    # Network and disk

    def is_open(self, one: Peer, other: Peer) -> bool:
        return one.is_up and other.is_up and frozenset((one.index, other.index)) not in self.cut

    def send(self, sender: Peer, to: Peer, steps: Steps) -> None:
        self.checks.said(steps)
        if self.faults_on and self.random.random() < self.loss:
            return
        copies = 2 if self.random.random() < self.repeats else 1
        for _ in range(copies):
            self.after(self.delay(), lambda boots=to.boots: self.deliver(sender, to, steps, boots))  # type: ignore[misc]

    def deliver(self, sender: Peer, to: Peer, steps: Steps, boots: int) -> None:
        """A link does not outlive its ends; what the sender had sent before it died may still come."""
        if to.is_up and to.boots == boots and frozenset((sender.index, to.index)) not in self.cut:
            to.turn(lambda turn: to.commit.receive(turn, sender.id, steps))

    def delay(self) -> float:
        if self.faults_on and self.random.random() < self.slow:
            return self.random.uniform(0.05, 2.0)
        return self.random.uniform(0.0002, 0.003)

    def disk_delay(self) -> float:
        if self.faults_on and self.random.random() < self.slow:
            return self.random.uniform(0.02, 0.7)
        return self.random.uniform(0.0002, 0.002)

    def spread(self, peer: Peer, entries: list[Entry]) -> None:
        """Entries go to all, like a batch does."""
        for other in self.peers:
            if other is not peer and entries and self.is_open(peer, other):
                if not (self.faults_on and self.random.random() < self.loss):
                    self.after(self.delay(), lambda other=other: self.merge(other, entries))  # type: ignore[misc]

    def exchange(self) -> None:
        """Two peers sync, now and then."""
        one, other = self.random.choice(self.peers), self.random.choice(self.peers)
        if self.is_open(one, other):
            self.merge(one, list(other.disk.entries.values()))
        self.after(0.1, self.exchange)

    def merge(self, peer: Peer, entries: list[Entry]) -> None:
        if peer.is_up:
            peer.turn(lambda turn: [peer.stage(turn, entry) for entry in entries] and None)

    # Faults

    def fault(self) -> None:
        if self.faults_on:
            self.random.choice([self.kill, self.kill, self.split, self.split, self.set_back, self.copy_disk])()

    def kill(self) -> None:
        peer = self.random.choice(self.peers)
        if peer.is_up:
            peer.crash()
            self.lost(peer, self.peers)
            self.after(self.random.uniform(0.05, 3.0), lambda: self.restart(peer))

    def restart(self, peer: Peer) -> None:
        if not peer.is_up:
            peer.boot()
            self.linked(peer)

    def linked(self, peer: Peer) -> None:
        for other in self.peers:
            if other is not peer and self.is_open(peer, other):
                peer.turn(lambda turn, other=other: peer.commit.link_up(other.id))  # type: ignore[misc]
                other.turn(lambda turn, other=other: other.commit.link_up(peer.id))  # type: ignore[misc]

    def lost(self, peer: Peer, others: list[Peer]) -> None:
        for other in others:
            if other is not peer and other.is_up:
                self.after(
                    self.random.choice([0.001, 1.2]),
                    lambda other=other: self.notice(other, peer),  # type: ignore[misc]
                )

    def notice(self, peer: Peer, gone: Peer) -> None:
        if peer.is_up and not self.is_open(peer, gone):
            peer.turn(lambda turn: peer.commit.link_down(turn, gone.id))

    def split(self) -> None:
        side = [peer for peer in self.peers if self.random.random() < 0.5]
        rest = [peer for peer in self.peers if peer not in side]
        self.cut |= {frozenset((one.index, other.index)) for one in side for other in rest}
        for one in side:
            self.lost(one, rest)
        for other in rest:
            self.lost(other, side)
        self.after(self.random.uniform(0.1, 2.5), self.heal)

    def heal(self) -> None:
        self.cut.clear()
        for peer in self.peers:
            if peer.is_up:
                self.linked(peer)

    def copy_disk(self) -> None:
        peer = self.random.choice(self.peers)
        peer.backup = peer.disk.copy()
        self.after(self.random.uniform(0.2, 3.0), self.set_back)

    def set_back(self) -> None:
        """A disk is lost or set back: at most one, else a majority may be gone, and all with it."""
        peer = self.random.choice(self.peers)
        is_sole = any(len(some) < 3 and peer.id in some for some in self.voters.values())
        if not self.faults_on or is_sole or any(other.lost_store for other in self.peers):
            return
        peer.crash()
        run = peer.disk.run
        peer.disk = peer.backup.copy()
        peer.disk.run = run
        peer.lost_store = True
        self.lost(peer, self.peers)
        self.after(self.random.uniform(0.05, 1.0), lambda: self.restart(peer))

    def rest(self) -> None:
        self.faults_on = False
        self.full_disk = 0.0
        self.heal()
        for peer in self.peers:
            self.restart(peer)


class Client:
    """Does one thing after the other, through any node; a retry keeps its request id."""

    def __init__(self, model: Model, number: int) -> None:
        self.model, self.number = model, number
        self.random = Random(f"client/{model.seed}/{number}")
        self.count = 0
        self.last: dict[Slot, Found] = {}

    def next(self) -> None:
        if self.model.now > FAULTS_S + 4.0:
            return
        self.count += 1
        slots = self.some_slots()
        if self.random.random() < 0.35:
            self.read(tuple(slots))
        else:
            self.write(slots)

    def some_slots(self) -> list[Slot]:
        slots = [(keyspace, key) for keyspace in sorted(self.model.voters) for key in KEYS]
        return self.random.sample(slots, self.random.choice([1, 1, 2, 3]))

    def later(self) -> None:
        self.model.after(self.random.uniform(0.01, 0.4), self.next)

    def read(self, slots: tuple[Slot, ...]) -> None:
        began_s, checks, is_over = self.model.now, self.model.checks, [False]

        def reply(outcome: object) -> None:
            if is_over[0]:
                return
            is_over[0] = True
            if isinstance(outcome, dict):
                checks.read(began_s, self.model.now, outcome)
                self.last.update(outcome)
            checks.count(isinstance(outcome, dict), faults=self.model.faults_on)
            self.later()

        self.submit(lambda peer, turn: peer.commit.read(turn, ReadTask(reply, slots, 2.0)), reply)

    def write(self, slots: list[Slot]) -> None:
        name = f"{self.number}.{self.count}"
        value = None if self.random.random() < 0.15 else name.encode()
        known = [slot for slot in slots if slot in self.last]
        checks: list[Check] = []
        for slot in known:
            found = self.last[slot]
            if self.random.random() < 0.5:
                if found.value is None:
                    checks.append(Check(slot, "absent"))
                elif self.random.random() < 0.5:
                    checks.append(Check(slot, "version", stamp=found.stamp))
                else:
                    checks.append(Check(slot, "value", value=found.value))
        changed = slots[: self.random.choice([1, 2, 3])]
        changes = tuple(Change(slot, value) for slot in changed)
        request = name.encode().rjust(16, b"-") if self.random.random() < 0.6 else None
        self.attempt(tuple(checks), changes, request, self.model.now)

    def attempt(
        self, checks: tuple[Check, ...], changes: tuple[Change, ...], request: bytes | None, began_s: float
    ) -> None:
        model, is_over = self.model, [False]

        def reply(outcome: object) -> None:
            if is_over[0]:
                return
            is_over[0] = True
            match outcome:
                case Committed():
                    model.checks.committed(began_s, model.now, outcome, changes, request)
                    self.last.update({c.slot: Found(outcome.stamp, c.value) for c in changes})
                case Conflicted():
                    for slot, found in outcome.found:  # each for itself: they are no snapshot
                        model.checks.read(began_s, model.now, {slot: found})
                    self.last.update(dict(outcome.found))
                    model.checks.refused(request)
                case Undecided() | None if request is not None:
                    model.after(0.2, lambda: self.attempt(checks, changes, request, began_s))
                    return
                case _:
                    assert isinstance(outcome, Refused | Undecided | None)
            model.checks.count(isinstance(outcome, Committed | Conflicted), faults=model.faults_on)
            self.later()

        task = Task(reply, checks, changes, 2.0, request)
        self.submit(lambda peer, turn: peer.commit.begin(turn, task), reply)

    def submit(self, call: Callable[[Peer, Turn], None], reply: Callable[[object], None]) -> None:
        up = [peer for peer in self.model.peers if peer.is_up]
        if not up:
            self.model.after(0.1, self.next)
            return
        peer = self.random.choice(up)
        self.model.after(3.0, lambda: reply(None))  # its node may be gone
        peer.turn(lambda turn: call(peer, turn))


def run(seed: int) -> Checks:
    """One run. Raises Violation."""
    model = Model(seed)
    model.run()
    return model.checks


