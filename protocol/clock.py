"""Time: a cluster clock that no single wrong clock moves, and stamps on it that never go back.

*Steady time* is the wall clock as this process found it at its start, carried on by the monotonic clock alone. A
wall clock that is set while we run is noticed and shown, and changes nothing for `JUMP_HOLD_S`; one that stays
different for so long is believed (a suspended machine, a clock that was wrong when it booted).

*Cluster time* is steady time plus the median of how far the peers' steady clocks are ahead of ours, our own 0
included (of an even count the mean of the middle two). A peer that is away keeps its vote. Everybody measures
steady clocks, never corrected ones, so nobody follows a follower. Of each peer the sample with the shortest round
trip of the last 8 counts: among single samples one in eight is off by a quarter second when nodes stall, among
those none.

*Stamps* are hybrid logical clock readings on cluster time: 48 bits of milliseconds, 16 of a counter (Kulkarni and
Demirbas, "Logical Physical Clocks", 2014, section 3). Each is greater than every stamp given out or merged before,
so a write always beats what its writer had read. The highest is stored with the rows that carry it. A stamp that
lies further ahead of cluster time than `AHEAD_MAX_MS` is not merged (see replica.py): it would drag all later
ones along.
"""

from __future__ import annotations

from collections import deque
from statistics import median

from .types import Instant, NodeId

COUNTER_BITS = 16

AHEAD_MAX_MS = 10_000
"""Stamps further ahead wait. Clocks that are measured agree to some 20 ms; this leaves room for a first minute."""

SAMPLES = 8

JUMP_MS = 500
"""A wall clock that departs from steady time by more was set; less is measuring noise and slewing."""

JUMP_HOLD_S = 60.0
"""A wall clock that was set is believed after so long."""

SUSPECT_MS = 1000
"""A clock that is corrected by more is worth a word to its owner."""


class ClusterTime:
    """`now`: a reading at the start of the process."""

    def __init__(self, now: Instant) -> None:
        self._base_ms = now.wall_ms - now.mono_s * 1000
        self._samples: dict[NodeId, deque[tuple[float, float]]] = {}
        self._jumped_at_s: float | None = None
        self.correction_ms = 0.0
        """What is added to our own steady time."""
        self.jump_ms = 0
        """How far the wall clock has departed from steady time; 0 while it has not."""

    def steady_ms(self, now: Instant) -> int:
        return int(self._base_ms + now.mono_s * 1000)

    def time_ms(self, now: Instant) -> int:
        """Cluster time, in milliseconds since 1970."""
        return int(self._base_ms + self.correction_ms + now.mono_s * 1000)

    @property
    def measured_peers(self) -> int:
        return len(self._samples)

    @property
    def is_suspect(self) -> bool:
        """Whether this machine's clock wants mending."""
        return abs(self.correction_ms) > SUSPECT_MS or self.jump_ms != 0

    def watch(self, now: Instant) -> bool:
        """Look whether the wall clock was set; True when there is news of it."""
        departed_ms = round(now.wall_ms - self._base_ms - now.mono_s * 1000)
        jump_ms = departed_ms if abs(departed_ms) > JUMP_MS else 0
        is_news = abs(jump_ms - self.jump_ms) > JUMP_MS
        if is_news:
            self._jumped_at_s = now.mono_s if jump_ms else None
        self.jump_ms = jump_ms
        if self._jumped_at_s is not None and now.mono_s >= self._jumped_at_s + JUMP_HOLD_S:
            self._believe(jump_ms)
            return True
        return is_news

    def measured(self, peer: NodeId, round_trip_ms: float, steady_ms: int, now: Instant) -> None:
        """A peer's steady clock, as told in a message of which the round trip is known."""
        offset_ms = steady_ms + round_trip_ms / 2 - (self._base_ms + now.mono_s * 1000)
        samples = self._samples.setdefault(peer, deque(maxlen=SAMPLES))
        if samples and abs(offset_ms - min(samples)[1]) > JUMP_MS + round_trip_ms:
            samples.clear()  # no round trip explains that: the peer's clock moved
        samples.append((round_trip_ms, offset_ms))
        self._correct()

    def offsets_ms(self) -> dict[NodeId, float]:
        """How far each peer's clock is ahead of ours."""
        return {peer: min(samples)[1] for peer, samples in self._samples.items()}

    def _correct(self) -> None:
        self.correction_ms = median([0.0, *self.offsets_ms().values()])

    def _believe(self, jump_ms: int) -> None:
        """The wall clock is right, or as right as it will get: our own vote follows it."""
        self._base_ms += jump_ms
        self.jump_ms, self._jumped_at_s = 0, None
        for peer, samples in self._samples.items():
            moved = ((trip, offset - jump_ms) for trip, offset in samples)
            self._samples[peer] = deque(moved, maxlen=SAMPLES)
        self._correct()


class HybridClock:
    """Stamps on `time`. `high_water` is the highest stamp that the store knows."""

    def __init__(self, time: ClusterTime, high_water: int = 0) -> None:
        self.time = time
        self.last = high_water

    def tick(self, now: Instant) -> int:
        """A new stamp for a local event."""
        self.last = max(self.last + 1, self.time.time_ms(now) << COUNTER_BITS)
        return self.last

    def observe(self, stamp: int) -> None:
        """Take note of a stamp that is merged: all ours will be greater."""
        self.last = max(self.last, stamp)

    def is_ahead(self, stamp: int, now: Instant) -> bool:
        """Whether a stamp lies so far in the future that it must wait."""
        return stamp_ms(stamp) > self.time.time_ms(now) + AHEAD_MAX_MS


def stamp_ms(stamp: int) -> int:
    """The milliseconds of a stamp, for people."""
    return stamp >> COUNTER_BITS
