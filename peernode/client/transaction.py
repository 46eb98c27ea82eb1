"""A transaction as a client puts it together: what it read must still hold, then all that it writes is written.

Nothing is locked meanwhile. What somebody else changed between a read and the commit makes the commit a `Conflict`,
and then nothing is written.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from .errors import NoDaemon, NotFound, PeernodeError, TimedOut, UnknownOutcome

if TYPE_CHECKING:
    from .wire import Wire

REQUEST_ID_BYTES = 16
Bytes = bytes | str
Slot = tuple[str, bytes]


class Read(NamedTuple):
    """`version` None: there was nothing."""

    value: bytes | None
    version: str | None


class Draft:
    """Checks and writes, of one keyspace where a call names no other. It is sent when the block is left.

    `request_id` is made at random: a transaction that is sent twice is carried out once.
    """

    def __init__(self, keyspace: str, timeout_s: float) -> None:
        self.keyspace, self.timeout_s = keyspace, timeout_s
        self.request_id = os.urandom(REQUEST_ID_BYTES)
        self.txid: str | None = None
        """Of the commit, once it is done."""
        self.versions: dict[Slot, str] = {}
        """Of what was written, once it is done."""
        self._reads: dict[Slot, Read] = {}
        self._checks: list[dict[str, Any]] = []
        self._writes: dict[Slot, bytes | None] = {}

    def put(self, key: Bytes, value: Bytes, *, keyspace: str | None = None) -> None:
        self._writes[self._slot(key, keyspace)] = encoded(value)

    def delete(self, key: Bytes, *, keyspace: str | None = None) -> None:
        self._writes[self._slot(key, keyspace)] = None

    def expect(
        self,
        key: Bytes,
        *,
        value: Bytes | None = None,
        version: str | None = None,
        absent: bool = False,
        keyspace: str | None = None,
    ) -> None:
        """Commit only if the key holds this value, has this version, or does not exist: one of the three."""
        given = {
            "value": None if value is None else encoded(value),
            "version": version,
            "absent": absent or None,
        }
        self._check(self._slot(key, keyspace), {name: it for name, it in given.items() if it is not None})

    @property
    def is_empty(self) -> bool:
        return not (self._checks or self._reads or self._writes)

    def params(self) -> dict[str, Any]:
        """Of `txn.commit`."""
        reads = [
            self._op(slot) | ({"absent": True} if read.version is None else {"version": read.version})
            for slot, read in self._reads.items()
        ]
        writes = [
            self._op(slot) | ({"delete": True} if value is None else {"value": value})
            for slot, value in self._writes.items()
        ]
        return {
            "checks": self._checks + reads,
            "writes": writes,
            "request_id": self.request_id,
            "timeout_ms": max(1, round(self.timeout_s * 800)),  # a little less than the client waits
        }

    def _slot(self, key: Bytes, keyspace: str | None) -> Slot:
        return keyspace or self.keyspace, encoded(key)

    def _check(self, slot: Slot, expected: dict[str, Any]) -> None:
        self._checks.append(self._op(slot) | expected)

    def _op(self, slot: Slot) -> dict[str, Any]:
        return {"keyspace": slot[0], "key": slot[1]}

    def _own(self, slot: Slot) -> Read | None:
        """What it wrote itself, or has read already."""
        if slot in self._writes:
            return Read(self._writes[slot], None)
        return self._reads.get(slot)

    def _found(self, slot: Slot, found: dict[str, Any] | None) -> bytes | None:
        """From now on the commit depends on this."""
        read = Read(None, None) if found is None else Read(found["value"], found["version"])
        self._reads[slot] = read
        return read.value

    def _ended(self, answer: Any) -> None:
        """Take up what the daemon says. Raises PeernodeError."""
        if isinstance(answer, PeernodeError):
            raise answer
        self.txid = answer["txid"]
        self.versions = dict(zip(self._writes, answer["versions"], strict=True))


class Transaction(Draft):
    """The blocking one, made by `Client.transaction`."""

    def __init__(self, node: Wire, keyspace: str) -> None:
        super().__init__(keyspace, node.timeout_s)
        self._node = node

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()

    def get(self, key: Bytes, *, keyspace: str | None = None) -> bytes | None:
        """The newest value, None where there is nothing; it must still be so when this commits."""
        slot = self._slot(key, keyspace)
        if (own := self._own(slot)) is not None:
            return own.value
        try:
            found = self._node.call("kv.get", keyspace=slot[0], key=slot[1], level="quorum")
        except NotFound:
            found = None
        return self._found(slot, found)

    def commit(self) -> None:
        """Raises Conflict when nothing was written, UnknownOutcome when that cannot be said."""
        if self.is_empty:
            return
        number = self._node.ask("txn.commit", **self.params())
        try:
            answer = self._node.answer_to(number)
        except (NoDaemon, TimedOut) as error:
            raise unknown(error) from error
        self._ended(answer)


def unknown(error: NoDaemon | TimedOut) -> UnknownOutcome:
    """A commit was sent, and nobody answers."""
    return UnknownOutcome(
        f"nobody can say whether this was committed: {error.message}",
        hint="read what it wrote, or send it again with the same request_id, to any member",
        retryable=True,
    )


def encoded(text: Bytes) -> bytes:
    """A string means its UTF-8."""
    return text.encode() if isinstance(text, str) else text
