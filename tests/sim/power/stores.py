"""The store as it is, and broken ones that must be caught: a check that catches nothing proves nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from peernode.store.writer import Writer
from protocol.effects import Stage

CHECKPOINT_EVERY = 5


class SyncsAtCheckpoints(Writer):
    """`synchronous=NORMAL`: a commit returns when it is written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._connection.execute("PRAGMA synchronous=NORMAL")


class NeverSyncs(Writer):
    """`synchronous=OFF`: not even a checkpoint waits for the disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._connection.execute("PRAGMA synchronous=OFF")


class CommitsLater(Writer):
    """Acknowledges a group whose transaction is still open; the next group commits it."""

    def _transact(self, stages: Iterable[Stage]) -> None:
        self.settle()
        self._connection.execute("BEGIN IMMEDIATE")
        self._write(stages)

    def settle(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")

    def close(self) -> None:
        self.settle()
        super().close()


class CommitsInHalves(Writer):
    """Stores the rows of a commit in two transactions, and acknowledges when both are durable."""

    def _transact(self, stages: Iterable[Stage]) -> None:
        for stage in stages:
            half = len(stage.rows) // 2
            for rows in (stage.rows[:half], stage.rows[half:]):
                super()._transact([msgspec.structs.replace(stage, rows=rows)])


class ChecksPointsUnsynced(Writer):
    """Syncs each commit, but not the database before the WAL that holds the same pages is written over."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._groups = 0

    def _transact(self, stages: Iterable[Stage]) -> None:
        super()._transact(stages)
        self._groups += 1
        if self._groups % CHECKPOINT_EVERY == 0:
            self._connection.execute("PRAGMA synchronous=OFF")
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self._connection.execute("PRAGMA synchronous=FULL")


class Fixed(Writer):
    def __init__(self, path: Path) -> None:
        renew(path.with_name(path.name + "-wal"))
        super().__init__(path)


def renew(wal: Path) -> None:
    import os
    if not wal.exists():
        return
    aside = wal.with_name(f"{wal.name}.new")
    with aside.open("wb") as file:
        file.write(wal.read_bytes())
        file.flush()
        os.fsync(file.fileno())
    aside.rename(wal)
    folder = os.open(wal.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class KeepsAJournal(Writer):
    """A rollback journal with `synchronous=FULL`: its removal, which is the commit, is not synced."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._connection.execute("PRAGMA journal_mode=DELETE")


class KeepsTheJournalInMemory(Writer):
    """Pages are overwritten in place, and what they held is nowhere on the disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._connection.execute("PRAGMA journal_mode=MEMORY")


STORES: dict[str, type[Writer]] = {
    store.__name__: store
    for store in (
        Writer,
        Fixed,
        SyncsAtCheckpoints,
        NeverSyncs,
        CommitsLater,
        CommitsInHalves,
        ChecksPointsUnsynced,
        KeepsAJournal,
        KeepsTheJournalInMemory,
    )
}
