"""How the benchmark speaks to each server: requests encoded in advance, answers told by their first bytes.

All MessagePack-RPC requests carry one number: a daemon hands it back and never looks at it. So an answer begins with
bytes that are known in advance, and so do answers in RESP: the client need not decode anything to count them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgpack

NUMBER = 0x706E62  # above 65,535, so that it is sent as five bytes
HEAD = msgpack.packb([1, NUMBER, None, None])[:-2]

VALUE_BYTES = 100


@dataclass(frozen=True)
class Request:
    """`mark` is found once in each good answer, `error` only in bad ones."""

    sent: bytes
    mark: bytes
    error: bytes


class Wire(Protocol):
    """One protocol; `put_many` counts as one request."""

    def put(self, key: bytes, value: bytes) -> Request: ...
    def get(self, key: bytes) -> Request: ...
    def put_many(self, items: Sequence[tuple[bytes, bytes]]) -> Request: ...
    def put_on(self, others: int, key: bytes, value: bytes) -> Request:
        """Answered once this many others hold it, too."""
        ...


class MessagePackRpc:
    """peernode's local socket."""

    def put(self, key: bytes, value: bytes) -> Request:
        return self.request("kv.put", key=key, value=value)

    def get(self, key: bytes) -> Request:
        return self.request("kv.get", key=key)

    def put_many(self, items: Sequence[tuple[bytes, bytes]]) -> Request:
        return self.request("kv.mput", items=[{"key": key, "value": value} for key, value in items])

    def put_on(self, others: int, key: bytes, value: bytes) -> Request:
        return self.request("kv.put", key=key, value=value, acks=others)

    def request(self, method: str, **params: object) -> Request:
        return Request(msgpack.packb([0, NUMBER, method, [params]]), HEAD + b"\xc0", HEAD + b"\x84")


class Resp:
    """Redis: an answer of the wrong kind, a missing key and an error all have a minus sign, keys and values none."""

    def put(self, key: bytes, value: bytes) -> Request:
        return Request(command(b"SET", key, value), b"+OK\r\n", b"-")

    def get(self, key: bytes) -> Request:
        return Request(command(b"GET", key), b"$%d\r\n" % VALUE_BYTES, b"-")

    def put_many(self, items: Sequence[tuple[bytes, bytes]]) -> Request:
        flat = (part for item in items for part in item)
        return Request(command(b"MSET", *flat), b"+OK\r\n", b"-")

    def put_on(self, others: int, key: bytes, value: bytes) -> Request:
        wait = command(b"WAIT", b"%d" % others, b"0")
        return Request(command(b"SET", key, value) + wait, b"\r\n:%d\r\n" % others, b"-")


def command(*parts: bytes) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def joined(requests: Iterable[Request]) -> bytes:
    return b"".join(request.sent for request in requests)


def key_of(number: int) -> bytes:
    return b"key:%010d" % number


def value_of(number: int) -> bytes:
    """VALUE_BYTES bytes that tell one write from another."""
    return (b"%010d" % number).ljust(VALUE_BYTES, b".")
