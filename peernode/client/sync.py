"""The blocking client: what a daemon can do, as methods.

with peernode.connect_sync() as node:
    node.put("greeting", b"hello", ttl=30)
    node.get("greeting").value
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from . import bulk
from .bulk import NewItem
from .errors import NotFound, PeernodeError
from .finding import find_socket
from .lock import Lease, retry_s
from .rpc import Notice
from .transaction import Bytes, Transaction, encoded
from .wire import Wire

Level = Literal["local", "quorum"]
"""`local`: this node's copy. `quorum`: the newest that was committed, in a coordinated keyspace."""


class Item(NamedTuple):
    """One live entry."""

    key: bytes
    value: bytes
    version: str
    modified_ms: int | None = None
    origin: str | None = None
    expires_in_ms: int | None = None


class Cached(NamedTuple):
    """What the local cache keeps under a key."""

    value: bytes
    expires_in_ms: int


def connect_sync(
    socket: str | Path | None = None,
    *,
    node: str | None = None,
    cluster: str | None = None,
    timeout_s: float = 5.0,
) -> Client:
    """Connect to a daemon on this machine: by socket, by name, or the only one. Raises NoDaemon."""
    return Client(find_socket(socket, node=node, cluster=cluster), timeout_s=timeout_s)


class Client(Wire):
    """What a daemon can do, a method each. Not for use by several threads at once.

    Every call may raise PeernodeError.
    """

    # The store

    def put(
        self,
        key: Bytes,
        value: Bytes,
        *,
        ttl: float | None = None,
        keyspace: str | None = None,
        if_version: str | None = None,
        if_absent: bool = False,
        acks: int | None = None,
        durability: Literal["disk", "memory"] | None = None,
        request_id: bytes | None = None,
    ) -> str:
        """Write it, and return the version; `ttl` in seconds. Raises Conflict for an unmet condition.

        It returns when the write is on this node's disk, with `durability="memory"` at once, with `acks=n` when it is
        on the disks of n other members, too; TimedOut says that it is written, but not there yet. A repetition with
        the same `request_id` (16 random bytes or more) is answered like the first, and not carried out again.
        """
        answer = self.call(
            "kv.put",
            key=key,
            value=value,
            ttl_ms=milliseconds(ttl),
            keyspace=keyspace,
            if_version=if_version,
            if_absent=if_absent or None,
            acks=acks,
            acks_wait_ms=bulk.acks_wait_ms(self, acks),
            durability=durability,
            request_id=request_id,
        )
        return str(answer["version"])

    def put_many(
        self,
        items: Mapping[str, Bytes] | Mapping[bytes, Bytes] | Iterable[tuple[Bytes, Bytes]],
        *,
        ttl: float | None = None,
        keyspace: str | None = None,
        acks: int | None = None,
    ) -> list[str]:
        """Write any number of keys, in order and much faster than one by one; returns their versions.

        It goes in batches, each atomic, and goes on when the daemon restarts meanwhile. When it raises, some may be
        written and some not: doing it again is harmless.
        """
        pairs = items.items() if isinstance(items, Mapping) else items
        ttl_ms = milliseconds(ttl)
        checked = (within_limits(NewItem(encoded(key), encoded(value), ttl_ms)) for key, value in pairs)
        written = bulk.put_batches(self, checked, keyspace=keyspace, acks=acks)
        return [version for _, versions in written for version in versions]

    def get(self, key: Bytes, *, keyspace: str | None = None, level: Level | None = None) -> Item | None:
        """The entry, or None when there is none."""
        try:
            found = self.call("kv.get", key=key, keyspace=keyspace, level=level)
        except NotFound:
            return None
        return Item(encoded(key), **found)

    def get_many(self, keys: Iterable[Bytes], *, keyspace: str | None = None) -> Iterator[Item | None]:
        """What is held under each key, in their order; None where there is nothing. Takes keys as it goes."""
        for found in bulk.get_batches(self, map(encoded, keys), keyspace=keyspace):
            for item in found:
                yield None if item.get("missing") else Item(**item)

    def snapshot(self, keys: Iterable[Bytes], *, keyspace: str | None = None) -> list[Item | None]:
        """What the voters of a coordinated keyspace hold under these keys, all at one moment."""
        wanted = [encoded(key) for key in keys]
        found = self.call("kv.mget", keys=wanted, keyspace=keyspace, level="quorum")
        return [None if item.get("missing") else Item(**item) for item in found["items"]]

    def delete(self, key: Bytes, *, keyspace: str | None = None, if_version: str | None = None) -> bool:
        """Whether there was something to delete."""
        return bool(self.call("kv.delete", key=key, keyspace=keyspace, if_version=if_version)["deleted"])

    def scan(
        self, prefix: Bytes = b"", *, keyspace: str | None = None, page: int | None = None
    ) -> Iterator[Item]:
        """All entries with a prefix, in the order of their keys.

        They come page by page, the next page while the caller is busy with the last: what is written meanwhile may or
        may not be seen.
        """

        def ask(after: bytes | None) -> int:
            return self.ask("kv.scan", prefix=prefix, after=after, limit=page, keyspace=keyspace)

        number: int | None = ask(None)
        try:
            while number is not None:
                found = self.answer_to(number)
                if isinstance(found, PeernodeError):
                    raise found
                number = None if found["next"] is None else ask(found["next"])
                yield from (Item(**item) for item in found["items"])
        finally:
            self.forget([] if number is None else [number])

    # Transactions

    def transaction(self, keyspace: str) -> Transaction:
        """Several keys at once, in coordinated keyspaces: leaving the block commits, an exception drops it all.

        with node.transaction("bank") as t:
            t.put("a", str(int(t.get("a")) - 100))
            t.put("b", str(int(t.get("b")) + 100))
        """
        return Transaction(self, keyspace)

    def commit(self, params: dict[str, Any]) -> dict[str, Any]:
        """A transaction as the socket takes it: `checks`, `writes` and so on. Returns `txid` and `versions`."""
        return dict(self.call("txn.commit", **params))

    def transactions(self) -> list[dict[str, Any]]:
        """All that is in doubt, as the members know it that answer."""
        return list(self.call("txn.list"))

    def transaction_status(self, txid: str) -> dict[str, Any]:
        """Who has said what about one. Raises NotFound when nobody knows of it (any more)."""
        return dict(self.call("txn.status", txid=txid))

    # Locks

    def acquire(self, name: str, *, ttl: float = 10.0, wait: float = 0.0) -> Lease:
        """Get the lock for `ttl` seconds, waiting for it at most so long. Raises Conflict when others hold it.

        Hand `fence` to whatever the lock protects: it has to refuse lower ones. Nothing renews the lease by itself.
        """
        until_s = time.monotonic() + wait
        while True:
            asked_s = time.monotonic()
            try:
                answer = self.call("lock.acquire", name=name, ttl_ms=milliseconds(ttl))
                return Lease(name, ttl, answer["fence"], asked_s)
            except PeernodeError as refused:
                time.sleep(retry_s(refused, ttl, until_s))

    def renew(self, lease: Lease) -> None:
        """It lasts for its whole `ttl` again. Raises Conflict when it was lost."""
        asked_s = time.monotonic()
        self.call("lock.renew", name=lease.name, ttl_ms=milliseconds(lease.ttl_s), fence=lease.fence)
        lease.renewed(asked_s)

    def release(self, lease: Lease) -> None:
        """Others may have it at once. Raises Conflict when it was lost."""
        self.call("lock.release", name=lease.name, fence=lease.fence)

    # Keyspaces

    def create_keyspace(
        self, name: str, policy: str | None = None, *, voters: Iterable[str] | None = None
    ) -> dict[str, Any]:
        """Define it; `created` is False when it was before. `voters`: names or ids; None: members are picked."""
        named = None if voters is None else list(voters)
        return dict(self.call("keyspace.create", name=name, policy=policy, voters=named))

    def keyspaces(self) -> list[dict[str, Any]]:
        """Those that have a definition; two of one name are in conflict."""
        return list(self.call("keyspace.list"))

    def keyspace(self, name: str) -> dict[str, Any]:
        """What a name means, defined or not. Raises Conflict where it was defined twice, differently."""
        return dict(self.call("keyspace.show", name=name))

    def set_voters(self, name: str, voters: Iterable[str], *, force: bool = False) -> dict[str, Any]:
        """Let these members decide in a coordinated keyspace; returns when a majority of them does.

        `force` is for a majority that is lost for good: what only they had is lost with them.
        """
        wait_ms = max(1, round(self.timeout_s * 400))  # twice: for those before, and for these
        named = list(voters)
        return dict(
            self.call("keyspace.voters", name=name, voters=named, force=force or None, timeout_ms=wait_ms)
        )

    def drop_keyspace(self, name: str, keyspace_id: str) -> None:
        """Take one definition away. Its keys stay where they are, and come back with it."""
        self.call("keyspace.drop", name=name, id=keyspace_id)

    # The local TTL cache of this daemon

    def cache_put(self, key: Bytes, value: Bytes, *, ttl: float | None = None) -> None:
        """Keep it for `ttl` seconds, without one for five minutes, or shorter where room is needed."""
        self.call("cache.put", key=key, value=value, ttl_ms=milliseconds(ttl))

    def cache_get(self, key: Bytes) -> Cached | None:
        """What is kept, or None when there is nothing."""
        try:
            return Cached(**self.call("cache.get", key=key))
        except NotFound:
            return None

    def cache_delete(self, key: Bytes) -> bool:
        """Whether there was something to delete. Other daemons keep theirs."""
        return bool(self.call("cache.delete", key=key)["deleted"])

    def cache_invalidate(
        self, key: Bytes | None = None, *, pattern: Bytes | None = None, local: bool = False
    ) -> int:
        """Drop a stale key, or all that match a glob, on every node; returns how many were dropped here.

        To drop the copies of something in the store, write it first: who hears of the invalidation then reads
        what was written.
        """
        answer = self.call("cache.invalidate", key=key, pattern=pattern, local=local or None)
        return int(answer["removed"])

    def cache_clear(self) -> int:
        """Drop everything here; returns how many entries that were."""
        return int(self.call("cache.clear")["removed"])

    def cache_stats(self) -> dict[str, Any]:
        return dict(self.call("cache.stats"))

    def cache_subscribe(self, pattern: Bytes | None = None) -> Notices:
        """Hear of invalidations on any node: of keys that match a glob (and of globs that may), or of all.

        `cache.invalidated` names the `key` or `pattern` and the `origin`, the node that began it. After `lagged`
        drop everything: it says how many were lost because they were not read in time.
        """
        return Notices(self.path, "cache.subscribe", {"pattern": pattern}, timeout_s=self.timeout_s)

    # The cluster

    def members(self) -> list[dict[str, Any]]:
        return list(self.call("members.list"))

    def members_subscribe(self) -> Notices:
        """Hear of every change: a `members.changed` has the `name`, `id`, `address` and `run` of a member that is
        new, or in another `state` than before, since when (`at_ms`), and `why`. After `lagged` read the list again.
        """
        return Notices(self.path, "members.subscribe", {}, timeout_s=self.timeout_s)

    def status(self) -> dict[str, Any]:
        return dict(self.call("node.status"))

    def sync_status(self) -> dict[str, Any]:
        """Whether this node and the others hold the same, and for each how many writes are still to come or to go."""
        return dict(self.call("sync.status"))

    def info(self) -> dict[str, Any]:
        return dict(self.call("api.info"))


