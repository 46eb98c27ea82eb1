"""The local TTL cache: what this node keeps for a while, in memory, for itself alone.

It decides what stays. An entry is never served at or after its expiry, and never more than `bytes_max` and
`entries_max` are held: a put drops some of what has expired, and then, until there is room, what was used least
recently. Nothing here is replicated or survives a restart. Time is an argument, in seconds of the monotonic clock,
so that no change of the wall clock moves an expiry.

The work of one call is bounded: what has expired is not dropped all at once. Expired entries wait in buckets of one
second, from which `sweep` takes some at a time. The keys are kept in order too, so that a glob costs only the keys
under its literal prefix; and keys that globs look at are rationed: when they come faster than that, the cache is
emptied instead of searched.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict

import msgspec

from protocol.invalidation import Glob

from .limits import (
    TTL_CACHE_BYTES_MAX,
    TTL_CACHE_ENTRIES_MAX,
    TTL_CACHE_GLOB_KEYS_PER_S_MAX,
    TTL_CACHE_OVERHEAD_BYTES,
    TTL_CACHE_SWEEP_MAX,
)


class Cached(msgspec.Struct, frozen=True, gc=False):
    """One entry, until `expires_s` on the monotonic clock."""

    key: bytes
    value: bytes
    expires_s: float

    @property
    def size(self) -> int:
        return TTL_CACHE_OVERHEAD_BYTES + len(self.key) + len(self.value)

    @property
    def bucket(self) -> int:
        return int(self.expires_s)


class Counts(msgspec.Struct):
    """What happened since the start. An entry that leaves unasked counts as evicted, expired or invalidated."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    expired: int = 0
    invalidations: int = 0  # that were heard, whether they met an entry or not
    invalidated: int = 0
    emptied: int = 0  # how often globs came too fast to be searched for


class Cache:
    """Keys and values are bytes, within the bounds of the protocol."""

    def __init__(
        self,
        now_s: float,
        bytes_max: int = TTL_CACHE_BYTES_MAX,
        entries_max: int = TTL_CACHE_ENTRIES_MAX,
        glob_keys_per_s_max: float = TTL_CACHE_GLOB_KEYS_PER_S_MAX,
    ) -> None:
        self.bytes_max, self.entries_max = bytes_max, entries_max
        self.counts = Counts()
        self.bytes_held = 0
        self._entries: OrderedDict[bytes, Cached] = OrderedDict()  # what was used last is last
        self._sorted: list[bytes] = []
        self._buckets: dict[int, dict[bytes, None]] = {}
        self._next_bucket = int(now_s)
        self._glob_keys_per_s_max = self._glob_keys_left = glob_keys_per_s_max
        self._refilled_s = now_s

    def __len__(self) -> int:
        """Entries held; some may have expired a moment ago."""
        return len(self._entries)

    def put(self, key: bytes, value: bytes, ttl_s: float, now_s: float) -> None:
        """Keep it for `ttl_s` from now, or shorter where room is needed."""
        cached = Cached(key, value, now_s + ttl_s)
        replaced = self._entries.pop(key, None)
        if replaced is None:
            insort(self._sorted, key)
        else:
            self._forget(replaced, now_s)
        self.sweep(now_s)
        self._make_room(cached.size, now_s)
        self._entries[key] = cached
        self._buckets.setdefault(cached.bucket, {})[key] = None
        self.bytes_held += cached.size

    def get(self, key: bytes, now_s: float) -> Cached | None:
        cached = self._entries.get(key)
        if cached is not None and cached.expires_s > now_s:
            self._entries.move_to_end(key)
            self.counts.hits += 1
            return cached
        self.counts.misses += 1
        self._drop(key, now_s)
        return None

    def delete(self, key: bytes, now_s: float) -> bool:
        """Whether there was something to delete."""
        return self._drop(key, now_s)

    def clear(self) -> int:
        """Drop everything; returns how many entries that were."""
        cleared = len(self)
        self._entries.clear()
        self._sorted.clear()
        self._buckets.clear()
        self.bytes_held = 0
        return cleared

    def invalidate(self, key: bytes, now_s: float) -> int:
        """Drop a stale key; returns how many entries that were."""
        self.counts.invalidations += 1
        dropped = int(self._drop(key, now_s))
        self.counts.invalidated += dropped
        return dropped

    def invalidate_glob(self, glob: Glob, now_s: float) -> int:
        """Drop the keys that match; returns how many entries that were."""
        self.counts.invalidations += 1
        dropped = self._drop_matching(glob, now_s)
        self.counts.invalidated += dropped
        return dropped

    def sweep(self, now_s: float, work_max: int = TTL_CACHE_SWEEP_MAX) -> bool:
        """Drop some of what has expired; whether there may be more. Entries of the current second wait."""
        for _ in range(work_max):
            if self._next_bucket >= int(now_s):
                return False
            if bucket := self._buckets.get(self._next_bucket):
                self._drop(next(iter(bucket)), now_s)
            else:
                self._next_bucket += 1
        return True

    def _make_room(self, size: int, now_s: float) -> None:
        assert size <= self.bytes_max, size
        while self.bytes_held + size > self.bytes_max or len(self) >= self.entries_max:
            key, oldest = self._entries.popitem(last=False)
            del self._sorted[bisect_left(self._sorted, key)]
            self.counts.evictions += self._forget(oldest, now_s)

    def _drop(self, key: bytes, now_s: float) -> bool:
        """Whether a live entry was dropped."""
        cached = self._entries.pop(key, None)
        if cached is None:
            return False
        del self._sorted[bisect_left(self._sorted, key)]
        return self._forget(cached, now_s)

    def _drop_matching(self, glob: Glob, now_s: float) -> int:
        """How many live entries were dropped."""
        length = len(glob.prefix)
        start = bisect_left(self._sorted, glob.prefix, key=lambda key: key[:length])
        end = bisect_right(self._sorted, glob.prefix, key=lambda key: key[:length])
        if not self._may_look_at(end - start, now_s):
            self.counts.emptied += 1
            return self.clear()
        keys = self._sorted[start:end]
        stale = [key for key in keys if glob.matches(key)]
        if len(stale) == len(self):
            return self.clear()
        dropped = sum(self._forget(self._entries.pop(key), now_s) for key in stale)
        self._sorted[start:end] = [key for key in keys if key in self._entries]
        return dropped

    def _may_look_at(self, keys: int, now_s: float) -> bool:
        """A token bucket, which holds the keys of one second."""
        refill = (now_s - self._refilled_s) * self._glob_keys_per_s_max
        self._refilled_s = now_s
        self._glob_keys_left = min(self._glob_keys_per_s_max, self._glob_keys_left + refill)
        if keys > self._glob_keys_left:
            return False
        self._glob_keys_left -= keys
        return True

    def _forget(self, cached: Cached, now_s: float) -> bool:
        """An entry was removed: settle its bucket and bytes. Whether it was still alive."""
        self.bytes_held -= cached.size
        bucket = self._buckets[cached.bucket]
        del bucket[cached.key]
        if not bucket:
            del self._buckets[cached.bucket]
        is_live = cached.expires_s > now_s
        self.counts.expired += not is_live
        return is_live
