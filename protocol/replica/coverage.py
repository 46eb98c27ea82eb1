"""Which entries of one origin are covered: all up to a head, and exact ranges beyond it.

A covered entry is held here, or what supersedes it is. Ranges come from batches that arrived before what stands in
front of them; when the gap closes, the head moves over them at once, and nothing is fetched twice.
"""

from __future__ import annotations

import msgspec

from ..limits import RANGES_MAX

Range = tuple[int, int]
"""First and last, both included."""


class Coverage(msgspec.Struct, frozen=True, gc=False):
    """`beyond`: sorted, apart from each other and from the head."""

    head: int = 0
    beyond: tuple[Range, ...] = ()

    @property
    def top(self) -> int:
        """The highest seq that is covered."""
        return self.beyond[-1][1] if self.beyond else self.head

    def has(self, seq: int) -> bool:
        return seq <= self.head or any(first <= seq <= last for first, last in self.beyond)

    def with_range(self, first: int, last: int) -> Coverage:
        """Also `first` to `last`. Beyond RANGES_MAX gaps it is not remembered: sync will bring it again."""
        ranges: list[Range] = [(0, self.head)]
        for start, end in sorted([*self.beyond, (first, last)]):
            if start <= ranges[-1][1] + 1:
                ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
            else:
                ranges.append((start, end))
        head, *beyond = ranges
        return Coverage(head[1], tuple(beyond)) if len(beyond) <= RANGES_MAX else self


NOTHING = Coverage()


def encode_ranges(ranges: tuple[Range, ...]) -> bytes:
    """How ranges are stored beside a head."""
    return msgspec.msgpack.encode(ranges) if ranges else b""


def decode_ranges(stored: bytes) -> tuple[Range, ...]:
    return msgspec.msgpack.decode(stored, type=tuple[Range, ...]) if stored else ()
