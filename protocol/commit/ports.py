"""What the parts of this package stand on: committed values, the electorate, timers."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import floor
from typing import Protocol

from ..effects import Entry
from ..turn import Turn
from ..types import Instant, NodeId
from .messages import Heads
from .transaction import Shard, Slot

COARSE_S = 0.05
"""Timers that matter only when something went wrong fire on a grid, together: most of them are stale by then."""


class Unreadable(Exception):
    """What is stored under a key is damaged: it must not pass for nothing."""


class Ledger(Protocol):
    """Committed values: the replica, as this package sees it."""

    def newest(self, slot: Slot) -> Entry | None:
        """What is stored or staged here, deletes included. Raises Unreadable."""
        ...

    def record(self, turn: Turn, slot: Slot, value: bytes | None, stamp: int) -> None:
        """Stage a committed value as an entry of this node; it spreads to all members like any other."""
        ...

    def heads(self) -> Heads:
        """What is covered here once all that is staged is durable."""
        ...

    def loose(self, keyspace: int) -> list[Entry] | None:
        """What is held of a keyspace, stored or staged, beyond those heads; None: more than can be told."""
        ...

    def covers(self, heads: Heads) -> bool:
        """Whether all that is covered there is covered here, durably."""
        ...


class Electorate(Protocol):
    """Who votes on what."""

    def epoch(self, keyspace: int) -> int:
        """The current one."""
        ...

    def voters(self, shard: Shard) -> tuple[NodeId, ...]:
        """In a fixed order; empty: this node does not know that shard."""
        ...

    def is_voter(self, shard: Shard) -> bool:
        """Whether this store votes there, and may by now."""
        ...

    def is_named(self, shard: Shard) -> bool:
        """Whether this store was named there, and has kept all that it ever promised."""
        ...

    def to_install(self) -> list[Shard]:
        """Current shards for which this store was named, and does not know yet what it has to know."""
        ...

    def is_forced(self, shard: Shard) -> bool:
        """Whether the voters of the epoch before it did not agree."""
        ...

    @property
    def has_given_up(self) -> bool:
        """Whether there is any shard of which `is_given_up` is true."""
        ...

    def is_succeeded_here(self, shard: Shard) -> bool:
        """Whether this store votes there in a later epoch, and knows by that all that has committed in this one."""
        ...

    def heirs(self, shard: Shard) -> tuple[NodeId, ...]:
        """Who votes in the current epoch, if that is a later one."""
        ...

    def lost(self, shard: Shard) -> set[NodeId]:
        """The voters of the epoch before it that nobody expects back, where it was forced."""
        ...

    def is_given_up(self, shard: Shard) -> bool:
        """Whether its voters were replaced by force: what was in doubt there stays so."""
        ...

    def install(self, turn: Turn, shard: Shard) -> None:
        """It knows now, durably with this turn: it may vote."""
        ...


class Timers:
    """Calls that are due later. One that is no longer wanted finds so by itself."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[Turn], None]]] = []
        self._number = 0

    @property
    def deadline_s(self) -> float:
        return self._due[0][0] if self._due else float("inf")

    def after(
        self, now: Instant, delay_s: float, call: Callable[[Turn], None], *, coarse: bool = False
    ) -> None:
        at_s = now.mono_s + delay_s
        if coarse:
            at_s = (floor(at_s / COARSE_S) + 1) * COARSE_S  # always later than now
        self._number += 1
        heappush(self._due, (at_s, self._number, call))

    def fire(self, turn: Turn) -> None:
        while self._due and self._due[0][0] <= turn.now.mono_s:
            heappop(self._due)[2](turn)
