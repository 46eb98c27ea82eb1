"""Applies groups of staged rows, each group in one transaction. Runs in the store's own thread.

A full disk rolls the group back, after one attempt to win space by a checkpoint: nothing of it was stored. A failed
sync is another matter: what is on the disk is unknown, and asking again may lie ("fsyncgate"). Any error but
a full disk therefore ends the daemon; its restart finds what the last successful sync left.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from protocol.effects import Entry, HeadRow, MarkRow, RecordRow, Stage
from protocol.replica.coverage import encode_ranges
from protocol.replica.store import Origin, Slot
from protocol.types import NodeId

from .schema import checksum, open_writer

UPSERT_ENTRY = """INSERT INTO entry (keyspace, key, origin, seq, hlc, expires, checksum, value)
VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (keyspace, key) DO UPDATE SET origin = excluded.origin,
seq = excluded.seq, hlc = excluded.hlc, expires = excluded.expires, checksum = excluded.checksum,
value = excluded.value"""


class StorageFull(Exception):
    """There is no room: nothing of the group was stored."""


class Writer:
    """Owns the only read-write connection."""

    def __init__(self, path: Path) -> None:
        self._connection = open_writer(path)
        rows = self._connection.execute("SELECT node, lineage, id FROM origin")
        self._origins: dict[Origin, int] = {(NodeId(node), lineage): number for node, lineage, number in rows}

    def apply(self, stages: Iterable[Stage]) -> None:
        """Store all rows durably, or none. Raises StorageFull; any other error is fatal."""
        try:
            self._transact(stages)
        except StorageFull:
            self._checkpoint()
            self._transact(stages)

    def close(self) -> None:
        self._connection.close()

    def _transact(self, stages: Iterable[Stage]) -> None:
        known = dict(self._origins)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._write(stages)
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._origins = known
            raise StorageFull(str(error)) from None

    def _write(self, stages: Iterable[Stage]) -> None:
        entries: dict[Slot, Entry] = {}
        heads: dict[Origin, HeadRow] = {}
        marks: dict[str, bytes] = {}
        for stage in stages:
            for row in stage.rows:
                match row:
                    case Entry():
                        entries[row.keyspace, row.key] = row
                    case HeadRow():
                        heads[row.node, row.lineage] = row
                    case MarkRow():
                        marks[row.name] = row.value
                    case RecordRow():
                        self._write_record(row)
        run = self._connection.executemany
        run(UPSERT_ENTRY, [self._as_columns(entry) for entry in entries.values()])
        run(
            "UPDATE origin SET head = ?, beyond = ? WHERE id = ?",
            [(row.head, encode_ranges(row.beyond), self._id(origin)) for origin, row in heads.items()],
        )
        run("INSERT OR REPLACE INTO mark (name, value) VALUES (?, ?)", marks.items())

    def _write_record(self, row: RecordRow) -> None:
        if row.value is None:
            self._connection.execute("DELETE FROM record WHERE kind = ? AND key = ?", (row.kind, row.key))
        else:
            self._connection.execute(
                "INSERT OR REPLACE INTO record (kind, key, value) VALUES (?, ?, ?)",
                (row.kind, row.key, row.value),
            )

    def _as_columns(self, entry: Entry) -> tuple[object, ...]:
        origin = self._id((entry.node, entry.lineage))
        seal = checksum(
            entry.keyspace,
            entry.key,
            entry.node,
            entry.lineage,
            entry.seq,
            entry.hlc,
            entry.expires_ms,
            entry.value,
        )
        return (entry.keyspace, entry.key, origin, entry.seq, entry.hlc, entry.expires_ms, seal, entry.value)

    def _id(self, origin: Origin) -> int:
        if origin not in self._origins:
            added = self._connection.execute(
                "INSERT INTO origin (node, lineage, head, beyond) VALUES (?, ?, 0, x'') RETURNING id", origin
            )
            (self._origins[origin],) = added.fetchone()
        return self._origins[origin]

    def _checkpoint(self) -> None:
        """Move the WAL into the database: its room can then be used again."""
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
