"""The store as it is, and broken ones that must be caught: a check that catches nothing proves nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from peernode.store.writer import Writer
from protocol.effects import Stage

CHECKPOINT_GROUPS = 4


class SyncsAtCheckpoints(Writer):
    """`synchronous=NORMAL`: a commit returns when it is written, and is durable at some later time."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._connection.execute("PRAGMA synchronous=NORMAL")


class NeverSyncs(Writer):
    """`synchronous=OFF`: not even a checkpoint waits for the disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._connection.execute("PRAGMA synchronous=OFF")


class CommitsLater(Writer):
    """Acknowledges a group whose transaction is still open; the next group, or the end, commits it."""

    def close(self) -> None:
        self._settle()
        super().close()

    def _transact(self, stages: Iterable[Stage]) -> None:
        self._settle()
        self._connection.execute("BEGIN IMMEDIATE")
        self._write(stages)

    def _settle(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")


class CommitsInHalves(Writer):
    """Stores the rows of a commit in two transactions, and acknowledges when both are durable."""

    def _transact(self, stages: Iterable[Stage]) -> None:
        for stage in stages:
            half = len(stage.rows) // 2
            for rows in (stage.rows[:half], stage.rows[half:]):
                super()._transact([msgspec.structs.replace(stage, rows=rows)])


class CheckpointsUnsynced(Writer):
    """Syncs each commit, but not the database before the WAL that holds the same pages is written over."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._groups = 0

    def _transact(self, stages: Iterable[Stage]) -> None:
        super()._transact(stages)
        self._groups += 1
        if self._groups % CHECKPOINT_GROUPS == 0:
            self._connection.execute("PRAGMA synchronous=OFF")
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self._connection.execute("PRAGMA synchronous=FULL")


class StartsClean(Writer):
    """Removes what looks like leftovers beside the database."""

    def __init__(self, path: Path) -> None:
        path.with_name(f"{path.name}-wal").unlink(missing_ok=True)
        super().__init__(path)


class KeepsAJournal(Writer):
    """A rollback journal with `synchronous=FULL`: its removal, which is the commit, is not synced."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._connection.execute("PRAGMA journal_mode=DELETE")


class KeepsItsJournalInMemory(Writer):
    """Pages are overwritten in place, and what they held before is nowhere on the disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._connection.execute("PRAGMA journal_mode=MEMORY")


STORES: dict[str, type[Writer]] = {
    store.__name__: store
    for store in (
        Writer,
        SyncsAtCheckpoints,
        NeverSyncs,
        CommitsLater,
        CommitsInHalves,
        CheckpointsUnsynced,
        StartsClean,
        KeepsAJournal,
        KeepsItsJournalInMemory,
    )
}
