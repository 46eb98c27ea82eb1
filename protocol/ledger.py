"""Committed values: the replica, as `protocol.commit` sees it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from .commit.messages import Heads
from .commit.ports import Unreadable
from .effects import Entry
from .limits import SURVEY_VALUES_BYTES_MAX, SURVEY_VALUES_MAX
from .replica.coverage import NOTHING
from .replica.entry import row_bytes
from .replica.replica import Replica
from .replica.store import DamagedRow, Slot, Store
from .types import NodeId


class Ledger:
    """A commit is an entry like any other, under the stamp that all voters know it by."""

    def __init__(self, replica: Replica, store: Store) -> None:
        self._replica, self._store = replica, store
        self.record = replica.record

    def newest(self, slot: Slot) -> Entry | None:
        """Stored or staged, deletes included. Raises Unreadable."""
        if self._replica.is_staged(slot):
            return self._replica.newest(slot)
        try:
            return self._store.get(*slot)
        except DamagedRow as damaged:
            raise Unreadable(*damaged.args) from None

    def heads(self) -> Heads:
        """What is covered of each origin once all that is staged is durable."""
        return [(*origin, at.head) for origin, at in sorted(self._replica.reached.items())]

    def loose(self, keyspace: int) -> list[Entry] | None:
        """What is held of a keyspace and no head covers: a sync session is under way, or a batch came too early.

        None: that is too much to be told, or damaged.
        """
        try:
            stored = list(islice(self._stored_loose(), SURVEY_VALUES_MAX + 1))
        except DamagedRow:
            return None
        found = [entry for entry in self._replica.staged_in(keyspace) if self._is_loose(entry)]
        found += [entry for entry in stored if entry.keyspace == keyspace]
        is_small = sum(map(row_bytes, found)) <= SURVEY_VALUES_BYTES_MAX
        return found if is_small and max(len(stored), len(found)) <= SURVEY_VALUES_MAX else None

    def covers(self, heads: Heads) -> bool:
        """Whether all of that is covered here, durably."""
        vector = self._replica.vector
        return all(vector.get((NodeId(node), lineage), 0) >= head for node, lineage, head in heads)

    def _is_loose(self, entry: Entry) -> bool:
        return entry.seq > self._replica.reached.get((entry.node, entry.lineage), NOTHING).head

    def _stored_loose(self) -> Iterator[Entry]:
        """Of all keyspaces."""
        for origin, at in sorted(self._replica.reached.items()):
            if self._store.top(origin) > at.head:
                yield from self._store.by_origin(origin, at.head)
