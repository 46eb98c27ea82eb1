"""Who votes on what, as this node knows it: definitions, successors, and whether this store is the one they name."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from .effects import RecordRow
from .epochs import Successor
from .keyspaces import Keyspaces
from .replica.settling import Settling
from .turn import Turn
from .types import NodeId
from .voters import FIRST_EPOCH, Voter

Shard = tuple[int, int]
"""(keyspace, epoch)."""

SEAT_RECORD = "seat"
"""The kind of stored records that name the later shards on which this store may vote."""


class Seats:
    """The electorate of `protocol.commit`. `stored`: the keys of the records of kind `SEAT_RECORD`."""

    def __init__(self, me: NodeId, keyspaces: Keyspaces, settling: Settling, stored: Iterable[bytes]) -> None:
        self._me, self._keyspaces, self._settling = me, keyspaces, settling
        self._epochs = keyspaces.epochs
        self._installed: set[Shard] = set()
        self.load(stored)

    def load(self, stored: Iterable[bytes]) -> None:
        """Take up what is stored, in the place of what is in memory."""
        self._installed = {_decoder.decode(key) for key in stored}

    def epoch(self, keyspace: int) -> int:
        """The current one, as far as it is known here."""
        return self._epochs.current(keyspace)

    def voters(self, shard: Shard) -> tuple[NodeId, ...]:
        """By id; empty: that keyspace or that epoch of it is not known here."""
        return tuple(voter.node for voter in self.named(shard))

    def is_voter(self, shard: Shard) -> bool:
        """Whether this store was named, is known to hold all that it ever promised, and all that it has to know."""
        return self.is_named(shard) and (shard[1] == FIRST_EPOCH or shard in self._installed)

    def is_named(self, shard: Shard) -> bool:
        """Whether it may help to finish what others voted on there: for that it has to know nothing."""
        me = Voter(self._me, self._settling.store_id)
        return self._settling.is_confirmed and me in self.named(shard)

    def to_install(self) -> list[Shard]:
        """Current shards for which this store was named, and does not know yet what it has to know."""
        return [
            shard
            for shard in self._epochs.advanced()
            if shard not in self._installed and self.is_named(shard) and self.named((shard[0], shard[1] - 1))
        ]

    def install(self, turn: Turn, shard: Shard) -> None:
        """It knows now, durably with this turn."""
        self._installed.add(shard)
        turn.stage(RecordRow(SEAT_RECORD, msgspec.msgpack.encode(shard), b""))

    def is_forced(self, shard: Shard) -> bool:
        """Whether the voters of the epoch before it did not agree."""
        successor = self._epochs.successor(*shard)
        return successor is not None and successor.forced is not None

    def is_succeeded_here(self, shard: Shard) -> bool:
        """Whether this store votes there in a later epoch, and knows by that all that has committed in this one.

        Not where its voters were replaced by force: nobody knows that then.
        """
        keyspace, epoch = shard
        later = range(epoch + 1, self.epoch(keyspace) + 1)
        return any(self.is_voter((keyspace, one)) for one in later) and not self.is_given_up(shard)

    def heirs(self, shard: Shard) -> tuple[NodeId, ...]:
        """Who votes in the current epoch, if that is a later one."""
        keyspace, epoch = shard
        current = self.epoch(keyspace)
        return self.voters((keyspace, current)) if current > epoch else ()

    def lost(self, shard: Shard) -> set[NodeId]:
        """The voters of the epoch before it that nobody expects back, where it was forced."""
        successor = self._epochs.successor(*shard)
        lost = successor.forced.lost if successor is not None and successor.forced is not None else ()
        return {voter.node for voter in lost}

    @property
    def has_given_up(self) -> bool:
        """Whether there is any shard of which `is_given_up` is true."""
        return any(self.is_forced(shard) for shard in self._epochs.all())

    def is_given_up(self, shard: Shard) -> bool:
        """Whether its voters were replaced by force: what was in doubt there stays so."""
        later = range(shard[1] + 1, self.epoch(shard[0]) + 1)
        return any(self.is_forced((shard[0], epoch)) for epoch in later)

    def successor(self, keyspace: int) -> Successor | None:
        """What began the current epoch; None: it is the first."""
        return self._epochs.successor(keyspace, self.epoch(keyspace))

    def named(self, shard: Shard) -> tuple[Voter, ...]:
        """Empty: not known here."""
        keyspace, epoch = shard
        if epoch == FIRST_EPOCH:
            definition = self._keyspaces.by_id(keyspace)
            return definition.voters if definition is not None else ()
        successor = self._epochs.successor(keyspace, epoch)
        return successor.voters if successor is not None and self._keyspaces.by_id(keyspace) else ()


_decoder = msgspec.msgpack.Decoder(Shard)
