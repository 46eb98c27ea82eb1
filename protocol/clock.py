"""Hybrid logical clock: stamps that follow the wall clock and never go back.

A stamp is 64 bits: 48 of milliseconds, 16 of a counter. Every stamp given out is greater than every stamp
seen before, so that a write always beats what its writer had read (Kulkarni and Demirbas, "Logical Physical
Clocks", 2014, algorithm of section 3). The highest stamp is stored with the rows that carry it.
"""

from __future__ import annotations

COUNTER_BITS = 16


class HybridClock:
    """One a node. `high_water` is the highest stamp that its store knows."""

    def __init__(self, high_water: int = 0) -> None:
        self.last = high_water

    def tick(self, wall_ms: int) -> int:
        """A new stamp for a local event."""
        self.last = max(self.last + 1, wall_ms << COUNTER_BITS)
        return self.last

    def observe(self, stamp: int) -> None:
        """Take note of a stamp from elsewhere: all ours will be greater."""
        self.last = max(self.last, stamp)

    def time_ms(self, wall_ms: int) -> int:
        """The time by which entries expire: the wall clock, but never earlier than any stamp seen."""
        return max(wall_ms, self.last >> COUNTER_BITS)


def stamp_ms(stamp: int) -> int:
    """The milliseconds of a stamp, for people."""
    return stamp >> COUNTER_BITS
