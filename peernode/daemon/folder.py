"""A node's data folder: its keys, its certificates, its database, and the lock on all of it.

    node.key        the node's key: its identity (PEM, mode 0600)
    cluster.key     only in the folder that founded the cluster: keep a copy elsewhere (0600)
    chain.pem       our leaf and the certificates above it, root last
    issuing.pem     our issuing certificate and those above it: the right to invite
    store.sqlite    everything else
    seeds           members' addresses as of the enrolment
    address         the port of the last run
    lock            held while a daemon runs on the folder

Files appear complete or not at all (written aside, synced, renamed); keys wider than 0600 are refused, as ssh
does. `chain.pem` is written last: a folder with it is enrolled.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from protocol.identity.certificates import from_pem, to_pem
from protocol.identity.keys import NodeKey
from protocol.types import Grant


class FolderError(Exception):
    """Why the folder cannot be used, and what to do about it."""


class Folder:
    """Opens and locks a data folder. Raises FolderError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_others(path, "folder", "chmod 700")
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise FolderError(f"another daemon runs on {path}") from None

    @property
    def is_enrolled(self) -> bool:
        return (self.path / "chain.pem").exists()

    @property
    def database(self) -> Path:
        return self.path / "store.sqlite"

    @property
    def chain_file(self) -> Path:
        return self.path / "chain.pem"

    @property
    def key_file(self) -> Path:
        return self.path / "node.key"

    @property
    def cluster_key_file(self) -> Path:
        return self.path / "cluster.key"

    def node_key(self, seed: bytes) -> NodeKey:
        """The node's key; made from `seed` in a new folder."""
        return self._key(self.key_file, seed)

    def make_cluster_key(self, seed: bytes) -> NodeKey:
        return self._key(self.cluster_key_file, seed)

    def grant(self) -> Grant:
        """The certificates of an enrolled folder."""
        return Grant(
            from_pem(self.chain_file.read_bytes()), from_pem((self.path / "issuing.pem").read_bytes())
        )

    def enrol(self, grant: Grant, members: tuple[str, ...] = ()) -> None:
        """Keep the certificates and members' addresses: from now on this folder is a member."""
        self._write("seeds", "".join(f"{address}\n" for address in members).encode())
        self._write("issuing.pem", to_pem(grant.issuing))
        self._write("chain.pem", to_pem(grant.chain))

    def seeds(self) -> tuple[str, ...]:
        """Addresses of members as they were told when this folder was enrolled."""
        try:
            return tuple((self.path / "seeds").read_text().split())
        except FileNotFoundError:
            return ()

    def last_port(self) -> int | None:
        try:
            return int((self.path / "address").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def keep_port(self, port: int) -> None:
        self._write("address", f"{port}\n".encode())

    def close(self) -> None:
        os.close(self._lock)

    def _key(self, path: Path, seed: bytes) -> NodeKey:
        if path.exists():
            _refuse_others(path, "key", "chmod 600")
            return NodeKey.from_pem(path.read_bytes())
        key = NodeKey.from_seed(seed)
        self._write(path.name, key.to_pem())
        return key

    def _write(self, name: str, content: bytes) -> None:
        aside = self.path / f".{name}.new"
        aside.unlink(missing_ok=True)
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(self.path / name)
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _refuse_others(path: Path, what: str, mend: str) -> None:
    found = path.stat()
    if found.st_uid != os.getuid():
        raise FolderError(f"the {what} {path} belongs to another user")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise FolderError(f"the {what} {path} is open to others; mend it with: {mend} {path}")
