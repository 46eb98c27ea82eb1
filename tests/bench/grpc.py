"""etcd's gRPC, encoded in advance: HTTP/2 frames whose only difference is the number of their stream.

As thin as the rest of the client: no library parses or builds anything while time is taken. Of what comes, frames are
counted: a good answer is a message (DATA) and then trailers (HEADERS that end the stream).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from itertools import count

from .driver import RECEIVE_BYTES, WrongAnswer

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
WINDOW_BYTES = (1 << 31) - 1 - 65535
FRAME = struct.Struct(">HBBBI")
"""Length (24 bits, in two parts), type, flags, stream."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return FRAME.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header that is in no table (HPACK, RFC 7541, 6.2.2)."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def headers(path: bytes) -> bytes:
    fixed = literal(b":method", b"POST") + literal(b":scheme", b"http") + literal(b":path", path)
    rest = literal(b"content-type", b"application/grpc") + literal(b"te", b"trailers")
    return fixed + literal(b":authority", b"bench") + rest


def field(number: int, value: bytes) -> bytes:
    """A protobuf field of bytes, or a message."""
    size, length = len(value), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2]) + bytes(length) + bytes([size]) + value


def put_request(key: bytes, value: bytes) -> bytes:
    return field(1, key) + field(2, value)


class Call:
    """One request, but for its stream."""

    def __init__(self, path: bytes, message: bytes) -> None:
        self._headers = headers(path)
        self._body = b"\x00" + struct.pack(">I", len(message)) + message

    def on(self, stream: int) -> bytes:
        opening = frame(HEADERS, END_HEADERS, stream, self._headers)
        return opening + frame(DATA, END_STREAM, stream, self._body)


def put(key: bytes, value: bytes) -> Call:
    return Call(b"/etcdserverpb.KV/Put", put_request(key, value))


def put_together(items: Sequence[tuple[bytes, bytes]]) -> Call:
    """A transaction without conditions: TxnRequest.success is a list of RequestOp, whose field 2 is a put."""
    ops = b"".join(field(2, field(2, put_request(key, value))) for key, value in items)
    return Call(b"/etcdserverpb.KV/Txn", ops)


class GrpcConnection:
    """Looks to the driver like any other connection; one request at a time."""

    def __init__(self, port: int, calls: Iterator[Call]) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        window = frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW_BYTES))
        self.sock.sendall(PREFACE + frame(SETTINGS, 0, 0) + window)
        self.sock.setblocking(False)
        self._calls, self._streams = calls, count(1, 2)
        self._received = b""
        self._has_message = False
        self.awaited = 0

    def send(self) -> None:
        self.sock.sendall(next(self._calls).on(next(self._streams)))
        self.awaited = 1

    def receive(self) -> int:
        chunk = self.sock.recv(RECEIVE_BYTES)
        if not chunk:
            raise WrongAnswer("the server hung up")
        self._received += chunk
        answers = 0
        while len(self._received) >= FRAME.size:
            high, low, kind, flags, _ = FRAME.unpack_from(self._received)
            end = FRAME.size + (high << 8 | low)
            if len(self._received) < end:
                break
            payload, self._received = self._received[FRAME.size : end], self._received[end:]
            answers += self._take(kind, flags, payload)
        self.awaited -= answers
        return answers

    def _take(self, kind: int, flags: int, payload: bytes) -> int:
        if kind == GOAWAY:
            raise WrongAnswer(repr(payload))
        if kind in (SETTINGS, PING) and not flags & ACK:
            self.sock.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
        if kind == DATA:
            self._has_message = True
        if kind != HEADERS or not flags & END_STREAM:
            return 0
        if not self._has_message:
            raise WrongAnswer(repr(payload))
        self._has_message = False
        return 1
