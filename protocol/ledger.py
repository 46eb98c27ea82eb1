"""Committed values: the replica, as `protocol.commit` sees it."""

from __future__ import annotations

from .commit.messages import Extent
from .commit.ports import Unreadable
from .effects import Entry
from .replica.coverage import NOTHING
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

    def extent(self) -> Extent:
        """What is covered of each origin once all that is staged is durable."""
        return [(*origin, at.head, list(at.beyond)) for origin, at in sorted(self._replica.reached.items())]

    def covers(self, extent: Extent) -> bool:
        """Whether all of that is covered here, durably: then so is every value that was committed by then there."""
        durable = self._replica.durable
        return all(
            durable.get((NodeId(node), lineage), NOTHING).includes(head, ranges)
            for node, lineage, head, ranges in extent
        )
