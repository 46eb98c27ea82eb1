"""Who votes on what, as this node knows it: definitions of keyspaces, and whether this store is the one they name."""

from __future__ import annotations

from .keyspaces import FIRST_EPOCH, Keyspaces, Voter
from .replica.settling import Settling
from .types import NodeId

Shard = tuple[int, int]
"""(keyspace, epoch)."""


class Seats:
    """The electorate of `protocol.commit`."""

    def __init__(self, me: NodeId, keyspaces: Keyspaces, settling: Settling) -> None:
        self._me, self._keyspaces, self._settling = me, keyspaces, settling

    def epoch(self, keyspace: int) -> int:
        """The current one."""
        return FIRST_EPOCH

    def voters(self, shard: Shard) -> tuple[NodeId, ...]:
        """By id; empty: that keyspace or that epoch of it is not known here."""
        return tuple(voter.node for voter in self._voters(shard))

    def is_voter(self, shard: Shard) -> bool:
        """Whether this store was named, and is known to hold all that it ever promised."""
        me = Voter(self._me, self._settling.store_id)
        return self._settling.is_confirmed and me in self._voters(shard)

    def _voters(self, shard: Shard) -> tuple[Voter, ...]:
        keyspace, epoch = shard
        definition = self._keyspaces.by_id(keyspace)
        return definition.voters if definition is not None and epoch == FIRST_EPOCH else ()
