"""After a clock was wrong while we wrote: our entries from the future are written again with true stamps.

A node that was alone with a wrong clock (it founded its cluster with it, or was cut off) finds out when it meets
others: cluster time is corrected, and the stamps that it gave out lie in the future. The others hold such entries
back, and nobody could overwrite them before their time. So their author, and nobody else, *voids* them: its member
record says from which stamp on which of its lineages counts for nothing, and under a new lineage it writes what of
that is still current again, with true stamps, in one commit.

A void entry stays readable where it is current, and loses against every entry of its key that is not void. The order
is the same at every node that knows the same declarations. What a void entry superseded somewhere may win again, and
is no longer there: whoever hears of a declaration asks all peers once for what they hold with stamps that late
(`Pull.above`). What is still to live keeps its whole TTL.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ..clock import COUNTER_BITS, ClusterTime, HybridClock, stamp_ms
from ..effects import Entry, MarkRow
from ..limits import VOIDED_MAX
from ..turn import Turn
from ..types import CommitNumber
from .replica import HLC_MARK, Replica
from .store import Store

VOIDED_MARK = "voided"

Voided = list[tuple[int, int]]
"""(lineage, stamp): entries with later stamps are void."""


class Mending:
    """`expected`: how many other members should be there; `new_lineage` makes one that we never had."""

    def __init__(
        self,
        replica: Replica,
        time: ClusterTime,
        clock: HybridClock,
        store: Store,
        expected: Callable[[], int],
        new_lineage: Callable[[], int],
    ) -> None:
        self._replica, self._time, self._clock = replica, time, clock
        self._store, self._expected, self._new_lineage = store, expected, new_lineage
        self.voided: Voided = []
        self._staged: CommitNumber | None = None
        self.failed()

    def tick(self, turn: Turn) -> None:
        """Void and write again, when it turns out that our stamps lie in the future."""
        measured = self._time.measured_peers
        if not self._clock.is_ahead(self._clock.last, turn.now) or 2 * measured <= self._expected():
            return
        bound = self._time.time_ms(turn.now) << COUNTER_BITS
        entries = self._replica.own_after(bound)
        turn.log("clock.mended", entries=str(len(entries)), ahead_ms=str(stamp_ms(self._clock.last - bound)))
        known = dict(self.voided)
        for lineage in self._replica.own_lineages():
            known[lineage] = min(bound, known.get(lineage, bound))
        self.voided = sorted(known.items())[-VOIDED_MAX:]
        self._write_again(turn, entries, bound)
        self._staged = turn.number

    def committed(self, number: CommitNumber) -> bool:
        """Whether a declaration has become durable: now everybody must be told."""
        is_durable = self._staged is not None and self._staged <= number
        if is_durable:
            self._staged = None
        return is_durable

    def failed(self) -> None:
        """Nothing of what was staged was stored."""
        stored = self._store.mark(VOIDED_MARK)
        self.voided = msgspec.msgpack.decode(stored, type=Voided) if stored else []
        self._replica.void_only(self._replica.me[0], self.voided)
        self._clock.observe(int.from_bytes(self._store.mark(HLC_MARK) or b"", "big"))
        self._staged = None

    def _write_again(self, turn: Turn, entries: list[Entry], bound: int) -> None:
        self._clock.last = bound
        self._replica.begin_lineage(turn, self._new_lineage())
        self._replica.void(self._replica.me[0], self.voided)
        for entry in entries:
            ttl_ms = entry.expires_ms - stamp_ms(entry.hlc) if entry.expires_ms else 0
            expires_ms = stamp_ms(bound) + ttl_ms if ttl_ms else 0
            self._replica.put(turn, (entry.keyspace, entry.key), entry.value, expires_ms)
        turn.stage(MarkRow(VOIDED_MARK, msgspec.msgpack.encode(self.voided)))
        turn.stage(MarkRow(HLC_MARK, self._clock.last.to_bytes(8, "big")))
