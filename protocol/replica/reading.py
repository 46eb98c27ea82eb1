"""What clients of this node read: committed entries of the keyspace that a name means, from this node alone."""

from __future__ import annotations

from ..effects import Entry
from ..errors import Refused
from ..keyspaces import Definition
from .replica import Page, Replica
from .store import DamagedRow


class Reading:
    """All reads of one node's clients: plain queries."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def get(self, keyspace: str, key: bytes, time_ms: int) -> Entry | Refused | None:
        """The committed live entry."""
        meant = self._replica.keyspaces.resolve(keyspace)
        if isinstance(meant, Refused):
            return meant
        try:
            return self._replica.read((meant.id, key), time_ms)
        except DamagedRow as damaged:
            return damaged_row(damaged)

    def is_staged(self, keyspace: str, key: bytes) -> bool:
        """Whether a newer one is on its way to the store."""
        meant = self._replica.keyspaces.resolve(keyspace)
        return isinstance(meant, Definition) and self._replica.is_staged((meant.id, key))

    def scan(
        self, keyspace: str, prefix: bytes, after: bytes | None, limit: int, time_ms: int
    ) -> Page | Refused:
        """A page of committed live entries."""
        meant = self._replica.keyspaces.resolve(keyspace)
        if isinstance(meant, Refused):
            return meant
        try:
            return self._replica.scan(meant.id, prefix, after, limit, time_ms)
        except DamagedRow as damaged:
            return damaged_row(damaged)


def damaged_row(damaged: DamagedRow) -> Refused:
    return Refused(
        "internal", f"the stored entry is damaged: {damaged}", "write the key again, or ask another member"
    )
