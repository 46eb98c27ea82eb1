"""The client for trio: many tasks share one connection, and each waits for its own answers.

async with peernode.connect() as node:
    await node.put("greeting", b"hello", ttl=30)

There is no task in the background: whoever waits for an answer reads, for all others too, until its own has come, and
then the next one reads. So an error is raised where it belongs, and nothing runs on when the block is left.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trio

from .client.errors import Conflict, NoDaemon, NotFound, PeernodeError, TimedOut
from .client.finding import find_socket
from .client.lock import Lease, retry_s
from .client.rpc import Calls
from .client.sync import Item, Level, milliseconds
from .client.transaction import Bytes, Draft, encoded, unknown

RECEIVE_BYTES = 64 * 1024
PAUSE_S = 0.05


@asynccontextmanager
async def connect(
    socket: str | Path | None = None,
    *,
    node: str | None = None,
    cluster: str | None = None,
    timeout_s: float = 5.0,
) -> AsyncIterator[TrioClient]:
    """Connect to a daemon on this machine: by socket, by name, or the only one. Raises NoDaemon."""
    path = find_socket(socket, node=node, cluster=cluster)
    with trio.socket.socket(trio.socket.AF_UNIX) as sock:
        try:
            await sock.connect(str(path))
        except OSError as error:
            text = f"no daemon answers at {path} ({error.strerror or error})"
            raise NoDaemon(text, hint="start one with: peernode run") from None
        yield TrioClient(sock, path, timeout_s)


class TrioClient:
    """What a daemon can do, for tasks of one trio program. Every call may raise PeernodeError.

    A call that is cancelled, or not answered in time, may have been carried out all the same.
    """

    def __init__(self, sock: trio.socket.SocketType, path: Path, timeout_s: float) -> None:
        self._sock, self.path, self.timeout_s = sock, path, timeout_s
        self._calls = Calls()
        self._sending = trio.Lock()
        self._is_reading = False
        self._arrival = trio.lowlevel.ParkingLot()
        self._is_over = ""
        """Why no answer will come any more."""

    async def call(self, method: str, /, **params: Any) -> Any:
        """One request, one answer. Parameters that are None are left out."""
        answer = await self.answer_to(method, params)
        if isinstance(answer, PeernodeError):
            raise answer
        return answer

    async def answer_to(self, method: str, params: dict[str, Any]) -> Any:
        """The same, with an error answer as it is. Raises NoDaemon and TimedOut."""
        if self._is_over:
            raise NoDaemon(self._is_over, hint="connect again")
        number = self._calls.queue(method, params)
        try:
            with trio.fail_after(self.timeout_s):
                await self._send()
                await self._read_until(number)
                return self._calls.take(number)
        except trio.TooSlowError:
            text = f"no answer from {self.path} within {self.timeout_s:g} s"
            raise TimedOut(text, hint="the request may still be carried out", retryable=True) from None
        finally:
            self._calls.forget([number])

    # The store

    async def put(
        self,
        key: Bytes,
        value: Bytes,
        *,
        ttl: float | None = None,
        keyspace: str | None = None,
        if_version: str | None = None,
        if_absent: bool = False,
        acks: int | None = None,
        request_id: bytes | None = None,
    ) -> str:
        """Write it, and return the version; `ttl` in seconds. Raises Conflict for an unmet condition."""
        wait_ms = max(1, round(self.timeout_s * 800)) if acks else None
        answer = await self.call(
            "kv.put",
            key=key,
            value=value,
            ttl_ms=milliseconds(ttl),
            keyspace=keyspace,
            if_version=if_version,
            if_absent=if_absent or None,
            acks=acks,
            acks_wait_ms=wait_ms,
            request_id=request_id,
        )
        return str(answer["version"])

    async def get(
        self, key: Bytes, *, keyspace: str | None = None, level: Level | None = None
    ) -> Item | None:
        """The entry, or None when there is none."""
        try:
            found = await self.call("kv.get", key=key, keyspace=keyspace, level=level)
        except NotFound:
            return None
        return Item(encoded(key), **found)

    async def delete(self, key: Bytes, *, keyspace: str | None = None, if_version: str | None = None) -> bool:
        """Whether there was something to delete."""
        answer = await self.call("kv.delete", key=key, keyspace=keyspace, if_version=if_version)
        return bool(answer["deleted"])

    async def scan(
        self, prefix: Bytes = b"", *, keyspace: str | None = None, page: int | None = None
    ) -> AsyncIterator[Item]:
        """All entries with a prefix, in the order of their keys, page by page."""
        after: bytes | None = None
        while True:
            found = await self.call("kv.scan", prefix=prefix, after=after, limit=page, keyspace=keyspace)
            for item in found["items"]:
                yield Item(**item)
            after = found["next"]
            if after is None:
                return

    async def snapshot(self, keys: Iterable[Bytes], *, keyspace: str | None = None) -> list[Item | None]:
        """What the voters of a coordinated keyspace hold under these keys, all at one moment."""
        wanted = [encoded(key) for key in keys]
        found = await self.call("kv.mget", keys=wanted, keyspace=keyspace, level="quorum")
        return [None if item.get("missing") else Item(**item) for item in found["items"]]

    # Transactions and locks

    def transaction(self, keyspace: str) -> TrioTransaction:
        """Several keys at once, in coordinated keyspaces: leaving the block commits, an exception drops it all.

        async with node.transaction("bank") as t:
            t.put("a", str(int(await t.get("a")) - 100))
            t.put("b", str(int(await t.get("b")) + 100))
        """
        return TrioTransaction(self, keyspace)

    @asynccontextmanager
    async def lock(self, name: str, *, ttl: float = 10.0, wait: float = float("inf")) -> AsyncIterator[Lease]:
        """Hold a lock inside the block, renewed all the time. Raises Conflict when others hold it for all of `wait`.

        Hand `fence` to whatever the lock protects: it has to refuse lower ones. When the lock is lost the block is
        cancelled, and leaving it raises Conflict.
        """
        lease = await self._acquire(name, ttl, wait)
        lost: list[PeernodeError] = []
        failed: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep, lease, lost, nursery.cancel_scope)
                yield lease
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if len(group.exceptions) > 1:
                raise
            failed = group.exceptions[0]  # the block's own, and not to be found in a group
        finally:
            await self._give_back(lease)
        if failed is not None:
            raise failed
        if lost:
            raise lost[0]

    async def _acquire(self, name: str, ttl_s: float, wait_s: float) -> Lease:
        until_s = time.monotonic() + wait_s
        while True:
            asked_s = time.monotonic()
            try:
                answer = await self.call("lock.acquire", name=name, ttl_ms=milliseconds(ttl_s))
                return Lease(name, ttl_s, answer["fence"], asked_s)
            except PeernodeError as refused:
                await trio.sleep(retry_s(refused, ttl_s, until_s))

    async def _keep(self, lease: Lease, lost: list[PeernodeError], block: trio.CancelScope) -> None:
        """Renew it until that fails for as long as it lasts; then the block ends."""
        trouble = PeernodeError(f"the lock {lease.name!r} was lost", code="conflict")
        pause_s = lease.renewal_s
        while lease.left_s > pause_s:
            await trio.sleep(pause_s)
            asked_s = time.monotonic()
            try:
                with trio.move_on_after(lease.left_s):
                    await self.call(
                        "lock.renew", name=lease.name, ttl_ms=milliseconds(lease.ttl_s), fence=lease.fence
                    )
                    lease.renewed(asked_s)
                pause_s = lease.renewal_s
            except PeernodeError as error:
                trouble = error
                if isinstance(error, NoDaemon) or (isinstance(error, Conflict) and not error.retryable):
                    break
                pause_s = PAUSE_S
        lost.append(Conflict(f"the lock {lease.name!r} was lost: {trouble.message}", hint=trouble.hint))
        block.cancel()

    async def _give_back(self, lease: Lease) -> None:
        """If that fails, its time runs out by itself."""
        with trio.CancelScope(shield=True), suppress(PeernodeError):
            await self.call("lock.release", name=lease.name, fence=lease.fence)

    # The cluster

    async def create_keyspace(
        self, name: str, policy: str | None = None, *, voters: Iterable[str] | None = None
    ) -> dict[str, Any]:
        """Define it; `created` is False when it was before. `voters`: names or ids; None: members are picked."""
        named = None if voters is None else list(voters)
        return dict(await self.call("keyspace.create", name=name, policy=policy, voters=named))

    async def members(self) -> list[dict[str, Any]]:
        return list(await self.call("members.list"))

    async def status(self) -> dict[str, Any]:
        return dict(await self.call("node.status"))

    # Bytes

    async def _send(self) -> None:
        """All that is queued, others' requests too. Cut short, the rest goes with whatever is sent next."""
        async with self._sending:
            try:
                while self._calls.unsent:
                    del self._calls.unsent[: await self._sock.send(self._calls.unsent)]
            except (BrokenPipeError, ConnectionResetError):
                self._calls.unsent.clear()  # reading will tell that it hung up, and perhaps why

    async def _read_until(self, number: int) -> None:
        while number not in self._calls.answers:
            if self._is_over:
                raise NoDaemon(self._is_over, hint="is it still running?")
            if self._is_reading:
                await self._arrival.park()
            else:
                await self._read()

    async def _read(self) -> None:
        self._is_reading = True
        try:
            chunk = await self._sock.recv(RECEIVE_BYTES)
            if chunk:
                self._calls.feed(chunk)
            else:
                self._is_over = f"the daemon at {self.path} hung up"
        except PeernodeError as complaint:
            self._is_over = complaint.message
        except ConnectionResetError:
            self._is_over = f"the daemon at {self.path} hung up"
        finally:
            self._is_reading = False
            self._arrival.unpark_all()


class TrioTransaction(Draft):
    """Made by `TrioClient.transaction`."""

    def __init__(self, node: TrioClient, keyspace: str) -> None:
        super().__init__(keyspace, node.timeout_s)
        self._node = node

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.commit()

    async def get(self, key: Bytes, *, keyspace: str | None = None) -> bytes | None:
        """The newest value, None where there is nothing; it must still be so when this commits."""
        slot = self._slot(key, keyspace)
        if (own := self._own(slot)) is not None:
            return own.value
        try:
            found = await self._node.call("kv.get", keyspace=slot[0], key=slot[1], level="quorum")
        except NotFound:
            found = None
        return self._found(slot, found)

    async def commit(self) -> None:
        """Raises Conflict when nothing was written, UnknownOutcome when that cannot be said."""
        if self.is_empty:
            return
        try:
            answer = await self._node.answer_to("txn.commit", self.params())
        except (NoDaemon, TimedOut) as error:
            raise unknown(error) from error
        self._ended(answer)
