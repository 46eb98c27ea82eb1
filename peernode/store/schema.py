"""The database file: its tables, its settings, its version.

Exactly one connection writes and checkpoints; readers never do (two writers can corrupt a WAL file in SQLite
before 3.51.3). `synchronous=FULL`: a commit returns when its WAL frames have been synced. Ids of origins are
small integers. Rows carry a checksum over all that they say.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from pathlib import Path
from zlib import crc32

import msgspec

SCHEMA = 1
COPY_BYTES = 1 << 20

TABLES = """
CREATE TABLE origin (id INTEGER PRIMARY KEY, node BLOB NOT NULL, lineage INTEGER NOT NULL,
                     head INTEGER NOT NULL, beyond BLOB NOT NULL, UNIQUE (node, lineage));
CREATE TABLE entry (keyspace INTEGER NOT NULL, key BLOB NOT NULL, origin INTEGER NOT NULL, seq INTEGER NOT NULL,
                    hlc INTEGER NOT NULL, expires INTEGER NOT NULL, checksum INTEGER NOT NULL, value BLOB,
                    UNIQUE (keyspace, key));
CREATE UNIQUE INDEX entry_by_dot ON entry (origin, seq);
CREATE INDEX entry_by_expiry ON entry (expires) WHERE expires > 0;
CREATE TABLE mark (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE record (kind TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, key))
WITHOUT ROWID;
"""


class WrongSchema(Exception):
    """The file was written by another version of peernode."""


def open_writer(path: Path) -> sqlite3.Connection:
    """The only connection that writes. Makes the tables in a new file. Raises WrongSchema."""
    renew(path.with_name(f"{path.name}-wal"))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
    connection.execute("PRAGMA page_size=4096")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_autocheckpoint=1024")  # 4 MiB of WAL
    connection.execute("PRAGMA cache_size=-16384")
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found == 0:
        connection.executescript(f"BEGIN;{TABLES}PRAGMA user_version={SCHEMA};COMMIT;")
    elif found != SCHEMA:
        raise WrongSchema(f"{path} has schema {found}; this version of peernode reads schema {SCHEMA}")
    return connection


def renew(wal: Path) -> None:
    """Write the WAL anew, if there is one: what SQLite then reads of it is on the disk.

    After a sync that failed, the kernel goes on showing what was written, takes it for clean and never writes it
    again (ext4, XFS). SQLite would find those frames valid and append to them; at a power cut all behind them is
    lost, and a checkpoint under way damages the database. Nobody else has the database open at this time.
    """
    if not wal.exists():
        return
    aside = wal.with_name(f"{wal.name}.new")
    try:
        _copy_durably(wal, aside)
    except OSError as error:
        aside.unlink(missing_ok=True)
        if error.errno != errno.ENOSPC:
            raise
        _rewrite_durably(wal)
        return
    aside.rename(wal)
    folder = os.open(wal.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _copy_durably(wal: Path, aside: Path) -> None:
    with wal.open("rb") as old, aside.open("wb") as new:
        shutil.copyfileobj(old, new, COPY_BYTES)
        new.flush()
        os.fsync(new.fileno())


def _rewrite_durably(wal: Path) -> None:
    """In its place, where there is no room for a copy: a power cut just now may spoil a sector."""
    with wal.open("r+b", buffering=0) as file:
        while chunk := file.read(COPY_BYTES):
            file.seek(-len(chunk), os.SEEK_CUR)
            file.write(chunk)
        os.fsync(file.fileno())


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that can only read."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, cached_statements=64)
    connection.execute("PRAGMA query_only=1")
    return connection


def checksum(
    keyspace: int,
    key: bytes,
    node: bytes,
    lineage: int,
    seq: int,
    hlc: int,
    expires: int,
    value: bytes | None,
) -> int:
    """CRC-32 over everything that an entry says."""
    head = msgspec.msgpack.encode((keyspace, key, node, lineage, seq, hlc, expires, value is None))
    return crc32(value or b"", crc32(head))
