"""The blocking client: one Unix socket, MessagePack-RPC, requests pipelined when there are many.

After a time-out the connection is closed: a late answer must not be taken for the next one.
"""

from __future__ import annotations

import selectors
import socket as sockets
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgpack

from .errors import NoDaemon, NotFound, PeernodeError, TimedOut, from_answer
from .finding import find_socket

ANSWER_BYTES_MAX = 16 << 20
RECEIVE_BYTES = 64 * 1024
REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2

Bytes = bytes | str


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


class Notice(NamedTuple):
    """Something that the daemon told unasked."""

    method: str
    params: dict[str, Any]


def connect_sync(
    socket: str | Path | None = None,
    *,
    node: str | None = None,
    cluster: str | None = None,
    timeout_s: float = 5.0,
) -> Client:
    """Connect to a daemon on this machine: by socket, by name, or the only one. Raises NoDaemon."""
    return Client(find_socket(socket, node=node, cluster=cluster), timeout_s=timeout_s)


class Client:
    """One connection. Not for use by several threads at once. Every call may raise PeernodeError."""

    def __init__(self, path: Path, *, timeout_s: float = 5.0) -> None:
        self.path, self.timeout_s = path, timeout_s
        self._next_id = 0
        self._sock = sockets.socket(sockets.AF_UNIX)
        self._sock.settimeout(timeout_s)
        try:
            self._sock.connect(str(path))
        except OSError as error:
            self._sock.close()
            hint = "start one with: peernode run"
            raise NoDaemon(f"no daemon answers at {path} ({error.strerror or error})", hint=hint) from None
        self._sock.setblocking(False)
        self._unpacker = msgpack.Unpacker(raw=False, max_buffer_size=ANSWER_BYTES_MAX, max_ext_len=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._sock.close()

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
    ) -> str:
        """Write durably; `ttl` in seconds. Returns the version. Raises Conflict for an unmet condition."""
        ttl_ms = None if ttl is None else max(1, round(ttl * 1000))
        answer = self.call(
            "kv.put",
            key=key,
            value=value,
            ttl_ms=ttl_ms,
            keyspace=keyspace,
            if_version=if_version,
            if_absent=if_absent or None,
        )
        return str(answer["version"])

    def get(self, key: Bytes, *, keyspace: str | None = None) -> Item | None:
        """The entry, or None when there is none."""
        try:
            found = self.call("kv.get", key=key, keyspace=keyspace)
        except NotFound:
            return None
        return Item(key.encode() if isinstance(key, str) else key, **found)

    def delete(self, key: Bytes, *, keyspace: str | None = None, if_version: str | None = None) -> bool:
        """Whether there was something to delete."""
        return bool(self.call("kv.delete", key=key, keyspace=keyspace, if_version=if_version)["deleted"])

    def scan(
        self, prefix: Bytes = b"", *, keyspace: str | None = None, page: int | None = None
    ) -> Iterator[Item]:
        """All entries with a prefix, in the order of their keys."""
        after: bytes | None = None
        while True:
            found = self.call("kv.scan", prefix=prefix, after=after, limit=page, keyspace=keyspace)
            for item in found["items"]:
                yield Item(**item)
            after = found["next"]
            if after is None:
                return

    # The local TTL cache of this daemon

    def cache_put(self, key: Bytes, value: Bytes, *, ttl: float | None = None) -> None:
        """Keep it for `ttl` seconds, without one for five minutes, or shorter where room is needed."""
        ttl_ms = None if ttl is None else max(1, round(ttl * 1000))
        self.call("cache.put", key=key, value=value, ttl_ms=ttl_ms)

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

    def status(self) -> dict[str, Any]:
        return dict(self.call("node.status"))

    def info(self) -> dict[str, Any]:
        return dict(self.call("api.info"))

    # Calls

    def call(self, method: str, /, **params: Any) -> Any:
        """One request, one answer. Parameters that are None are left out."""
        (answer,) = self._exchange([(method, params)])
        if isinstance(answer, PeernodeError):
            raise answer
        return answer

    def call_many(self, requests: Iterable[tuple[str, dict[str, Any]]]) -> list[Any]:
        """All requests in one go; the answers in their order, an error as a PeernodeError among them."""
        return self._exchange(list(requests))

    def _exchange(self, requests: list[tuple[str, dict[str, Any]]]) -> list[Any]:
        first = self._next_id + 1
        out = bytearray()
        for method, params in requests:
            self._next_id += 1
            given = {name: value for name, value in params.items() if value is not None}
            out += msgpack.packb((REQUEST, self._next_id, method, [given]))
        answers: dict[int, Any] = {}
        try:
            self._pump(out, answers, first, self._next_id)
        except BaseException:
            self.close()
            raise
        return [answers[number] for number in range(first, self._next_id + 1)]

    def _pump(self, out: bytearray, answers: dict[int, Any], first: int, last: int) -> None:
        """Write and read at once, so that neither end waits for the other to read."""
        until_s = time.monotonic() + self.timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if out else 0))
            while len(answers) <= last - first:
                ready = selector.select(max(0.0, until_s - time.monotonic()))
                if not ready:
                    message = f"no answer from {self.path} within {self.timeout_s:g} s"
                    raise TimedOut(message, hint="the request may still be carried out", retryable=True)
                self._step(ready[0][1], out, answers)
                if not out:
                    selector.modify(self._sock, selectors.EVENT_READ)

    def _step(self, events: int, out: bytearray, answers: dict[int, Any]) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                del out[: self._sock.send(out)]
            if events & selectors.EVENT_READ:
                self._read(answers)
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            self._read(answers)  # the daemon may have said why

    def _read(self, answers: dict[int, Any]) -> None:
        try:
            chunk = self._sock.recv(RECEIVE_BYTES)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            raise NoDaemon(f"the daemon at {self.path} hung up", hint="is it still running?")
        self._unpacker.feed(chunk)
        for message in self._unpacker:
            match message:
                case [1, 0, dict(error), _]:
                    raise from_answer(error)
                case [1, int(number), error, result]:
                    answers[number] = from_answer(error) if isinstance(error, dict) else result
                case [2, str(method), [dict(params)]]:
                    self._notified(Notice(method, params))

    def _notified(self, notice: Notice) -> None:
        """Nobody listens on a connection that is for calls."""


class Notices(Client):
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
                self._read({})
            except (TimeoutError, BlockingIOError):
                return None
            finally:
                self._sock.setblocking(False)
        return self._heard.popleft()

    def _notified(self, notice: Notice) -> None:
        self._heard.append(notice)
