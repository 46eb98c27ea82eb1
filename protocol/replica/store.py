"""What the replica reads from: committed rows only. Writing is an effect (`Stage`), never a call.

The daemon has a SQLite one (`peernode.store`), the tests one in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from ..effects import Entry
from ..types import NodeId

Origin = tuple[NodeId, int]
"""(node, lineage): one sequence of entries."""

Slot = tuple[int, bytes]
"""(keyspace, key): the place of which one entry is current."""


class DamagedRow(Exception):
    """A stored row does not match its checksum. It is neither served nor sent."""


class Store(Protocol):
    """Synchronous and quick: point reads and ranges in index order. Reads raise DamagedRow."""

    def get(self, keyspace: int, key: bytes) -> Entry | None: ...

    def scan(self, keyspace: int, prefix: bytes, after: bytes | None) -> Iterable[Entry]:
        """Entries of a prefix in the order of their keys, deletes included, strictly behind `after`."""
        ...

    def by_origin(self, origin: Origin, after_seq: int) -> Iterable[Entry]:
        """Current entries of one origin in the order of their seq."""
        ...

    def expiring(self, after_ms: int, until_ms: int) -> Iterable[Entry]:
        """Puts with after_ms < expires_ms <= until_ms. Damaged rows are left out: nobody asked for them."""
        ...

    def snapshot(self) -> AbstractContextManager[None]:
        """All reads inside see one and the same state."""
        ...

    def heads(self) -> dict[Origin, int]: ...
    def mark(self, name: str) -> bytes | None: ...
    def records(self, kind: str) -> dict[bytes, bytes]: ...