def milliseconds(ttl_s: float | None) -> int | None:
    return None if ttl_s is None else max(1, round(ttl_s * 1000))


def within_limits(item: NewItem) -> NewItem:
    """Raises PeernodeError, naming the key."""
    if (refusal := bulk.beyond(item)) is not None:
        raise PeernodeError(f"{item.key[:100]!r}: {refusal.message}", code=refusal.code)
    return item


class Notices(Wire):
    """One subscription, on a connection of its own, so that it never stands in the way of calls.

    Iterating waits for notices as long as it takes; it ends with NoDaemon when the daemon does.
    """

    def __init__(self, path: Path, method: str, params: dict[str, Any], *, timeout_s: float) -> None:
        super().__init__(path, timeout_s=timeout_s)
        self._heard: deque[Notice] = deque()
        try:
            self.number = int(self.call(method, **params)["subscription"])
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Notice]:
        while (notice := self.hear()) is not None:
            yield notice

    def hear(self, timeout_s: float | None = None) -> Notice | None:
        """The next notice; None when none comes in time."""
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._heard:
            self._sock.settimeout(None if until_s is None else max(0.0, until_s - time.monotonic()))
            try:
                self._read()
            except (TimeoutError, BlockingIOError):
                return None
            finally:
                self._sock.setblocking(False)
        return self._heard.popleft()

    def _notified(self, notice: Notice) -> None:
        self._heard.append(notice)
