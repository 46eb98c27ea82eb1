"""A replica with its disk and no node round it: a copy of the data, driven by hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby

from protocol.clock import HybridClock
from protocol.effects import Entry, StoreRow
from protocol.replica.entry import item_hash, origin_of, to_row
from protocol.replica.replica import Replica
from protocol.replica.store import Origin, Slot
from protocol.replica.tally import Change
from protocol.turn import Turn
from protocol.types import CommitNumber, Instant, NodeId

from ..sim.swarm.fakes import Disk

ME: Origin = (NodeId(b"m" * 32), 1)
KEYSPACE = 1


class Copy:
    """`staged` are commits that the disk has not taken yet."""

    def __init__(self, me: Origin = ME, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()
        self.replica = Replica(me, self.disk, HybridClock())
        self.staged: deque[tuple[StoreRow, ...]] = deque()
        self._number = 0

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """One call of the core; its rows become one commit."""
        turn = Turn(Instant(0.0, 1), CommitNumber(self._number + 1))
        yield turn
        self.replica.seal(turn)
        if turn.rows:
            self._number += 1
            self.staged.append(tuple(turn.rows))

    def put(self, key: bytes, value: bytes | None = b"", expires_ms: int = 0) -> Entry:
        with self.turn() as turn:
            return self.replica.put(turn, (KEYSPACE, key), value, expires_ms)

    def merge(self, entries: Iterable[Entry], heads: dict[Origin, int] | None = None) -> int:
        """Take in entries in their order, then cover `heads`; how many entries were news."""
        with self.turn() as turn:
            merged = 0
            for origin, group in groupby(entries, origin_of):
                merged += self.replica.merge(turn, origin, [to_row(entry) for entry in group])
            for origin, head in (heads or {}).items():
                self.replica.advance(turn, origin, head)
            return merged

    def commit(self) -> list[Entry]:
        """Everything staged is durable; returns our own entries among it."""
        while self.staged:
            self.disk.apply(self.staged.popleft())
        own, _ = self.replica.committed(CommitNumber(self._number))
        return own

    def fail(self) -> None:
        """Nothing staged was stored."""
        self.staged.clear()
        self.replica.failed()

    def newest(self, key: bytes) -> Entry | None:
        return self.disk.get(KEYSPACE, key)

    def counted(self) -> Change:
        """The tally, reckoned from the disk alone."""
        live = (e for e in self.disk.entries.values() if e.live_at(self.replica.tally.swept_ms))
        return sum((Change(item_hash(entry), 1) for entry in live), Change())


def winners(entries: Iterable[Entry]) -> dict[Slot, Entry]:
    """What last-write-wins means, said in one line."""
    return {(e.keyspace, e.key): e for e in sorted(entries, key=lambda e: e.version)}
