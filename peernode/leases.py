"""What this node remembers of locks: since when it has seen one held, and which fences its clients were given."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple, TypeVar

from .limits import LOCK_LATE_SHARE, LOCKS_WATCHED_MAX

T = TypeVar("T")


class Watched(NamedTuple):
    """A held lock: the version that it had when it was looked at, and since when it has that."""

    stamp: int
    since_s: float


class Leases:
    """Times are those of the monotonic clock."""

    def __init__(self) -> None:
        self._watched: OrderedDict[bytes, Watched] = OrderedDict()
        self._fences: OrderedDict[bytes, int] = OrderedDict()

    def left_s(self, name: bytes, stamp: int, ttl_s: float, now_s: float) -> float:
        """For how long nobody may take over a lock that is held under this version; called when it is looked at."""
        watched = self._watched.get(name)
        if watched is None or watched.stamp != stamp:
            watched = Watched(stamp, now_s)
        keep(self._watched, name, watched)
        return watched.since_s + ttl_s * (1 + LOCK_LATE_SHARE) - now_s

    def took(self, name: bytes, fence: int) -> None:
        keep(self._fences, name, fence)

    def fence_of(self, name: bytes) -> int | None:
        """The last one that was given out here."""
        return self._fences.get(name)


def keep(held: OrderedDict[bytes, T], name: bytes, what: T) -> None:
    """As the newest; the oldest goes where there are too many."""
    held[name] = what
    held.move_to_end(name)
    if len(held) > LOCKS_WATCHED_MAX:
        held.popitem(last=False)
