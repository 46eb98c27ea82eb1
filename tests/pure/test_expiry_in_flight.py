"""The tally while entries expire on their way to the store."""

from __future__ import annotations

from protocol.clock import HybridClock
from protocol.replica.replica import Replica
from protocol.turn import Turn
from protocol.types import CommitNumber, Instant, NodeId

from ..sim.swarm.fakes import Disk

SLOT = (1, b"k")


def staged(replica: Replica, number: int, wall_ms: int, value: bytes, expires_ms: int) -> Turn:
    """One turn with one write in it."""
    turn = Turn(Instant(wall_ms / 1000, wall_ms), CommitNumber(number))
    replica.put(turn, SLOT, value, expires_ms)
    replica.seal(turn)
    return turn


def committed(replica: Replica, disk: Disk, turn: Turn) -> None:
    disk.apply(tuple(turn.rows))
    replica.committed(turn.number)


def test_an_entry_that_expires_before_it_is_stored_and_is_replaced_counts_once() -> None:
    """Its successor is staged when its time is over already: afterwards one key is counted, not two."""
    disk = Disk()
    replica = Replica((NodeId(bytes(32)), 1), disk, HybridClock())
    first = staged(replica, 1, 1000, b"short", expires_ms=1100)
    replica.sweep(1200)
    second = staged(replica, 2, 1200, b"long", expires_ms=0)
    committed(replica, disk, first)
    committed(replica, disk, second)
    replica.sweep(1300)

    assert replica.tally.durable.keys == 1


def test_the_stored_tally_does_not_count_what_expired_in_flight() -> None:
    """A crash right after the commit: the next run starts from the stored tally and counts right."""
    disk = Disk()
    replica = Replica((NodeId(bytes(32)), 1), disk, HybridClock())
    first = staged(replica, 1, 1000, b"short", expires_ms=1100)
    replica.sweep(1200)
    other = Turn(Instant(1.2, 1200), CommitNumber(2))
    replica.put(other, (1, b"other"), b"v", 0)
    replica.seal(other)
    disk.apply(tuple(first.rows))
    disk.apply(tuple(other.rows))

    next_run = Replica((NodeId(bytes(32)), 1), disk, HybridClock())
    next_run.sweep(1300)

    assert next_run.tally.durable.keys == 1
