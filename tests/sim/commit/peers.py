"""One node of the model: a run of `Commit` over a disk, without network, session or daemon round it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from protocol.clock import ClusterTime, HybridClock
from protocol.commit.commit import Commit
from protocol.commit.messages import Steps
from protocol.commit.task import Committed
from protocol.commit.transaction import TXN_RECORD, Slot
from protocol.effects import Entry, RecordRow, Reply, StoreRow
from protocol.epochs import Epochs
from protocol.keyspaces import COORDINATED, SYSTEM_KEYSPACE, Definition
from protocol.seats import SEAT_RECORD, Seats
from protocol.turn import Say, Turn
from protocol.types import CommitNumber, Instant, LinkId, NodeId
from protocol.voters import STORE_ID_BYTES, Voter

from .ambush import Point
from .trace import told_row

if TYPE_CHECKING:
    from .model import Model

Origin = tuple[NodeId, int]

WALL_MS = 1_700_000_000_000


class Disk:
    """What is durable."""

    def __init__(self) -> None:
        self.records: dict[str, dict[bytes, bytes]] = {TXN_RECORD: {}, SEAT_RECORD: {}}
        self.entries: dict[Slot, Entry] = {}
        self.heads: dict[Origin, int] = {}
        self.run = 0
        self.high_water = 0

    def copy(self) -> Disk:
        other = Disk()
        other.records = {kind: dict(records) for kind, records in self.records.items()}
        other.entries, other.heads = dict(self.entries), dict(self.heads)
        other.run, other.high_water = self.run, self.high_water
        return other

    def apply(self, rows: list[StoreRow]) -> None:
        for row in rows:
            if isinstance(row, RecordRow):
                if row.value is None:
                    self.records[row.kind].pop(row.key, None)
                else:
                    self.records[row.kind][row.key] = row.value
            else:
                assert isinstance(row, Entry)
                self._merge(row)

    def _merge(self, entry: Entry) -> None:
        slot = (entry.keyspace, entry.key)
        known = self.entries.get(slot)
        self.high_water = max(self.high_water, entry.hlc)
        if known is None or entry.version > known.version:
            self.entries[slot] = entry


class Peer:
    """It is the ledger of its own commit. What happens to it comes through `do`, and waits while it stands still."""

    def __init__(self, model: Model, index: int) -> None:
        self.model, self.index = model, index
        self.id = NodeId(bytes([index + 1]) * 32)
        self.disk = Disk()
        self.backup = Disk()
        self.losses = 0
        """How often its store was lost or set back: as a voter it is another one each time."""
        self.must_disown = False
        """It has not found out yet."""
        self.is_up = self.is_paused = False
        self.waiting: list[Callable[[], None]] = []
        self.boots = 0
        self.skew_ms = model.random.choice([0, 0, 0, 40, -40])
        self.wrong_ms = 0
        """What a fault has done to its clock."""
        self.near: set[int] = set()
        """Whom it hears. Not quite whom it is linked with: it takes a moment to notice either way."""

    def __str__(self) -> str:
        return f"n{self.index + 1}"

    @property
    def voter(self) -> Voter:
        """This node with the store that it has now."""
        return Voter(self.id, bytes([self.index + 1, self.losses]).rjust(STORE_ID_BYTES, b"s"))

    @property
    def origin(self) -> Origin:
        """Under which it numbers its entries: those of a store that was lost are not continued."""
        return self.id, 1 + self.losses

    @property
    def lost_store(self) -> bool:
        """Its store is another one than the first voters were named with."""
        return self.losses > 0

    # Its life

    def boot(self) -> None:
        model = self.model
        self.is_up, self.is_paused, self.is_committing = True, False, False
        self.boots += 1
        self.disk.run += 1
        self.overlay: dict[Slot, tuple[int, Entry]] = {}
        self.reached = dict(self.disk.heads)
        """What is covered of each origin once all that is staged is durable."""
        self.covering: deque[tuple[CommitNumber, Origin, int]] = deque()
        """What will be covered with which commit."""
        self.said = self.disk.heads.get(self.origin, 0)
        """Its own entries up to here were sent, or are left to sync."""
        self.staged: deque[tuple[CommitNumber, list[StoreRow]]] = deque()
        self.number = self.disowned_at = CommitNumber(0)
        self.seq = self.disk.run << 20
        self.board = Board(model.first)
        for (keyspace, key), entry in self.disk.entries.items():
            if keyspace == SYSTEM_KEYSPACE:
                self.board.epochs.note(key, entry.value)
        self.seats = Seats(self.id, self.board, Store(self), self.disk.records[SEAT_RECORD])
        self.clock = HybridClock(ClusterTime(self.now()), self.disk.high_water)
        self.commit = Commit(
            model.config,
            self.id,
            self.disk.run,
            self.clock,
            self,
            self.seats,
            Random(f"{model.seed}/{self.index}/{self.boots}"),
            lambda node: (
                LinkId(model.index_of(node)) if model.network.is_open(self, model.of(node)) else None
            ),
            lambda node, _: model.index_of(node) in self.near,
            lambda txid: model.of(NodeId(txid.node)).disk.run > txid.run,
            list(self.disk.records[TXN_RECORD].values()),
        )
        model.happened(f"{self} starts, run {self.disk.run}")
        self.turn(self.commit.start)
        if self.must_disown:
            self.later(model.random.choice([0.0, 0.5]), self._disown)

    def _disown(self) -> None:
        """Found out once: as another voter it may have been named again by the next start."""
        before = self.number
        self.turn(self.commit.disown)
        self.disowned_at = self.number
        self.must_disown = self.number > before  # until that is durable

    def crash(self) -> None:
        self.model.happened(f"{self} dies")
        self.is_up = False
        self.near.clear()
        self.waiting.clear()

    def resume(self) -> None:
        """Go on after a pause: timers first, or what came meanwhile."""
        if not self.is_up or not self.is_paused:
            return
        self.model.happened(f"{self} goes on")
        self.is_paused = False
        if self.model.random.random() < 0.5:
            self.turn(self.commit.tick)
        waiting, self.waiting = self.waiting, []
        for call in waiting:
            self.do(call)

    def do(self, call: Callable[[], None]) -> None:
        """Something happens to this run of the node."""
        if self.is_up:
            if self.is_paused:
                self.waiting.append(call)
            else:
                call()

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """The same after a while, unless it has died by then."""
        boots = self.boots
        self.model.after(delay_s, lambda: self.do(call) if self.boots == boots else None)

    def now(self) -> Instant:
        return Instant(self.model.now, WALL_MS + self.skew_ms + self.wrong_ms + int(self.model.now * 1000))

    # The ledger

    def newest(self, slot: Slot) -> Entry | None:
        staged = self.overlay.get(slot)
        return staged[1] if staged is not None else self.disk.entries.get(slot)

    def record(self, turn: Turn, slot: Slot, value: bytes | None, stamp: int) -> None:
        self.seq += 1
        self.stage(turn, [Entry(*slot, stamp, *self.origin, self.seq, value)])
        self.reached[self.origin] = self.seq
        self.covering.append((turn.number, self.origin, self.seq))

    def stage(self, turn: Turn, entries: list[Entry]) -> None:
        for entry in entries:
            slot = (entry.keyspace, entry.key)
            known = self.newest(slot)
            if known is None or entry.version > known.version:
                self.overlay[slot] = (turn.number, entry)
                turn.stage(entry)

    def merge(self, entries: list[Entry], heads: dict[Origin, int]) -> None:
        """Ordinary entries come from a peer, and with the last of them all up to these heads is covered."""

        def decide(turn: Turn) -> None:
            self.stage(turn, entries)
            for origin, head in heads.items():
                if head > self.reached.get(origin, 0):
                    self.reached[origin] = head
                    self.covering.append((turn.number if turn.rows else self.number, origin, head))

        self.turn(decide)
        if not self.staged and not self.is_committing:
            self._cover(self.number)

    def heads(self) -> list[tuple[NodeId, int, int]]:
        return [(*origin, head) for origin, head in sorted(self.reached.items())]

    def loose(self, keyspace: int) -> list[Entry]:
        slots = sorted(self.disk.entries.keys() | self.overlay.keys())
        held = [entry for slot in slots if slot[0] == keyspace and (entry := self.newest(slot)) is not None]
        return [entry for entry in held if entry.seq > self.reached.get((entry.node, entry.lineage), 0)]

    def covers(self, heads: list[tuple[NodeId, int, int]]) -> bool:
        return all(self.disk.heads.get((node, lineage), 0) >= head for node, lineage, head in heads)

    def _cover(self, last: CommitNumber) -> None:
        while self.covering and self.covering[0][0] <= last:
            _, origin, head = self.covering.popleft()
            self.disk.heads[origin] = max(head, self.disk.heads.get(origin, 0))

    # Turns

    def turn(self, decide: Callable[[Turn], None]) -> None:
        """What the node does with one event."""
        if not self.is_up:
            return  # it was killed in the turn before
        turn = Turn(self.now(), CommitNumber(self.number + 1))
        decide(turn)
        self.commit.seal(turn)
        for effect in turn.effects:
            if isinstance(effect, Say):
                assert isinstance(effect.payload, Steps)
                for link in effect.links:
                    self.model.network.send(self, self.model.peers[link], effect.payload)
            elif isinstance(effect, Reply):
                assert callable(effect.ref)
                effect.ref(effect.outcome)
                if isinstance(effect.outcome, Committed):
                    self.model.faults.reached(Point.DECIDED, self)
        if turn.rows:
            self.number = turn.number
            self.staged.append((turn.number, turn.rows))
            self._write()
            if any(isinstance(row, RecordRow) for row in turn.rows):
                self.model.faults.reached(Point.STAGED, self)
        self.model.wake(self)

    def _write(self) -> None:
        """One commit at a time: what is staged meanwhile goes with the next."""
        if not self.is_committing and self.staged:
            self.is_committing = True
            last, boots = self.staged[-1][0], self.boots
            self.model.after(self.model.network.disk_delay(), lambda: self._durable(last, boots))

    def _durable(self, last: CommitNumber, boots: int) -> None:
        """The disk has written: also while the node stands still, which hears of it later."""
        if not self.is_up or self.boots != boots:
            return
        if self.model.random.random() < self.model.full_disk:
            self.do(self._failed)
            return
        rows: list[StoreRow] = []
        while self.staged and self.staged[0][0] <= last:
            rows += self.staged.popleft()[1]
        self.disk.apply(rows)
        self._cover(last)
        if self.model.is_traced:
            for row in rows:
                self.model.note(f"{self} has on disk {told_row(row)}")
        for txid in self.model.checks.stored(self.id, rows):
            self.model.faults.reached(Point.ACCEPTED, self.model.of(NodeId(txid.node)))
        if any(isinstance(row, RecordRow) for row in rows):
            self.model.faults.reached(Point.DURABLE, self)
        self.do(lambda: self._settled(last, rows))

    def _settled(self, last: CommitNumber, rows: list[StoreRow]) -> None:
        self.is_committing = False
        self.must_disown = self.must_disown and not 0 < self.disowned_at <= last
        for row in rows:
            if isinstance(row, Entry) and row.keyspace == SYSTEM_KEYSPACE:
                self.board.epochs.note(row.key, self.disk.entries[row.keyspace, row.key].value)
                self.model.patience.taught()
        self.overlay = {slot: at for slot, at in self.overlay.items() if at[0] > last}
        own = [row for row in rows if isinstance(row, Entry) and row.node == self.id]
        if own:
            before, self.said = self.said, own[-1].seq
            self.model.network.spread(self, own, before)
        self.turn(lambda turn: self.commit.committed(turn, last))
        if self.is_up:
            self._write()

    def _failed(self) -> None:
        self.model.happened(f"{self} has a full disk")
        self.is_committing = False
        self.staged.clear()
        self.overlay.clear()
        self.covering.clear()
        self.reached = dict(self.disk.heads)
        self.seats.load(self.disk.records[SEAT_RECORD])
        self.turn(lambda turn: self.commit.failed(turn, list(self.disk.records[TXN_RECORD].values())))


class Board:
    """Definitions and epochs, as one node knows them. The definitions are known to all from the start."""

    def __init__(self, first: dict[int, tuple[Voter, ...]]) -> None:
        self._definitions = {
            keyspace: Definition(keyspace, f"k{keyspace}", COORDINATED, voters)
            for keyspace, voters in first.items()
        }
        self.epochs = Epochs()

    def by_id(self, keyspace: int) -> Definition | None:
        return self._definitions.get(keyspace)


class Store:
    """What a peer knows of its own store: it votes with it once it has dropped what an earlier one had promised."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.store_id = peer.voter.store

    @property
    def is_confirmed(self) -> bool:
        return not self._peer.must_disown
