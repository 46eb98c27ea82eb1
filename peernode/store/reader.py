"""Committed rows as the core reads them: SQLite, with a bounded cache of entries above it.

Runs in the main thread on a connection that cannot write. The cache holds what was read and what was committed;
`committed` is called before the core hears of a commit, so that the two never disagree about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cachetools import LRUCache

from protocol.effects import Entry, Stage
from protocol.replica.store import DamagedRow, Origin, Slot
from protocol.types import NodeId

from ..limits import CACHE_BYTES_MAX, ENTRY_OVERHEAD_BYTES
from .schema import checksum, open_reader

COLUMNS = "keyspace, key, origin, seq, hlc, expires, checksum, value"
NOBODY: Origin = (NodeId(b""), 0)
"""The origin of a row whose number stands for none: no checksum fits it."""
Columns = tuple[int, bytes, int, int, int, int, int, bytes | None]


class Reader:
    """Implements `protocol.replica.store.Store`."""

    def __init__(self, path: Path) -> None:
        self._connection = open_reader(path)
        self._origins: dict[int, Origin] = {}
        self._ids: dict[Origin, int] = {}
        self._cache: LRUCache[Slot, Entry] = LRUCache(CACHE_BYTES_MAX, getsizeof=_size)

    def get(self, keyspace: int, key: bytes) -> Entry | None:
        slot = (keyspace, key)
        cached = self._cache.get(slot)
        if cached is not None:
            return cached
        row = self._connection.execute(
            f"SELECT {COLUMNS} FROM entry WHERE keyspace = ? AND key = ?", slot
        ).fetchone()
        if row is None:
            return None
        entry = self._entry(row)
        self._cache[slot] = entry
        return entry

    def scan(self, keyspace: int, prefix: bytes, after: bytes | None) -> Iterator[Entry]:
        low, comparison = (after, ">") if after is not None and after >= prefix else (prefix, ">=")
        end = _behind(prefix)
        bound, arguments = ("", (keyspace, low)) if end is None else ("AND key < ?", (keyspace, low, end))
        return self._select(f"WHERE keyspace = ? AND key {comparison} ? {bound} ORDER BY key", arguments)

    def by_origin(self, origin: Origin, after_seq: int) -> Iterator[Entry]:
        if origin not in self._ids:
            self._load_origins()
        number = self._ids.get(origin)
        if number is None:
            return iter(())
        return self._select("WHERE origin = ? AND seq > ? ORDER BY seq", (number, after_seq))

    def expiring(self, after_ms: int, until_ms: int) -> Iterator[Entry]:
        where = "WHERE expires > ? AND expires <= ? AND expires > 0 AND value IS NOT NULL"
        return self._select(where, (after_ms, until_ms), leave_out_damaged=True)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("COMMIT")

    def heads(self) -> dict[Origin, int]:
        rows = self._connection.execute("SELECT node, lineage, head FROM origin")
        return {(NodeId(node), lineage): head for node, lineage, head in rows}

    def mark(self, name: str) -> bytes | None:
        row = self._connection.execute("SELECT value FROM mark WHERE name = ?", (name,)).fetchone()
        return row[0] if row is not None else None

    def records(self, kind: str) -> dict[bytes, bytes]:
        return dict(
            self._connection.execute("SELECT key, value FROM record WHERE kind = ? ORDER BY key", (kind,))
        )

    def committed(self, stages: Iterable[Stage]) -> None:
        """These groups are durable: keep the cache true."""
        for stage in stages:
            for row in stage.rows:
                if isinstance(row, Entry):
                    self._cache[row.keyspace, row.key] = row

    def close(self) -> None:
        self._connection.close()

    def _select(
        self, where: str, arguments: tuple[object, ...], *, leave_out_damaged: bool = False
    ) -> Iterator[Entry]:
        cursor = self._connection.execute(f"SELECT {COLUMNS} FROM entry {where}", arguments)
        try:
            for row in cursor:
                try:
                    entry = self._entry(row)
                except DamagedRow:
                    if leave_out_damaged:
                        continue
                    raise
                yield entry
        finally:
            cursor.close()

    def _entry(self, row: Columns) -> Entry:
        keyspace, key, number, seq, hlc, expires_ms, seal, value = row
        if number not in self._origins:
            self._load_origins()
        node, lineage = self._origins.get(number, NOBODY)
        if seal != checksum(keyspace, key, node, lineage, seq, hlc, expires_ms, value):
            raise DamagedRow(f"key {key!r} fails its checksum")
        return Entry(keyspace, key, hlc, node, lineage, seq, value, expires_ms)

    def _load_origins(self) -> None:
        for number, node, lineage in self._connection.execute("SELECT id, node, lineage FROM origin"):
            self._origins[number] = (NodeId(node), lineage)
            self._ids[NodeId(node), lineage] = number


def _size(entry: Entry) -> int:
    return ENTRY_OVERHEAD_BYTES + len(entry.key) + len(entry.value or b"")


def _behind(prefix: bytes) -> bytes | None:
    """The least key that is greater than all with this prefix; None when there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None
