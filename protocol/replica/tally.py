"""The content digest and the number of live records, kept up to date with every commit and every expiry.

The digest is the sum of `item_hash` over all live puts, modulo 2**128: equal on two nodes iff they hold the
same. What stands in the hidden keyspace is no record of users and never counts. Any other entry counts while its
expiry lies after `swept_ms`, the time up to which expired entries have been taken out; a sweep moves that mark. The
stored tally belongs to the stored mark, so a restart goes on where it stopped, without reading the store through.
"""

from __future__ import annotations

import msgspec

from ..effects import Entry
from ..keyspaces import SYSTEM_KEYSPACE
from .entry import DIGEST_MODULUS, item_hash


class Change(msgspec.Struct, frozen=True):
    """What one commit adds to the tally."""

    digest: int = 0
    keys: int = 0

    def __add__(self, other: Change) -> Change:
        return Change((self.digest + other.digest) % DIGEST_MODULUS, self.keys + other.keys)


class Tally:
    """`durable` speaks of committed rows, `staged` of what it will be when all staged ones are."""

    def __init__(self, stored: bytes | None) -> None:
        digest, keys, self.swept_ms = (
            msgspec.msgpack.decode(stored, type=tuple[bytes, int, int]) if stored else (b"", 0, 0)
        )
        self.durable = Change(int.from_bytes(digest, "big"), keys)
        self.staged = self.durable

    def counts(self, entry: Entry | None) -> bool:
        return entry is not None and entry.live_at(self.swept_ms) and entry.keyspace != SYSTEM_KEYSPACE

    def replace(self, old: Entry | None, new: Entry) -> Change:
        """Note that `new` is staged in the place of `old`."""
        change = Change()
        if old is not None and self.counts(old):
            change += _minus(old)
        if self.counts(new):
            change += Change(item_hash(new), 1)
        self.staged += change
        return change

    def expire(self, entry: Entry) -> None:
        """Take out an entry that is committed and counted, and whose time is over."""
        self._add(entry, _minus(entry))

    def revive(self, entry: Entry) -> None:
        """Count an entry again whose time is, after all, not over."""
        self._add(entry, Change(item_hash(entry), 1))

    def _add(self, entry: Entry, change: Change) -> None:
        if entry.keyspace != SYSTEM_KEYSPACE:
            self.durable += change
            self.staged += change

    def commit(self, change: Change) -> None:
        self.durable += change

    def roll_back(self) -> None:
        """Every staged commit has failed."""
        self.staged = self.durable

    def encode(self) -> bytes:
        """The staged tally, to be stored in the commit that makes it true."""
        return msgspec.msgpack.encode(
            (self.staged.digest.to_bytes(16, "big"), self.staged.keys, self.swept_ms)
        )


def _minus(entry: Entry) -> Change:
    return Change(-item_hash(entry) % DIGEST_MODULUS, -1)
